"""Shampoo with the settings of the FunMatch paper."""

from __future__ import annotations

from typing import Annotated, Literal

import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Log
from optimizers.kronecker.block_options import matrix_axes
from optimizers.kronecker.grafting import graft, magnitude_of
from optimizers.masks import kernels
from optimizers.shampoo import scale_by_shampoo


@optimizer(schedule="warmup_quadratic")
def shampoo_funmatch(
    lr: Annotated[Schedule, Log(1e-3, 3e-2)] = 5e-3,
    *,
    b2: float = 0.95,
    momentum: float = 0.9,
    weight_decay: float = 3.75e-4,
    weight_decay_enters: Literal["before_momentum", "after_momentum"] = "before_momentum",
    decay_vectors: bool = False,
    update_every: int = 1,
) -> optax.GradientTransformation:
    """Shampoo as in Beyer et al. 2021 (arXiv:2106.05237, appendix D), as far as they describe it.

    Blocks of at most 128 x 128, roots at every step, Nesterov momentum on updates, weight decay
    3.75e-4, warm-up and quadratic decay. They do not state the learning rate, the grafting or the
    decay of statistics: here the magnitude is Adam's, statistics decay by b2, and lr is searched.

    Nor do they state where weight decay enters. The default is that of Anil and Gupta's public code
    (google-research, scalable_shampoo; Anil is an author of both): momentum averages
    update + weight_decay * parameter. That decays 1 / (1 - momentum) = 10 times as fast as
    `weight_decay_enters="after_momentum"`. The code decays every tensor it is given
    (`decay_vectors=True`), but its authors spared biases and normalization in their ResNet-50 runs
    (its README), as the released FunMatch runs with Adam do; so the default decays kernels only.

    Raises:
      ValueError: if `weight_decay_enters` is neither of the two.
    """
    if weight_decay_enters not in ("before_momentum", "after_momentum"):
        raise ValueError(
            f"unknown weight_decay_enters {weight_decay_enters!r}: use before_momentum or "
            "after_momentum."
        )
    magnitude = magnitude_of("adam", 0.0, b2)
    assert magnitude is not None
    decay_and_momentum = [
        optax.add_decayed_weights(weight_decay, None if decay_vectors else kernels),
        optax.trace(momentum, nesterov=True),
    ]
    if weight_decay_enters == "after_momentum":
        decay_and_momentum.reverse()
    return optax.chain(
        graft(scale_by_shampoo(0.0, b2, update_every=update_every), magnitude, matrix_axes),
        *decay_and_momentum,
        optax.scale_by_learning_rate(lr),
    )
