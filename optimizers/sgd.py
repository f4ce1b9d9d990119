"""SGD with Nesterov momentum."""

from __future__ import annotations

from typing import Annotated

import optax

from optimizers.api import Log, Schedule, optimizer
from optimizers.masks import kernels


@optimizer
def sgd(
    lr: Annotated[Schedule, Log(5e-2, 5.0)] = 3e-1,
    *,
    weight_decay: Annotated[float, Log(1e-5, 1e-2)] = 1e-4,
    momentum: float = 0.9,
) -> optax.GradientTransformation:
    """SGD with Nesterov momentum (Sutskever et al. 2013) and decoupled weight decay on kernels."""
    return optax.chain(
        optax.trace(momentum, nesterov=True),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
