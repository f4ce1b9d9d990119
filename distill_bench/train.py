"""One teacher forward, many students: trains all lanes of a task on the streams of their seeds."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from distill_bench import lanes as lanes_lib
from distill_bench.evaluate import Exam, make_evaluate, make_exam
from distill_bench.lanes import Lane, LaneState, Row, RuleSpec
from distill_bench.stream import Chunk, Source, chunk_steps, local_mesh, make_chunk, open_source
from distill_bench.task import Task

Status = Literal["ok", "diverged", "crashed"]


@dataclass(frozen=True)
class Losses:
    """Training losses of a lane's steps `first`, `first + 1`, ..., each measured before the step's update."""

    lane: int
    first: int
    values: np.ndarray


@dataclass(frozen=True)
class Point:
    """A lane's metrics (evaluate.METRICS) after `step` steps."""

    lane: int
    step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Finished:
    """A lane's end. `step` is where it ended, for a divergence the first step whose loss was not finite."""

    lane: int
    status: Status
    step: int
    detail: str | None = None


@dataclass(frozen=True)
class Compiled:
    """All programs are ready: how many there are for the lanes' update rules, and the seconds it took."""

    rules: int
    seconds: float
    static: dict[int, tuple[str, ...]]  # lane -> hyperparameters that its builder would not take as traced values


Event = Losses | Point | Finished | Compiled


def evaluation_steps(horizon: int) -> list[int]:
    """Log-spaced: the horizon and its halvings down to 50 steps."""
    steps = [horizon]
    while steps[-1] // 2 >= 50:
        steps.append(steps[-1] // 2)
    return steps[::-1]


@dataclass
class _Slot:
    """A lane's place in a row and how far it has come."""

    lane: int
    spec: Lane
    steps: list[int]
    done: bool = False


@dataclass
class _Group:
    """All rows of one update rule: they share programs, and a plug-in's exception ends them together."""

    spec: RuleSpec
    traced: frozenset[str]
    slots: list[list[_Slot | None]]
    init: Callable = field(init=False)
    advance: Callable = field(init=False)
    rows: list[tuple[LaneState, Row]] = field(default_factory=list)

    def live(self) -> list[_Slot]:
        return [slot for row in self.slots for slot in row if slot and not slot.done]


def train(task: Task, lanes: Sequence[Lane], mesh: Mesh | None = None) -> Iterator[Event]:
    """Trains `lanes` and yields what happens; every lane ends in exactly one `Finished`.

    A lane's numbers are those of the same lane trained alone. A lane whose loss is not finite ends as
    diverged; an exception of an update rule ends all lanes of its rule as crashed; the others go on.

    Raises:
      UserError: where the task's data or teacher are not what the task names.
    """
    began = time.perf_counter()
    source = open_source(task, mesh or local_mesh())
    seeds = tuple(sorted({lane.seed for lane in lanes}))
    size = chunk_steps(task, source.mesh)
    groups, crashes = _plan(source, lanes)
    yield from crashes

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        exam_future = pool.submit(make_exam, source)
        next_chunk = make_chunk(source, seeds, size)
        chunk_future = pool.submit(next_chunk, 0)
        warmed = [(group, pool.submit(_start, source, group, seeds, chunk_future)) for group in groups]
        evaluate = pool.submit(_compile_evaluate, source, exam_future).result()
        exam, chunk = exam_future.result(), chunk_future.result()
        for group, future in warmed:
            if error := future.exception():
                yield from _crash(group, error)
    statics = {
        slot.lane: tuple(name for name, value in group.spec.static if isinstance(value, float))
        for group in groups
        for slot in group.live()
    }
    yield Compiled(sum(bool(group.live()) for group in groups), time.perf_counter() - began, statics)

    first, pending = 0, []
    while live := [slot for group in groups for slot in group.live()]:
        longest = max(slot.spec.horizon for slot in live)
        # The next chunk is asked for before this one is used, so that no device waits for another's share.
        following = next_chunk(first + size) if first + size < longest else chunk
        dispatched = []
        for group in groups:
            try:
                dispatched += [item for row in range(len(group.rows)) for item in _dispatch(group, row, chunk, first, size, evaluate, exam)]
            except Exception as error:  # the plug-in's own, raised by its program
                yield from _crash(group, error)
        for item in pending:
            yield from _drain(item)
        pending, chunk, first = dispatched, following, first + size
        if first >= longest:
            for item in pending:
                yield from _drain(item)
            pending = []


def _plan(source: Source, lanes: Sequence[Lane]) -> tuple[list[_Group], list[Finished]]:
    """Groups lanes by update rule and deals them to the devices, long horizons first."""
    params = jax.eval_shape(lambda: lanes_lib.init_student(source.task, 0))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params)
    traced: dict[Callable, frozenset[str]] = {}
    members: dict[RuleSpec, list[int]] = {}
    crashes: list[Finished] = []
    failed: dict[Callable, str] = {}
    for i, lane in enumerate(lanes):
        if lane.build not in traced and lane.build not in failed:
            try:
                traced[lane.build] = lanes_lib.traceable(lane, params)
            except Exception as error:  # the plug-in's own
                failed[lane.build] = _describe(error)
        if lane.build in failed:
            crashes.append(Finished(i, "crashed", 0, failed[lane.build]))
        else:
            members.setdefault(lanes_lib.spec_of(lane, traced[lane.build]), []).append(i)
    groups = []
    for spec, indices in members.items():
        indices.sort(key=lambda i: (-lanes[i].horizon, i))
        devices = source.mesh.size
        rows = []
        for r in range(0, len(indices), devices):
            row: list[_Slot | None] = [_Slot(i, lanes[i], evaluation_steps(lanes[i].horizon)) for i in indices[r : r + devices]]
            row += [None] * (devices - len(row))
            rows.append(list(np.roll(np.array(row, object), len(groups) + r)))  # no device gets all the empty places
        groups.append(_Group(spec, traced[spec.build], rows))
    return groups, crashes


