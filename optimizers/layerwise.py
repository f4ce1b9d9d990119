"""Rules that scale the update of each tensor to the norm of its parameters."""

from __future__ import annotations

from typing import Annotated

import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.masks import kernels


@optimizer
def lamb(
    lr: Annotated[Schedule, Log(1e-2, 1.0)] = 1e-1,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """LAMB: Adam, scaled to the norm of each parameter (You et al. 2020, arXiv:1904.00962)."""
    return optax.lamb(lr, b1, b2, weight_decay=weight_decay, mask=kernels)


@optimizer
def lars(
    lr: Annotated[Schedule, Log(1e-1, 1e1)] = 1.0,
    *,
    momentum: Annotated[float, Decay(0.7, 0.97)] = 0.9,
    trust_coefficient: float = 1e-3,
    weight_decay: Annotated[float, Log(1e-4, 1e-2)] = 1e-3,
) -> optax.GradientTransformation:
    """LARS: momentum, scaled to the norm of each kernel (You et al. 2017, arXiv:1708.03888)."""
    return optax.lars(
        lr,
        weight_decay,
        weight_decay_mask=kernels,
        trust_coefficient=trust_coefficient,
        trust_ratio_mask=kernels,
        momentum=momentum,
    )
