"""Estimates how long the rest of a plan takes on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distill_bench.machine import core_count
from distill_bench.training.lane_layout import LaneLayout
from sweeps.planning import assumed, costs, trial_run, workload
from sweeps.planning.costs import Costs, RuleCost, Seconds
from sweeps.planning.duration import duration
from sweeps.planning.plan import Candidate, Job, Plan
from sweeps.planning.workload import STEP, STREAM, VIEW

# A sweep imports jax in two processes and prints tables: its time over that of planning.
START_FACTOR = 2.6
# Fractions of the time that the cache of compiled programs saves: of opening, of a rule.
OPENING_SAVED, RULE_SAVED = 0.7, 0.85
MOST_MEASURED = 3  # rules that a dry run trains; if more are new, it trains only the first
NEW_RULE = 1.2  # a rule that has not run here, over the cheapest that has


@dataclass(frozen=True)
class Estimate:
    """Seconds of each part of the sweep, and what they rest on, in words."""

    parts: dict[str, float]
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())

    def describe(self) -> str:
        parts = ", ".join(
            f"{name} {duration(part)}" for name, part in self.parts.items() if part >= 0.5
        )
        return "\n".join([f"about {duration(self.seconds)} on this machine: {parts}", *self.notes])


def estimate(
    plan: Plan,
    tuning: Sequence[Job],
    finals: Sequence[Job],
    layouts: Sequence[LaneLayout],
    cache: str | None,
    planning: float,
    say: Callable[[str], None],
) -> Estimate:
    """Estimates these runs of the plan, of which there is at least one.

    Costs come from the cache; those of a few new rules are measured by a short training if that is
    cheap (see trial_run.py); others are assumed. The notes say so.

    Args:
      tuning, finals: the runs that are left.
      cache: folder of compiled programs and of costs; None for none.
      planning: seconds that it took to import jax and make the plan.
      say: called with a line before something takes more than a moment.
    """
    jobs = [*tuning, *finals]
    candidates = list({job[0].study.id: job[0] for job in jobs}.values())
    known, notes = _costs(plan, candidates, layouts, cache, say)
    rules = {
        candidate.optimizer.name: known.rules[workload.rule_id(candidate)]
        for candidate in candidates
    }
    rungs = [
        workload.work(plan.task, layouts[0], [job for job in tuning if job[1].horizon == horizon])
        for horizon in sorted({trial.horizon for _, trial in tuning})
    ]
    last = workload.work(plan.task, layouts[0], finals)
    programs = frozenset().union(*(phase.programs for phase in [*rungs, last]))
    compiling = sum(
        rules[name].compilation.expected(bool(cache), RULE_SAVED) for name, _ in programs
    )

    def training(phase: workload.Work) -> float:
        return sum(
            rules[name].step * own[STEP] + known.stream * own[STREAM] + known.view * own[VIEW]
            for name, own in phase.units.items()
        )

    parts = {
        "starting": START_FACTOR * planning,
        "opening the task": known.opening.expected(bool(cache), OPENING_SAVED),
        "compiling": compiling / min(len(programs), core_count()),
        "tuning": sum(map(training, rungs)),
        "finals": training(last),
    }
    return Estimate(parts, tuple(notes))


def _costs(
    plan: Plan,
    candidates: Sequence[Candidate],
    layouts: Sequence[LaneLayout],
    cache: str | None,
    say: Callable[[str], None],
) -> tuple[Costs, list[str]]:
    """Costs that include a cost of every candidate, and what they rest on."""
    known, notes = costs.read(cache, costs.setting(plan.task, layouts)), []
    if not _new(known, candidates):
        notes.append("costs as measured when these optimizers ran here before")
    elif trial_run.is_cheap(plan.task):
        measured = _to_measure(known, candidates)
        names = ", ".join(candidate.optimizer.name for candidate in measured)
        if measured:
            say(f"Measuring {names} in a short training ...")
            known = trial_run.measure(plan.task, layouts, measured, cache)
            notes.append(f"measured now, in a short training: {names}")
    if not known or not known.rules:
        known, fresh, assumptions = assumed.assume(plan.task, layouts)
        notes += assumptions
    elif new := _new(known, candidates):
        name, cheapest = min(known.rules.items(), key=lambda item: item[1].step)
        first = cheapest.compilation.expected(False, RULE_SAVED)
        fresh = RuleCost(NEW_RULE * cheapest.step, Seconds(first, first))
        notes.append(
            f"{len(new)} update rule{'s have' if len(new) > 1 else ' has'} not run here yet: "
            f"assumed to take {NEW_RULE:g} times as long as {name.split()[0]}"
        )
    else:
        return known, notes
    rules = {workload.rule_id(candidate): fresh for candidate in candidates}
    return replace(known, rules=rules | dict(known.rules)), notes


def _new(known: Costs | None, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates whose cost is not known."""
    rules = known.rules if known else {}
    return [candidate for candidate in candidates if workload.rule_id(candidate) not in rules]


def _to_measure(known: Costs | None, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The new candidates if they are few, else one if no other is known."""
    new = _new(known, candidates)
    if len(new) <= MOST_MEASURED:
        return new
    return [] if known and known.rules else new[:1]


def _domain(domain: dict[str, Any]) -> str:
    values = domain.get("values") or [domain["low"], domain["high"]]
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return f"{domain['kind']}({', '.join(texts)})"


def describe(plan: Plan) -> str:
    """The whole plan in words."""
    lines = [f"task {plan.task.name}, fingerprint {plan.task.fingerprint()}"]
    for candidate in plan.candidates:
        searched = (
            ", ".join(
                f"{name} in {_domain(domain)}" for name, domain in candidate.study.space.items()
            )
            or "nothing to search"
        )
        fixed = "".join(f", {name} = {value}" for name, value in candidate.study.fixed.items())
        lines.append(f"{candidate.optimizer.name}: {searched}{fixed}")
    rungs = ", ".join(map(str, plan.horizons))
    lines.append(
        f"horizons {rungs}: {_tuning(plan)} tuning runs{_counts(plan)}, "
        f"then {_finals(plan)} final runs on {plan.seeds} fresh seeds"
    )
    return "\n".join(lines)


def _counts(plan: Plan) -> str:
    """The number of trials at each horizon, if it is the same for all optimizers that are tuned."""
    found = {tuple(c.search.counts().values()) for c in plan.candidates if c.search.needs_tuning}
    return f" ({', '.join(map(str, found.pop()))} for each optimizer)" if len(found) == 1 else ""


def _tuning(plan: Plan) -> int:
    return sum(stage.count for candidate in plan.candidates for stage in candidate.search.stages)


def _finals(plan: Plan) -> int:
    return len(plan.candidates) * len(plan.horizons) * plan.seeds


def describe_rest(plan: Plan, tuning: Sequence[Job], finals: Sequence[Job], outdir: str) -> str:
    """One line on what is left to run; empty if everything is."""
    if not tuning and not finals:
        return f"nothing left to run: {outdir} holds the results"
    if (len(tuning), len(finals)) == (_tuning(plan), _finals(plan)):
        return ""
    return f"left to run: {len(tuning)} tuning runs and {len(finals)} final runs"
