"""One teacher forward, many students: trains all lanes of a task on the streams of their seeds."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from distill_bench.training import lanes as lanes_lib
from distill_bench.training.engine import Engine
from distill_bench.training.events import (
    Compiled,
    Event,
    Finished,
    Losses,
    Point,
    Snapshot,
    Status,
    Waiting,
)
from distill_bench.training.lane_state import Saved
from distill_bench.training.lanes import LaneState
from distill_bench.training.rules import Lane, RuleSpec, spec_of, traceable
from distill_bench.training.stream import SCATTERED, Chunk


def evaluation_steps(horizon: int) -> list[int]:
    """Log-spaced: the horizon and its halvings down to 50 steps."""
    steps = [horizon]
    while steps[-1] // 2 >= 50:
        steps.append(steps[-1] // 2)
    return steps[::-1]


@dataclass(frozen=True)
class _Pending:
    """Results under way: losses of each lane's steps `start` to `stop`, and metrics at `stop` of those `evaluated`."""

    first: int
    start: list[int]
    stop: list[int]
    evaluated: list[bool]
    losses: jax.Array
    metrics: dict[str, jax.Array] | None
    diagnostics: dict[str, jax.Array]


@dataclass
class _Assignment:
    """A lane's place in a dispatch."""

    lane: int
    spec: Lane
    steps: list[int]
    start: int = 0
    done: bool = False

    def active(self, first: int, last: int) -> bool:
        """Whether any of the steps after `first`, up to `last`, are still to be trained."""
        return not self.done and self.start < last and self.spec.horizon > first


@dataclass
class _Dispatch:
    """Lanes of one dispatch, in the order of the layout; None where it has more places than there are lanes."""

    assignments: list[_Assignment | None]
    traced: dict[str, jax.Array]
    state: LaneState
    pending: list[_Pending] = field(default_factory=list)


@dataclass
class _Group:
    """All lanes of one update rule: they share a program, and a plug-in's exception ends them together."""

    rule: RuleSpec
    traced: frozenset[str]
    assignments: list[_Assignment]
    rows: list[_Dispatch] = field(default_factory=list)
    diagnose: Callable[[Any], dict[str, jax.Array]] | None = None

    def live(self) -> list[_Assignment]:
        return [assignment for assignment in self.assignments if not assignment.done]


def train(
    engine: Engine,
    lanes: Sequence[Lane],
    resume: Mapping[int, Saved] | None = None,
    snapshot_due: Callable[[], bool] = lambda: False,
    diagnose: Callable[[Any], dict[str, jax.Array]] | None = None,
    keep: bool = False,
) -> Iterator[Event]:
    """Trains `lanes` and yields what happens; every lane ends in exactly one `Finished`.

    `resume` holds the saved states of lanes that were begun before; their events go on where those ended.
    Whenever `snapshot_due()` is true at the end of a chunk, all lanes under way yield a `Snapshot`.
    `diagnose` is a pure function from the state of an update rule to scalars, which come with every `Point`.
    With `keep`, a lane that ends well yields a `Snapshot` of its last state before `Finished`.

    A lane's numbers are those of the same lane trained alone. A lane whose loss is not finite, or whose
    parameters are not when it is evaluated, ends as diverged; an exception of an update rule ends all lanes of its rule as crashed; the others go on.
    """
    began = time.perf_counter()
    groups, crashes = _plan(engine, lanes)
    yield from crashes
    known = len(engine.rules)
    errors = engine.compile(
        (group.rule, group.assignments[0].spec, group.traced) for group in groups
    )
    for group in groups:
        if group.rule in errors:
            yield from _crash(group, errors[group.rule])
        else:
            _scatter(engine, group, resume or {})
            if diagnose and jax.eval_shape(diagnose, group.rows[0].state.rule):
                group.diagnose = lanes_lib.make_diagnose(engine.source, diagnose)
    numbers = {
        assignment.lane: tuple(k for k, v in g.rule.static if not isinstance(v, str | bool))
        for g in groups
        for assignment in g.live()
    }
    yield Compiled(len(engine.rules) - known, time.perf_counter() - began, numbers)

    live = [assignment for group in groups for assignment in group.live()]
    first = min((assignment.start for assignment in live), default=0)
    chunks = _chunks(engine, live, first)
    while live:
        # The next chunks are asked for before these are used, so that no device waits for another's share.
        ready = _chunks(engine, live, first + engine.steps)
        due = snapshot_due()
        for group, row in [(g, row) for g in groups for row in g.rows]:
            yield from _drain(group, row, keep)
            if due:
                yield from _snapshots(row, first)
            try:
                _dispatch(engine, group, row, chunks, first)
            except Exception as error:  # the plug-in's own, raised by its program
                yield from _crash(group, error)
            if not ready:
                yield from _drain(group, row, keep)
        chunks, first = ready, first + engine.steps
        live = [assignment for assignment in live if not assignment.done]


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
                traced[lane.build] = traceable(lane, params)
            except Exception as error:  # the plug-in's own
                traced[lane.build] = _describe(error)
        names = traced[lane.build]
        if isinstance(names, str):
            crashes.append(Finished(i, "crashed", 0, names))
            continue
        rule = spec_of(lane, names)
        group = groups.setdefault(rule, _Group(rule, names, []))
        group.assignments.append(_Assignment(i, lane, evaluation_steps(lane.horizon)))
    return list(groups.values()), crashes


