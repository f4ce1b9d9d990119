"""The validity certificate: does a lower probe loss mean a better student on data it has not seen?

The whole benchmark rests on it, so it is measured on the runs themselves, whatever optimizers, horizons and learning rates they had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.study import Result

# Held-out metrics, and whether less of them is better.
HELD_OUT = {"heldout_kl": True, "agreement": False, "accuracy": False}
MIN_RUNS = 10
_RESAMPLES = 1000


@dataclass(frozen=True)
class Concordance:
    """Kendall's tau-b of probe loss against a held-out metric, its sign turned so that 1 is perfect.

    low, high: a 95 % interval, the percentiles of tau over resampled runs.
    disagree: the fraction of pairs of runs that the two order differently, ties not counted.
    """

    metric: str
    tau: float
    low: float
    high: float
    disagree: float
    runs: int


def certify(results: Sequence[Result], seed: int = 0) -> list[Concordance]:
    """One concordance for each held-out metric that varies, over all runs that ended well; empty for fewer than ten of them."""
    from scipy.stats import kendalltau

    finals = [result.final for result in results if result.final]
    if len(finals) < MIN_RUNS:
        return []
    loss = np.array([final["probe_loss"] for final in finals])
    resampled = np.random.default_rng(seed).integers(len(finals), size=(_RESAMPLES, len(finals)))
    found = []
    for metric, less_is_better in HELD_OUT.items():
        values = np.array([final[metric] for final in finals]) * (1 if less_is_better else -1)
        if np.ptp(values) == 0:
            continue
        taus = [kendalltau(loss[i], values[i])[0] for i in resampled]
        ordered = np.sign(loss[:, None] - loss) * np.sign(values[:, None] - values)
        low, high = np.nanpercentile(taus, [2.5, 97.5])
        disagree = float((ordered < 0).sum() / max((ordered != 0).sum(), 1))
        found.append(Concordance(metric, float(np.asarray(kendalltau(loss, values))[0]), float(low), float(high), disagree, len(finals)))
    return found
