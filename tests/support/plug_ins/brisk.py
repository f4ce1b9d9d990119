"""Adam as a plug-in, for tests that need any optimizer."""

from typing import Annotated

import optax

from optimizers import Choice, Log, Schedule, optimizer


@optimizer
def brisk(
    lr: Annotated[Schedule, Log(1e-2, 1e-1)] = 3e-2,
    *,
    b2: Annotated[float, Choice(0.95, 0.99)] = 0.95,
    weight_decay: float = 0.0,
    period: int = 1,
) -> optax.GradientTransformation:
    """Adam, with updates divided by `period`."""
    return optax.chain(
        optax.scale_by_adam(b2=b2),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(lr),
        optax.scale(1 / period),
    )
