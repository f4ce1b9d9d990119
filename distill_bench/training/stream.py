"""One stream of (views, teacher logits) for every student of a seed.

A stream is a pure function of (task, seed, step). All devices together make it, in chunks of
steps, and all lanes use it: the teacher's forward pass, most of a step's arithmetic, is paid once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from distill_bench.training.lane_layout import BATCH, LANES
from distill_bench.training.program import Program
from distill_bench.training.source import Source
from distill_bench.training.teacher_logits import make_step_logits

# How chunks [R, C, N, ...] lie on the devices when each of R rows of devices has its own.
SCATTERED = P(LANES, None, BATCH)


class Chunk(NamedTuple):
    """C steps of one stream, the same on every row of devices.

    views [1, C, N, H, W, c]: what the student sees; logits [1, C, N, K]: what it learns from, see
    `teacher_logits`.
    """

    views: jax.Array
    logits: jax.Array


def make_chunks(
    source: Source, steps: int, forward: Program, table_IK: np.ndarray | None = None
) -> Callable[[int, int], Chunk]:
    """Returns a function (seed, first step) -> Chunk of `steps` steps.

    Each row of devices makes its share of the steps, then every row gets all of them.

    table_IK: see teacher_logits.ensemble_table.
    """
    layout = source.layout
    step_logits = make_step_logits(source, forward, table_IK)
    step_views = source.train_images.make_step_views()

    def chunk(seed: int, first: int) -> Chunk:
        step_C = np.arange(first, first + steps, dtype=np.int32)
        views = step_views(seed, step_C)
        own_steps = Chunk(views.student, step_logits(seed, step_C, views))
        return layout.place(jax.tree.map(lambda x: x[None], own_steps), P(None, *SCATTERED[1:]))

    return chunk
