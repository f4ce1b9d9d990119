"""Schedule-Free: an average of the iterates replaces the decay of the learning rate.

Defazio et al. 2024 (arXiv:2405.15682). The average is evaluated.
"""

from __future__ import annotations

from typing import Annotated

import optax
from optax import contrib

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.contract.repairs import schedule_free_eval_params
from optimizers.masks import kernels


@optimizer(schedule="warmup_constant", eval_params=schedule_free_eval_params)
def schedule_free_adamw(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.97)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """Schedule-Free AdamW: averages the iterates of RMSProp with decoupled weight decay.

    Defazio et al. 2024 (arXiv:2405.15682).
    """
    base = optax.chain(
        optax.scale_by_rms(b2, bias_correction=True),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
    return contrib.schedule_free(base, lr, b1)


@optimizer(schedule="warmup_constant", eval_params=schedule_free_eval_params)
def schedule_free_sgd(
    lr: Annotated[Schedule, Log(1.0, 1e2)] = 1e1,
    *,
    b1: Annotated[float, Decay(0.7, 0.97)] = 0.9,
    weight_decay: Annotated[float, Log(1e-5, 1e-3)] = 1e-3,
) -> optax.GradientTransformation:
    """Schedule-Free SGD: averages the iterates of gradient descent.

    Defazio et al. 2024 (arXiv:2405.15682). `b1` is the share of the average in the point at
    which gradients are taken.
    """
    return contrib.schedule_free(
        optax.chain(
            optax.add_decayed_weights(weight_decay, kernels), optax.scale_by_learning_rate(lr)
        ),
        lr,
        b1,
    )
