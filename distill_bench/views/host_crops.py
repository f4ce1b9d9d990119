"""Crops of images that do not fit on a device: read, decoded and cropped on the host, some batches ahead, by grain.

Which box of which image is cut is a pure function of (task, seed, step), by `numpy.random.RandomState`, whose stream numpy froze. The place in a
stream is therefore all of its state: a run that goes on after a kill opens it where it stopped. Nothing here touches a device, whose queue would make
the host wait.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from distill_bench.data import decoding
from distill_bench.data.dataset import Files, TfdsDataset
from distill_bench.errors import UserError
from distill_bench.machine import core_count
from distill_bench.tasks.task import Task
from distill_bench.tasks.view_config import Crop, ViewConfig
from distill_bench.views import augment
from distill_bench.views.step_views import ENSEMBLE, PROBE, STREAM, view_specs

AHEAD_BYTES = 256 << 20  # crops that wait in each stream, at most
OPEN_STREAMS = 16
_ORDER, _BOXES = range(2)


class Cuts(NamedTuple):
    """What is cut in one step: which images [N], and the box [N, 4] of each for each of the step's view_specs."""

    index: np.ndarray
    boxes: tuple[np.ndarray, ...]


def draw_boxes(
    rng: np.random.RandomState, crop: Crop, sizes_N2: np.ndarray, config: ViewConfig
) -> np.ndarray:
    """Boxes [N, 4] of a kind of crop, as views.boxes_of has them, of images of these heights and widths."""
    n, sizes = len(sizes_N2), sizes_N2.astype(np.float64)
    if crop != "inception":
        return augment.part_of(
            crop, rng.random_sample((n, 2)) if crop == "mild" else np.full((n, 2), 0.5), sizes
        )
    area, aspect = (
        low + (high - low) * rng.random_sample((n, augment.CROP_ATTEMPTS))
        for low, high in ((config.min_area, 1.0), (config.aspect[0], config.aspect[1]))
    )
    return augment.first_that_fits(
        area, aspect, rng.random_sample((2, n)), sizes[:, 0], sizes[:, 1]
    )


def _rng(task: Task, *place: int) -> np.random.RandomState:
    return np.random.RandomState([task.seed, *place])


@functools.lru_cache(maxsize=4)
def _order(task: Task, seed: int, epoch: int, n: int) -> np.ndarray:
    return _rng(task, STREAM, seed, _ORDER, epoch).permutation(n)


def cuts(task: Task, sizes_N2: np.ndarray, seed: int, step: int) -> Cuts:
    """What is cut in a step: epochs of fresh permutations, cut without remainder, as in views.batch_indices.

    sizes_N2: height and width of every image.
    """
    n, first = len(sizes_N2), step * task.batch_size
    epoch, start = divmod(first, n)
    index = _order(task, seed, epoch, n)[start : start + task.batch_size]
    if rest := task.batch_size - len(index):
        index = np.concatenate([index, _order(task, seed, epoch + 1, n)[:rest]])
    sizes = sizes_N2[index]
    return Cuts(
        index,
        tuple(
            draw_boxes(
                _rng(task, STREAM, seed, _BOXES + look.own, step), look.crop, sizes, task.views
            )
            for look in view_specs(task)[0]
        ),
    )


def is_streamed(task: Task) -> bool:
    """Whether training images of the task are streamed, rather than kept on the device.

    Raises:
      UserError: where they are, and grain, which streams them, is not installed.
    """
    images = task.images or task.dataset
    if not isinstance(images, TfdsDataset) or images.side is not None:
        return False
    if importlib.util.find_spec("grain") is None:
        raise UserError(
            f"{task.name} streams its images with grain, which is not installed: pip install 'distill-bench[stream]'"
        )
    return True


