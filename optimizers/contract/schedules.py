"""Learning-rate schedules over a horizon.

Each function here takes a peak and a number of steps, which may be traced, and returns a schedule:
a function of the step count, which starts at 0. Keyword-only parameters are hyperparameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from optimizers.contract.domains import Log

if TYPE_CHECKING:
    import jax


class OfCount(Protocol):
    """A schedule: step count -> value."""

    def __call__(self, count: Any, /) -> Any: ...


Warmup = Annotated[float, Log(0.03, 0.5)]
"""The fraction of the horizon that warms up."""


def warmup_cosine(peak: Any, horizon: Any, *, warmup: Warmup = 0.1) -> OfCount:
    """The default: linear warm-up over a fraction of the horizon, then a half cosine to zero.

    With w = max(warmup * horizon, 1), the rate of step t (from 0) is
    peak * min((t + 1) / w, (1 + cos(pi * d)) / 2) with d = (t + 1 - w) / max(horizon - w + 1, 1),
    clipped to [0, 1]. All steps of the horizon have a rate above zero.
    """
    import jax.numpy as jnp

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        w = jnp.maximum(warmup * horizon, 1.0)
        t = jnp.asarray(count, jnp.float32)
        decay = jnp.clip((t + 1 - w) / jnp.maximum(horizon - w + 1, 1.0), 0.0, 1.0)
        return peak * jnp.minimum((t + 1) / w, 0.5 * (1 + jnp.cos(jnp.pi * decay)))

    return schedule


def warmup_quadratic(peak: Any, horizon: Any) -> OfCount:
    """Linear warm-up, then quadratic decay to zero (Beyer et al. 2021, arXiv:2106.05237, app. D).

    The warm-up takes 1,800 steps, but at most a tenth of the horizon.
    """
    import jax.numpy as jnp

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        w = jnp.clip(0.1 * horizon, 1.0, 1800.0)
        t = jnp.asarray(count, jnp.float32)
        left = jnp.clip((horizon - t) / jnp.maximum(horizon - w + 1, 1.0), 0.0, 1.0)
        return peak * jnp.minimum((t + 1) / w, left**2)

    return schedule


def constant(peak: Any, horizon: Any) -> OfCount:
    """The same rate at every step."""
    import jax.numpy as jnp

    return lambda count: jnp.asarray(peak, jnp.float32)


def warmup_constant(peak: Any, horizon: Any, *, warmup: Warmup = 0.1) -> OfCount:
    """Linear warm-up over a fraction of the horizon, then constant.

    For rules that average iterates instead of decaying the rate.
    """
    import jax.numpy as jnp

    return lambda count: (
        peak
        * jnp.minimum(
            (jnp.asarray(count, jnp.float32) + 1) / jnp.maximum(warmup * horizon, 1.0), 1.0
        )
    )


Shape = Callable[..., OfCount]
SCHEDULES: dict[str, Shape] = {
    "warmup_cosine": warmup_cosine,
    "warmup_quadratic": warmup_quadratic,
    "warmup_constant": warmup_constant,
    "constant": constant,
}
