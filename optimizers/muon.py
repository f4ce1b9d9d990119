"""Muon: orthogonalised momentum."""

from __future__ import annotations

from typing import Annotated

import optax
from optax import contrib

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.masks import fold_kernel, kernels


@optimizer
def muon(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    momentum: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    adam_b2: float = 0.95,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """Muon: orthogonalises the momentum of each kernel (Jordan et al. 2024).

    Source: kellerjordan.github.io/posts/muon, as implemented in optax. A convolution kernel is
    treated as the matrix [H*W*I, O]. Vectors are updated by Adam with the same learning rate.
    """
    return contrib.muon(
        lr,
        beta=momentum,
        adam_b2=adam_b2,
        weight_decay=weight_decay,
        weight_decay_mask=kernels,
        muon_weight_dimension_numbers=fold_kernel,
    )
