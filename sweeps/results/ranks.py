"""Ranks that say which entries differ beyond what a repetition of everything would change."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np


def ranks(
    values: Sequence[float],
    covariance: np.ndarray,
    freedom: float,
    allowances: np.ndarray | None = None,
    level: float = 0.95,
) -> list[int]:
    """The rank of each entry, from 1: one more than the number of significantly better entries.

    Two entries differ significantly if their difference exceeds what the studentized range allows
    among all of them (Tukey 1949, Kramer 1956): if all were equal, some pair would differ with
    probability 1 - level. Entries sharing a rank are statistically tied, and an entry that is
    significantly better than another never has the worse rank.

    Args:
      values: the entries' scores; higher is better.
      covariance: of the scores' errors [n, n].
      freedom: degrees of freedom of the covariance's estimate.
      allowances: [n, n], by how much more than that entry i must exceed entry j; None for nothing.
      level: probability that no pair of equal entries differs.
    """
    extra = np.zeros(covariance.shape) if allowances is None else allowances
    margin = critical(len(values), freedom, level)
    found = []
    for j in range(len(values)):
        better = 0
        for i in range(len(values)):
            variance = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
            needed = margin * math.sqrt(max(variance, 0.0)) + float(extra[i, j])
            better += bool(values[i] - values[j] > needed)
        found.append(1 + better)
    return found


@functools.lru_cache(maxsize=256)
def critical(entries: int, freedom: float, level: float = 0.95) -> float:
    """How many standard deviations a difference between two of `entries` must exceed."""
    from scipy.stats import studentized_range

    if entries < 2:
        return math.inf
    return float(studentized_range.ppf(level, entries, freedom)) / math.sqrt(2)
