"""The validity certificate: does a lower probe loss mean a better student on unseen data?

The whole benchmark rests on this, so it is measured on the final runs themselves, where it is hard:
between runs of different optimizers at one horizon that are close to the best. Over all horizons
and all losses every metric follows the loss, which says little about the order on a board.

What is certified is the KL divergence on clean test images. Held-out KL is the probe loss measured
on other images, so it is a replicate: it shows that the measurement repeats, and tests nothing
else. Agreement and accuracy are reported beside how well they repeat themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sweeps.results import halves
from sweeps.results.rank_correlation import ordered_alike, signs, tau_b

# Held-out metric -> whether a lower value is better.
HELD_OUT = {"test_kl": True, "heldout_kl": True, "agreement": False, "accuracy": False}
CERTIFIED, REPLICATE = "test_kl", "heldout_kl"
NEAR = 1.25  # a run is near the best if its loss is at most this many times its rung's lowest
MIN_PAIRS = 10
MIN_OPTIMIZERS = 4  # with three, the interval covers too little, see `_interval`
_RESAMPLES = 2000


@dataclass(frozen=True)
class Run:
    """A final run that ended well.

    Attributes:
      optimizer: name of the optimizer.
      horizon: its length in gradient evaluations.
      seed: its random seed.
      final: its final metrics.
    """

    optimizer: str
    horizon: int
    seed: int
    final: Mapping[str, float]


@dataclass(frozen=True)
class Concordance:
    """How alike probe loss and a held-out metric order what is near the best; 1 is perfect.

    Attributes:
      metric: name of the held-out metric.
      role: "test" (what is certified), "replicate" (the same kind of measurement on other images)
        or "reported".
      tau: Kendall's tau-b over pairs of runs of different optimizers at one horizon.
      low, high: 95 % interval of `tau` for other optimizers and other seeds.
      alike: share of the pairs that both order alike; ties do not count.
      between_halves: tau-b over pairs of entries, with the probe loss averaged over one half of the
        seeds and the metric over the other half; None with fewer than two seeds.
      reliability: the same, with the metric averaged over both halves: how well it repeats itself.
      ceiling: what `between_halves` would be if both metrics measured the same, each with its own
        seed noise; None if one of them does not repeat itself at all.
    """

    metric: str
    role: Literal["test", "replicate", "reported"]
    tau: float
    low: float
    high: float
    alike: float
    between_halves: float | None = None
    reliability: float | None = None
    ceiling: float | None = None


@dataclass(frozen=True)
class Certificate:
    """The certificate of one task.

    Attributes:
      lacking: why nothing is certified; "" if something is.
      runs, optimizers, pairs: the number of runs near the best, of their optimizers, and of pairs
        of runs of different optimizers at one horizon.
      entries, entry_pairs: the number of entries (an optimizer at a horizon) near the best, and of
        pairs of entries at one horizon.
      reliability: tau-b between the orders of entries by probe loss on two halves of the seeds.
      metrics: the held-out metrics, the certified one first; empty if nothing is certified.
    """

    lacking: str
    runs: int
    optimizers: int
    pairs: int
    entries: int = 0
    entry_pairs: int = 0
    reliability: float | None = None
    metrics: tuple[Concordance, ...] = ()


def certify(runs: Sequence[Run], seed: int = 0) -> Certificate:
    """The certificate of these runs of one task.

    Runs that lack a held-out metric do not count, nor do those that are far from the best, such as
    runs that blew up.

    Args:
      runs: final runs of any optimizers, horizons and seeds.
      seed: seed of the resampling.
    """
    near = _near(_measured(runs))
    rivals = _rivals(near)
    loss = signs(_column(near, "probe_loss"))
    optimizers, pairs = len({run.optimizer for run in near}), int(rivals.sum()) // 2
    found = Certificate("", len(near), optimizers, pairs)
    if optimizers < MIN_OPTIMIZERS or pairs < MIN_PAIRS:
        return replace(found, lacking=_lacking(found))
    draws = _draws(near, np.random.default_rng(seed))
    metrics = []
    for metric in HELD_OUT:
        values = signs(_column(near, metric))
        if (tau := tau_b(loss, values, rivals)) is not None:
            alike = ordered_alike(loss, values, rivals)
            interval = _interval(loss, values, rivals, draws)
            metrics.append(Concordance(metric, _role(metric), tau, *interval, alike))
    if not metrics or metrics[0].metric != CERTIFIED:
        return replace(found, lacking="the KL on clean images is the same in all runs")
    return _with_halves(replace(found, metrics=tuple(metrics)), _measured(runs))


def _lacking(found: Certificate) -> str:
    return (
        f"{found.optimizers} optimizers and {found.pairs} pairs of runs near the best; "
        f"a certificate needs {MIN_OPTIMIZERS} optimizers and {MIN_PAIRS} pairs"
    )


def _role(metric: str) -> Literal["test", "replicate", "reported"]:
    return "test" if metric == CERTIFIED else "replicate" if metric == REPLICATE else "reported"


def _measured(runs: Sequence[Run]) -> list[Run]:
    """The runs with finite values of every metric."""
    names = ("probe_loss", *HELD_OUT)
    return [run for run in runs if all(math.isfinite(run.final.get(n, math.nan)) for n in names)]


def _near(runs: Sequence[Run]) -> list[Run]:
    best: dict[int, float] = {}
    for run in runs:
        best[run.horizon] = min(best.get(run.horizon, math.inf), run.final["probe_loss"])
    return [run for run in runs if run.final["probe_loss"] <= NEAR * best[run.horizon]]


def _column(runs: Sequence[Run], metric: str) -> np.ndarray:
    """The metric of each run, turned so that lower is better."""
    return np.array([run.final[metric] for run in runs]) * (1 if HELD_OUT.get(metric, True) else -1)


def _rivals(runs: Sequence[Run]) -> np.ndarray:
    """Which pairs count: runs of different optimizers at one horizon.

    Two runs of one optimizer differ by their seeds alone, and the board compares no such pair. With
    them tau would also depend on how many optimizers there are.
    """
    horizon = np.array([run.horizon for run in runs])
    optimizer = np.array([run.optimizer for run in runs])
    return (horizon[:, None] == horizon) & (optimizer[:, None] != optimizer)


Draws = tuple[np.ndarray, np.ndarray, np.ndarray]


def _draws(runs: Sequence[Run], rng: np.random.Generator) -> Draws:
    """Resampled optimizers and seeds.

    Returns:
      The cell (optimizer, seed) of each run, and the weight of each pair of optimizers and each
      pair of seeds in each resample: shapes (N,), (R, O, O), (R, S, S).
    """
    optimizers, optimizer = np.unique([run.optimizer for run in runs], return_inverse=True)
    seeds, seed = np.unique([run.seed for run in runs], return_inverse=True)
    return (
        optimizer * len(seeds) + seed,
        _weights(len(optimizers), rng),
        _weights(len(seeds), rng),
    )


def _weights(n: int, rng: np.random.Generator) -> np.ndarray:
    """How often each pair of `n` clusters is drawn when `n` are drawn with replacement.

    A cluster drawn twice is not a pair of clusters. So a pair of the same one counts as often as it
    is drawn, and all pairs keep the shares that they have in the data, on average.
    """
    counts_Rn = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(float)
    weights_Rnn = counts_Rn[:, :, None] * counts_Rn[:, None, :]
    weights_Rnn[:, range(n), range(n)] = counts_Rn * (1 - 1 / n if n > 1 else 1)
    return weights_Rnn


def _interval(
    loss: np.ndarray, values: np.ndarray, counted: np.ndarray, draws: Draws
) -> tuple[float, float]:
    """95 % interval of tau-b from resampling optimizers and, independently, seeds: percentiles.

    Runs of one optimizer share its habits, and runs of one seed share data and start. Resampling
    runs, or pairs (optimizer, seed), as if they were independent covers 0.5 to 0.75 in simulations
    of such runs. Resampling both factors (Owen 2007, arXiv:0712.1111) covers 0.93 to 0.97 from five
    optimizers on, 0.92 with four and 0.83 with three.
    """
    cell, optimizer_weights, seed_weights = draws
    shape = (optimizer_weights.shape[1], seed_weights.shape[1]) * 2
    size = shape[0] * shape[1]
    pair = (cell[:, None] * size + cell)[counted]
    a, b = loss[counted], values[counted]
    both, first, second = (
        np.einsum(
            "osqt,roq,rst->r",
            np.bincount(pair, weights=x, minlength=size**2).reshape(shape),
            optimizer_weights,
            seed_weights,
            optimize=True,
        )
        for x in (a * b, a * a, b * b)
    )
    ordered = (first > 0) & (second > 0)  # not if one optimizer is drawn every time
    taus = both[ordered] / np.sqrt(first[ordered] * second[ordered])
    low, high = np.percentile(taus, [2.5, 97.5])
    return float(low), float(high)


def _with_halves(found: Certificate, runs: Sequence[Run]) -> Certificate:
    """Adds what halves of the seeds say: how well each order repeats, and the ceiling."""
    by_entry: dict[tuple[str, int], dict[int, Mapping[str, float]]] = {}
    for run in runs:
        by_entry.setdefault((run.optimizer, run.horizon), {})[run.seed] = run.final
    entries = [
        Run(*name, -1, {"probe_loss": float(np.mean([f["probe_loss"] for f in by_seed.values()]))})
        for name, by_seed in by_entry.items()
    ]
    near = _near(entries)
    rivals = _rivals(near)
    measured = [by_entry[entry.optimizer, entry.horizon] for entry in near]
    signed = {name: 1 if HELD_OUT.get(name, True) else -1 for name in ("probe_loss", *HELD_OUT)}
    taus = halves.between(measured, signed, "probe_loss", rivals)
    return replace(
        found,
        entries=len(near),
        entry_pairs=int(rivals.sum()) // 2,
        reliability=taus.own["probe_loss"],
        metrics=tuple(
            replace(
                c,
                between_halves=taus.across[c.metric],
                reliability=taus.own[c.metric],
                ceiling=halves.ceiling(taus.own["probe_loss"], taus.own[c.metric]),
            )
            for c in found.metrics
        ),
    )
