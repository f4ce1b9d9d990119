"""Gives an optimizer another learning-rate schedule than its own, to study schedules."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from optimizers.contract.api import Optimizer
from optimizers.contract.schedules import SCHEDULES, OfCount, Shape, Warmup
from optimizers.contract.signatures import schedule_settings

if TYPE_CHECKING:
    import jax

COOLDOWN = 0.2  # the fraction of a run in which the rate of `wsd` decays


def warmup_linear(peak: Any, horizon: Any, *, warmup: Warmup = 0.1) -> OfCount:
    """Linear warm-up over a fraction of the horizon, then linear decay to zero.

    With w = max(warmup * horizon, 1), the rate of step t (from 0) is
    peak * min((t + 1) / w, (horizon - t) / max(horizon - w + 1, 1)), at most `peak`.
    """
    return _trapezoid(peak, horizon, warmup, None)


def wsd(peak: Any, horizon: Any, *, warmup: Warmup = 0.1) -> OfCount:
    """Warm-up, stable, decay (Hu et al. 2024, arXiv:2404.06395): linear warm-up over a fraction of
    the horizon, then constant, then over the last fifth linear to zero."""
    return _trapezoid(peak, horizon, warmup, COOLDOWN)


def _trapezoid(peak: Any, horizon: Any, warmup: Any, cooldown: float | None) -> OfCount:
    """Rises over `warmup` and falls over `cooldown` of the horizon; None for all that is left."""
    import jax.numpy as jnp

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        t = jnp.asarray(count, jnp.float32)
        w = jnp.maximum(warmup * horizon, 1.0)
        falls = jnp.maximum(horizon - w + 1 if cooldown is None else cooldown * horizon, 1.0)
        left = jnp.clip((horizon - t) / falls, 0.0, 1.0)
        return peak * jnp.minimum(jnp.minimum((t + 1) / w, left), 1.0)

    return schedule


CHOICES: dict[str, Shape] = {**SCHEDULES, "warmup_linear": warmup_linear, "wsd": wsd}


def with_schedule(optimizer: Optimizer, name: str) -> Optimizer:
    """The optimizer with the schedule of this name in CHOICES.

    Hyperparameters of its own schedule go, those of the new one come. An optimizer that schedules
    nothing stays as it is.
    """
    if not optimizer.scheduled:
        return optimizer
    defaults = {k: v for k, v in optimizer.defaults.items() if k not in optimizer.of_schedule}
    space = {k: v for k, v in optimizer.space.items() if k not in optimizer.of_schedule}
    more, wider = schedule_settings(optimizer.name, CHOICES[name], defaults)
    return dataclasses.replace(
        optimizer,
        schedule=CHOICES[name],
        defaults=defaults | more,
        space=space | wider,
        of_schedule=frozenset(more),
    )
