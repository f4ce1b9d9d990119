"""Momentum as a plug-in, for tests that need any optimizer."""

from typing import Annotated

import optax

from optimizers import Log, Schedule, optimizer


@optimizer
def calm(
    lr: Annotated[Schedule, Log(1e-1, 1.0)] = 0.3, *, damping: float = 0.9
) -> optax.GradientTransformation:
    """Heavy-ball momentum."""
    return optax.chain(optax.trace(damping), optax.scale_by_learning_rate(lr))
