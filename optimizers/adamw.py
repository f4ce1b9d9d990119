"""AdamW: the baseline of the leaderboard."""

from __future__ import annotations

from typing import Annotated

import optax

from optimizers.api import Log, Schedule, optimizer
from optimizers.masks import kernels


@optimizer
def adamw(
    lr: Annotated[Schedule, Log(5e-3, 5e-1)] = 5e-2,
    *,
    weight_decay: Annotated[float, Log(1e-5, 1e-2)] = 1e-4,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """AdamW with decay on kernels only (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
    return optax.adamw(lr, b1, b2, eps, weight_decay=weight_decay, mask=kernels)
