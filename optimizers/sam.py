"""Sharpness-aware minimisation."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.masks import kernels


def _unit(gradients: Any, params: Any) -> Any:
    """The gradients over their global norm. Zero stays zero: optax's `normalize` makes it NaN."""
    del params
    norm = optax.tree.norm(gradients)
    return jax.tree.map(lambda g: (g / jnp.where(norm == 0, 1.0, norm)).astype(g.dtype), gradients)


@optimizer(extra_args=("grad_fn",), evaluations=2)
def sam(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    rho: Annotated[float, Log(5e-3, 1e-1)] = 0.05,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    b2: float = 0.95,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """SAM around AdamW: uses the gradient at a point `rho` uphill (Foret et al. 2021).

    arXiv:2010.01412. Each step needs two gradient evaluations.
    """
    climb = optax.chain(optax.stateless(_unit), optax.sgd(rho))
    return contrib.sam(
        optax.adamw(lr, b1, b2, weight_decay=weight_decay, mask=kernels),
        climb,
        sync_period=2,
        opaque_mode=True,
    )
