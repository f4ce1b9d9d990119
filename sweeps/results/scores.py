"""Scores of optimizers with their errors, and what follows: ranks, an order; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sweeps.results import ranks
from sweeps.results.orders import Order


@dataclass(frozen=True)
class Scores:
    """Scores of optimizers, with what `ranks.significantly_better` needs to compare them.

    Attributes:
      values: optimizer -> score; higher is better.
      covariance: of the scores' errors [n, n].
      allowances: [n, n], by how much more than that entry i must exceed entry j.
      freedom: degrees of freedom of the covariance's estimate.
    """

    values: Mapping[str, float]
    covariance: np.ndarray
    allowances: np.ndarray
    freedom: float

    @cached_property
    def _better(self) -> np.ndarray:
        values = list(self.values.values())
        return ranks.significantly_better(values, self.covariance, self.freedom, self.allowances)

    def ranks(self) -> dict[str, int]:
        """Optimizer -> rank, in order of the rank and then of the value."""
        of = dict(zip(self.values, ranks.ranks(self._better), strict=True))
        return {name: of[name] for name in sorted(of, key=lambda x: (of[x], -self.values[x], x))}

    def order(self) -> Order:
        names, deviations = list(self.values), np.sqrt(np.diag(self.covariance)).tolist()
        return Order(
            self.values,
            dict(zip(names, deviations, strict=True)),
            frozenset((names[i], names[j]) for i, j in np.argwhere(self._better)),
        )


NO_SCORES = Scores({}, np.zeros((0, 0)), np.zeros((0, 0)), math.inf)
