"""One stream of (views, teacher logits) for every student of a seed.

A stream is a pure function of (task, seed, step). It is made in chunks of steps that all devices
share, and handed to all lanes: the teacher's forward, most of a step's arithmetic, is paid once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench.training.lane_layout import BATCH, LANES
from distill_bench.training.source import Source, share_steps
from distill_bench.training.teacher_logits import make_answers
from distill_bench.views.step_views import (
    StepViews,
    step_views,
    step_views_from_crops,
)

SCATTERED = P(
    LANES, None, BATCH
)  # how chunks lie on the devices when each row has one: [R, C, N, ...]


class Chunk(NamedTuple):
    """C steps of one stream, on every row of devices: views [1, C, N, H, W, c] and teacher logits [1, C, N, K]."""

    views: jax.Array
    logits: jax.Array


def make_chunks(source: Source, steps: int, forward) -> Callable[[int, int], Chunk]:
    """A function (seed, first step) -> Chunk; each row of devices makes its share of the steps, then all get all."""
    layout = source.layout
    answers = make_answers(source, forward)
    make = _make_steps(source)

    def chunk(seed: int, first: int) -> Chunk:
        step_C = np.arange(first, first + steps, dtype=np.int32)
        seen = make(seed, step_C)
        both = Chunk(seen.student, answers(seed, step_C, seen))
        return layout.place(jax.tree.map(lambda x: x[None], both), P(None, *SCATTERED[1:]))

    return chunk


def _make_steps(source: Source) -> Callable[[int, np.ndarray], StepViews]:
    """A function (seed, numbers of steps [C]) -> what is seen in them, in the precision of the networks, which no network exceeds."""
    task, layout, feed = source.task, source.layout, source.feed

    def rounded(views: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(view.astype(task.precision) for view in views)

    def seen_in(
        images: jax.Array, seed: jax.Array, step: jax.Array, sizes: jax.Array | None
    ) -> StepViews:
        seen = step_views(task, images, seed, step, sizes)
        return StepViews(rounded(seen.views), seen.index)

    if feed is None:

        def share(
            shared: tuple[jax.Array, jax.Array | None, jax.Array], step_C: jax.Array
        ) -> StepViews:
            images, sizes, seed = shared
            return lax.map(lambda step: seen_in(images, seed, step, sizes), step_C)

        make = share_steps(source, share)
        return lambda seed, step_C: make((source.images, source.sizes, np.int32(seed)), step_C)

    def finish(
        seed: jax.Array, at: tuple[jax.Array, tuple[jax.Array, ...]]
    ) -> tuple[jax.Array, ...]:
        return lax.map(lambda one: rounded(step_views_from_crops(task, one[1], seed, one[0])), at)

    finished = share_steps(source, finish)

    def spread(crops: np.ndarray) -> jax.Array:
        """The crops [C, rows, ...] of this process, as an array of all processes."""
        shape = (len(crops), task.batch_size, *crops.shape[2:])
        first = feed.rows.start

        def part(place: tuple[slice, ...] | None) -> np.ndarray:
            assert place is not None
            start, stop, _ = place[1].indices(task.batch_size)
            return crops[place[0], start - first : stop - first]

        return jax.make_array_from_callback(
            shape, NamedSharding(layout.mesh, P(LANES, BATCH)), part
        )

    def streamed(seed: int, step_C: np.ndarray) -> StepViews:
        first, steps = int(step_C[0]), len(step_C)
        crops = tuple(spread(one) for one in feed.read(seed, first, steps))
        return StepViews(
            finished(np.int32(seed), (step_C, crops)),
            layout.place(feed.index(seed, first, steps), P(LANES, BATCH)),
        )

    return streamed
