"""Shampoo with the settings of the FunMatch paper."""

from __future__ import annotations

from typing import Annotated

import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Log
from optimizers.kronecker.grafting import graft, magnitude_of
from optimizers.masks import kernels
from optimizers.shampoo import preconditioned, scale_by_shampoo


@optimizer(schedule="warmup_quadratic")
def shampoo_funmatch(
    lr: Annotated[Schedule, Log(1e-3, 3e-2)] = 5e-3,
    *,
    b2: float = 0.95,
    momentum: float = 0.9,
    weight_decay: float = 3.75e-4,
    update_every: int = 1,
) -> optax.GradientTransformation:
    """Shampoo as in Beyer et al. 2021 (arXiv:2106.05237, appendix D), as far as they describe it.

    Blocks of at most 128 x 128, roots at every step, Nesterov momentum on updates, weight decay
    3.75e-4, warm-up and quadratic decay. They do not state the learning rate, the grafting or the
    decay of statistics: here the magnitude is Adam's, the decay is b2, and lr is searched.
    """
    magnitude = magnitude_of("adam", 0.0, b2)
    assert magnitude is not None
    return optax.chain(
        graft(scale_by_shampoo(0.0, b2, update_every=update_every), magnitude, preconditioned),
        optax.trace(momentum, nesterov=True),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