def _scatter(engine: Engine, group: _Group, resume: Mapping[int, Saved]) -> None:
    """Deals the group's lanes to the devices, and makes each dispatch's first state."""
    layout = engine.layout
    for assignment in group.assignments:
        assignment.start = resume[assignment.lane].step if assignment.lane in resume else 0
    per_row = _row_assignments(group.assignments, layout.width)
    for start in range(0, len(per_row), layout.rows):
        row = per_row[start : start + layout.rows]
        row += [[None] * layout.width] * (layout.rows - len(row))
        assignments = [assignment for assigned in row for assignment in assigned]
        filled = [(assignment or group.assignments[0]).spec for assignment in assignments]
        traced = lanes_lib.traced_values(engine.source, filled, group.traced)
        params = engine.students(layout.spread([np.int32(lane.seed) for lane in filled]))
        state = engine.rules[group.rule].init(traced, params)
        saved = [resume.get(assignment.lane) if assignment else None for assignment in assignments]
        group.rows.append(
            _Dispatch(assignments, traced, lanes_lib.restore(state, saved) if any(saved) else state)
        )


def _row_assignments(assignments: list[_Assignment], width: int) -> list[list[_Assignment | None]]:
    """Lanes of one seed, `width` to each row of devices, which share its chunk; long horizons first."""
    per_row: list[list[_Assignment | None]] = []
    for seed in dict.fromkeys(assignment.spec.seed for assignment in assignments):
        mine = [assignment for assignment in assignments if assignment.spec.seed == seed]
        per_row += [
            [*mine[i : i + width], *[None] * (width - len(mine[i : i + width]))]
            for i in range(0, len(mine), width)
        ]
    return sorted(
        per_row,
        key=lambda assigned: -max(assignment.spec.horizon for assignment in assigned if assignment),
    )


def _chunks(engine: Engine, live: list[_Assignment], first: int) -> dict[int, Chunk]:
    """The chunk that starts after step `first`, for each seed that needs it."""
    seeds = sorted(
        {
            assignment.spec.seed
            for assignment in live
            if assignment.active(first, first + engine.steps)
        }
    )
    return {seed: engine.chunk(seed, first) for seed in seeds}


