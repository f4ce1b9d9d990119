"""Trains all lanes of a task on the streams of their seeds."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from distill_bench import settings
from distill_bench.errors import UserError, clip
from distill_bench.settings import Settings
from distill_bench.training.diagnose import Observe, make_diagnose
from distill_bench.training.dispatch import (
    Assignment,
    Dispatch,
    Group,
    Pending,
    advance,
    chunks_for,
    scatter,
    snapshots,
)
from distill_bench.training.engine import Engine
from distill_bench.training.events import (
    ChunkStarted,
    Compiled,
    Compiling,
    Event,
    Finished,
    Losses,
    Point,
    Refused,
    Status,
    Student,
    Waiting,
)
from distill_bench.training.exams import EXAMS, Exam
from distill_bench.training.lane_state import Saved, to_host
from distill_bench.training.rules import Lane, RuleSpec, spec_of, traceable
from distill_bench.training.source import init_student

# What the code of a plug-in may raise; anything else is meant to end the process.
_PLUG_IN_ERRORS = (Exception, SystemExit)


CURVE_POINTS = 13  # of a final run, the last at its end


def exams(horizon: int, final: bool) -> dict[int, Exam]:
    """The steps after which a lane is measured, and how: see `Lane.final`.

    The points of a curve are log-spaced from a hundredth of the horizon on.
    """
    if not final:
        return {horizon: "probe"}
    steps = np.unique(np.round(np.geomspace(max(1, horizon / 100), horizon, CURVE_POINTS)))
    points: list[int] = steps.astype(int).tolist()
    return {step: "all" if step == horizon else "curve" for step in points}


def train(
    engine: Engine,
    lanes: Sequence[Lane],
    resume: Mapping[int, Saved] | None = None,
    snapshot_due: Callable[[], bool] = lambda: False,
    observe: Observe | None = None,
    keep: bool = False,
) -> Iterator[Event]:
    """Trains `lanes` and yields what happens; every lane ends in exactly one `Finished`.

    A lane's numbers are those of the same lane trained alone. A lane diverges if its loss is not
    finite, or its metrics or parameters are not when it is measured. An exception of an update
    rule ends all lanes of the rule as crashed. The other lanes go on.

    resume: saved states by lane; the events of such a lane continue where the saved state ends.
      A saved state that does not fit the lane's update rule yields a `Refused`.
    snapshot_due: asked at the end of every chunk; if true, every running lane yields a `Snapshot`.
    observe: see diagnose.py; its scalars come with every `Point`, as do those that a rule declares.
    keep: a lane that ends well yields a `Student` before `Finished`.
    """
    began, before = time.perf_counter(), settings.current()
    groups, crashes = _plan(engine, lanes, before)
    yield from crashes
    new = [group for group in groups if not engine.knows(group.rule)]
    yield from _compile(engine, new)
    yield from _without_changes(engine, new, before)
    live = [group for group in groups if group.live()]
    yield from _scatter(engine, live, resume or {}, observe)
    compiled = sum(engine.knows(group.rule) for group in new)
    yield Compiled(compiled, time.perf_counter() - began, _static_numbers(groups))
    yield from _run(engine, groups, snapshot_due, keep)
    before.restore()  # a rule may call Python while it runs


def _plan(
    engine: Engine, lanes: Sequence[Lane], before: Settings
) -> tuple[list[Group], list[Finished]]:
    """Groups lanes by update rule, long horizons first; lanes whose rule cannot be built crash."""
    shapes = jax.eval_shape(lambda: init_student(engine.source.task, 0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    traced: dict[Callable, frozenset[str] | str] = {}
    groups: dict[RuleSpec, Group] = {}
    crashes = []
    for i in sorted(range(len(lanes)), key=lambda i: -lanes[i].horizon):
        lane = lanes[i]
        if lane.build not in traced:
            try:
                traced[lane.build] = traceable(lane, params)
            except _PLUG_IN_ERRORS as error:
                traced[lane.build] = _describe(error)
            if changed := before.restore():
                traced[lane.build] = _changes(changed)
        names = traced[lane.build]
        if isinstance(names, str):
            crashes.append(Finished(i, "crashed", 0, names))
            continue
        rule = spec_of(lane, names)
        group = groups.setdefault(rule, Group(rule, names, []))
        group.assignments.append(Assignment(i, lane, exams(lane.horizon, lane.final)))
    return list(groups.values()), crashes


def _compile(engine: Engine, new: list[Group]) -> Iterator[Event]:
    """Compiles the groups' update rules. The lanes of a rule that raises end."""
    left = {group.rule: group for group in new}
    if left:
        yield Compiling([group.assignments[0].lane for group in new], len(new))
    wanted = [(group.rule, group.assignments[0].spec, group.traced) for group in new]
    for rule, error in engine.compile(wanted):
        group = left.pop(rule)
        if error:
            yield from _crash(group, error)
        if left:
            yield Compiling([group.assignments[0].lane for group in left.values()], len(new))


def _without_changes(engine: Engine, new: list[Group], before: Settings) -> Iterator[Event]:
    """If settings changed while rules were compiled, compiles them again, one after the other.

    The lanes of a rule that changes settings end: its numbers would compare with nobody's.
    """
    if not before.restore():
        return
    alive = [group for group in new if engine.knows(group.rule)]
    for group in alive:
        engine.forget(group.rule)
    for group in alive:
        yield from _compile(engine, [group])
        if changed := before.restore():
            yield from _crash(group, UserError(_changes(changed)))


def _changes(changed: Sequence[str]) -> str:
    return (
        f"It changes settings of jax while it is compiled: {', '.join(changed)}. They are set "
        "back, because they would change the numbers of every optimizer.\n"
        "For a part of its own arithmetic, use a context, such as `with jax.enable_x64(True):`."
    )


