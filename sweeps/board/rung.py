"""One rung of an entry as plain data for the board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from distill_bench.training.exams import CURVE
from sweeps.board import protocol
from sweeps.board.entries import Entry
from sweeps.planning.study import TUNING_SEED, Result
from sweeps.results import statistics
from sweeps.results.comparison import Comparison
from sweeps.results.statistics import Speedup
from sweeps.results.summary import loss


def describe_gain(gain: Speedup | None) -> dict[str, Any]:
    if gain is None:
        return {"value": None, "bound": None, "low": None, "high": None}
    low, high = gain.interval or (None, None)
    return {"value": gain.value, "bound": gain.bound, "low": low, "high": high}


def describe_rung(entry: Entry, comparison: Comparison, horizon: int) -> dict[str, Any]:
    name, row = entry.study.optimizer, comparison.by_name[entry.study.optimizer, horizon]
    here = [result for result in entry.results if result.trial.horizon == horizon]
    tuned = [result for result in here if result.trial.seed == TUNING_SEED]
    final_runs = [result for result in here if result.trial.seed != TUNING_SEED and result.final]
    losses = [loss(result) for result in _spread(entry, horizon)]
    sensitivity = statistics.sensitivity(losses)
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
        "speedup": describe_gain(comparison.speedup(row)),
        "rank": comparison.rung_ranks(horizon).get(name),
        "curve": _curve(entry, final_runs),
        "tried": [
            {"hparams": result.trial.hparams, "status": result.status, "probe_loss": loss(result)}
            for result in tuned
        ],
        "best_after": statistics.best_after(losses),
        "sensitivity": asdict(sensitivity) if sensitivity else None,
    }


def _spread(entry: Entry, horizon: int) -> Sequence[Result]:
    """The trials that are spread over the whole space: they alone show how much the choice matters.

    They open the search, at the shortest horizon; all later ones are where the loss is low. None of
    one's own runs, which may have searched in another way.
    """
    if entry.provisional or not entry.study.space or horizon != entry.horizons[0]:
        return ()
    return protocol.opening(entry.study, entry.results, horizon)


def _curve(entry: Entry, runs: Sequence[Result]) -> dict[str, Any] | None:
    """Curves of the final runs: probe losses at `steps`, training losses at `train_steps`, by seed.

    These probe losses are those of a few probe views, see exams.CURVE_VIEWS.

    None if the runs were measured at different steps.
    """
    trained = [entry.curves[result.trial.horizon, result.trial.seed] for result in runs]
    steps = {tuple(step for step, _ in result.points) for result in runs}
    if len(steps) != 1 or len({steps for steps, _ in trained}) != 1:
        return None
    return {
        "steps": list(steps.pop()),
        "probe_loss": [[values[CURVE] for _, values in result.points] for result in runs],
        "train_steps": list(trained[0][0]),
        "train_loss": [list(losses) for _, losses in trained],
    }
