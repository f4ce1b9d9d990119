"""Adam and relatives: an average of gradients, divided by the root of an average of their squares.

All but `adam` decay the weights of kernels, and only those. Searched in each: lr and b2.
"""

from __future__ import annotations

from typing import Annotated

import optax
from optax import contrib

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Choice, Log
from optimizers.masks import kernels


@optimizer
def adam(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Choice(0.95, 0.99)] = 0.95,
    b1: float = 0.9,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam without weight decay (Kingma & Ba 2015, arXiv:1412.6980)."""
    return optax.adam(lr, b1, b2, eps)


@optimizer
def nadamw(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Choice(0.95, 0.99)] = 0.95,
    b1: float = 0.9,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """NAdamW: Adam with Nesterov momentum (Dozat 2016) and decoupled weight decay."""
    return optax.nadamw(lr, b1, b2, weight_decay=weight_decay, mask=kernels)


@optimizer
def amsgrad(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Choice(0.95, 0.99)] = 0.95,
    b1: float = 0.9,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """AMSGrad: divides by the largest second moment yet (Reddi et al. 2018, arXiv:1904.09237)."""
    return optax.chain(
        optax.scale_by_amsgrad(b1, b2),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def radam(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Choice(0.95, 0.99)] = 0.95,
    b1: float = 0.9,
    threshold: float = 5.0,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """RAdam: rectifies the variance of early steps (Liu et al. 2020, arXiv:1908.03265).

    Steps whose variance is not yet tractable (below `threshold`) take momentum alone.
    """
    return optax.chain(
        optax.scale_by_radam(b1, b2, threshold=threshold),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def adabelief(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Choice(0.95, 0.99)] = 0.95,
    b1: float = 0.9,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """AdaBelief: divides by the spread of gradients around their average.

    (Zhuang et al. 2020, arXiv:2010.07468.)
    """
    return optax.chain(
        optax.scale_by_belief(b1, b2),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def yogi(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Choice(0.95, 0.99)] = 0.95,
    b1: float = 0.9,
    eps: float = 1e-3,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """Yogi: changes the second moment by additive steps (Zaheer et al. 2018)."""
    return optax.chain(
        optax.scale_by_yogi(b1, b2, eps),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def adan(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Choice(0.9, 0.95)] = 0.9,
    b1: float = 0.9,
    b3: float = 0.95,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """Adan: Nesterov momentum from gradient differences (Xie et al. 2022, arXiv:2208.06677)."""
    return optax.adan(lr, b1, b2, b3, weight_decay=weight_decay, mask=kernels)


@optimizer
def adopt(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Choice(0.95, 0.99)] = 0.95,
    b1: float = 0.9,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """ADOPT: divides a gradient by the second moment of the steps before it, then averages.

    (Taniguchi et al. 2024, arXiv:2411.02853.)
    """
    return optax.chain(
        contrib.scale_by_adopt(b1, b2),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def ademamix(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Choice(0.95, 0.99)] = 0.95,
    b1: float = 0.9,
    b3: float = 0.99,
    alpha: float = 2.0,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """AdEMAMix: adds a second, slow average of gradients.

    (Pagliardini et al. 2024, arXiv:2409.03137.)
    """
    return contrib.ademamix(lr, b1, b2, b3, alpha, weight_decay=weight_decay, mask=kernels)
