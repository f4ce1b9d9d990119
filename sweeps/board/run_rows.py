"""The rows of a table of one's own runs: their names, their baseline and what to doubt."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from distill_bench.errors import UserError
from sweeps.board import entries, references, versions
from sweeps.board.entries import BASELINE, Entry
from sweeps.planning.study import Result, Study
from sweeps.results import store
from sweeps.results.comparison import Comparison, edge_warning
from sweeps.results.statistics import Speedup
from sweeps.results.store import Loaded
from sweeps.results.summary import Row, row_of, rows, sort_key

Origin = Literal["", "reference", "earlier run"]


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
      row: the optimizer's summary at one horizon. Its `opt` is BASELINE for the baseline, else
        `name`.
      study: the study that it summarizes.
      name: what the table calls it, see `versions.names_of`.
      origin: "" for a study that was asked for; "earlier run" for the baseline of the same store,
        "reference" for the committed one.
      newest: whether this is the study that ran last, of several with the optimizer's name.
      gain: speed-up over the baseline; None without one.
    """

    row: Row
    study: Study
    name: str
    origin: Origin = ""
    newest: bool = False
    gain: Speedup | None = None

    @property
    def label(self) -> str:
        """What a figure calls it."""
        return f"{self.name} ({self.origin})" if self.origin else self.name


@dataclass(frozen=True)
class RunTable:
    """What a table of one's own runs holds.

    Attributes:
      lines: the rows, by task, horizon and loss.
      notes: the speed-ups over several horizons, and how studies of one name differ.
      warnings: what to doubt.
      overall: name -> speed-up over all horizons together; None without a result.
      results: the runs of every study that has a row, by the study's id.
    """

    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    overall: Mapping[str, Speedup | None] = field(default_factory=dict)
    results: Mapping[str, Sequence[Result]] = field(default_factory=dict)


def earlier_baselines(folders: Sequence[Path]) -> list[Loaded]:
    """The baseline's other studies in the stores that hold these studies' folders.

    Only those that searched its whole space: a baseline with a hyperparameter set on the command
    line is only as good as that guess. A study that cannot be read is left out.
    """
    found = []
    for place in sorted({folder.parent for folder in folders}):
        for path in sorted(place.glob(f"{BASELINE}-*/study.json")):
            try:
                loaded = None if path.parent in folders else store.load_study(path.parent)
            except UserError:
                continue
            if loaded and loaded.study.optimizer == BASELINE and not loaded.study.fixed:
                found.append(loaded)
    return found


def collect(
    studies: Sequence[Loaded],
    horizons: Collection[int] | None = None,
    earlier: Sequence[Loaded] = (),
    reference: Sequence[str] = (),
) -> RunTable:
    """The rows of the studies with their speed-ups, notes and warnings.

    The committed baseline fills in at horizons where neither the studies nor `earlier` have one.

    Args:
      studies: the studies to show.
      horizons: the rungs to show; None for all.
      earlier: the baseline's other studies of the same store, of which the newest may be used.
      reference: names of committed entries to show beside the studies, at the same horizons.

    Raises:
      UserError: if a task of the studies has no entry of that name.
    """
    tasks = sorted({loaded.study.task for loaded in studies})
    committed, warnings = entries.load(names=tasks, only=BASELINE)
    for task in tasks:
        found, more = references.find(task, reference)
        committed += found
        warnings += more
    tables = [
        _of_task(
            [loaded for loaded in studies if _task(loaded.study) == task],
            [loaded for loaded in earlier if _task(loaded.study) == task],
            [
                line
                for entry in committed
                if _task(entry.study) == task
                for line in _committed(entry)
            ],
            horizons,
        )
        for task in sorted({_task(loaded.study) for loaded in studies})
    ]
    damaged = [
        f"{reason}\n{path} is not counted."
        for loaded in studies
        for path, reason in loaded.problems
    ]
    return RunTable(
        tuple(line for table in tables for line in table.lines),
        tuple(note for table in tables for note in table.notes),
        (*warnings, *damaged, *(warning for table in tables for warning in table.warnings)),
        {name: gain for table in tables for name, gain in table.overall.items()},
        {one.study.id: one.results for one in (*committed, *earlier, *studies)},
    )


def _committed(entry: Entry) -> Iterator[Line]:
    """The rows of an entry. Except for the baseline, they do not share a name with own runs."""
    name = entry.study.optimizer
    opt = name if name == BASELINE else f"{name} (reference)"
    for row in rows([(entry.study, entry.results)]):
        yield Line(replace(row, opt=opt, status="reference"), entry.study, name, "reference")


def _task(study: Study) -> tuple[str, str]:
    """Losses of different versions of a task cannot be compared."""
    return study.task, study.fingerprint


