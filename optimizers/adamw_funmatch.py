"""AdamW as the FunMatch paper's authors released it."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Choice
from optimizers.contract.repairs import keep_dtypes
from optimizers.contract.schedules import OfCount
from optimizers.masks import kernels


def warmup_times_cosine(peak: Any, horizon: Any, *, warmup_steps: int) -> OfCount:
    """Linear warm-up from zero over `warmup_steps`, times a half cosine to zero at the horizon.

    With w = warmup_steps, the value of step t (from 0) is
    peak * min(t / w, 1) * (1 + cos(pi * d)) / 2 with d = (t - w) / (horizon - w), clipped to
    [0, 1]. The first step's value is zero. If the horizon is not longer than w, w is a tenth of the
    horizon, since such a run would end before its peak.

    Raises:
      ValueError: if `warmup_steps` is negative.
    """
    if warmup_steps < 0:
        raise ValueError(
            f"warmup_steps={warmup_steps} is not a number of steps: use 0 for no warm-up, or more."
        )

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        w = jnp.where(warmup_steps < horizon, float(warmup_steps), 0.1 * horizon)
        t = jnp.asarray(count, jnp.float32)
        warm = jnp.where(t < w, t / jnp.maximum(w, 1.0), 1.0)
        decay = jnp.clip((t - w) / (horizon - w), 0.0, 1.0)
        return peak * warm * 0.5 * (1 + jnp.cos(jnp.pi * decay))

    return schedule


@optimizer(schedule=warmup_times_cosine)
def adamw_funmatch(
    lr: Annotated[Schedule, Choice(3e-4, 1e-3, 3e-3, 1e-2)] = 3e-3,
    *,
    weight_decay: Annotated[Schedule, Choice(1e-5, 3e-5, 1e-4, 3e-4, 1e-3)] = 3e-4,
    warmup_steps: int = 1500,
) -> optax.GradientTransformation:
    """The AdamW of FunMatch (Beyer et al. 2021, arXiv:2106.05237), as released in big_vision.

    In order: clipping by the global norm to 1; Adam (0.9, 0.999, 1e-8) with its first moment in
    bfloat16; learning rate; weight decay on kernels; schedule. The decay follows the schedule and
    is not multiplied by the learning rate: `weight_decay` is the part of a kernel that the peak
    step removes. `optax.adamw` removes lr * weight_decay.

    The warm-up takes 1,500 steps; for ImageNet, set `warmup_steps=5000`. A horizon of at most
    `warmup_steps`, which big_vision refuses, warms up over its first tenth; longer ones are as
    released. lr and weight_decay have the paper's grid; the defaults are those released for Flowers
    at 10,000 epochs and for Pets at 3,000.
    """
    # b1 is a Python number, which optax rounds to bfloat16 (0.8984) where it multiplies the first
    # moment. A hyperparameter would arrive as a float32 array and not be rounded.
    return keep_dtypes(
        optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8, mu_dtype=jnp.bfloat16),
            optax.scale_by_learning_rate(lr, flip_sign=False),
            optax.add_decayed_weights(weight_decay, kernels),
            optax.scale(-1.0),
        )
    )