def _dispatch(
    engine: Engine, group: _Group, row: _Dispatch, chunks: dict[int, Chunk], first: int
) -> None:
    """Sends a row through one chunk, stopping where one of its lanes is to be evaluated. Does not wait."""
    active = [
        assignment if assignment and assignment.active(first, first + engine.steps) else None
        for assignment in row.assignments
    ]
    if not any(active):
        return
    begins = [max(first, assignment.start) if assignment else first for assignment in active]
    ends = [
        min(first + engine.steps, assignment.spec.horizon) if assignment else first
        for assignment in active
    ]
    stops = {max(ends)} | {
        step
        for assignment, begin in zip(active, begins, strict=True)
        if assignment
        for step in assignment.steps
        if begin < step <= max(ends)
    }
    some = next(iter(chunks.values()))  # for a device without a lane
    width = engine.layout.width
    per_row = [active[i : i + width] for i in range(0, len(active), width)]
    chunk = engine.layout.scatter(
        [
            next((chunks[assignment.spec.seed] for assignment in assigned if assignment), some)
            for assigned in per_row
        ],
        SCATTERED,
    )
    for cut in sorted(stops):
        stop = [max(begin, min(cut, end)) for begin, end in zip(begins, ends, strict=True)]
        bounds = [
            engine.layout.spread([np.int32(step - first) for step in steps])
            for steps in (begins, stop)
        ]
        row.state, losses = engine.rules[group.rule].advance(row.state, row.traced, *bounds, chunk)
        evaluated = [
            assignment is not None and cut in assignment.steps and begin < cut
            for assignment, begin in zip(active, begins, strict=True)
        ]
        flags = engine.layout.spread([np.bool_(flag) for flag in evaluated])
        metrics = (
            engine.evaluate(flags, engine.rules[group.rule].eval_params(row.state), engine.eval_set)
            if any(evaluated)
            else None
        )
        diagnostics = group.diagnose(row.state.rule) if group.diagnose and any(evaluated) else {}
        row.pending.append(_Pending(first, begins, stop, evaluated, losses, metrics, diagnostics))
        begins = stop


def _snapshots(row: _Dispatch, first: int) -> Iterator[Snapshot]:
    """The states of the row's lanes that are under way, after `first` steps."""
    wanted = [
        d
        for d, assignment in enumerate(row.assignments)
        if assignment and not assignment.done and assignment.start < first
    ]
    for d, leaves in lanes_lib.on_host(row.state, wanted).items():
        assignment = row.assignments[d]
        assert assignment is not None
        yield Snapshot(assignment.lane, Saved(first, leaves))


def _drain(group: _Group, row: _Dispatch, keep: bool) -> Iterator[Event]:
    """Waits for the row's results and turns them into events."""
    items, row.pending = row.pending, []
    if items:
        yield Waiting(next(assignment.lane for assignment in row.assignments if assignment))
    for item in items:
        try:
            losses = np.asarray(item.losses)
            metrics, told = (
                {name: np.asarray(value) for name, value in (values or {}).items()}
                for values in (item.metrics, item.diagnostics)
            )
        except Exception as error:  # the plug-in's own, raised while its program ran
            yield from _crash(group, error)
            return
        for d, assignment in enumerate(row.assignments):
            if assignment is not None and not assignment.done:
                for event in _read(assignment, d, item, losses, metrics, told):
                    if keep and isinstance(event, Finished) and event.status == "ok":
                        # What was dispatched after its last step left the lane as it was.
                        yield Snapshot(
                            event.lane, Saved(event.step, lanes_lib.on_host(row.state, [d])[d])
                        )
                    yield event


def _read(
    assignment: _Assignment,
    place: int,
    item: _Pending,
    losses: np.ndarray,
    metrics: dict[str, np.ndarray],
    told: dict[str, np.ndarray],
) -> Iterator[Event]:
    """The events of one lane, from what its place of the dispatch brought."""
    start, stop = item.start[place], item.stop[place]
    values = losses[place, start - item.first : stop - item.first]
    good = int(np.argmin(np.append(np.isfinite(values), False)))
    if good:
        yield Losses(assignment.lane, start + 1, values[:good])
    if good < len(values):
        step = start + good + 1
        yield _end(assignment, "diverged", step, f"the loss of step {step} is {values[good]}")
    elif item.evaluated[place]:
        point = {name: float(value[place]) for name, value in metrics.items()}
        if bad := {name: value for name, value in point.items() if not np.isfinite(value)}:
            what = (
                "the parameters are not finite"
                if len(bad) == len(point)
                else " and ".join(f"{name} is {value}" for name, value in bad.items())
            )
            yield _end(assignment, "diverged", stop, f"after step {stop} {what}")
            return
        yield Point(
            assignment.lane,
            stop,
            point,
            {name: float(value[place]) for name, value in told.items()},
        )
        if stop == assignment.spec.horizon:
            yield _end(assignment, "ok", stop)


def _end(assignment: _Assignment, status: Status, step: int, detail: str | None = None) -> Finished:
    assignment.done = True
    return Finished(assignment.lane, status, step, detail)


def _describe(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


def _crash(group: _Group, error: BaseException) -> Iterator[Finished]:
    detail = _describe(error)
    for assignment in group.live():
        yield _end(assignment, "crashed", 0, detail)
    group.rows.clear()
