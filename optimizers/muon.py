"""Muon: orthogonalised momentum."""

from __future__ import annotations

from typing import Annotated

import optax
from optax import contrib

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Choice, Log
from optimizers.masks import fold_kernel, kernels


@optimizer
def muon(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    momentum: Annotated[float, Choice(0.9, 0.95)] = 0.9,
    adam_b2: float = 0.95,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), from optax.

    Orthogonalises the momentum of each kernel, of a convolution as the matrix [H*W*I, O]. Vectors
    take Adam at the same rate. Weight decay on kernels. Searched: lr, momentum.
    """
    return contrib.muon(
        lr,
        beta=momentum,
        adam_b2=adam_b2,
        weight_decay=weight_decay,
        weight_decay_mask=kernels,
        muon_weight_dimension_numbers=fold_kernel,
    )