def _of_task(
    studies: Sequence[Loaded],
    earlier: Sequence[Loaded],
    committed: Sequence[Line],
    horizons: Collection[int] | None,
) -> RunTable:
    base = _own_baseline(studies) or _earlier_baseline(earlier, studies, horizons)
    names = versions.names_of(loaded.study for loaded in studies)
    newest = versions.newest_of(studies)
    lines = [
        Line(
            replace(row, opt=BASELINE if loaded is base else names[row.study or ""]),
            loaded.study,
            names[loaded.study.id],
            newest=loaded.study.id in newest,
        )
        for loaded in studies
        for row in rows([(loaded.study, loaded.results)])
        if horizons is None or row.horizon in horizons
    ]
    shown = {line.row.horizon for line in lines}
    of_base = rows([(base.study, base.results)]) if base else []
    if base and base not in studies:
        lines += [
            Line(row, base.study, BASELINE, "earlier run")
            for row in of_base
            if row.horizon in shown
        ]
    measured = {row.horizon for row in of_base if row.status == "ok"}
    beside = [x for x in committed if x.name != BASELINE and x.row.horizon in shown]
    reference = [x for x in committed if x.name == BASELINE and x.row.horizon not in measured]
    comparison = Comparison(
        BASELINE,
        [line.row for line in (*lines, *beside)],
        # The baseline's other rungs say how long it takes to losses beyond those shown.
        [
            *(line.row for line in reference),
            *(row for row in of_base if row.horizon in measured - shown),
        ],
    )
    lines += [*beside, *(line for line in reference if line.row.horizon in shown)]
    return RunTable(
        tuple(
            replace(line, gain=comparison.speedup(line.row))
            for line in sorted(lines, key=lambda line: sort_key(line.row))
        ),
        (
            *_overall(comparison),
            *versions.describe(loaded.study for loaded in studies),
            *_absent(committed, beside, shown),
        ),
        tuple(_warnings(lines, comparison)),
        {name: comparison.overall(name) for name in comparison.names},
    )


def _overall(comparison: Comparison) -> Iterator[str]:
    """The speed-ups over several horizons together, in one line; nothing for a single horizon."""
    if len(comparison.shared_horizons) < 2:
        return
    gains = [
        f"{name} {gain}"
        for name in comparison.names
        if name != BASELINE and (gain := comparison.overall(name))
    ]
    if gains:
        yield f"Speed-up over {BASELINE}, all horizons together: {', '.join(gains)}."


def _absent(
    committed: Sequence[Line], beside: Sequence[Line], shown: Collection[int]
) -> Iterator[str]:
    """Which entries that were asked for have none of the rungs, in one line."""
    wanted = {line.name for line in committed} - {BASELINE}
    if absent := sorted(wanted - {line.name for line in beside}):
        rungs = ", ".join(map(str, sorted(shown)))
        yield f"{', '.join(absent)} (reference): without a rung of {rungs} steps."


def _own_baseline(studies: Sequence[Loaded]) -> Loaded | None:
    """The baseline among the studies: one that searched its whole space, and the newest of them."""
    own = [loaded for loaded in studies if loaded.study.optimizer == BASELINE]
    return max(own, key=lambda x: (not x.study.fixed, versions.last_written(x)), default=None)


def _earlier_baseline(
    earlier: Sequence[Loaded], studies: Sequence[Loaded], horizons: Collection[int] | None
) -> Loaded | None:
    """The baseline among earlier studies: the newest that has a result at a rung of the table.

    One that ran with the same versions of the packages goes before others.
    """
    wanted = {result.trial.horizon for loaded in studies for result in loaded.results}
    wanted = wanted if horizons is None else wanted & set(horizons)
    used = [loaded.study.versions for loaded in studies]
    able = [x for x in earlier if any(row_of(x.study, x.results, h).status == "ok" for h in wanted)]
    return max(
        able,
        key=lambda x: (x.study.versions in used, versions.last_written(x)),
        default=None,
    )


def _warnings(lines: Sequence[Line], comparison: Comparison) -> Iterator[str]:
    """Each warning once, with the horizons at which it holds."""
    bases = {line.row.horizon: line.row for line in lines if line.row.opt == BASELINE}
    at: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if line.origin != "reference":
            for warning in _of_line(line, bases.get(line.row.horizon), comparison):
                at.setdefault((line.name, warning), []).append(str(line.row.horizon))
    for (name, warning), horizons in at.items():
        yield f"{name} at {', '.join(horizons)}: {warning}"
    if unfinished := [f"{x.name} at {x.row.horizon}" for x in lines if x.row.status == "tuning"]:
        yield (
            "No final runs on fresh seeds yet, so selection makes these losses look too low: "
            f"{', '.join(unfinished)}."
        )


def _of_line(line: Line, base: Row | None, comparison: Comparison) -> Iterator[str]:
    if edges := edge_warning(line.row):
        yield edges
    if base and line.row.trials > base.trials:
        yield f"it had {line.row.trials} tuning trials, {BASELINE} only {base.trials}."
    if seeds := comparison.seeds_warning(line.row):
        yield seeds
