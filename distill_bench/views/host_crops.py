"""Images read, decoded and cropped on the host.

Those that fit on a device are decoded once (`decode_all`). Of the others, each step's boxes are
cropped on the host.

Grain prepares them a few batches ahead. Which box of which image is cropped is a pure function of
(task, seed, step), drawn with `numpy.random.RandomState`, whose stream numpy has frozen. The state
of a stream is therefore its step alone: a resumed run opens the stream where it stopped. Nothing
here touches a device, because the host would then wait for the device's queue.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from distill_bench.data import decoding
from distill_bench.data.dataset import Files, TfdsDataset
from distill_bench.errors import UserError
from distill_bench.log import LOG
from distill_bench.machine import core_count
from distill_bench.tasks.task import Task
from distill_bench.tasks.view_config import Crop, ViewConfig
from distill_bench.views import augment
from distill_bench.views.originals import Flat
from distill_bench.views.step_views import ENSEMBLE, PROBE, STREAM, view_specs

AHEAD_BYTES = 256 << 20  # limit on the crops that wait in each stream
OPEN_STREAMS = 16
MAX_FLAT_BYTES = 2**32 - 4  # offsets have 32 bits
_ORDER, _BOXES = range(2)
_T = TypeVar("_T")


class StepBoxes(NamedTuple):
    """What is cropped in one step.

    Attributes:
      index: [N], which images.
      boxes: [N, 4] for each of the step's view specs: top, left, height, width, in pixels.
    """

    index: np.ndarray
    boxes: tuple[np.ndarray, ...]


def draw_boxes(
    rng: np.random.RandomState, crop: Crop, sizes_N2: np.ndarray, config: ViewConfig
) -> np.ndarray:
    """Boxes [N, 4] like those of `augment.crop_boxes`, for images of these heights and widths."""
    n, sizes = len(sizes_N2), sizes_N2.astype(np.float64)
    if crop != "inception":
        place_N2 = rng.random_sample((n, 2)) if crop == "mild" else np.full((n, 2), 0.5)
        return augment.fixed_share_boxes(crop, place_N2, sizes)
    return augment.inception_boxes(rng.random_sample((4, n)), sizes, config)


def _rng(task: Task, *place: int) -> np.random.RandomState:
    return np.random.RandomState([task.seed, *place])


@functools.lru_cache(maxsize=4)
def _order(task: Task, seed: int, epoch: int, n: int) -> np.ndarray:
    return _rng(task, STREAM, seed, _ORDER, epoch).permutation(n)


def step_boxes(task: Task, sizes_N2: np.ndarray, seed: int, step: int) -> StepBoxes:
    """What is cropped in a step, with batches as in `augment.batch_indices`.

    sizes_N2: height and width of every image, in pixels.
    """
    n, first = len(sizes_N2), step * task.batch_size
    epoch, start = divmod(first, n)
    index = _order(task, seed, epoch, n)[start : start + task.batch_size]
    if missing := task.batch_size - len(index):
        index = np.concatenate([index, _order(task, seed, epoch + 1, n)[:missing]])
    sizes = sizes_N2[index]
    boxes = tuple(
        draw_boxes(
            _rng(task, STREAM, seed, _BOXES + spec.independent, step), spec.crop, sizes, task.views
        )
        for spec in view_specs(task)[0]
    )
    return StepBoxes(index, boxes)


def is_streamed(task: Task) -> bool:
    """Whether the task's training images are streamed from the host instead of kept on the device.

    Raises:
      UserError: if they are streamed and grain is not installed.
    """
    images = task.images or task.dataset
    if not isinstance(images, TfdsDataset) or images.side is not None or images.in_memory:
        return False
    if importlib.util.find_spec("grain") is None:
        raise UserError(
            f"{task.name} streams its images with grain, which is not installed: "
            "pip install 'distill-bench[stream]'"
        )
    return True


@dataclass
class HostCrops:
    """The crops of every training step of a task, one stream per seed.

    Attributes:
      task: the task.
      files: the train images, encoded.
      sizes: height and width of each [I, 2], in pixels.
      rows: positions in a batch that this process reads: those on its own devices.
    """

    task: Task
    files: Files
    sizes: np.ndarray
    rows: range
    _streams: dict[int, tuple[int, Any]] = field(default_factory=dict)  # by seed: (step, stream)
    _boxes: dict[tuple[int, int], StepBoxes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        augment.check_batch(len(self.files), self.task.batch_size)

    def read(self, seed: int, first: int, steps: int) -> tuple[np.ndarray, ...]:
        """The crops [steps, rows, size, size, 3], uint8, of these steps for each view spec.

        Crops of the steps that follow are read ahead.

        Raises:
          UserError: if a file was damaged after it was packed.
        """
        next_step, stream = self._streams.pop(seed, (-1, None))
        if next_step != first:
            if stream is not None:
                stream.close()
            stream = iter(self._open(seed, first))
        assert stream is not None
        read = tuple(
            np.empty((steps, len(self.rows), size, size, 3), np.uint8) for size in self._view_sizes
        )
        for step_row in np.ndindex(steps, len(self.rows)):
            for crops, crop in zip(read, next(stream), strict=True):
                crops[step_row] = crop
        self._streams[seed] = (first + steps, stream)
        while len(self._streams) > OPEN_STREAMS:
            self._streams.pop(next(iter(self._streams)))[1].close()
        return read

    def index(self, seed: int, first: int, steps: int) -> np.ndarray:
        """Which images [steps, N] these steps show."""
        return np.stack([self._step(seed, step).index for step in range(first, first + steps)])

    @property
    def _view_sizes(self) -> list[int]:
        return [spec.size for spec in view_specs(self.task)[0]]

    def _open(self, seed: int, first: int) -> Any:
        import grain

        n, cores = len(self.rows), core_count()
        bytes_per_row = sum(3 * size**2 for size in self._view_sizes)
        ahead = max(2 * cores, min(2 * n, AHEAD_BYTES // bytes_per_row))
        places = grain.MapDataset.range(first * n, 2**62)
        crops = places.map(lambda place: self._crops(seed, *divmod(place, n)))
        return crops.to_iter_dataset(
            grain.ReadOptions(num_threads=cores, prefetch_buffer_size=ahead)
        )

    def _crops(self, seed: int, step: int, place: int) -> tuple[np.ndarray, ...]:
        """The crops for one of `rows`, one for each view spec."""
        index, boxes = self._step(seed, step)
        row = self.rows[place]
        return crop_file(self.files, int(index[row]), [box[row] for box in boxes], self._view_sizes)

    def _step(self, seed: int, step: int) -> StepBoxes:
        with self._lock:
            if (seed, step) not in self._boxes:
                while len(self._boxes) > 4 * OPEN_STREAMS:
                    del self._boxes[next(iter(self._boxes))]
                self._boxes[seed, step] = step_boxes(self.task, self.sizes, seed, step)
            return self._boxes[seed, step]


def crop_file(
    files: Files, index: int, boxes: Sequence[np.ndarray], sizes: Sequence[int]
) -> tuple[np.ndarray, ...]:
    """Crops [size, size, 3], uint8, of one image: each box at its own size."""
    image = _decoded(files, index)
    return tuple(decoding.cut(image, box, size) for box, size in zip(boxes, sizes, strict=True))


def _decoded(files: Files, index: int) -> Image.Image:
    try:
        return decoding.decode(files[index])
    except (MemoryError, UserError):
        raise
    except Exception as error:  # PIL raises almost any exception for a damaged file
        raise UserError(
            f"Image {index} of the train split was damaged after it was packed: {error}.\n"
            "Prepare the data set again."
        ) from error


def decode_all(name: str, files: Files, sizes_N2: np.ndarray) -> Flat:
    """The images of these sizes (height and width, in pixels), the first of `files`, decoded.

    Raises:
      UserError: if they have more bytes than can be addressed on a device, or if a file was damaged
        after it was packed.
    """
    bytes_of = 3 * np.prod(sizes_N2.astype(np.int64), axis=1)
    ends = np.cumsum(bytes_of)
    if ends[-1] > MAX_FLAT_BYTES:
        raise UserError(
            f"The decoded images of {name} have {ends[-1]:,} bytes; a device can address "
            f"{MAX_FLAT_BYTES:,} of them: use --squeeze=256."
        )
    LOG.info(f"{name}: decoding {len(sizes_N2):,} images, {ends[-1]:,} bytes")
    pixels = np.zeros(ends[-1] + 3, np.uint8)

    def decode_one(index: int) -> None:
        found = np.asarray(_decoded(files, index)).reshape(-1)
        pixels[ends[index] - bytes_of[index] : ends[index]] = found

    for _ in _map_in_threads(decode_one, len(sizes_N2)):
        pass
    return Flat(pixels, (ends - bytes_of).astype(np.uint32), sizes_N2.astype(np.float32))


def probe_crops(task: Task, files: Files, sizes_N2: np.ndarray, size: int) -> np.ndarray:
    """Inception crops [B, N, size, size, 3], uint8, for the task's probe views.

    Images follow in the order of their split and repeat if there are too few. The random numbers
    do not depend on the images.
    """
    shape = (task.probe.batches, task.probe.batch_size)
    index = np.arange(math.prod(shape)) % len(files)
    boxes = draw_boxes(_rng(task, PROBE), "inception", sizes_N2[index], task.views)
    crops = _map_in_threads(
        lambda i: crop_file(files, int(index[i]), [boxes[i]], [size])[0], len(index)
    )
    return np.stack(list(crops)).reshape(*shape, size, size, 3)


def ensemble_crops(
    task: Task, files: Files, sizes_N2: np.ndarray, index_N: np.ndarray, first: int, count: int
) -> np.ndarray:
    """Crops number `first` to `first + count` of the images `index_N`, for averaging predictions.

    Returns:
      [count, N, size, size, 3], uint8.
    """

    def crops_of(place: int) -> np.ndarray:
        i = int(index_N[place])
        boxes = [
            draw_boxes(
                _rng(task, ENSEMBLE, i, crop),
                task.teaching.teacher,
                sizes_N2[i : i + 1],
                task.views,
            )[0]
            for crop in range(first, first + count)
        ]
        return np.stack(crop_file(files, i, boxes, [task.views.size] * count))

    return np.stack(list(_map_in_threads(crops_of, len(index_N))), axis=1)


def _map_in_threads(work: Callable[[int], _T], n: int) -> Iterator[_T]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(core_count()) as pool:
        yield from pool.map(work, range(n))
