"""Ranks that say which entries differ beyond what a repetition of everything would change."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np


def significantly_better(
    values: Sequence[float],
    covariance: np.ndarray,
    freedom: float,
    allowances: np.ndarray | None = None,
    level: float = 0.95,
) -> np.ndarray:
    """Whether entry i is significantly better than entry j, [n, n].

    Two entries differ significantly if their difference exceeds what the studentized range allows
    among all of them (Tukey 1949, Kramer 1956): if all were equal, some pair would differ with
    probability 1 - level.

    Args:
      values: the entries' scores; higher is better.
      covariance: of the scores' errors [n, n].
      freedom: degrees of freedom of the covariance's estimate.
      allowances: [n, n], by how much more than that entry i must exceed entry j; None for nothing.
      level: probability that no pair of equal entries differs.
    """
    if len(values) < 2:
        return np.zeros(covariance.shape, bool)
    scores, own = np.asarray(values, float), np.diag(covariance)
    variance = np.maximum(own[:, None] + own - 2 * covariance, 0.0)
    needed = critical(len(scores), freedom, level) * np.sqrt(variance)
    if allowances is not None:
        needed = needed + allowances
    return ~np.eye(len(scores), dtype=bool) & (scores[:, None] - scores > needed)


def ranks(better: np.ndarray) -> list[int]:
    """The rank of each entry, from 1: one more than the number of significantly better entries.

    Entries sharing a rank are statistically tied, and an entry that is significantly better than
    another never has the worse rank.

    better: from `significantly_better`.
    """
    return (1 + better.sum(axis=0)).tolist()


@functools.lru_cache(maxsize=256)
def critical(entries: int, freedom: float, level: float = 0.95) -> float:
    """How many standard deviations a difference between two of `entries` must exceed."""
    from scipy.stats import studentized_range

    if entries < 2:
        return math.inf
    return float(studentized_range.ppf(level, entries, freedom)) / math.sqrt(2)
