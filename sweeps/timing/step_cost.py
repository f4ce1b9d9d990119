"""The cost of an optimizer's step against the baseline's, as the engine trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from distill_bench.training.engine import Engine
from distill_bench.training.source import init_student
from optimizers.contract.api import Optimizer
from sweeps.timing.chunks import chunk_run, compiled_lane
from sweeps.timing.clock import REPEATS, interleaved
from sweeps.timing.measure import teacher_run
from sweeps.timing.update_cost import tree_bytes

_REPEATS = 2 * REPEATS


def step_cost(engine: Engine, opt: Optimizer, baseline: Optimizer) -> dict[str, float]:
    """What a student's step costs with `opt` and with `baseline`: its gradient and its update.

    The two, with their defaults, and the teacher take turns. A lane trains in every place, so that
    cores and caches are as busy as in a sweep: an update that is timed alone, in a loop of its
    own, seems cheaper than it is. What a rule evaluates through its extras counts.

    Returns:
      "step_ms", "baseline_step_ms": milliseconds that all devices together take for each
        student's step.
      "teacher_ms": the same, of the teacher's forward pass on one batch.
      "state_bytes_per_parameter": size of the rule's state.

    Raises:
      UserError: if an optimizer raises an exception.
    """
    own, others = _chunk(engine, opt), _chunk(engine, baseline)
    teacher, batches = teacher_run(engine)
    took, baseline_took, teacher_took = interleaved(own, others, teacher, repeats=_REPEATS)
    students = len(engine.islands) * engine.layout.lanes * engine.steps
    return {
        "step_ms": 1e3 * took / students,
        "baseline_step_ms": 1e3 * baseline_took / students,
        "teacher_ms": 1e3 * teacher_took / batches,
        "state_bytes_per_parameter": _state_bytes(engine, opt),
    }


def _chunk(engine: Engine, opt: Optimizer) -> Callable[[], Any]:
    """A call that trains the next chunk of steps in all places."""
    horizon = (_REPEATS + 1) * engine.steps  # of all calls together
    lane = compiled_lane(engine, opt, horizon)
    runs = [chunk_run(engine, island, *lane)[0] for island in engine.islands]
    return lambda: [run() for run in runs]


def _state_bytes(engine: Engine, opt: Optimizer) -> float:
    """For each parameter of the student."""
    student = jax.eval_shape(lambda: init_student(engine.source.task, 0))
    state = jax.eval_shape(opt.build({}, 1).init, student)
    return tree_bytes(state) / sum(leaf.size for leaf in jax.tree.leaves(student))
