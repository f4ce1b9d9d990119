"""The compiled parts of a task on this machine's devices, made once and shared by all training."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from distill_bench import bit, lanes, stream
from distill_bench.evaluate import Exam, make_evaluate, make_exam
from distill_bench.lanes import Lane, RuleSpec
from distill_bench.stream import Chunk, Source
from distill_bench.task import Task


@dataclass(frozen=True)
class RulePrograms:
    """What an update rule needs: see lanes.make_init and lanes.make_advance."""

    init: Callable
    advance: Callable


@dataclass(frozen=True)
class Engine:
    """A task, opened on the local devices.

    Attributes:
      source: the task's arrays.
      steps: length of a chunk.
      chunk: (seed, first step) -> Chunk.
      exam: the fixed views on which students are measured.
      students: see lanes.make_students.
      evaluate: (active [D], parameters, exam) -> metrics [D], NaN for a lane that is not active.
      rules: compiled programs of each update rule seen so far.
    """

    source: Source
    steps: int
    chunk: Callable[[int, int], Chunk]
    exam: Exam
    students: Callable
    evaluate: Callable
    rules: dict[RuleSpec, RulePrograms] = field(default_factory=dict)

    def spread(self, values: list) -> Any:
        return lanes.spread(self.source, values)

    def deal(self, chunks: list[Chunk]) -> Chunk:
        return stream.deal(self.source, chunks)

    @property
    def devices(self) -> int:
        return self.source.mesh.size

    def compile(self, wanted: Iterable[tuple[RuleSpec, Lane, frozenset[str]]]) -> dict[RuleSpec, Exception]:
        """Makes the programs of those update rules that are new, several at once; returns the rules that raised."""
        new = {spec: (lane, traced) for spec, lane, traced in wanted if spec not in self.rules}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            futures = {spec: pool.submit(self._compile, spec, *example) for spec, example in new.items()}
        errors = {}
        for spec, future in futures.items():
            if isinstance(error := future.exception(), Exception):
                errors[spec] = error
            else:
                self.rules[spec] = future.result()
        return errors

    def _compile(self, spec: RuleSpec, lane: Lane, traced: frozenset[str]) -> RulePrograms:
        values = lanes.traced_values(self.source, [lane] * self.devices, traced)
        params = self.students(self.spread([np.int32(0)] * self.devices), None)
        init = lanes.make_init(self.source, spec)
        zeros = self.spread([np.int32(0)] * self.devices)
        chunk = self.deal([self.chunk(0, 0)] * self.devices)
        advance = lanes.make_advance(self.source, spec)
        return RulePrograms(init, advance.lower(init(values, params, None), values, zeros, zeros, chunk, None).compile())


def open_engine(task: Task, mesh: Mesh | None = None) -> Engine:
    """Loads the task and compiles what all update rules share.

    Raises:
      UserError: where the task's data or teacher are not what the task names.
    """
    source = stream.open_source(task, mesh or stream.local_mesh())
    steps = stream.chunk_steps(task, source.mesh)
    forward = stream.make_forward(source)
    chunk = stream.make_chunks(source, steps, forward)
    students = lanes.make_students(source)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        first = pool.submit(chunk, 0, 0)
        params = pool.submit(lambda: students(lanes.spread(source, [np.int32(0)] * source.mesh.size), None))
        exam = pool.submit(lambda: first.result() and make_exam(source, forward, steps))
        evaluate = pool.submit(_compile_evaluate, source, params, exam)
    return Engine(source, steps, chunk, exam.result(), students, evaluate.result())


def _compile_evaluate(source: Source, params: Future[bit.Params], exam: Future[Exam]) -> Callable:
    evaluate = make_evaluate(source)

    def when(active: jax.Array, params: bit.Params, exam: Exam):
        shapes = jax.eval_shape(evaluate, params, exam)
        nothing = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), shapes)
        return lax.cond(active, lambda: evaluate(params, exam), lambda: nothing)

    active = lanes.spread(source, [np.bool_(False)] * source.mesh.size)
    return lanes.per_lane(source, when).lower(active, params.result(), exam.result()).compile()