def _scatter(
    engine: Engine, groups: list[Group], resume: Mapping[int, Saved], observe: Observe | None
) -> Iterator[Refused | Finished]:
    """Assigns the groups' lanes to the devices. The lanes of a rule whose `init` raises end."""
    loads = [0] * len(engine.islands)
    for group in groups:
        try:
            refused = scatter(engine, group, resume, loads)
        except _PLUG_IN_ERRORS as error:
            yield from _crash(group, error)
            continue
        for lane, why in refused.items():
            yield Refused(lane, f"does not fit the update rule: {why}")
        if observe or group.rule.contract.diagnostics:
            program = make_diagnose(engine.source, group.rule, observe)
            group.diagnose = {
                island.layout: program.on(island.layout.mesh) for island in engine.islands
            }


def _static_numbers(groups: list[Group]) -> dict[int, tuple[str, ...]]:
    return {
        assignment.lane: tuple(
            name for name, value in group.rule.static if not isinstance(value, str | bool)
        )
        for group in groups
        for assignment in group.live()
    }


def _run(
    engine: Engine, groups: list[Group], snapshot_due: Callable[[], bool], keep: bool
) -> Iterator[Event]:
    """Trains the scattered lanes, chunk by chunk."""
    live = [assignment for group in groups for assignment in group.live()]
    first = min((assignment.start for assignment in live), default=0)
    chunks = chunks_for(engine, live, first)
    announced: set[int] = set()  # first steps of the chunks that have an event ChunkStarted
    while live:
        # The next chunks are requested before these are used, so that no device waits for another.
        upcoming = chunks_for(engine, live, first + engine.steps)
        due = snapshot_due()
        for group, dispatch in [(g, dispatch) for g in groups for dispatch in g.dispatches]:
            yield from _drain(group, dispatch, announced, keep)
            if due:
                yield from snapshots(dispatch, first)
            try:
                advance(engine, group, dispatch, chunks, first)
            except _PLUG_IN_ERRORS as error:  # raised by its program
                yield from _crash(group, error)
        if not upcoming:
            for group in groups:
                for dispatch in list(group.dispatches):
                    yield from _drain(group, dispatch, announced, keep)
        chunks, first = upcoming, first + engine.steps
        live = [assignment for assignment in live if not assignment.done]


def _drain(group: Group, dispatch: Dispatch, announced: set[int], keep: bool) -> Iterator[Event]:
    """Waits for the dispatch's results and turns them into events."""
    pending = dispatch.take_pending()
    if not pending:
        return
    if pending[0].first not in announced:
        announced.add(pending[0].first)
        yield ChunkStarted(pending[0].first)
    yield Waiting(next(place.lane for place in dispatch.assignments if place))
    params = None  # at which the lanes are measured, once a lane has ended
    for results in pending:
        try:
            losses = np.asarray(results.losses)
            metrics, diagnostics = (
                {name: np.asarray(value) for name, value in values.items()}
                for values in (results.metrics, results.diagnostics)
            )
        except _PLUG_IN_ERRORS as error:  # raised while its program ran
            yield from _crash(group, error)
            return
        for d, place in enumerate(dispatch.assignments):
            if place is None or place.done:
                continue
            for event in _read(place, d, results, losses, metrics, diagnostics):
                if keep and isinstance(event, Finished) and event.status == "ok":
                    # Nothing dispatched after the lane's last step has changed its state.
                    programs = dispatch.island.rules[group.rule]
                    params = params or programs.measured(dispatch.state)
                    own = jax.tree.map(lambda leaf, d=d: to_host(leaf)[d].copy(), params)
                    yield Student(event.lane, own, dispatch.island.layout.one_row)
                yield event


def _read(
    assignment: Assignment,
    place: int,
    results: Pending,
    losses: np.ndarray,
    metrics: dict[str, np.ndarray],
    diagnostics: dict[str, np.ndarray],
) -> Iterator[Event]:
    """The events of one lane, from the results at its place of the dispatch."""
    start, stop = results.start[place], results.stop[place]
    values = losses[place, start - results.first : stop - results.first]
    finite = int(np.argmin(np.append(np.isfinite(values), False)))  # losses before the first other
    if finite:
        yield Losses(assignment.lane, start + 1, values[:finite])
    if finite < len(values):
        step = start + finite + 1
        yield _end(assignment, "diverged", step, f"the loss of step {step} is {values[finite]}")
    elif exam := results.exams[place]:
        point = {name: float(metrics[name][place]) for name in EXAMS[exam]}
        reported = {name: float(value[place]) for name, value in diagnostics.items()}
        if bad := {name: value for name, value in point.items() if not np.isfinite(value)}:
            what = (
                "the parameters are not finite"
                if len(bad) == len(point)
                else " and ".join(f"{name} is {value}" for name, value in bad.items())
            )
            yield _end(assignment, "diverged", stop, f"after step {stop} {what}")
            return
        yield Point(assignment.lane, stop, point, reported)
        if stop == assignment.spec.horizon:
            yield _end(assignment, "ok", stop)


def _end(assignment: Assignment, status: Status, step: int, detail: str | None = None) -> Finished:
    assignment.done = True
    return Finished(assignment.lane, status, step, detail)


def _describe(error: BaseException) -> str:
    if isinstance(error, UserError):  # says all by itself
        return str(error)
    return clip("".join(traceback.format_exception(error)).rstrip())


def _crash(group: Group, error: BaseException) -> Iterator[Finished]:
    """Ends all lanes of the group."""
    detail = _describe(error)
    for assignment in group.live():
        yield _end(assignment, "crashed", 0, detail)
    group.dispatches.clear()
