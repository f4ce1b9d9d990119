"""Summaries of one optimizer at one horizon: the tuned winner over its final seeds; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from sweeps.planning.sampling import parse_domain
from sweeps.planning.search import key, select
from sweeps.planning.study import TUNING_SEED, Result, Study
from sweeps.results import failures

METRICS = ("probe_loss", "heldout_kl", "test_kl", "agreement", "accuracy")
MIN_TRIED = 4  # the best of fewer different values is too often the lowest or highest by chance
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
    try:
        space = {name: parse_domain(domain) for name, domain in study.space.items()}
    except ValueError:
        space = {}  # of a newer version: the lowest loss decides
    tried = [(r.trial.horizon, key(r.trial.hparams), loss(r)) for r in tuned]
    chosen = select(space, tried, horizon)
    return next(
        (r for r, one in zip(tuned, tried, strict=True) if one[:2] == (horizon, chosen)), None
    )


def chosen(results: Sequence[Result], horizon: int) -> Result | None:
    """The winner that final runs have: the trial with the hyperparameters of all of them.

    None if there are no final runs at this horizon, or some with other hyperparameters.
    """
    here = [r for r in results if r.trial.horizon == horizon]
    ran = [r for r in here if r.trial.seed != TUNING_SEED]
    settings = {key(r.trial.hparams) for r in ran}
    if len(settings) != 1:
        return None
    tuned = [r for r in here if r.trial.seed == TUNING_SEED and key(r.trial.hparams) in settings]
    found = next(iter(tuned or ran))
    return found if math.isfinite(loss(found)) else None


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
      edges: hyperparameters whose best value is the lowest or highest that was tried, see `edges`.
      study: id of the study.
      by_seed: seed -> final probe loss of the final runs.
      failure: how the runs failed, such as "diverged 2 of 3 seeds: ..."; None with a result.
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
    failure: str | None = None


def row_of(study: Study, results: Sequence[Result], horizon: int) -> Row:
    """Summarizes a study's results at one horizon."""
    here = [r for r in results if r.trial.horizon == horizon]
    tuned = [r for r in here if r.trial.seed == TUNING_SEED]
    counts = {status: sum(r.status == status for r in here) for status in failures.WORDS}
    best = chosen(results, horizon) or winner(study, results, horizon)
    ran = finals(here, best) if best else []
    good = [r.final for r in ran if r.final]
    # Those that decide whether there is a result: the final runs, unless tuning found no winner.
    decisive = ran if best else tuned or here
    row = Row(
        opt=study.optimizer,
        task=study.task,
        horizon=horizon,
        status=failures.status_of(decisive),
        mean=None,
        std=None,
        seeds=0,
        trials=len(tuned),
        diverged=counts["diverged"],
        crashed=counts["crashed"] + counts["timeout"],
        hparams=best.trial.hparams if best else None,
        study=study.id,
    )
    if best is None or best.final is None or len(good) < len(ran):
        # A mean over the seeds that survived would reward the failure of the others.
        unit = "tuning trials" if tuned and not best else "seeds"
        return replace(row, failure=failures.describe(decisive, unit))
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
        edges=edges(study, results, best),
        by_seed={r.trial.seed: r.final["probe_loss"] for r in ran if r.final},
    )


def edges(study: Study, results: Sequence[Result], best: Result) -> tuple[str, ...]:
    """Hyperparameters whose best value is the lowest or highest that was tried.

    Nothing then shows on which side of it the best value lies, whether the domain goes on there or
    ends. For a searched hyperparameter, the values are those tried up to the best run's horizon,
    because only few trials go on to the later rungs; there must be MIN_TRIED or more different
    ones, so that a Choice of fewer is never at an edge. For values listed with --lr or --set, there
    must be three or more. Values without an order, such as names, have no edge.

    Args:
      study: the study.
      results: its results at all horizons.
      best: the winner at its horizon.
    """
    tried = [
        r.trial.hparams
        for r in results
        if r.trial.seed == TUNING_SEED and r.trial.horizon <= best.trial.horizon
    ]
    wanted = {name: ([hparams.get(name) for hparams in tried], MIN_TRIED) for name in study.space}
    wanted |= {name: (v, 3) for name, v in study.fixed.items() if isinstance(v, list)}
    return tuple(
        name
        for name, (values, enough) in wanted.items()
        if _is_extreme(best.trial.hparams.get(name), values, enough)
    )


def _is_extreme(value: Any, tried: Sequence[Any], enough: int) -> bool:
    """Whether the value is the lowest or highest of `enough` or more different numbers."""
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in (value, *tried)):
        return False
    return len({*tried}) >= enough and value in (min(tried), max(tried))


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
