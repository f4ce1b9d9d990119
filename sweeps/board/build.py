"""Builds the leaderboard from entries: plain data for the terminal, README, web page and JSON."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from distill_bench import __version__
from distill_bench.tasks import catalogue
from sweeps.board import (
    across,
    certificate,
    copies,
    external,
    identity,
    tune_checks,
    verdicts,
    wall_clock,
)
from sweeps.board.entries import BASELINE, FOLDER, Entry
from sweeps.board.rung import describe_gain, describe_rung
from sweeps.board.tune_checks import TuneCheck
from sweeps.board.untrusted import BadFile, not_counted
from sweeps.board.verdicts import Verdict
from sweeps.results import statistics
from sweeps.results.comparison import Comparison, edge_warning
from sweeps.results.summary import Row, row_of
from sweeps.results.validity import HELD_OUT, Run, certify

LONGEST_SOURCE = 40_000  # characters that the page shows
SPECIAL_CASES: dict[str, list[str]] = json.loads((FOLDER / "special_cases.json").read_text())
"""Optimizer -> its special cases: it equals each at some setting, so it should not lose to them."""


@dataclass(frozen=True)
class _TaskEntries:
    """All entries of one task, with their rows compared.

    copies: optimizer -> what it has in common with other entries that it should not.
    """

    task: str
    entries: tuple[Entry, ...]
    comparison: Comparison
    copies: Mapping[str, list[str]]

    def find(self, optimizer: str) -> Entry | None:
        return next((e for e in self.entries if e.study.optimizer == optimizer), None)


def make(
    entries: Sequence[Entry], warnings: Sequence[str] = (), notice: str = ""
) -> dict[str, Any]:
    """The whole leaderboard as JSON data; None stands for unknown or infinite numbers.

    Args:
      entries: entries of any tasks.
      warnings: warnings about files that are not counted. Those about files beside the entries
        are added.
      notice: what every reader should know first; "" for nothing.
    """
    by_task = [
        _task_entries(task, [e for e in entries if e.study.task == task])
        for task in sorted({e.study.task for e in entries})
    ]
    warnings = list(warnings)
    shown = [_entry(entry, of_task, warnings) for of_task in by_task for entry in of_task.entries]
    return _finite(
        {
            "made": {"distill-bench": __version__},
            "notice": notice,
            "baseline": BASELINE,
            "tasks": [_task(of_task) for of_task in by_task],
            "published": [
                found
                for one in by_task
                for found in external.compare(one.task, one.comparison.order(), external.load())
            ],
            "across": across.side_by_side({one.task: one.comparison for one in by_task}),
            "entries": sorted(
                shown,
                key=lambda e: (
                    e["task"],
                    e["overall"]["rank"] or math.inf,
                    -(e["overall"]["value"] or 0),
                    e["optimizer"],
                ),
            ),
            "warnings": warnings,
        }
    )


def _task_entries(task: str, entries: Sequence[Entry]) -> _TaskEntries:
    rows = [row_of(e.study, e.results, h) for e in entries for h in e.horizons]
    return _TaskEntries(task, tuple(entries), Comparison(BASELINE, rows), copies.found(entries))


def _task(of_task: _TaskEntries) -> dict[str, Any]:
    task, comparison = catalogue.get(of_task.task), of_task.comparison
    runs = [
        run
        for entry in of_task.entries
        for run in certificate.final_runs(entry.study.optimizer, entry.results)
    ]
    names = [entry.study.optimizer for entry in of_task.entries]
    ratios = statistics.profile_ratios({name: comparison.speedups(name) for name in names})
    return {
        "name": task.name,
        "fingerprint": task.fingerprint(),
        "ladder": list(task.horizons),
        "rungs": comparison.shared_horizons,
        "law": asdict(law) if (law := comparison.curve and comparison.curve.law) else None,
        "certificate": certificate.as_json(certify(runs)),
        "disagreements": _disagreements(comparison, runs),
        "gap": _gap(comparison),
        "profile": {
            name: {"ratios": values, "score": statistics.profile_score(values)}
            for name, values in ratios.items()
        },
    }


def _gap(comparison: Comparison) -> list[dict[str, float]]:
    """The generalization gap (held-out KL - probe loss) by horizon: mean and largest of entries."""
    found = []
    for h in comparison.horizons:
        gaps = [
            row.mean["heldout_kl"] - row.mean["probe_loss"]
            for row in comparison.rows
            if row.horizon == h and row.mean and row.by_seed
        ]
        if gaps:
            found.append({"horizon": h, "mean": float(np.mean(gaps)), "largest": max(gaps)})
    return found


def _disagreements(comparison: Comparison, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Pairs of entries at a rung that a held-out metric orders the other way than probe loss.

    Pairs that are tied by probe loss do not count.
    """
    of_entry: dict[tuple[str, int], list[Mapping[str, float]]] = {}
    for run in runs:
        of_entry.setdefault((run.optimizer, run.horizon), []).append(run.final)
    found = []
    for h in comparison.horizons:
        ranks = comparison.rung_ranks(h)
        for first, second in combinations(ranks, 2):  # in ascending order of loss
            if ranks[first] == ranks[second]:
                continue
            for metric, less_is_better in HELD_OUT.items():
                a, b = (
                    float(np.mean([final[metric] for final in of_entry[name, h]]))
                    * (1 if less_is_better else -1)
                    for name in (first, second)
                )
                if a > b:
                    found.append(
                        {
                            "horizon": h,
                            "metric": metric,
                            "lower_loss": first,
                            "better_metric": second,
                        }
                    )
    return found


