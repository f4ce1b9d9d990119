"""One interface to images that are kept in memory and images that are streamed from files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench.data.dataset import AnyDataset, Files, Split, TfdsDataset
from distill_bench.tasks.task import Task
from distill_bench.training.lane_layout import BATCH, LANES, LaneLayout
from distill_bench.training.program import Program
from distill_bench.views import augment, host_crops
from distill_bench.views.host_crops import HostCrops
from distill_bench.views.originals import Originals, Stacked, scaled
from distill_bench.views.step_views import (
    ENSEMBLE,
    StepViews,
    probe_views,
    probe_views_from_crops,
    step_views_from_crops,
    steps_index,
    stream_key,
    views_of_batch,
)

StepViewsOf = Callable[[int, np.ndarray], StepViews]
EnsembleViewsOf = Callable[[int, np.ndarray, np.ndarray], jax.Array]


class Images(Protocol):
    """The images of one split, and every kind of view made of them.

    Views of steps and of probe batches are in the task's precision, which no network exceeds.
    """

    def on(self, layout: LaneLayout) -> Images:
        """The same images for the devices of another layout; programs are compiled once."""
        ...

    def make_step_views(self) -> StepViewsOf:
        """Returns a function (seed, step numbers [C]) -> views and image indices of these steps."""
        ...

    def make_ensemble_views(self) -> EnsembleViewsOf:
        """Returns a function (batch number, image indices [N], crop numbers [C]) -> views.

        The views [C, N, size, size, c] are those of which the teacher's predictions are averaged.
        """
        ...

    def probe_views(self, size: int) -> np.ndarray:
        """Returns the probe views [B, N, size, size, c].

        The images are taken in the split's order, and repeated if the split has too few.
        """
        ...


def open_images(task: Task, layout: LaneLayout, dataset: AnyDataset, split: Split) -> Images:
    """The images of a split of `dataset`, in the form that suits how they are stored."""
    if isinstance(split.images, np.ndarray):
        return InMemory(task, layout, Stacked(split.images, split.sizes))
    sizes = np.asarray(split.sizes)
    if isinstance(dataset, TfdsDataset) and dataset.in_memory:
        flat = host_crops.decode_all(dataset.name, split.images, sizes)
        return InMemory(task, layout, flat)
    return Streamed(task, layout, split.images, sizes)


@dataclass(frozen=True)
class InMemory:
    """Decoded images, on the host; training copies them to the devices and crops them there."""

    task: Task
    layout: LaneLayout
    originals: Originals
    origin: InMemory | None = None  # the same images on other devices

    def on(self, layout: LaneLayout) -> InMemory:
        return InMemory(self.task, layout, self.originals, origin=self)

    @functools.cached_property
    def _on_devices(self) -> Originals:
        return self.layout.replicate(self.originals)

    def make_step_views(self) -> StepViewsOf:
        on_devices, make_index, make_views = self._on_devices, self._step_index, self._step_views

        def made(seed: int, step_C: np.ndarray) -> StepViews:
            index_CN = make_index(np.int32(seed), step_C)
            return StepViews(make_views((on_devices, np.int32(seed)), (step_C, index_CN)), index_CN)

        return made

    # Two programs, because XLA cannot load one that sorts onto other devices; see Program.
    @functools.cached_property
    def _step_index(self) -> Program:
        if self.origin:
            return self.origin._step_index.on(self.layout.mesh)
        index_of = functools.partial(steps_index, self.task, self.originals.number)
        return self.layout.share_steps(
            lambda seed, step_C: index_of(seed, step_C[0], len(step_C))  # they follow one another
        )

    @functools.cached_property
    def _step_views(self) -> Program:
        if self.origin:
            return self.origin._step_views.on(self.layout.mesh)
        task = self.task

        def views_of(
            shared: tuple[Originals, jax.Array], steps: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, ...]:
            originals, seed = shared
            return lax.map(
                lambda pair: _rounded(
                    task, views_of_batch(task, originals.take(pair[1]), seed, pair[0])
                ),
                steps,
            )

        return self.layout.share_steps(views_of)

    def make_ensemble_views(self) -> EnsembleViewsOf:
        task, on_devices = self.task, self._on_devices

        def views_of(
            shared: tuple[Originals, jax.Array, jax.Array], crop_C: jax.Array
        ) -> jax.Array:
            originals, index, number = shared
            batch = originals.take(index)

            def one_crop(key: jax.Array) -> jax.Array:
                return augment.make_views(
                    key, batch, task.views, crop=task.teaching.teacher, mixup=False
                )

            return lax.map(one_crop, _crop_keys(task, number, crop_C))

        make = self.layout.share_steps(views_of)
        return lambda number, index, crop_C: make((on_devices, index, np.int32(number)), crop_C)

    def probe_views(self, size: int) -> np.ndarray:
        with self.layout.as_default():
            made = jax.jit(probe_views, static_argnums=(0, 2))(self.task, self.originals, size)
            return np.asarray(made.astype(self.task.precision))


@dataclass(frozen=True)
class Streamed:
    """Encoded files, which the host decodes and crops while the devices compute.

    Attributes:
      files: I encoded images.
      sizes: height and width [I, 2] of each, in pixels.
    """

    task: Task
    layout: LaneLayout
    files: Files
    sizes: np.ndarray
    origin: Streamed | None = None  # the same images for other devices

    def on(self, layout: LaneLayout) -> Streamed:
        return Streamed(self.task, layout, self.files, self.sizes, origin=self)

    def feed(self) -> HostCrops:
        """Opens the crops of this process's part of every batch."""
        return HostCrops(self.task, self.files, self.sizes, _local_rows(self.task, self.layout))

    def make_step_views(self) -> StepViewsOf:
        task, layout, feed, finish = self.task, self.layout, self.feed(), self._step_views

        def streamed(seed: int, step_C: np.ndarray) -> StepViews:
            first, steps = int(step_C[0]), len(step_C)
            crops = tuple(
                _across_processes(layout, task.batch_size, feed.rows.start, local)
                for local in feed.read(seed, first, steps)
            )
            return StepViews(
                finish(np.int32(seed), (step_C, crops)),
                layout.place(feed.index(seed, first, steps), P(LANES, BATCH)),
            )

        return streamed

    @functools.cached_property
    def _step_views(self) -> Program:
        if self.origin:
            return self.origin._step_views.on(self.layout.mesh)
        task = self.task

        def views_of(
            seed: jax.Array, steps_and_crops: tuple[jax.Array, tuple[jax.Array, ...]]
        ) -> tuple[jax.Array, ...]:
            return lax.map(
                lambda pair: _rounded(task, step_views_from_crops(task, pair[1], seed, pair[0])),
                steps_and_crops,
            )

        return self.layout.share_steps(views_of)

    def make_ensemble_views(self) -> EnsembleViewsOf:
        task = self.task

        def views_of(number: jax.Array, crops_of_batch: tuple[jax.Array, jax.Array]) -> jax.Array:
            crop_C, crops = crops_of_batch
            pixels = scaled(crops.astype(jnp.float32), crops.dtype)
            return jax.vmap(
                lambda key, crop: augment.flip_and_mix(
                    key, crop, task.views, task.teaching.teacher, False
                )
            )(_crop_keys(task, number, crop_C), pixels)

        finish = self.layout.share_steps(views_of)

        def streamed(number: int, index: np.ndarray, crop_C: np.ndarray) -> jax.Array:
            crops = host_crops.ensemble_crops(
                task, self.files, self.sizes, index, int(crop_C[0]), len(crop_C)
            )
            return finish(np.int32(number), (crop_C, crops))

        return streamed

    def probe_views(self, size: int) -> np.ndarray:
        crops = host_crops.probe_crops(self.task, self.files, self.sizes, size)
        with self.layout.as_default():
            made = jax.jit(probe_views_from_crops, static_argnums=0)(self.task, crops)
            return np.asarray(made.astype(self.task.precision))


