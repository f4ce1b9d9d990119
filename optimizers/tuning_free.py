"""Rules that find their own step size: nothing is searched, so no tuning trials are run.

Most start from steps of about 1e-6, which costs them at short horizons.
"""

from __future__ import annotations

import optax
from optax import contrib

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.repairs import keep_dtypes, skip_non_finite_updates
from optimizers.masks import kernels


@optimizer
def prodigy(
    lr: Schedule = 1.0, *, b1: float = 0.9, b2: float = 0.95, weight_decay: float = 1e-3
) -> optax.GradientTransformation:
    """Prodigy (Mishchenko & Defazio 2023, arXiv:2306.06101).

    `lr` multiplies the step size that it finds, and follows the default schedule.
    """
    return contrib.prodigy(lr, (b1, b2), weight_decay=weight_decay)


@optimizer
def dadapt_adamw(
    lr: Schedule = 1.0, *, b1: float = 0.9, b2: float = 0.95, weight_decay: float = 1e-3
) -> optax.GradientTransformation:
    """AdamW with D-Adaptation (Defazio & Mishchenko 2023, arXiv:2301.07733).

    Skips a step that would be NaN, as after zero gradients.
    """
    return skip_non_finite_updates(contrib.dadapt_adamw(lr, (b1, b2), weight_decay=weight_decay))


@optimizer(schedule="constant")
def dog(lr: Schedule = 1.0, *, weight_decay: float = 1e-3) -> optax.GradientTransformation:
    """DoG: distance over gradients (Ivgi et al. 2023, arXiv:2302.12022)."""
    return contrib.dog(lr, weight_decay=weight_decay, mask=kernels)


@optimizer(schedule="constant")
def dowg(lr: Schedule = 1.0, *, weight_decay: float = 1e-3) -> optax.GradientTransformation:
    """DoWG: distance over weighted gradients (Khaled et al. 2023, arXiv:2305.16284)."""
    return contrib.dowg(lr, weight_decay=weight_decay, mask=kernels)


@optimizer
def mechanic(
    lr: Schedule = 1.0,
    *,
    s_init: float = 1e-4,
    b1: float = 0.9,
    b2: float = 0.95,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """Mechanic around AdamW (Cutkosky et al. 2023, arXiv:2306.00144).

    `s_init` is its first guess of the rate.
    """
    return contrib.mechanize(
        optax.adamw(lr, b1, b2, weight_decay=weight_decay, mask=kernels), s_init=s_init
    )


@optimizer(extra_args=("value",))
def momo_adam(
    lr: Schedule = 1e-1, *, b1: float = 0.9, b2: float = 0.95, weight_decay: float = 1e-3
) -> optax.GradientTransformation:
    """MoMo-Adam (Schaipp et al. 2023, arXiv:2305.07583).

    Finds its step size from a model of the loss that is bounded below by 0. `lr` is an upper limit.
    """
    return keep_dtypes(contrib.momo_adam(lr, b1, b2, weight_decay=weight_decay))


@optimizer
def cocob(*, alpha: float = 100.0, weight_decay: float = 1e-3) -> optax.GradientTransformation:
    """COCOB: step sizes by coin betting (Orabona & Tommasi 2017, arXiv:1705.07795).

    There is no `lr`: optax's version takes a learning rate but does not use it.
    """
    return contrib.cocob(alpha=alpha, weight_decay=weight_decay, mask=kernels)
