"""Verifies an entry: looks for contradictions in it, then repeats runs that the verifier drew."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distill_bench.tasks import catalogue
from distill_bench.training.events import Event
from optimizers.contract.api import Optimizer
from sweeps.board import carried, entry_costs
from sweeps.board.consistency import inconsistencies
from sweeps.board.draw import Drawn, Request, draw
from sweeps.board.entries import METRICS, Entry
from sweeps.board.entry_code import installed, is_carried, other_package_files, trusted_file
from sweeps.board.judge import judge
from sweeps.board.reruns import Run
from sweeps.board.run_records import differences
from sweeps.board.train_again import train_again
from sweeps.board.verdicts import Verdict, here
from sweeps.execution.resources import Resources
from sweeps.planning.environment import versions
from sweeps.planning.study import Result


@dataclass(frozen=True)
class Outcome:
    """What came of verifying an entry.

    Attributes:
      verdict: the verdict on these reruns alone.
      drawn: the runs that were rerun; None if nothing was.
      lines: what was compared and found, for the terminal.
      confirms: whether this says anything of the entry. Reruns do, and so do contradictions inside
        it; that the task or the code here are other ones does not.
    """

    verdict: Verdict
    drawn: Drawn | None = None
    lines: tuple[str, ...] = ()
    confirms: bool = True


def verify(
    entry: Entry,
    request: Request,
    trust: bool,
    watch: Callable[[Event, int], None],
    measures_cost: bool = True,
) -> Outcome:
    """Reruns runs of the entry and judges them.

    Args:
      entry: the entry.
      request: what to rerun.
      trust: allow the code that the entry carries to run.
      watch: called with each training event and the total number of steps.
      measures_cost: measure the cost of the update rule as well, if it is built in.

    Raises:
      UserError: if one of the horizons is not in the entry; or if the optimizer is not built in and
        `trust` is false, or its code is missing or fails to import.
    """
    task = catalogue.get(entry.study.task)
    drawn = draw(entry, request)
    if found := inconsistencies(entry):
        return Outcome(_failed(entry, found))
    if entry.study.fingerprint != task.fingerprint():
        found = [f"it ran on another version of the task ({entry.study.fingerprint})"]
        return Outcome(_failed(entry, found), confirms=False)
    if is_carried(entry):
        name = trusted_file(entry, trust)
        if contradictions := other_package_files(entry):
            return Outcome(_failed(entry, contradictions), confirms=False)
        engine = Resources().open_engine(task)
        trials = [result.trial for _, result in _chosen(drawn)]
        with tempfile.TemporaryDirectory() as folder:
            results, found = carried.rerun(engine, entry, name, trials, Path(folder), watch)
        if found:
            return Outcome(_failed(entry, found))
        runs, cost = _compared(entry, drawn, results), None
    else:
        opt, contradictions = installed(entry)
        if contradictions:
            return Outcome(_failed(entry, contradictions), confirms=False)
        runs = rerun(entry, opt, drawn, watch)
        cost = (
            asdict(entry_costs.measured(task.name, opt)) if measures_cost and entry.cost else None
        )
    environment = here()
    judged = judge(entry, runs, cost)
    verdict = Verdict(
        judged.verdict,
        judged.detail,
        entry.sha256,
        environment,
        [asdict(run) for run in runs],
        draws=[{"seed": drawn.seed, "finals": len(drawn.finals), "tuning": len(drawn.tuning)}],
        test=judged.test,
        unverified=list(judged.unverified),
        cost=cost,
    )
    lines = judged.lines if any(run.identical for run in runs) else (*judged.lines, _why(entry))
    return Outcome(verdict, drawn, lines)


def _why(entry: Entry) -> str:
    """Why no rerun has the recorded digits, as far as versions say."""
    then, now = entry.study.versions, versions()
    differ = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if not differ:
        return (
            "No number is identical, though versions and fingerprint are the same: the fingerprint "
            "covers few operations, and another processor can differ in the others."
        )
    changed = (
        f"{name} {then.get(name, 'unknown')}, here {now.get(name, 'none')}" for name in differ
    )
    return f"No number is identical; it was recorded with {'; '.join(changed)}."


def _failed(entry: Entry, reasons: Sequence[str]) -> Verdict:
    return Verdict("failed", "; ".join(reasons), entry.sha256, here(), [])


def rerun(
    entry: Entry, opt: Optimizer, drawn: Drawn, watch: Callable[[Event, int], None]
) -> list[Run]:
    """Trains the drawn runs again: finals as finals, tuning trials as tuning trials."""
    trials = [result.trial for _, result in _chosen(drawn)]
    if not trials:
        return []
    engine = Resources().open_engine(catalogue.get(entry.study.task))
    return _compared(entry, drawn, train_again(engine, opt, trials, watch))


def _chosen(drawn: Drawn) -> list[tuple[int | None, Result]]:
    """All drawn runs, each with its index if it is a tuning trial."""
    return [*((None, result) for result in drawn.finals), *drawn.tuning]


def _compared(entry: Entry, drawn: Drawn, again: Sequence[Result]) -> list[Run]:
    return [
        _run(entry, index, recorded, rerun)
        for (index, recorded), rerun in zip(_chosen(drawn), again, strict=True)
    ]


def _run(entry: Entry, index: int | None, recorded: Result, again: Result) -> Run:
    old, new = recorded.final or {}, again.final or {}
    others = [name for name in METRICS[1:] if index is None and name in old and name in new]
    return Run(
        "tuning" if index is not None else "final",
        recorded.trial.horizon,
        recorded.trial.seed,
        index,
        old.get("probe_loss"),
        new.get("probe_loss"),
        differs=differences(entry, recorded, again),
        metrics={name: (old[name], new[name]) for name in others},
    )