def _beside(entry: Entry, warnings: list[str]) -> tuple[Verdict | None, TuneCheck | None]:
    """The verdict and the check beside an entry; adds a warning for each that is not valid."""
    verdict, check = None, None
    try:
        verdict = verdicts.load(entry)
    except BadFile as error:
        warnings.append(not_counted(verdicts.path_of(entry), error))
    try:
        check = tune_checks.load(entry)
    except BadFile as error:
        warnings.append(not_counted(tune_checks.path_of(entry), error))
    return verdict, check


def _entry(entry: Entry, of_task: _TaskEntries, warnings: list[str]) -> dict[str, Any]:
    study, name, comparison = entry.study, entry.study.optimizer, of_task.comparison
    rungs = [describe_rung(entry, comparison, h) for h in entry.horizons]
    seeds, trials = max(rung["seeds"] for rung in rungs), max(rung["trials"] for rung in rungs)
    verdict, check = _beside(entry, warnings)
    file, text, summary = identity.declaration(entry.declared, entry.sources) or (None, None, None)
    return {
        "task": study.task,
        "optimizer": name,
        "provisional": entry.provisional,
        "spec": entry.spec,
        "source_sha256": study.source_sha256,
        "source": {"file": file, "text": text} if text and len(text) <= LONGEST_SOURCE else None,
        "summary": summary,
        "space": study.space,
        "environment": dict(entry.environment),
        "cost": asdict(entry.cost) | {"relative": entry.cost.relative} if entry.cost else None,
        "verification": asdict(verdict) if verdict else None,
        "tune_check": tune_checks.as_json(check) if check else None,
        "reaches": identity.reaches(entry.spec, entry.sources),
        "warnings": _warnings(entry, of_task),
        "reproduce": [
            *(
                []
                if entry.provisional
                else [f"python sweeps/verify.py leaderboard/{study.task}/{name}.json"]
            ),
            f"python sweeps/run.py --task={study.task} --opt={shlex.quote(entry.spec)} "
            f"--horizons={','.join(map(str, entry.horizons))} --trials={trials} --seeds={seeds}",
        ],
        "overall": describe_gain(comparison.overall(name))
        | {"rungs": entry.horizons, "rank": comparison.ranks().get(name)}
        | {"trend": _trend(comparison, name), "wall_clock": _wall_clock(entry, comparison)},
        "rungs": rungs,
    }


def _trend(comparison: Comparison, name: str) -> dict[str, float] | None:
    """Relative change of the speed-up per doubling of the steps, with its 95 % interval."""
    found = comparison.trend(name)
    if found is None:
        return None
    return {"value": found.value, "low": found.interval[0], "high": found.interval[1]}


def _wall_clock(entry: Entry, comparison: Comparison) -> dict[str, float | None] | None:
    """The overall speed-up divided by the ratio of whole steps' times, here and for the paper's
    networks; None without a measured cost."""
    gain, task = comparison.overall(entry.study.optimizer), catalogue.get(entry.study.task)
    if gain is None or entry.cost is None:
        return None
    return {
        "task": gain.value / wall_clock.per_step(entry.cost, task),
        "paper": gain.value / wall_clock.per_step(entry.cost, task, wall_clock.paper_task()),
    }


def _warnings(entry: Entry, of_task: _TaskEntries) -> list[str]:
    base = of_task.find(BASELINE)
    found = list(of_task.copies.get(entry.study.optimizer, ()))
    at: dict[str, list[str]] = {}  # warning -> horizons at which it holds
    for h in entry.horizons:
        row = of_task.comparison.by_name[entry.study.optimizer, h]
        for warning in _rung_warnings(row, of_task.comparison):
            at.setdefault(warning, []).append(str(h))
    found += [f"at {', '.join(horizons)}: {warning}" for warning, horizons in at.items()]
    if base and any(
        entry.study.versions.get(k) != base.study.versions.get(k)
        for k in ("jax", "optax", "platform")
    ):
        found.append(f"ran on {_versions(entry)}; {BASELINE} ran on {_versions(base)}.")
    return found


def _rung_warnings(row: Row, comparison: Comparison) -> Iterator[str]:
    if edges := edge_warning(row):
        yield edges
    ranks = comparison.rung_ranks(row.horizon)
    for special in SPECIAL_CASES.get(row.opt, ()):
        if row.opt in ranks and special in ranks and ranks[special] < ranks[row.opt]:
            yield (
                f"it is behind its special case {special}; a wider or longer search "
                "would have found a setting at least as good."
            )
    if seeds := comparison.seeds_warning(row):
        yield seeds


def _versions(entry: Entry) -> str:
    return ", ".join(f"{k} {entry.study.versions.get(k)}" for k in ("jax", "optax", "platform"))


def _finite(value: Any) -> Any:
    """The same data with None for numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
