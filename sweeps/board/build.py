"""Entries -> the leaderboard, as plain data: what the terminal, README, the web page and JSON all show."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from distill_bench import __version__
from distill_bench.tasks import catalogue
from sweeps.board import verdicts
from sweeps.board.entries import BASELINE, FOLDER, Entry
from sweeps.planning.study import TUNING_SEED, Result
from sweeps.results import statistics
from sweeps.results.statistics import Speedup
from sweeps.results.summary import Row, loss, row_of
from sweeps.results.validity import HELD_OUT, Concordance, certify

SPECIAL_CASES: dict[str, list[str]] = json.loads((FOLDER / "special_cases.json").read_text())
"""optimizer -> those that it becomes at some setting of its hyperparameters, and so should never lose to."""


@dataclass(frozen=True)
class _Field:
    """All entries of one task, with their rows by horizon."""

    task: str
    entries: tuple[Entry, ...]
    rows: Mapping[tuple[str, int], Row]

    @property
    def horizons(self) -> list[int]:
        return sorted({horizon for _, horizon in self.rows})

    @property
    def shared(self) -> list[int]:
        """Rungs on which entries are compared as a whole: those that all have, but the baseline's longest, above which nothing can be measured."""
        longest = max((h for opt, h in self.rows if opt == BASELINE), default=0)
        return [
            h
            for h in self.horizons
            if h != longest and all((e.study.optimizer, h) in self.rows for e in self.entries)
        ]

    @property
    def baseline(self) -> dict[int, float]:
        return {
            h: row.mean["probe_loss"]
            for (opt, h), row in self.rows.items()
            if opt == BASELINE and row.mean
        }

    @property
    def baseline_seeds(self) -> dict[int, dict[int, float]]:
        curves: dict[int, dict[int, float]] = {}
        for (opt, h), row in self.rows.items():
            for seed, value in row.by_seed.items() if opt == BASELINE else ():
                curves.setdefault(seed, {})[h] = value
        return curves

    def speedup(self, opt: str, horizon: int) -> Speedup | None:
        """The entry's at this rung, with its interval; None where it has no result there, or there is no baseline."""
        row = self.rows.get((opt, horizon))
        if row is None or row.mean is None:
            return None
        seeds = row.by_seed if opt != BASELINE else {}  # its own interval would be [1, 1]
        return statistics.with_interval(
            row.mean["probe_loss"], seeds, horizon, self.baseline, self.baseline_seeds
        )

    def overall(self, opt: str) -> Speedup | None:
        """The geometric mean over the shared rungs; None where one of them has no result."""
        gains = [self.speedup(opt, h) for h in self.shared]
        curves = self.baseline_seeds
        logs = [
            statistics.paired_logs(self.rows[opt, h].by_seed, h, curves)
            for h in self.shared
            if opt != BASELINE
        ]
        return (
            None
            if None in gains
            else statistics.geometric_mean([gain for gain in gains if gain], logs)
        )

    def ranks(self, horizons: Sequence[int]) -> dict[str, int]:
        """Ranks by mean log loss over these rungs, ties sharing one; entries without a result on each of them have none."""
        logs: dict[str, dict[int, float]] = {}
        for entry in self.entries:
            name = entry.study.optimizer
            rungs = [self.rows[name, h].by_seed if (name, h) in self.rows else {} for h in horizons]
            if rungs and all(rungs):
                common = set.intersection(*(set(rung) for rung in rungs))
                logs[name] = {
                    seed: float(np.mean([math.log(rung[seed]) for rung in rungs]))
                    for seed in sorted(common)
                }
        ordered = sorted(
            (name for name in logs if logs[name]),
            key=lambda name: (np.mean(list(logs[name].values())), name),
        )
        return dict(
            zip(ordered, statistics.tie_groups([logs[name] for name in ordered]), strict=True)
        )


