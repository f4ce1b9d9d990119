"""Copy this file, change the rule, and run:  python sweeps/run.py --opt=./my_optimizer.py"""

from typing import Annotated

import optax

from optimizers import Choice, Log, Schedule, optimizer


@optimizer
def my_optimizer(
    # Searched. Arrives as a schedule: warm-up, then cosine decay.
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    b1: Annotated[float, Choice(0.9, 0.95)] = 0.9,  # searched
    weight_decay: float = 1e-3,  # no search domain: fixed
) -> optax.GradientTransformation:
    return optax.chain(
        optax.scale_by_belief(b1),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(lr),
    )
