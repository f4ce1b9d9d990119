"""Sophia: a clipped step by the Hessian's diagonal."""

from __future__ import annotations

from typing import Annotated

import optax
from optax import contrib

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Choice, Log
from optimizers.masks import kernels

INTERVAL = 10


@optimizer(extra_args=("obj_fn",), evaluations=1 + 2 / INTERVAL)
def sophia(
    lr: Annotated[Schedule, Log(1e-3, 1e-1)] = 1e-2,
    *,
    gamma: Annotated[float, Choice(0.01, 0.05)] = 0.01,
    b1: float = 0.95,
    b2: float = 0.99,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """Sophia with Hutchinson's estimate (Liu et al. 2023, arXiv:2305.14342); its product with the Hessian, every tenth step, counts as two gradients."""
    return contrib.sophia(
        lr,
        b1,
        b2,
        weight_decay=weight_decay,
        weight_decay_mask=kernels,
        gamma=gamma,
        update_interval=INTERVAL,
    )
