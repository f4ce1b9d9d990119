"""A task's compiled programs on this machine's devices, made once and shared by all training."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench.machine import core_count
from distill_bench.networks import bit, network
from distill_bench.tasks.task import Task
from distill_bench.training.evaluate import (
    EvalSet,
    eval_set_shapes,
    exam_batches,
    make_eval_set,
    make_evaluate,
)
from distill_bench.training.exams import EXAMS, Exam
from distill_bench.training.lane_layout import LaneLayout, make_layouts
from distill_bench.training.lanes import (
    LaneState,
    make_advance,
    make_eval_params,
    make_init,
    make_students,
    traced_values,
)
from distill_bench.training.program import Program
from distill_bench.training.rules import Lane, RuleSpec
from distill_bench.training.source import Source, chunk_steps, open_source
from distill_bench.training.stream import SCATTERED, Chunk, make_chunks
from distill_bench.training.teacher_logits import ensemble_table, make_forward


@dataclass(frozen=True)
class RulePrograms:
    """An update rule's programs: see make_init, make_advance and make_eval_params in lanes.py."""

    init: Program
    advance: Program
    eval_params: Program | None

    def on(self, layout: LaneLayout) -> RulePrograms:
        return RulePrograms(
            self.init.on(layout.mesh),
            self.advance.on(layout.mesh),
            self.eval_params and self.eval_params.on(layout.mesh),
        )

    def measured(self, state: LaneState) -> bit.Params:
        """The parameters at which the lanes are measured."""
        return self.eval_params(state) if self.eval_params else state.params


@dataclass(frozen=True)
class Island:
    """Devices of one runtime client, with everything that they need to train lanes.

    Attributes:
      source: the task's data and parameters.
      chunk: (seed, first step) -> Chunk, this island's share of a chunk's steps.
      eval_set: the fixed views on which students are measured.
      students: see lanes.make_students.
      evaluate: (batches [D], parameters, eval_set) -> metrics [D], see evaluate.make_evaluate.
      rules: the programs of every update rule compiled so far.
    """

    source: Source
    chunk: Callable[[int, int], Chunk]
    eval_set: EvalSet
    students: Program
    evaluate: Program
    rules: dict[RuleSpec, RulePrograms] = field(default_factory=dict)

    @property
    def layout(self) -> LaneLayout:
        return self.source.layout


class SharedChunk:
    """A chunk that the islands make together, each its share of the steps."""

    def __init__(self, shares: Sequence[Chunk]):
        self._shares = shares
        self._copies: dict[LaneLayout, Chunk] = {}

    def on(self, layout: LaneLayout) -> Chunk:
        """The whole chunk on the devices of an island; waits for the islands' shares."""
        if len(self._shares) == 1:
            return self._shares[0]
        if layout not in self._copies:
            if not self._copies:
                self._shares = jax.tree.map(np.asarray, self._shares)
            whole = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *self._shares)
            self._copies[layout] = layout.place(whole, P(None, *SCATTERED[1:]))
        return self._copies[layout]


@dataclass(frozen=True)
class Engine:
    """A task, opened on all devices that train.

    Attributes:
      islands: one for each CPU core, or a single one for all accelerators.
      steps: length of a chunk.
      scattered: shapes and placement, on the first island, of a scattered chunk.
    """

    islands: tuple[Island, ...]
    steps: int
    scattered: Chunk

    @property
    def source(self) -> Source:
        return self.islands[0].source

    @property
    def layout(self) -> LaneLayout:
        return self.source.layout

    def chunk(self, seed: int, first: int, last: int | None = None) -> SharedChunk:
        """The chunk that starts after step `first`; steps after `last` are not made."""
        share = self.steps // len(self.islands)
        starts = range(first, first + self.steps, share)
        made = [
            island.chunk(seed, start)
            for island, start in zip(self.islands, starts, strict=True)
            if last is None or start < last or start == first
        ]
        return SharedChunk(made + made[:1] * (len(self.islands) - len(made)))

    def measure(self, params: bit.Params, exam: Exam = "all") -> dict[str, float]:
        """The metrics of one student, by the program that measures students while they train."""
        layout, island = self.layout, self.islands[0]
        batches = layout.spread([np.int32(exam_batches(self.source, exam))] * layout.lanes)
        metrics = island.evaluate(batches, layout.spread([params] * layout.lanes), island.eval_set)
        return {name: float(np.asarray(metrics[name])[0]) for name in EXAMS[exam]}

    def compile(
        self, wanted: Iterable[tuple[RuleSpec, Lane, frozenset[str]]]
    ) -> Iterator[tuple[RuleSpec, BaseException | None]]:
        """Compiles the update rules that are new, several at once.

        Yields each of them as soon as it is compiled, with the exception if it raised one.

        wanted: rules, each with one of its lanes and the names of its traced values.
        """
        new = {spec: (lane, traced) for spec, lane, traced in wanted if not self.knows(spec)}
        with _pool() as pool:
            futures = {
                spec: pool.submit(self._compile, spec, *example) for spec, example in new.items()
            }
            for spec, future in futures.items():
                error = future.exception()
                if error is None:
                    for island, programs in zip(self.islands, future.result(), strict=True):
                        island.rules[spec] = programs
                elif not isinstance(error, Exception | SystemExit):
                    raise error
                yield spec, error

    def forget(self, spec: RuleSpec) -> None:
        """Drops the programs of an update rule."""
        for island in self.islands:
            island.rules.pop(spec, None)

    def forget_all(self) -> None:
        """Drops the programs of all update rules, and what XLA holds of them."""
        for island in self.islands:
            island.rules.clear()
        jax.clear_caches()
        gc.collect()

    def knows(self, spec: RuleSpec) -> bool:
        """Whether the update rule is compiled."""
        return spec in self.islands[0].rules

    def _compile(self, spec: RuleSpec, lane: Lane, traced: frozenset[str]) -> list[RulePrograms]:
        source, layout, first = self.source, self.layout, self.islands[0]
        values = traced_values(source, [lane] * layout.lanes, traced)
        zeros = layout.spread([np.int32(0)] * layout.lanes)
        programs = RulePrograms(
            make_init(source, spec), make_advance(source, spec), make_eval_params(source, spec)
        )
        state = programs.init(values, first.students(zeros, source.start))
        programs.advance.compile(state, values, zeros, zeros, self.scattered)
        return [programs, *(programs.on(island.layout) for island in self.islands[1:])]