@dataclass
class Feed:
    """The crops of every step of a task.

    Attributes:
      task: whose they are.
      files, sizes: the train images, encoded, and the height and width [N, 2] of each.
      rows: which of a batch this process reads: those that its own devices hold.
    """

    task: Task
    files: Files
    sizes: np.ndarray
    rows: range
    _streams: dict[int, tuple[int, Any]] = field(default_factory=dict)
    _cuts: dict[tuple[int, int], Cuts] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        augment.check_batch(len(self.files), self.task.batch_size)

    def read(self, seed: int, first: int, steps: int) -> tuple[np.ndarray, ...]:
        """The crops [steps, rows, size, size, 3], uint8, of each look of these steps; those after them are read ahead.

        Raises:
          UserError: where a file that was whole when it was packed is not.
        """
        place, stream = self._streams.pop(seed, (-1, None))
        if place != first:
            if stream is not None:
                stream.close()
            stream = iter(self._open(seed, first))
        assert stream is not None
        sizes = [look.size for look in view_specs(self.task)[0]]
        read = tuple(np.empty((steps, len(self.rows), size, size, 3), np.uint8) for size in sizes)
        for step_row in np.ndindex(steps, len(self.rows)):
            for crops, crop in zip(read, next(stream), strict=True):
                crops[step_row] = crop
        self._streams[seed] = (first + steps, stream)
        while len(self._streams) > OPEN_STREAMS:
            self._streams.pop(next(iter(self._streams)))[1].close()
        return read

    def index(self, seed: int, first: int, steps: int) -> np.ndarray:
        """Which images [steps, N] these steps show."""
        return np.stack([self._cut(seed, step).index for step in range(first, first + steps)])

    def _open(self, seed: int, first: int) -> Any:
        import grain

        n, cores = len(self.rows), core_count()
        bytes_each = sum(3 * look.size**2 for look in view_specs(self.task)[0])
        ahead = max(2 * cores, min(2 * n, AHEAD_BYTES // bytes_each))
        places = grain.MapDataset.range(first * n, 2**62)
        crops = places.map(lambda place: self._crops(seed, *divmod(place, n)))
        return crops.to_iter_dataset(
            grain.ReadOptions(num_threads=cores, prefetch_buffer_size=ahead)
        )

    def _crops(self, seed: int, step: int, place: int) -> tuple[np.ndarray, ...]:
        made, row = self._cut(seed, step), self.rows[place]
        return cut(
            self.files,
            int(made.index[row]),
            tuple(boxes[row] for boxes in made.boxes),
            [look.size for look in view_specs(self.task)[0]],
        )

    def _cut(self, seed: int, step: int) -> Cuts:
        with self._lock:
            if (seed, step) not in self._cuts:
                while len(self._cuts) > 4 * OPEN_STREAMS:
                    del self._cuts[next(iter(self._cuts))]
                self._cuts[seed, step] = cuts(self.task, self.sizes, seed, step)
            return self._cuts[seed, step]


def cut(
    files: Files, index: int, boxes: tuple[np.ndarray, ...] | list[np.ndarray], sizes: list[int]
) -> tuple[np.ndarray, ...]:
    """Crops [size, size, 3], uint8, of one image: each box at its size."""
    try:
        image = decoding.decode(files[index])
    except MemoryError:
        raise
    except UserError:
        raise
    except Exception as error:  # PIL lets through whatever a damaged file trips over
        raise UserError(
            f"Image {index} of the train split was whole when it was packed, and is not now: {error}.\nPrepare the data set again."
        ) from error
    return tuple(decoding.cut(image, box, size) for box, size in zip(boxes, sizes, strict=True))


def probe_crops(task: Task, files: Files, sizes_N2: np.ndarray, size: int) -> np.ndarray:
    """Inception crops [B, N, size, size, 3], uint8, for the task's probe views, of images in the order of their split, each as often as needed.

    All sets of images have the same random numbers.
    """
    shape = (task.probe.batches, task.probe.batch_size)
    index = np.arange(math.prod(shape)) % len(files)
    boxes = draw_boxes(_rng(task, PROBE), "inception", sizes_N2[index], task.views)
    crops = _all(lambda i: cut(files, int(index[i]), [boxes[i]], [size])[0], len(index))
    return np.stack(list(crops)).reshape(*shape, size, size, 3)


def ensemble_crops(
    task: Task, files: Files, sizes_N2: np.ndarray, index_N: np.ndarray, first: int, count: int
) -> np.ndarray:
    """Crops number `first` to `first + count` [count, N, size, size, 3], uint8, of the images `index_N`, for the mean prediction over an image's crops."""

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
        return np.stack(cut(files, i, boxes, [task.views.size] * count))

    return np.stack(list(_all(crops_of, len(index_N))), axis=1)


def _all(work: Any, n: int) -> Iterator[np.ndarray]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(core_count()) as pool:
        yield from pool.map(work, range(n))