def _start(source: Source, group: _Group, seeds: tuple[int, ...], chunk_future) -> None:
    """Compiles the group's programs and makes the first state of each of its rows."""
    init = lanes_lib.make_init(source, group.spec)
    for slots in group.slots:
        spare = next(slot for slot in slots if slot)
        row_lanes = [(slot or spare).spec for slot in slots]
        row = lanes_lib.make_row(source, row_lanes, group.traced, seeds)
        seed = lanes_lib.spread(source, [np.int32(lane.seed) for lane in row_lanes])
        group.rows.append((init(row.traced, seed, None), row))
    state, row = group.rows[0]
    zeros = lanes_lib.spread(source, [np.int32(0)] * source.mesh.size)
    advance = lanes_lib.make_advance(source, group.spec)
    group.advance = advance.lower(state, row, zeros, zeros, chunk_future.result()).compile()


def _compile_evaluate(source: Source, exam_future) -> Callable:
    evaluate = make_evaluate(source)

    def when(active: jax.Array, params: Any, exam: Exam):
        nothing = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), jax.eval_shape(evaluate, params, exam))
        return lax.cond(active, lambda: evaluate(params, exam), lambda: nothing)

    mapped = lanes_lib.per_lane(source, when)
    params = jax.eval_shape(lambda: lanes_lib.init_student(source.task, 0))
    size = source.mesh.size
    example = lanes_lib.spread(source, [jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)] * size)
    return mapped.lower(lanes_lib.spread(source, [np.bool_(False)] * size), example, exam_future.result()).compile()


@dataclass(frozen=True)
class _Pending:
    """Results under way on the devices: losses of steps `start[d] + 1` to `stop[d]`, and metrics at `stop[d]` where `evaluated`."""

    group: _Group
    slots: list[_Slot | None]
    first: int
    start: list[int]
    stop: list[int]
    evaluated: list[bool]
    losses: jax.Array
    metrics: dict[str, jax.Array] | None


def _dispatch(group: _Group, index: int, chunk: Chunk, first: int, size: int, evaluate: Callable, exam: Exam) -> Iterator[_Pending]:
    """Sends one row through one chunk, stopping where one of its lanes is to be evaluated. Does not wait."""
    slots, (state, row) = group.slots[index], group.rows[index]
    ends = [slot.spec.horizon if slot and not slot.done else 0 for slot in slots]
    cuts = {min(first + size, max(ends))} | {step for slot in slots if slot and not slot.done for step in slot.steps}
    position = first
    for cut in sorted(cut for cut in cuts if first < cut <= first + size):
        start = [min(position, max(end, first)) for end in ends]
        stop = [max(begin, min(cut, end)) for begin, end in zip(start, ends, strict=True)]
        sharding = row.stream.sharding
        bounds = [jax.device_put(np.array(steps, np.int32) - first, sharding) for steps in (start, stop)]
        state, losses = group.advance(state, row, *bounds, chunk)
        group.rows[index] = (state, row)
        evaluated = [slot is not None and not slot.done and cut in slot.steps for slot in slots]
        metrics = evaluate(jax.device_put(np.array(evaluated), sharding), state.params, exam) if any(evaluated) else None
        yield _Pending(group, slots, first, start, stop, evaluated, losses, metrics)
        position = cut


def _drain(item: _Pending) -> Iterator[Event]:
    """Waits for results and turns them into events."""
    try:
        losses = np.asarray(item.losses)
        metrics = {name: np.asarray(value) for name, value in item.metrics.items()} if item.metrics else {}
    except Exception as error:  # the plug-in's own, raised while its program ran
        yield from _crash(item.group, error)
        return
    for d, slot in enumerate(item.slots):
        if slot is None or slot.done:
            continue
        values = losses[d, item.start[d] - item.first : item.stop[d] - item.first]
        finite = np.isfinite(values)
        good = len(values) if finite.all() else int(np.argmin(finite))
        if good:
            yield Losses(slot.lane, item.start[d] + 1, values[:good])
        if good < len(values):
            slot.done = True
            yield Finished(slot.lane, "diverged", item.start[d] + good + 1, f"the loss of step {item.start[d] + good + 1} is {values[good]}")
        elif item.evaluated[d]:
            point = Point(slot.lane, item.stop[d], {name: float(value[d]) for name, value in metrics.items()})
            finite_point = all(np.isfinite(v) for v in point.metrics.values())
            if finite_point:
                yield point
            if not finite_point:
                slot.done = True
                yield Finished(slot.lane, "diverged", point.step, f"the probe loss after step {point.step} is {point.metrics['probe_loss']}")
            elif point.step == slot.spec.horizon:
                slot.done = True
                yield Finished(slot.lane, "ok", point.step)


def _describe(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


def _crash(group: _Group, error: BaseException) -> Iterator[Finished]:
    detail = _describe(error)
    for slot in group.live():
        slot.done = True
        yield Finished(slot.lane, "crashed", 0, detail)
    group.rows.clear()
