"""Sophia: clipped steps, scaled by the diagonal of the Hessian."""

from __future__ import annotations

from typing import Annotated

import optax
from optax import contrib

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Choice, Decay, Log
from optimizers.masks import kernels

INTERVAL = 10


@optimizer(extra_args=("obj_fn",), evaluations=1 + 2 / INTERVAL)
def sophia(
    lr: Annotated[Schedule, Log(1e-3, 1e-1)] = 1e-2,
    *,
    gamma: Annotated[float, Choice(0.01, 0.05)] = 0.01,
    b1: Annotated[float, Decay(0.7, 0.97)] = 0.95,
    b2: float = 0.99,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """Sophia: momentum over an estimate of the Hessian's diagonal, clipped (Liu et al. 2023).

    arXiv:2305.14342. Every tenth step, Hutchinson's estimator needs one Hessian-vector product,
    which counts as two gradient evaluations. `gamma` sets how many coordinates are clipped. As in
    optax, and unlike in the paper, a step uses the estimate from before its refresh, and all seeds
    share the estimator's random vectors.
    """
    return contrib.sophia(
        lr,
        b1,
        b2,
        weight_decay=weight_decay,
        weight_decay_mask=kernels,
        gamma=gamma,
        update_interval=INTERVAL,
    )
