"""Random images in a task's real shapes: for dry runs and benchmarks, not for results."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from distill_bench.data.dataset import Split, TfdsDataset

MAX_BYTES = 2 << 30  # size of a split's squeezed images; the rest of a larger split is left out
MAX_TEST = 256  # number of test images; evaluation on random images needs no more
FILES = 256  # number of different files in a streamed split; a larger split repeats them
PHOTOGRAPH = (375, 500)  # height and width in pixels of most images in ImageNet


class _Repeated:
    """`count` encoded images that repeat `files`."""

    def __init__(self, files: list[bytes], count: int) -> None:
        self._files, self._count = files, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:
        return self._files[index % len(self._files)]


def load(dataset: TfdsDataset, seed: int = 0) -> tuple[Split, Split]:
    """(train, test) splits of random images.

    As many training images as the data set has, up to MAX_BYTES, and at most MAX_TEST test images.
    """
    rng = np.random.default_rng(seed)

    crop = dataset.clean[1]
    # A dry run at a lower resolution has smaller photographs.
    shape = tuple(max(2, round(length * min(crop, 128) / 128)) for length in PHOTOGRAPH)

    def split(count: int, clean: bool) -> Split:
        files = _photographs(rng, shape) if dataset.side is None else []
        whole = rng.integers(0, 256, (count, crop, crop, 3), np.uint8) if clean else None
        labels = np.zeros(count, np.int32)
        if dataset.side is None:
            return Split(
                _Repeated(files, count),
                labels,
                np.tile(np.array(shape, np.float32), (count, 1)),
                whole,
            )
        kept = min(count, MAX_BYTES // (3 * dataset.side**2))
        images = rng.integers(0, 256, (kept, dataset.side, dataset.side, 3), np.uint8)
        return Split(
            images,
            labels[:kept],
            rng.uniform(0.7, 1.4, (kept, 2)).astype(np.float32) * 2 * dataset.side,
            whole,
        )

    return split(dataset.train_size, False), split(min(dataset.test_size, MAX_TEST), True)


def _photographs(rng: np.random.Generator, shape: tuple[int, ...]) -> list[bytes]:
    """JPEG files of smooth noise with some grain, about as large as photographs (100 KB)."""
    height, width = shape
    files = []
    for _ in range(FILES):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        grain = rng.integers(-20, 21, (height, width, 3), np.int16)
        pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=85)
        files.append(file.getvalue())
    return files
