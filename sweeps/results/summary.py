"""Summaries of one optimizer at one horizon: the tuned winner over its final seeds; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from sweeps.planning.sampling import parse_domain
from sweeps.planning.search import key, select
from sweeps.planning.study import TUNING_SEED, Result, Study

METRICS = ("probe_loss", "heldout_kl", "agreement", "accuracy")
RowStatus = Literal["ok", "tuning", "diverged", "crashed", "timeout", "reference"]


def loss(result: Result) -> float:
    """The final probe loss, which tuning minimises; inf for a run that diverged or crashed."""
    return math.inf if result.final is None else result.final["probe_loss"]


def winner(study: Study, results: Sequence[Result], horizon: int) -> Result | None:
    """The tuning trial that is best at this horizon, see `search.select`; None if all failed.

    For an optimizer without anything to tune, any of its runs may win.

    Args:
      study: the study of the results.
      results: runs at this horizon and at others, which tell what to expect at this one.
    """
    tuned = [r for r in results if r.trial.seed == TUNING_SEED]
    if not tuned:
        here = [r for r in results if r.trial.horizon == horizon]
        same = all(r.trial.hparams == here[0].trial.hparams for r in here)
        best = min(here, key=loss, default=None) if same else None
        return best if best and math.isfinite(loss(best)) else None
    space = {name: parse_domain(domain) for name, domain in study.space.items()}
    tried = [(r.trial.horizon, key(r.trial.hparams), loss(r)) for r in tuned]
    chosen = select(space, tried, horizon)
    return next(
        (r for r, one in zip(tuned, tried, strict=True) if one[:2] == (horizon, chosen)), None
    )


def finals(results: Sequence[Result], best: Result) -> list[Result]:
    """Runs of the winner's hyperparameters on fresh seeds, ordered by seed."""
    same = [
        r
        for r in results
        if r.trial.horizon == best.trial.horizon and r.trial.hparams == best.trial.hparams
    ]
    return sorted((r for r in same if r.trial.seed != TUNING_SEED), key=lambda r: r.trial.seed)


@dataclass(frozen=True)
class Row:
    """One optimizer at one horizon: the tuned winner over its final seeds.

    Attributes:
      opt: name of the optimizer.
      task: name of the task.
      horizon: length of the runs in gradient evaluations.
      status: "ok" with final runs, "tuning" without; "reference" for a row of the committed
        baseline; else how the runs failed.
      mean: METRICS averaged over the final seeds; None if a final run failed. Without final runs,
        the probe loss of the best tuning trial, which is measured by nothing else.
      std: their standard deviations (n - 1); None for a single seed.
      seeds: number of final runs.
      trials: number of tuning trials.
      diverged: number of diverged runs, of tuning and final together.
      crashed: number of crashed or timed-out runs, of tuning and final together.
      hparams: the winner's hyperparameters; None if no trial ended well.
      edges: hyperparameters whose best value is at the edge of its range.
      study: id of the study.
      by_seed: seed -> final probe loss of the final runs.
    """

    opt: str
    task: str
    horizon: int
    status: RowStatus
    mean: dict[str, float] | None
    std: dict[str, float] | None
    seeds: int
    trials: int
    diverged: int
    crashed: int
    hparams: dict[str, Any] | None
    edges: tuple[str, ...] = ()
    study: str | None = None
    by_seed: dict[int, float] = field(default_factory=dict)


def row_of(study: Study, results: Sequence[Result], horizon: int) -> Row:
    """Summarizes a study's results at one horizon."""
    here = [r for r in results if r.trial.horizon == horizon]
    tuned = [r for r in here if r.trial.seed == TUNING_SEED]
    counts = {
        status: sum(r.status == status for r in here)
        for status in ("diverged", "crashed", "timeout")
    }
    best = winner(study, results, horizon)
    row = Row(
        opt=study.optimizer,
        task=study.task,
        horizon=horizon,
        status="diverged" if counts["diverged"] else "timeout" if counts["timeout"] else "crashed",
        mean=None,
        std=None,
        seeds=0,
        trials=len(tuned),
        diverged=counts["diverged"],
        crashed=counts["crashed"] + counts["timeout"],
        hparams=best.trial.hparams if best else None,
        study=study.id,
    )
    ran = finals(here, best) if best else []
    good = [r.final for r in ran if r.final]
    if best is None or best.final is None or len(good) < len(ran):
        return row  # a mean over the seeds that survived would reward the failure of the others
    measured = good or [best.final]
    values = {
        name: [final[name] for final in measured]
        for name in METRICS
        if all(name in final for final in measured)
    }
    return replace(
        row,
        status="ok" if good else "tuning",
        mean={name: float(np.mean(v)) for name, v in values.items()},
        std={name: float(np.std(v, ddof=1)) for name, v in values.items()}
        if len(good) > 1
        else None,
        seeds=len(good),
        edges=edges(study, best.trial.hparams),
        by_seed={r.trial.seed: r.final["probe_loss"] for r in ran if r.final},
    )


def edges(study: Study, best: Mapping[str, Any]) -> tuple[str, ...]:
    """Searched hyperparameters whose best value is at the edge of its range.

    For a Log or Uniform domain, that is within a sixteenth of either end (on the domain's scale).
    For three or more values listed with --lr or --set, it is the lowest or highest one.
    """
    found = []
    for name, domain in study.space.items():
        if domain["kind"] != "Choice":
            scale = math.log if domain["kind"] == "Log" else float
            low, high, value = (scale(x) for x in (domain["low"], domain["high"], best[name]))
            if not 1 / 16 <= (value - low) / (high - low) <= 15 / 16:
                found.append(name)
    for name, values in study.fixed.items():
        if (
            isinstance(values, list)
            and len(values) >= 3
            and isinstance(values[0], float)
            and best[name] in (min(values), max(values))
        ):
            found.append(name)
    return tuple(found)


def rows(studies: Sequence[tuple[Study, Sequence[Result]]]) -> list[Row]:
    """All rows, in the order of `sort_key`."""
    made = [
        row_of(study, results, h)
        for study, results in studies
        for h in sorted({r.trial.horizon for r in results})
    ]
    return sorted(made, key=sort_key)


def sort_key(row: Row) -> tuple[str, int, float, str]:
    """Orders rows by task, horizon, loss and name; failures come last at their horizon."""
    return row.task, row.horizon, row.mean["probe_loss"] if row.mean else math.inf, row.opt