# A student's step with less arithmetic leaves an accelerator busy mostly with launching kernels.
SMALL_STEP_FLOPS = 1e10


def is_small(task: Task) -> bool:
    """Whether one student's step is too little work to fill an accelerator."""
    return 6 * network.macs(task.student, task.views.size) * task.batch_size < SMALL_STEP_FLOPS


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for compilation; only one if several hosts must run programs in one order.

    What has not begun when the context ends is not done.
    """
    pool = ThreadPoolExecutor(1 if jax.process_count() > 1 else core_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def open_engine(task: Task, *layouts: LaneLayout) -> Engine:
    """Loads the task and compiles what all update rules share.

    layouts: one for each island; default: those of `make_layouts`.

    Raises:
      UserError: if the task's data or teachers cannot be loaded, see open_source.
    """
    layouts = layouts or make_layouts(small=is_small(task))
    source = open_source(task, layouts[0])
    sources = [source, *(source.on(layout) for layout in layouts[1:])]
    share = chunk_steps(task, layouts[0])
    forward = make_forward(source)
    forwards = [forward.on(layout.mesh) for layout in layouts]
    students, evaluate = make_students(source), _make_evaluate(source)
    zeros = layouts[0].spread([np.int32(0)] * layouts[0].lanes)
    with _pool() as pool:
        table = ensemble_table(source, forward)
        chunks = [
            make_chunks(own, share, own_forward, table)
            for own, own_forward in zip(sources, forwards, strict=True)
        ]
        first = pool.submit(chunks[0], 0, 0)
        params = pool.submit(students, zeros, source.start)
        # Before the evaluation set, which waits for the chunk and then keeps all devices busy.
        evaluated = pool.submit(
            lambda: evaluate.compile(zeros, params.result(), eval_set_shapes(source))
        )
        made = pool.submit(lambda: first.result() and make_eval_set(sources, forwards, share))
        evaluated.result()
        eval_sets = made.result()
    islands = tuple(
        Island(
            own,
            chunk,
            eval_set,
            students.on(own.layout.mesh),
            evaluate.on(own.layout.mesh),
        )
        for own, chunk, eval_set in zip(sources, chunks, eval_sets, strict=True)
    )
    steps = share * len(islands)
    return Engine(islands, steps, _scattered_shapes(layouts[0], first.result(), steps))


def _scattered_shapes(layout: LaneLayout, share: Chunk, steps: int) -> Chunk:
    """Of a chunk of `steps` steps."""
    sharding = NamedSharding(layout.mesh, SCATTERED)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            (layout.rows, steps, *x.shape[2:]), x.dtype, sharding=sharding
        ),
        share,
    )


def _make_evaluate(source: Source) -> Program:
    """Program (batches [D], parameters, eval_set) -> metrics [D]."""
    layout, evaluate = source.layout, make_evaluate(source)

    def evaluate_lanes(batches: jax.Array, params: bit.Params, eval_set: EvalSet):
        return layout.each(lambda own, lane: evaluate(own, lane, eval_set))(batches, params)

    return layout.spmd(evaluate_lanes, last=P())
