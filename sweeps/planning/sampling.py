"""(space, n) -> hyperparameters of n trials; pure, so that any machine can run any slice.

Trial i is point i of a scrambled Sobol sequence over the searched dimensions, in the order of their declaration.
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

    `listed` holds hyperparameters with the values that the user wrote: trial i takes combination i of
    them, round and round, while those of `space` come from point i of the sequence. Where nothing is left to
    search, each combination is one trial, whatever `n`.

    Raises:
      UserError: where `n` is below 1, or too small for each combination to be tried.
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
            f"--trials={n} cannot try all {len(combinations)} combinations of the values listed: use --trials={len(combinations)} or more."
        )
    from scipy.stats import qmc

    points = qmc.Sobol(len(searched), scramble=True, rng=SOBOL_SEED).random_base2(
        math.ceil(math.log2(n))
    )[:n]
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
