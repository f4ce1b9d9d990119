"""A task's compiled programs on this machine's devices, made once and shared by all training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench.machine import core_count
from distill_bench.networks import bit, network
from distill_bench.tasks.task import Task
from distill_bench.training.evaluate import (
    EvalSet,
    eval_set_shapes,
    make_eval_set,
    make_evaluate,
)
from distill_bench.training.lane_layout import LaneLayout, make_layout
from distill_bench.training.lanes import (
    make_advance,
    make_eval_params,
    make_init,
    make_students,
    traced_values,
)
from distill_bench.training.rules import Lane, RuleSpec
from distill_bench.training.source import Source, chunk_steps, open_source
from distill_bench.training.stream import SCATTERED, Chunk, make_chunks
from distill_bench.training.teacher_logits import make_forward


@dataclass(frozen=True)
class RulePrograms:
    """An update rule's programs: see make_init, make_advance and make_eval_params in lanes.py."""

    init: Callable
    advance: Callable
    eval_params: Callable


@dataclass(frozen=True)
class Engine:
    """A task, opened on the devices of a layout.

    Attributes:
      source: the task's data and parameters.
      steps: length of a chunk.
      chunk: (seed, first step) -> Chunk.
      scattered: shapes and placement of a scattered chunk.
      eval_set: the fixed views on which students are measured.
      students: see lanes.make_students.
      evaluate: (active [D], parameters, eval_set) -> metrics [D]; NaN for inactive lanes.
      rules: the programs of every update rule compiled so far.
    """

    source: Source
    steps: int
    chunk: Callable[[int, int], Chunk]
    scattered: Chunk
    eval_set: EvalSet
    students: Callable
    evaluate: Callable
    rules: dict[RuleSpec, RulePrograms] = field(default_factory=dict)

    @property
    def layout(self) -> LaneLayout:
        return self.source.layout

    def compile(
        self, wanted: Iterable[tuple[RuleSpec, Lane, frozenset[str]]]
    ) -> dict[RuleSpec, Exception]:
        """Compiles the update rules that are new, several at once; returns the rules that raised.

        wanted: rules, each with one of its lanes and the names of its traced values.
        """
        new = {spec: (lane, traced) for spec, lane, traced in wanted if spec not in self.rules}
        with _pool() as pool:
            futures = {
                spec: pool.submit(self._compile, spec, *example) for spec, example in new.items()
            }
        errors = {}
        for spec, future in futures.items():
            if isinstance(error := future.exception(), Exception):
                errors[spec] = error
            else:
                self.rules[spec] = future.result()
        return errors

    def _compile(self, spec: RuleSpec, lane: Lane, traced: frozenset[str]) -> RulePrograms:
        layout = self.layout
        values = traced_values(self.source, [lane] * layout.lanes, traced)
        zeros = layout.spread([np.int32(0)] * layout.lanes)
        init = make_init(self.source, spec)
        state = init(values, self.students(zeros))
        advance = (
            make_advance(self.source, spec)
            .lower(state, values, zeros, zeros, self.scattered)
            .compile()
        )
        return RulePrograms(init, advance, make_eval_params(self.source, spec))


# A student's step with less arithmetic leaves an accelerator busy mostly with launching kernels.
SMALL_STEP_FLOPS = 1e10


def is_small(task: Task) -> bool:
    """Whether one student's step is too little work to fill an accelerator."""
    return 6 * network.macs(task.student, task.views.size) * task.batch_size < SMALL_STEP_FLOPS


def _pool() -> ThreadPoolExecutor:
    """Threads for compilation; only one if several hosts must run programs in one order."""
    return ThreadPoolExecutor(1 if jax.process_count() > 1 else core_count())


def open_engine(task: Task, layout: LaneLayout | None = None) -> Engine:
    """Loads the task and compiles what all update rules share; without a layout, on all devices.

    Raises:
      UserError: if the task's data or teachers cannot be loaded, see open_source.
    """
    source = open_source(task, layout or make_layout())
    layout = source.layout
    steps = chunk_steps(task, layout)
    forward = make_forward(source)
    chunk = make_chunks(source, steps, forward)
    students = make_students(source)
    with _pool() as pool:
        first = pool.submit(chunk, 0, 0)
        params = pool.submit(lambda: students(layout.spread([np.int32(0)] * layout.lanes)))
        # Before the evaluation set, which waits for the chunk and then keeps all devices busy.
        evaluate = pool.submit(_compile_evaluate, source, params)
        eval_set = pool.submit(lambda: first.result() and make_eval_set(source, forward, steps))
    return Engine(
        source,
        steps,
        chunk,
        _scattered_shapes(layout, first.result()),
        eval_set.result(),
        students,
        evaluate.result(),
    )


def _scattered_shapes(layout: LaneLayout, chunk: Chunk) -> Chunk:
    sharding = NamedSharding(layout.mesh, SCATTERED)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((layout.rows, *x.shape[1:]), x.dtype, sharding=sharding),
        chunk,
    )


def _compile_evaluate(source: Source, params: Future[bit.Params]) -> Callable:
    layout = source.layout
    evaluate = make_evaluate(source)

    def evaluate_if(eval_set: EvalSet, active: jax.Array, params: bit.Params):
        shapes = jax.eval_shape(evaluate, params, eval_set)
        nans = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), shapes)
        return lax.cond(active, lambda: evaluate(params, eval_set), lambda: nans)

    def evaluate_lanes(active: jax.Array, params: bit.Params, eval_set: EvalSet):
        return layout.each(functools.partial(evaluate_if, eval_set))(active, params)

    inactive = layout.spread([np.bool_(False)] * layout.lanes)
    program = layout.spmd(evaluate_lanes, last=P())
    return program.lower(inactive, params.result(), eval_set_shapes(source)).compile()
