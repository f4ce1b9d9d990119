"""SGD with Nesterov momentum."""

from __future__ import annotations

from typing import Annotated

import optax

from optimizers.api import Choice, Log, Schedule, optimizer
from optimizers.masks import kernels


@optimizer
def sgd(
    lr: Annotated[Schedule, Log(1e-1, 3.0)] = 0.5,
    *,
    momentum: Annotated[float, Choice(0.9, 0.95)] = 0.9,
    weight_decay: float = 1e-3,
) -> optax.GradientTransformation:
    """SGD with Nesterov momentum (Sutskever et al. 2013) and decoupled weight decay on kernels."""
    return optax.chain(
        optax.trace(momentum, nesterov=True),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
