"""Rules that find their own step size: their learning rate is not searched.

Most start with steps of about 1e-6, which costs them at short horizons.
"""

from __future__ import annotations

from typing import Annotated

import optax
from optax import contrib

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.contract.repairs import (
    keep_dtypes,
    skip_non_finite_updates,
    with_own_buffers,
)
from optimizers.masks import kernels


@optimizer
def prodigy(
    lr: Schedule = 1.0,
    *,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    b2: float = 0.95,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """Prodigy: Adam that estimates the distance to the solution to set its step size.

    Mishchenko & Defazio 2023 (arXiv:2306.06101). The schedule multiplies the step size. Zero
    gradients can make an update NaN. Such an update is skipped.
    """
    return with_own_buffers(
        skip_non_finite_updates(contrib.prodigy(lr, (b1, b2), weight_decay=weight_decay))
    )


@optimizer
def dadapt_adamw(
    lr: Schedule = 1.0,
    *,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    b2: float = 0.95,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """D-Adaptation of AdamW: estimates the distance to the solution to set its step size.

    Defazio & Mishchenko 2023 (arXiv:2301.07733). Zero gradients can make an update NaN. Such an
    update is skipped.
    """
    return skip_non_finite_updates(contrib.dadapt_adamw(lr, (b1, b2), weight_decay=weight_decay))


@optimizer(schedule="constant")
def dog(
    lr: Schedule = 1.0, *, weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3
) -> optax.GradientTransformation:
    """DoG: the step size is the distance from the start over the norm of all gradients so far.

    The largest distance so far counts (Ivgi et al. 2023, arXiv:2302.12022).
    """
    return with_own_buffers(contrib.dog(lr, weight_decay=weight_decay, mask=kernels))


@optimizer(schedule="constant")
def dowg(
    lr: Schedule = 1.0, *, weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3
) -> optax.GradientTransformation:
    """DoWG: DoG with the distance squared and each gradient weighted by its distance.

    Khaled et al. 2023 (arXiv:2305.16284).
    """
    return with_own_buffers(contrib.dowg(lr, weight_decay=weight_decay, mask=kernels))


@optimizer
def mechanic(
    lr: Schedule = 1.0,
    *,
    s_init: float = 1e-4,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    b2: float = 0.95,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """Mechanic around AdamW: learns a factor that scales all updates (Cutkosky et al. 2023).

    arXiv:2306.00144. `s_init` is the first value of the factor.
    """
    adamw = optax.adamw(lr, b1, b2, weight_decay=weight_decay, mask=kernels)
    return with_own_buffers(contrib.mechanize(adamw, s_init=s_init))


@optimizer(extra_args=("value",))
def momo_adam(
    lr: Schedule = 1e-1,
    *,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    b2: float = 0.95,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """MoMo-Adam: step sizes from a model of the loss that is never below 0 (Schaipp et al. 2023).

    arXiv:2305.07583. `lr` is the largest step size allowed.
    """
    return keep_dtypes(contrib.momo_adam(lr, b1, b2, weight_decay=weight_decay))


@optimizer
def cocob(
    *, alpha: float = 100.0, weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3
) -> optax.GradientTransformation:
    """COCOB: bets on the sign of each gradient (Orabona & Tommasi 2017, arXiv:1705.07795).

    The learning rate of optax.contrib.cocob only scales the gradients. A constant scale hardly
    changes the updates of COCOB, so there is no `lr` here.
    """
    return with_own_buffers(contrib.cocob(alpha=alpha, weight_decay=weight_decay, mask=kernels))
