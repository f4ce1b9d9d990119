"""Gradient descent with and without momentum, all with decoupled weight decay on kernels."""

from __future__ import annotations

from typing import Annotated

import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.masks import kernels


@optimizer
def sgd(
    lr: Annotated[Schedule, Log(3e-1, 3e1)] = 3.0,
    *,
    weight_decay: Annotated[float, Log(2e-5, 4e-3)] = 1e-3,
) -> optax.GradientTransformation:
    """Stochastic gradient descent without momentum (Robbins & Monro 1951)."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, kernels), optax.scale_by_learning_rate(lr)
    )


@optimizer
def momentum(
    lr: Annotated[Schedule, Log(1e-1, 3.0)] = 0.5,
    *,
    momentum: Annotated[float, Decay(0.7, 0.97)] = 0.9,
    weight_decay: Annotated[float, Log(1e-4, 2e-2)] = 1e-3,
) -> optax.GradientTransformation:
    """Heavy-ball momentum: steps along a decaying sum of gradients (Polyak 1964)."""
    return optax.chain(
        optax.trace(momentum),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def nesterov(
    lr: Annotated[Schedule, Log(1e-1, 3.0)] = 0.5,
    *,
    momentum: Annotated[float, Decay(0.7, 0.97)] = 0.9,
    weight_decay: Annotated[float, Log(1e-4, 2e-2)] = 1e-3,
) -> optax.GradientTransformation:
    """Nesterov momentum: heavy-ball momentum with a look-ahead step (Sutskever et al. 2013)."""
    return optax.chain(
        optax.trace(momentum, nesterov=True),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