def _rounded(task: Task, views: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    return tuple(view.astype(task.precision) for view in views)


def _crop_keys(task: Task, number: jax.Array, crop_C: jax.Array) -> jax.Array:
    """Keys [C] for the crops of an ensemble batch."""
    return jax.vmap(
        lambda crop: jax.random.fold_in(
            jax.random.fold_in(stream_key(task, ENSEMBLE, 0), number), crop
        )
    )(crop_C)


def _local_rows(task: Task, layout: LaneLayout) -> range:
    """The part of every batch that lies on this process's devices."""
    parts = (
        NamedSharding(layout.mesh, P(BATCH))
        .addressable_devices_indices_map((task.batch_size,))
        .values()
    )
    bounds = [part[0].indices(task.batch_size) for part in parts if part]
    return range(min(start for start, _, _ in bounds), max(stop for _, stop, _ in bounds))


def _across_processes(
    layout: LaneLayout, batch_size: int, first: int, local: np.ndarray
) -> jax.Array:
    """One array [C, N, ...] of all processes, of which this one holds the rows from `first` on.

    local: [C, rows, ...].
    """

    def part(place: tuple[slice, ...] | None) -> np.ndarray:
        assert place is not None
        start, stop, _ = place[1].indices(batch_size)
        return local[place[0], start - first : stop - first]

    return jax.make_array_from_callback(
        (len(local), batch_size, *local.shape[2:]),
        NamedSharding(layout.mesh, P(LANES, BATCH)),
        part,
    )
