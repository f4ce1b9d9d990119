"""Lanes assigned to devices, and sent through the chunks of their streams.

A lane's place in a dispatch is its assignment. A dispatch is the lanes of one update rule that
one program run trains, `LaneLayout.width` on each row of devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import numpy as np

from distill_bench.training.engine import Engine, Island, SharedChunk
from distill_bench.training.evaluate import exam_batches
from distill_bench.training.events import Snapshot
from distill_bench.training.exams import Exam
from distill_bench.training.lane_layout import LaneLayout
from distill_bench.training.lane_state import Saved
from distill_bench.training.lanes import LaneState, Traced, on_host, restore, traced_values
from distill_bench.training.program import Program
from distill_bench.training.rules import Lane, RuleSpec
from distill_bench.training.stream import SCATTERED, Chunk


@dataclass
class Assignment:
    """A lane's place in a dispatch.

    Attributes:
      lane: its index among the lanes of `train`.
      spec: the lane.
      exams: the steps after which it is measured, each with its exam.
      start: the step from which it is resumed.
      done: whether it has ended.
    """

    lane: int
    spec: Lane
    exams: dict[int, Exam]
    start: int = 0
    done: bool = False

    def active(self, first: int, last: int) -> bool:
        """Whether any step after `first`, up to `last`, remains to be trained."""
        return not self.done and self.start < last and self.spec.horizon > first


@dataclass(frozen=True)
class Pending:
    """Results that the devices are computing, for the places of a dispatch.

    Attributes:
      first: the chunk starts after this step.
      start, stop: each place runs the steps after `start`, up to `stop`.
      exams: how each place is measured at `stop`; None if it is not.
      losses: [D, C].
      metrics, diagnostics: [D] each, of the places that are measured.
    """

    first: int
    start: list[int]
    stop: list[int]
    exams: list[Exam | None]
    losses: jax.Array
    metrics: dict[str, jax.Array]
    diagnostics: dict[str, jax.Array]


@dataclass
class Dispatch:
    """The lanes of one dispatch.

    Attributes:
      island: the devices that train them.
      assignments: in the order of the layout; None for places without a lane.
    """

    island: Island
    assignments: list[Assignment | None]
    traced: dict[str, jax.Array]
    state: LaneState
    pending: list[Pending] = field(default_factory=list)

    def take_pending(self) -> list[Pending]:
        pending, self.pending = self.pending, []
        return pending


@dataclass
class Group:
    """All lanes of one update rule. They share a program, and end together if their plug-in raises.

    Attributes:
      traced: names of the values that are arguments of the program.
      diagnose: see diagnose.make_diagnose, for each island's layout; empty if no diagnostics are
        wanted.
    """

    rule: RuleSpec
    traced: frozenset[str]
    assignments: list[Assignment]
    dispatches: list[Dispatch] = field(default_factory=list)
    diagnose: dict[LaneLayout, Program] = field(default_factory=dict)

    def live(self) -> list[Assignment]:
        return [assignment for assignment in self.assignments if not assignment.done]


def scatter(
    engine: Engine, group: Group, resume: Mapping[int, Saved], loads: list[int]
) -> dict[int, str]:
    """Assigns the group's lanes to the devices and makes the first state of each dispatch.

    Returns, by lane, why saved states do not fit; these lanes start from their beginning.

    loads: the steps that each island has to do; those of the group are added.
    """
    refused: dict[int, str] = {}
    layout = engine.layout
    for assignment in group.assignments:
        assignment.start = resume[assignment.lane].step if assignment.lane in resume else 0
    rows = _rows_of_one_seed(group.assignments, layout.width)
    for first_row in range(0, len(rows), layout.rows):
        filled = rows[first_row : first_row + layout.rows]
        filled += [[None] * layout.width] * (layout.rows - len(filled))
        places = [place for row in filled for place in row]
        # A place without a lane trains a copy of the first one for no steps.
        lanes = [(place or group.assignments[0]).spec for place in places]
        i = loads.index(min(loads))
        island = engine.islands[i]
        traced = traced_values(island.source, lanes, group.traced)
        seeds = island.layout.spread([np.int32(lane.seed) for lane in lanes])
        params = island.students(seeds, island.source.start)
        state = island.rules[group.rule].init(traced, params)
        saved = [resume.get(place.lane) if place else None for place in places]
        state, unfit = restore(state, saved) if any(saved) else (state, {})
        for d, why in unfit.items():
            if place := places[d]:
                place.start = 0
                refused[place.lane] = why
        loads[i] += sum(place.spec.horizon - place.start for place in places if place)
        group.dispatches.append(Dispatch(island, places, traced, state))
    return refused


def _rows_of_one_seed(assignments: list[Assignment], width: int) -> list[list[Assignment | None]]:
    """For each row of devices, `width` lanes of one seed; long horizons first."""
    rows: list[list[Assignment | None]] = []
    for seed in dict.fromkeys(assignment.spec.seed for assignment in assignments):
        same_seed = [assignment for assignment in assignments if assignment.spec.seed == seed]
        for i in range(0, len(same_seed), width):
            row = same_seed[i : i + width]
            rows.append([*row, *[None] * (width - len(row))])
    return sorted(rows, key=lambda row: -max(place.spec.horizon for place in row if place))


def chunks_for(engine: Engine, live: list[Assignment], first: int) -> dict[int, SharedChunk]:
    """The chunk that starts after step `first`, for every seed that needs it."""
    last: dict[int, int] = {}  # the last step that a seed's lanes need
    for assignment in live:
        if assignment.active(first, first + engine.steps):
            seed, horizon = assignment.spec.seed, assignment.spec.horizon
            last[seed] = max(last.get(seed, 0), horizon)
    return {seed: engine.chunk(seed, first, last[seed]) for seed in sorted(last)}


def advance(
    engine: Engine, group: Group, dispatch: Dispatch, chunks: dict[int, SharedChunk], first: int
) -> None:
    """Sends a dispatch through one chunk, without waiting for results.

    It pauses after steps at which a lane is measured.
    """
    last = first + engine.steps
    active = [
        place if place and place.active(first, last) else None for place in dispatch.assignments
    ]
    if not any(active):
        return
    island = dispatch.island
    programs = island.rules[group.rule]
    chunk = _scattered(island.layout, active, chunks)
    begins = [max(first, place.start) if place else first for place in active]
    ends = [min(last, place.spec.horizon) if place else first for place in active]
    for pause in _pauses(active, begins, max(ends)):
        stops = [max(begin, min(pause, end)) for begin, end in zip(begins, ends, strict=True)]
        bounds = [
            island.layout.spread([np.int32(step - first) for step in steps])
            for steps in (begins, stops)
        ]
        dispatch.state, losses = programs.advance(dispatch.state, dispatch.traced, *bounds, chunk)
        exams: list[Exam | None] = [
            place.exams.get(pause) if place and begin < pause else None
            for place, begin in zip(active, begins, strict=True)
        ]
        measured = _measure(island, group, dispatch.state, dispatch.traced, exams)
        dispatch.pending.append(Pending(first, begins, stops, exams, losses, *measured))
        begins = stops


def _scattered(
    layout: LaneLayout, active: list[Assignment | None], chunks: dict[int, SharedChunk]
) -> Chunk:
    """Each row's chunk, that of its lanes' seed."""
    seeds = [place.spec.seed for place in active if place]
    rows = [active[i : i + layout.width] for i in range(0, len(active), layout.width)]
    of_rows = [next((place.spec.seed for place in row if place), seeds[0]) for row in rows]
    return layout.scatter([chunks[seed].on(layout) for seed in of_rows], SCATTERED)


def _pauses(active: list[Assignment | None], begins: list[int], last: int) -> list[int]:
    """The steps after which a lane is measured, and the last step."""
    steps = {last}
    for place, begin in zip(active, begins, strict=True):
        if place:
            steps |= {step for step in place.exams if begin < step <= last}
    return sorted(steps)


def _measure(
    island: Island, group: Group, state: LaneState, traced: Traced, exams: list[Exam | None]
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The metrics and diagnostics of the places that are measured; none if no place is."""
    if not any(exams):
        return {}, {}
    batches = island.layout.spread(
        [np.int32(exam_batches(island.source, exam) if exam else 0) for exam in exams]
    )
    params = island.rules[group.rule].measured(state)
    metrics = island.evaluate(batches, params, island.eval_set)
    diagnose = group.diagnose.get(island.layout)
    return metrics, diagnose(state, traced, island.eval_set) if diagnose else {}


def snapshots(dispatch: Dispatch, step: int) -> list[Snapshot]:
    """The states, after `step` steps, of the dispatch's lanes that have begun and not ended."""
    running = {
        d: place
        for d, place in enumerate(dispatch.assignments)
        if place and not place.done and place.start < step
    }
    states = on_host(dispatch.state, list(running))
    return [Snapshot(running[d].lane, Saved(step, leaves)) for d, leaves in states.items()]
