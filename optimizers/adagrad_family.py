"""Adagrad, RMSProp and relatives: each coordinate's step size follows from its past gradients."""

from __future__ import annotations

from typing import Annotated

import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Choice, Log
from optimizers.contract.repairs import keep_dtypes, scalars_as_vectors
from optimizers.masks import kernels, not_empty


@optimizer
def adagrad(
    lr: Annotated[Schedule, Log(1e-2, 1.0)] = 1e-1,
    *,
    momentum: float = 0.9,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """Adagrad with momentum and weight decay on kernels (Duchi et al. 2011).

    Divides by the root of the sum of squared gradients. Searched: lr.
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
    decay: Annotated[float, Choice(0.95, 0.99)] = 0.95,
    momentum: float = 0.9,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """RMSProp with momentum and weight decay on kernels (Tieleman & Hinton 2012).

    Divides by the root of an average of squared gradients, bias-corrected. Searched: lr, decay.
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
    b1: float = 0.9,
    min_dim_size_to_factor: int = 16,
) -> optax.GradientTransformation:
    """Adafactor with momentum (Shazeer & Stern 2018, arXiv:1804.04235).

    Keeps second moments as rank-one factors of rows and columns. Updates are not scaled by the
    size of the parameters. Searched: lr.
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
    momentum: float = 0.9,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """SM3 with weight decay on kernels (Anil et al. 2019, arXiv:1901.11150).

    Keeps one second moment for each row and column instead of each element. Searched: lr.
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
    b2: Annotated[float, Choice(0.5, 0.95)] = 0.95,
    b1: float = 0.9,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """NovoGrad: one second moment for each layer (Ginsburg et al. 2019, arXiv:1905.11286).

    Searched: lr, b2.
    """
    return optax.novograd(lr, b1, b2, weight_decay=weight_decay)
