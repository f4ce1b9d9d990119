"""Random arrays of a task's real shapes in place of its images and its teacher's weights: for dry runs and benchmarks, not for results."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from distill_bench.data.dataset import Split, TfdsDataset

MAX_BYTES = 2 << 30  # of squeezed images in a split; larger ones repeat their first images
MAX_TEST = 1024  # an eval_set on random images needs no more
FILES = 256  # different ones among a split's streamed images
PHOTOGRAPH = (375, 500)  # height and width that most of ImageNet's images have


class _Repeated:
    """`count` encoded images, of which only the first few differ."""

    def __init__(self, files: list[bytes], count: int) -> None:
        self._files, self._count = files, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:
        return self._files[index % len(self._files)]


def load(dataset: TfdsDataset, seed: int = 0) -> tuple[Split, Split]:
    """(train, test) splits of random images: as many to train on as the data set has, at most MAX_TEST to be examined on."""
    rng = np.random.default_rng(seed)

    def split(count: int, clean: bool) -> Split:
        crop, files = dataset.clean[1], _photographs(rng) if dataset.side is None else []
        whole = rng.integers(0, 256, (count, crop, crop, 3), np.uint8) if clean else None
        labels = np.zeros(count, np.int32)
        if dataset.side is None:
            return Split(
                _Repeated(files, count),
                labels,
                np.tile(np.array(PHOTOGRAPH, np.float32), (count, 1)),
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


def _photographs(rng: np.random.Generator) -> list[bytes]:
    """JPEG files of smooth noise with some grain, about as large as photographs' (100 KB)."""
    height, width = PHOTOGRAPH
    files = []
    for _ in range(FILES):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        grain = rng.integers(-20, 21, (height, width, 3), np.int16)
        file = io.BytesIO()
        Image.fromarray(
            np.clip(np.asarray(coarse, np.int16) + grain, 0, 255).astype(np.uint8)
        ).save(file, "JPEG", quality=85)
        files.append(file.getvalue())
    return files
