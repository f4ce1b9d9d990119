"""One teacher forward, many students: trains all lanes of a task on the streams of their seeds."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import jax
import numpy as np

from distill_bench import lanes as lanes_lib
from distill_bench.engine import Engine
from distill_bench.lanes import Lane, LaneState, RuleSpec
from distill_bench.stream import Chunk

Status = Literal["ok", "diverged", "crashed"]


@dataclass(frozen=True)
class Losses:
    """Training losses of a lane's steps `first`, `first + 1`, ... (from 1), each measured before the step's update."""

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
    """All programs are ready: how many update rules were compiled for these lanes, and in how many seconds.

    static: for each lane, the numbers that its builder would not take as traced values.
    """

    rules: int
    seconds: float
    static: dict[int, tuple[str, ...]]


Event = Losses | Point | Finished | Compiled


def evaluation_steps(horizon: int) -> list[int]:
    """Log-spaced: the horizon and its halvings down to 50 steps."""
    steps = [horizon]
    while steps[-1] // 2 >= 50:
        steps.append(steps[-1] // 2)
    return steps[::-1]


@dataclass(frozen=True)
class _Pending:
    """Results under way: losses of each device's steps `start` to `stop`, and metrics at `stop` of those `evaluated`."""

    first: int
    start: list[int]
    stop: list[int]
    evaluated: list[bool]
    losses: jax.Array
    metrics: dict[str, jax.Array] | None


@dataclass
class _Slot:
    """A lane's place on a device."""

    lane: int
    spec: Lane
    steps: list[int]
    done: bool = False


@dataclass
class _Row:
    """Lanes that run side by side, one a device; None where there are more devices than lanes."""

    slots: list[_Slot | None]
    traced: dict[str, jax.Array]
    state: LaneState
    pending: list[_Pending] = field(default_factory=list)


@dataclass
class _Group:
    """All lanes of one update rule: they share a program, and a plug-in's exception ends them together."""

    rule: RuleSpec
    traced: frozenset[str]
    slots: list[_Slot]
    rows: list[_Row] = field(default_factory=list)

    def live(self) -> list[_Slot]:
        return [slot for slot in self.slots if not slot.done]


def train(engine: Engine, lanes: Sequence[Lane]) -> Iterator[Event]:
    """Trains `lanes` and yields what happens; every lane ends in exactly one `Finished`.

    A lane's numbers are those of the same lane trained alone. A lane whose loss is not finite ends as
    diverged; an exception of an update rule ends all lanes of its rule as crashed; the others go on.
    """
    began = time.perf_counter()
    groups, crashes = _plan(engine, lanes)
    yield from crashes
    known = len(engine.rules)
    errors = engine.compile((group.rule, group.slots[0].spec, group.traced) for group in groups)
    for group in groups:
        if group.rule in errors:
            yield from _crash(group, errors[group.rule])
        else:
            _seat(engine, group)
    numbers = {slot.lane: tuple(k for k, v in g.rule.static if not isinstance(v, str | bool)) for g in groups for slot in g.live()}
    yield Compiled(len(engine.rules) - known, time.perf_counter() - began, numbers)

    first, ready = 0, {}
    while live := [slot for group in groups for slot in group.live()]:
        # The next chunks are asked for before these are used, so that no device waits for another's share.
        chunks, ready = ready or _chunks(engine, live, first), _chunks(engine, live, first + engine.steps)
        for group in groups:
            for row in list(group.rows):
                yield from _drain(group, row)
                try:
                    _dispatch(engine, group, row, chunks, first)
                except Exception as error:  # the plug-in's own, raised by its program
                    yield from _crash(group, error)
                if not ready:
                    yield from _drain(group, row)
        first += engine.steps


