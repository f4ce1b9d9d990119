"""Rules that step by the sign of an average of gradients."""

from __future__ import annotations

from typing import Annotated

import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.masks import kernels


@optimizer
def lion(
    lr: Annotated[Schedule, Log(1e-3, 3e-2)] = 3e-3,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-2, 2.0)] = 1e-2,
) -> optax.GradientTransformation:
    """Lion: the sign of a mix of the gradient and its average (Chen et al. 2023, arXiv:2302.06675).

    `b2` is the decay of the average.
    """
    return optax.lion(lr, b1, b2, weight_decay=weight_decay, mask=kernels)


@optimizer
def sign_sgd(
    lr: Annotated[Schedule, Log(1e-3, 3e-2)] = 3e-3,
    *,
    momentum: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-2, 2.0)] = 1e-2,
) -> optax.GradientTransformation:
    """Signum: the sign of momentum (Bernstein et al. 2018, arXiv:1802.04434)."""
    return optax.chain(
        optax.ema(momentum),
        optax.scale_by_sign(),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
