"""The validity certificate: does a lower probe loss mean a better student on unseen data?

The whole benchmark rests on this, so it is measured on the runs themselves, over all optimizers,
horizons and learning rates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Held-out metric -> whether a lower value is better.
HELD_OUT = {"heldout_kl": True, "agreement": False, "accuracy": False}
MIN_RUNS = 10
_RESAMPLES = 1000


@dataclass(frozen=True)
class Concordance:
    """Kendall's tau-b of probe loss against a held-out metric, signed so that 1 is perfect.

    Attributes:
      metric: name of the held-out metric.
      tau: tau-b over all pairs of runs.
      low, high: 95 % interval of tau: percentiles over resampled runs.
      within: tau-b over pairs at the same horizon, because longer runs are better in every metric;
        None if no such pair is ordered.
      disagree: fraction of pairs that the two order differently, ties not counted.
      runs: number of runs.
    """

    metric: str
    tau: float
    low: float
    high: float
    within: float | None
    disagree: float
    runs: int


def certify(runs: Sequence[tuple[int, Mapping[str, float]]], seed: int = 0) -> list[Concordance]:
    """The concordance of each held-out metric that varies; empty for fewer than MIN_RUNS runs.

    Args:
      runs: (horizon, final metrics) of each run. Runs without held-out metrics do not count:
        tuning trials are measured by their probe loss alone.
      seed: seed of the resampling.
    """
    from scipy.stats import kendalltau

    runs = [(horizon, final) for horizon, final in runs if HELD_OUT.keys() <= final.keys()]
    if len(runs) < MIN_RUNS:
        return []
    horizon = np.array([horizon for horizon, _ in runs])
    loss = np.array([final["probe_loss"] for _, final in runs])
    resampled = np.random.default_rng(seed).integers(len(runs), size=(_RESAMPLES, len(runs)))
    found = []
    for metric, less_is_better in HELD_OUT.items():
        values = np.array([final[metric] for _, final in runs]) * (1 if less_is_better else -1)
        if np.ptp(values) == 0:
            continue
        taus = [kendalltau(loss[i], values[i])[0] for i in resampled]
        low, high = np.nanpercentile(taus, [2.5, 97.5])
        a, b = np.sign(loss[:, None] - loss), np.sign(values[:, None] - values)
        ordered = a * b
        disagree = float((ordered < 0).sum() / max((ordered != 0).sum(), 1))
        within = _tau_b(*(x[horizon[:, None] == horizon] for x in (a, b)))
        found.append(
            Concordance(
                metric,
                float(np.asarray(kendalltau(loss, values))[0]),
                float(low),
                float(high),
                within,
                disagree,
                len(runs),
            )
        )
    return found


def _tau_b(a: np.ndarray, b: np.ndarray) -> float | None:
    """Kendall's tau-b from the signs of all pairwise differences in two rankings.

    None if one of the rankings orders no pair.
    """
    weight = np.sqrt(float((a != 0).sum()) * float((b != 0).sum()))
    return float((a * b).sum() / weight) if weight else None
