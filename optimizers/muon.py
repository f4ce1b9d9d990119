"""Muon: momentum, orthogonalised."""

from __future__ import annotations

from typing import Annotated

import optax
from optax import contrib

from optimizers.api import Log, Schedule, optimizer
from optimizers.masks import fold_kernel, kernels


@optimizer
def muon(
    lr: Annotated[Schedule, Log(5e-3, 5e-1)] = 5e-2,
    *,
    weight_decay: Annotated[float, Log(1e-5, 1e-2)] = 1e-4,
    momentum: float = 0.95,
) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) through optax.

    Every kernel is orthogonalised, a convolution as the matrix [H*W*I, O]; vectors go to Adam at the same rate.
    """
    return contrib.muon(
        lr,
        beta=momentum,
        weight_decay=weight_decay,
        weight_decay_mask=kernels,
        muon_weight_dimension_numbers=fold_kernel,
    )