def _plan(engine: Engine, lanes: Sequence[Lane]) -> tuple[list[_Group], list[Finished]]:
    """Groups lanes by update rule, long horizons first; lanes whose rule cannot be built have crashed."""
    shapes = jax.eval_shape(lambda: lanes_lib.init_student(engine.source.task, 0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    traced: dict[Callable, frozenset[str] | str] = {}
    groups: dict[RuleSpec, _Group] = {}
    crashes = []
    for i in sorted(range(len(lanes)), key=lambda i: -lanes[i].horizon):
        lane = lanes[i]
        if lane.build not in traced:
            try:
                traced[lane.build] = lanes_lib.traceable(lane, params)
            except Exception as error:  # the plug-in's own
                traced[lane.build] = _describe(error)
        names = traced[lane.build]
        if isinstance(names, str):
            crashes.append(Finished(i, "crashed", 0, names))
            continue
        rule = lanes_lib.spec_of(lane, names)
        group = groups.setdefault(rule, _Group(rule, names, []))
        group.slots.append(_Slot(i, lane, evaluation_steps(lane.horizon)))
    return list(groups.values()), crashes


def _seat(engine: Engine, group: _Group) -> None:
    """Deals the group's lanes to the devices, row by row, and makes each row's first state."""
    for start in range(0, len(group.slots), engine.devices):
        slots: list[_Slot | None] = [*group.slots[start : start + engine.devices]]
        slots += [None] * (engine.devices - len(slots))
        seated = [(slot or group.slots[start]).spec for slot in slots]
        traced = lanes_lib.traced_values(engine.source, seated, group.traced)
        params = engine.students(engine.spread([np.int32(lane.seed) for lane in seated]), None)
        group.rows.append(_Row(slots, traced, engine.rules[group.rule].init(traced, params, None)))


def _chunks(engine: Engine, live: list[_Slot], first: int) -> dict[int, Chunk]:
    """The chunk that starts after step `first`, for each seed that still needs it."""
    seeds = sorted({slot.spec.seed for slot in live if slot.spec.horizon > first})
    return {seed: engine.chunk(seed, first) for seed in seeds}


def _dispatch(engine: Engine, group: _Group, row: _Row, chunks: dict[int, Chunk], first: int) -> None:
    """Sends a row through one chunk, stopping where one of its lanes is to be evaluated. Does not wait."""
    ends = [slot.spec.horizon if slot and not slot.done else 0 for slot in row.slots]
    if max(ends) <= first:
        return
    last = min(first + engine.steps, max(ends))
    stops = {last} | {step for slot in row.slots if slot and not slot.done for step in slot.steps if first < step <= last}
    some = next(iter(chunks.values()))  # for a device without a lane
    chunk = engine.deal([chunks.get(slot.spec.seed, some) if slot else some for slot in row.slots])
    position = first
    for cut in sorted(stops):
        start = [max(first, min(position, end)) for end in ends]
        stop = [max(first, min(cut, end)) for end in ends]
        bounds = [engine.spread([np.int32(step - first) for step in steps]) for steps in (start, stop)]
        row.state, losses = engine.rules[group.rule].advance(row.state, row.traced, *bounds, chunk, None)
        evaluated = [slot is not None and not slot.done and cut in slot.steps for slot in row.slots]
        active = engine.spread([np.bool_(flag) for flag in evaluated])
        metrics = engine.evaluate(active, row.state.params, engine.exam) if any(evaluated) else None
        row.pending.append(_Pending(first, start, stop, evaluated, losses, metrics))
        position = cut


def _drain(group: _Group, row: _Row) -> Iterator[Event]:
    """Waits for the row's results and turns them into events."""
    items, row.pending = row.pending, []
    for item in items:
        try:
            losses = np.asarray(item.losses)
            metrics = {name: np.asarray(value) for name, value in (item.metrics or {}).items()}
        except Exception as error:  # the plug-in's own, raised while its program ran
            yield from _crash(group, error)
            return
        for d, slot in enumerate(row.slots):
            if slot is not None and not slot.done:
                yield from _read(slot, d, item, losses, metrics)


def _read(slot: _Slot, device: int, item: _Pending, losses: np.ndarray, metrics: dict[str, np.ndarray]) -> Iterator[Event]:
    """The events of one lane, from what its device brought."""
    start, stop = item.start[device], item.stop[device]
    values = losses[device, start - item.first : stop - item.first]
    good = int(np.argmin(np.append(np.isfinite(values), False)))
    if good:
        yield Losses(slot.lane, start + 1, values[:good])
    if good < len(values):
        step = start + good + 1
        yield _end(slot, "diverged", step, f"the loss of step {step} is {values[good]}")
    elif item.evaluated[device]:
        point = {name: float(value[device]) for name, value in metrics.items()}
        if not np.isfinite(list(point.values())).all():
            yield _end(slot, "diverged", stop, f"the probe loss after step {stop} is {point['probe_loss']}")
            return
        yield Point(slot.lane, stop, point)
        if stop == slot.spec.horizon:
            yield _end(slot, "ok", stop)


def _end(slot: _Slot, status: Status, step: int, detail: str | None = None) -> Finished:
    slot.done = True
    return Finished(slot.lane, status, step, detail)


def _describe(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


def _crash(group: _Group, error: BaseException) -> Iterator[Finished]:
    detail = _describe(error)
    for slot in group.live():
        yield _end(slot, "crashed", 0, detail)
    group.rows.clear()
