"""Relatives of Adagrad and RMSProp: step sizes from past squared gradients."""

from __future__ import annotations

from typing import Annotated

import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.contract.repairs import keep_dtypes, scalars_as_vectors
from optimizers.masks import kernels, not_empty


@optimizer
def adagrad(
    lr: Annotated[Schedule, Log(1e-2, 1.0)] = 1e-1,
    *,
    momentum: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """Adagrad: gradients over the root of the sum of all their squares (Duchi et al. 2011).

    With momentum.
    """
    return optax.chain(
        optax.scale_by_rss(initial_accumulator_value=0.0, eps=1e-7),
        optax.trace(momentum),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def rmsprop(
    lr: Annotated[Schedule, Log(1e-3, 1e-1)] = 1e-2,
    *,
    decay: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    momentum: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """RMSProp: gradients over the root of the average of their squares (Tieleman & Hinton 2012).

    With momentum and bias correction.
    """
    return optax.chain(
        optax.scale_by_rms(decay, bias_correction=True),
        optax.trace(momentum),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def adafactor(
    lr: Annotated[Schedule, Log(1e-3, 1e-1)] = 1e-2,
    *,
    decay_rate: float = 0.8,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    min_dim_size_to_factor: int = 16,
) -> optax.GradientTransformation:
    """Adafactor: Adam with rank-one second moments (Shazeer & Stern 2018, arXiv:1804.04235).

    With momentum. Steps are not scaled by the size of the parameters.
    """
    rule = optax.adafactor(
        lr,
        min_dim_size_to_factor,
        decay_rate,
        multiply_by_parameter_scale=False,
        momentum=b1,
        weight_decay_rate=None,
    )
    return keep_dtypes(rule)


@optimizer
def sm3(
    lr: Annotated[Schedule, Log(1e-2, 1.0)] = 1e-1,
    *,
    momentum: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """SM3: Adagrad with one accumulator for each row and column (Anil et al. 2019).

    arXiv:1901.11150. With momentum.
    """
    return optax.chain(
        scalars_as_vectors(optax.masked(optax.scale_by_sm3(momentum), not_empty)),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def novograd(
    lr: Annotated[Schedule, Log(1e-2, 1.0)] = 1e-1,
    *,
    b2: Annotated[float, Decay(0.5, 0.95)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-4, 1e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """NovoGrad: momentum of gradients, each normalised by one second moment for its tensor.

    Ginsburg et al. 2019 (arXiv:1905.11286).
    """
    return optax.novograd(lr, b1, b2, weight_decay=weight_decay)
