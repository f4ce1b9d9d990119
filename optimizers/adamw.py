"""AdamW, the baseline of the leaderboard."""

from __future__ import annotations

from typing import Annotated

import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.masks import kernels


@optimizer
def adamw(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    eps: float = 1e-8,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101).

    Weight decay applies to kernels only.
    """
    return optax.adamw(lr, b1, b2, eps, weight_decay=weight_decay, mask=kernels)
