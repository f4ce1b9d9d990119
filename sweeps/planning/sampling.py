"""Draws the hyperparameters of tuning trials. Pure, so that any machine can run any slice of them.

Trial i is point i of a scrambled Sobol sequence over the searched dimensions, in the order in which
the optimizer declares them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from distill_bench.errors import UserError
from optimizers.contract.domains import Domain

SOBOL_SEED = 0


def sample(
    space: Mapping[str, Domain], listed: Mapping[str, Sequence[Any]], n: int
) -> list[dict[str, Any]]:
    """Hyperparameters of `n` trials, without repeats.

    Args:
      space: the declared range of each hyperparameter.
      listed: hyperparameters whose values the user wrote. Trial i takes combination i of these
        values, cyclically; the other hyperparameters come from point i of the sequence. If no
        others are left to search, each combination is one trial, whatever `n` is.
      n: number of trials.

    Raises:
      UserError: if `n` is below 1, or too small to try every combination.
    """
    if n < 1:
        raise UserError(f"--trials={n} tries nothing: use 1 or more.")
    combinations = [
        dict(zip(listed, values, strict=True)) for values in itertools.product(*listed.values())
    ]
    searched = {name: domain for name, domain in space.items() if name not in listed}
    if not searched:
        return combinations
    if n < len(combinations):
        raise UserError(
            f"--trials={n} cannot try all {len(combinations)} combinations of the listed values: "
            f"use --trials={len(combinations)} or more."
        )
    from scipy.stats import qmc

    sobol = qmc.Sobol(len(searched), scramble=True, rng=SOBOL_SEED)
    points = sobol.random_base2(math.ceil(math.log2(n)))[:n]
    trials = []
    for i, point in enumerate(points):
        drawn = {
            name: domain.at(float(u))
            for (name, domain), u in zip(searched.items(), point, strict=True)
        }
        trial = combinations[i % len(combinations)] | drawn
        if trial not in trials:
            trials.append(trial)
    return trials