def make(entries: Sequence[Entry], warnings: Sequence[str] = ()) -> dict[str, Any]:
    """The whole board. Everything in it is finite: None stands for what is not known, or infinite."""
    fields = [
        _field(task, [e for e in entries if e.study.task == task])
        for task in sorted({e.study.task for e in entries})
    ]
    shown = [_entry(entry, field) for field in fields for entry in field.entries]
    return _finite(
        {
            "made": {"distill-bench": __version__},
            "baseline": BASELINE,
            "tasks": [_task(field) for field in fields],
            "entries": sorted(
                shown,
                key=lambda e: (
                    e["task"],
                    e["overall"]["rank"] or math.inf,
                    -(e["overall"]["value"] or 0),
                    e["optimizer"],
                ),
            ),
            "warnings": list(warnings),
        }
    )


def _field(task: str, entries: Sequence[Entry]) -> _Field:
    rows = {
        (e.study.optimizer, h): row_of(e.study, e.results, h) for e in entries for h in e.horizons
    }
    return _Field(task, tuple(entries), rows)


def _task(field: _Field) -> dict[str, Any]:
    task = catalogue.get(field.task)
    runs = [
        (result.trial.horizon, result.final)
        for entry in field.entries
        for result in entry.results
        if result.final
    ]
    ratios = statistics.profile_ratios(
        {
            e.study.optimizer: [field.speedup(e.study.optimizer, h) for h in field.shared]
            for e in field.entries
        }
    )
    return {
        "name": task.name,
        "fingerprint": task.fingerprint(),
        "ladder": list(task.horizons),
        "overall_rungs": field.shared,
        "certificate": [_certified("runs", c) for c in certify(runs)]
        + [_certified("entries", c) for c in certify(_means(field))],
        "disagreements": _disagreements(field),
        "gap": _gap(field),
        "profile": {
            name: {"ratios": values, "score": statistics.profile_score(values)}
            for name, values in ratios.items()
        },
    }


def _certified(over: str, found: Concordance) -> dict[str, Any]:
    return {"over": over, **asdict(found)}


def _means(field: _Field) -> list[tuple[int, dict[str, float]]]:
    """Each entry's mean metrics at each rung."""
    return [(row.horizon, row.mean) for row in field.rows.values() if row.mean]


def _gap(field: _Field) -> list[dict[str, float]]:
    """The generalization gap along the horizon: held-out KL less probe loss, its mean and its largest over entries."""
    found = []
    for h in field.horizons:
        gaps = [
            row.mean["heldout_kl"] - row.mean["probe_loss"]
            for (_, at), row in field.rows.items()
            if at == h and row.mean
        ]
        found += (
            [{"horizon": h, "mean": float(np.mean(gaps)), "largest": max(gaps)}] if gaps else []
        )
    return found


