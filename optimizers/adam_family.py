"""Relatives of Adam: the average of gradients over the root of the average of their squares.

All rules except plain Adam have decoupled weight decay, on kernels only.
"""

from __future__ import annotations

from typing import Annotated

import optax
from optax import contrib

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.masks import kernels


@optimizer
def adam(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam without weight decay (Kingma & Ba 2015, arXiv:1412.6980)."""
    return optax.adam(lr, b1, b2, eps)


@optimizer
def nadamw(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """NAdamW: AdamW with Nesterov momentum (Dozat 2016)."""
    return optax.nadamw(lr, b1, b2, weight_decay=weight_decay, mask=kernels)


@optimizer
def amsgrad(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """AMSGrad: Adam with the largest second moment so far (Reddi et al. 2018, arXiv:1904.09237)."""
    return optax.chain(
        optax.scale_by_amsgrad(b1, b2),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def radam(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    threshold: float = 5.0,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """RAdam: Adam with smaller first steps, while the second moment is still uncertain.

    Liu et al. 2020 (arXiv:1908.03265).
    """
    return optax.chain(
        optax.scale_by_radam(b1, b2, threshold=threshold),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def adabelief(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """AdaBelief: Adam with the variance about the average instead of the second moment.

    Zhuang et al. 2020 (arXiv:2010.07468).
    """
    return optax.chain(
        optax.scale_by_belief(b1, b2),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def yogi(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    eps: float = 1e-3,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """Yogi: Adam whose second moment changes by an additive step (Zaheer et al. 2018)."""
    return optax.chain(
        optax.scale_by_yogi(b1, b2, eps),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def adan(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.8, 0.98)] = 0.9,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    b3: float = 0.95,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """Adan: Adam with Nesterov momentum from the differences of successive gradients.

    Xie et al. 2022 (arXiv:2208.06677).
    """
    return optax.adan(lr, b1, b2, b3, weight_decay=weight_decay, mask=kernels)


@optimizer
def adopt(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """ADOPT: Adam that divides a gradient by the second moment of the gradients before it.

    The normalised gradient is clipped at t^(1/4), with t the step (Taniguchi et al. 2024,
    arXiv:2411.02853).
    """
    return optax.chain(
        contrib.scale_by_adopt(b1, b2),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def ademamix(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    b3: float = 0.99,
    alpha: float = 2.0,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """AdEMAMix: AdamW plus a slow average of gradients (Pagliardini et al. 2024, arXiv:2409.03137).

    `b3` is the decay of the slow average and `alpha` its weight.
    """
    return contrib.ademamix(lr, b1, b2, b3, alpha, weight_decay=weight_decay, mask=kernels)
