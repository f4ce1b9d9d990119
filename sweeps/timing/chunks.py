"""A chunk of training steps as a call that can be timed: the engine's own program, with copies of
one lane in all places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from distill_bench.errors import UserError
from distill_bench.training.engine import Engine, Island
from distill_bench.training.lanes import traced_values
from distill_bench.training.rules import Lane, RuleSpec, spec_of, traceable
from distill_bench.training.source import init_student
from distill_bench.training.stream import SCATTERED
from optimizers.contract.api import Optimizer
from sweeps.planning.plan import lane_of


def compiled_lane(
    engine: Engine, opt: Optimizer, steps: int
) -> tuple[RuleSpec, Lane, frozenset[str]]:
    """A run of `steps` steps with the optimizer's defaults, compiled as in a sweep: its update
    rule, its lane and the names of its traced values.

    Raises:
      UserError: if the optimizer raises an exception.
    """
    lane = lane_of(opt, {}, steps, 0)
    try:
        shapes = jax.eval_shape(lambda: init_student(engine.source.task, 0))
        traced = traceable(lane, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
        spec = spec_of(lane, traced)
        for _, error in engine.compile([(spec, lane, traced)]):
            if error:
                raise error
    except Exception as error:  # the plug-in's own
        raise UserError(
            f"{opt.name} raised an exception: {type(error).__name__}: {error}"
        ) from None
    return spec, lane, traced


def chunk_run(
    engine: Engine, island: Island, spec: RuleSpec, lane: Lane, traced: frozenset[str]
) -> tuple[Callable[[], Any], Any]:
    """A call that trains a copy of the lane in each place of the island for a chunk of steps, and
    the executable that does it. The rule must be compiled."""
    layout, programs = island.layout, island.rules[spec]
    values = traced_values(island.source, [lane] * layout.lanes, traced)
    zeros = layout.spread([np.int32(0)] * layout.lanes)
    steps = layout.spread([np.int32(engine.steps)] * layout.lanes)
    scattered = layout.scatter([engine.chunk(0, 0).on(layout)] * layout.rows, SCATTERED)
    state = programs.init(values, island.students(zeros, island.source.start))

    def run() -> Any:
        nonlocal state
        state, losses = programs.advance(state, values, zeros, steps, scattered)
        return losses

    return run, programs.advance.compile(state, values, zeros, steps, scattered)