def _disagreements(field: _Field) -> list[dict[str, Any]]:
    """Pairs of entries at one rung that are told apart by probe loss and ordered the other way by a held-out metric."""
    found = []
    for h in field.horizons:
        ranks = field.ranks([h])
        for first, second in combinations(ranks, 2):  # in the order of their losses
            for metric, less_is_better in HELD_OUT.items() if ranks[first] != ranks[second] else ():
                a, b = (
                    (field.rows[name, h].mean or {})[metric] * (1 if less_is_better else -1)
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


def _entry(entry: Entry, field: _Field) -> dict[str, Any]:
    study, name = entry.study, entry.study.optimizer
    rungs = [_rung(entry, field, h) for h in entry.horizons]
    seeds, trials = max(rung["seeds"] for rung in rungs), max(rung["trials"] for rung in rungs)
    verdict = verdicts.of(entry)
    return {
        "task": study.task,
        "optimizer": name,
        "spec": entry.spec,
        "source_sha256": study.source_sha256,
        "space": study.space,
        "environment": dict(entry.environment),
        "cost": asdict(entry.cost) if entry.cost else None,
        "verification": asdict(verdict) if verdict else None,
        "warnings": _warnings(entry, field),
        "reproduce": [
            f"python sweeps/verify.py leaderboard/{study.task}/{name}.json",
            f"python sweeps/run.py --task={study.task} --opt={shlex.quote(entry.spec)} "
            f"--horizons={','.join(map(str, entry.horizons))} --trials={trials} --seeds={seeds}",
        ],
        "overall": _gain(field.overall(name))
        | {"rungs": field.shared, "rank": field.ranks(field.shared).get(name)},
        "rungs": rungs,
    }


def _gain(gain: Speedup | None) -> dict[str, Any]:
    if gain is None:
        return {"value": None, "bound": None, "low": None, "high": None}
    low, high = gain.interval or (None, None)
    return {"value": gain.value, "bound": gain.bound, "low": low, "high": high}


def _rung(entry: Entry, field: _Field, horizon: int) -> dict[str, Any]:
    name, row = entry.study.optimizer, field.rows[entry.study.optimizer, horizon]
    here = [result for result in entry.results if result.trial.horizon == horizon]
    tuned = [result for result in here if result.trial.seed == TUNING_SEED]
    ended = [loss(result) for result in tuned]
    sensitive = statistics.sensitivity(ended)
    return {
        "horizon": horizon,
        "mean": row.mean,
        "std": row.std,
        "seeds": row.seeds,
        "trials": row.trials,
        "diverged": row.diverged,
        "crashed": row.crashed,
        "hparams": row.hparams,
        "edges": list(row.edges),
        "speedup": _gain(field.speedup(name, horizon)),
        "rank": field.ranks([horizon]).get(name),
        "curve": _curve(
            entry, [result for result in here if result.trial.seed != TUNING_SEED and result.final]
        ),
        "tried": [
            {"hparams": result.trial.hparams, "status": result.status, "probe_loss": loss(result)}
            for result in tuned
        ],
        "best_after": statistics.best_after(ended),
        "sensitivity": asdict(sensitive) if sensitive else None,
    }


def _curve(entry: Entry, runs: Sequence[Result]) -> dict[str, Any] | None:
    """Final runs along their steps, a list for each seed: metrics at `steps`, training losses at `train_steps`; None where they differ in these."""
    trained = [entry.curves[result.trial.horizon, result.trial.seed] for result in runs]
    steps = {tuple(step for step, _ in result.points) for result in runs}
    if len(steps) != 1 or len({steps for steps, _ in trained}) != 1:
        return None
    metrics = {
        name: [[values[name] for _, values in result.points] for result in runs]
        for name in ("probe_loss", "heldout_kl")
    }
    return {
        "steps": list(steps.pop()),
        **metrics,
        "train_steps": list(trained[0][0]),
        "train_loss": [list(losses) for _, losses in trained],
    }


def _warnings(entry: Entry, field: _Field) -> list[str]:
    name = entry.study.optimizer
    base = next((e for e in field.entries if e.study.optimizer == BASELINE), None)
    told: dict[str, list[str]] = {}  # what is wrong -> where

    def tell(horizon: int, text: str) -> None:
        told.setdefault(text, []).append(str(horizon))

    for h in entry.horizons:
        row = field.rows[name, h]
        if row.edges:
            tell(
                h,
                f"the best {' and '.join(row.edges)} lies at an edge of its range; a wider one may hold a better.",
            )
        if base and h in base.horizons and row.trials > field.rows[BASELINE, h].trials:
            tell(
                h,
                f"tuned with {row.trials} trials, {BASELINE} with {field.rows[BASELINE, h].trials}.",
            )
        ranks = field.ranks([h])
        for special in SPECIAL_CASES.get(name, ()):
            if name in ranks and special in ranks and ranks[special] < ranks[name]:
                tell(
                    h,
                    f"behind {special}, which it contains as a special case: a wider or longer search would have found it.",
                )
        if name != BASELINE and (
            needed := statistics.seeds_wanted(row.by_seed, h, field.baseline_seeds)
        ):
            tell(h, f"{row.seeds} seeds do not tell it from {BASELINE}; {needed} would.")
    found = [f"at {', '.join(horizons)}: {text}" for text, horizons in told.items()]
    if base and any(
        entry.study.versions.get(k) != base.study.versions.get(k)
        for k in ("jax", "optax", "platform")
    ):
        found.append(f"ran on {_versions(entry)}, {BASELINE} on {_versions(base)}.")
    return found


def _versions(entry: Entry) -> str:
    return ", ".join(f"{k} {entry.study.versions.get(k)}" for k in ("jax", "optax", "platform"))


def _finite(value: Any) -> Any:
    """The same with None for numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
