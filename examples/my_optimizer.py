"""Copy this file, change the rule, and run:  python sweeps/run.py --opt=./my_optimizer.py"""

from typing import Annotated

import optax

from optimizers import Decay, Log, Schedule, optimizer


@optimizer
def my_optimizer(
    # Searched. Arrives as a schedule: warm-up, whose length is searched too, then cosine decay.
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,  # searched, evenly in log(1 - b1)
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
    b2: float = 0.95,  # no search domain: fixed
) -> optax.GradientTransformation:
    return optax.chain(
        optax.scale_by_belief(b1, b2),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(lr),
    )
