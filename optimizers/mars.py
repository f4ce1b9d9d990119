"""MARS: Adam on gradients whose variance is reduced by the change of the gradient."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.masks import kernels
from optimizers.wrappers.precision import at_least_float32


class CorrectionState(NamedTuple):
    """count: steps taken; previous: the last step's gradients."""

    count: jax.Array
    previous: Any


def _clipped(c: jax.Array, clip: Any) -> jax.Array:
    """The tensor, scaled down to the norm `clip` if its norm is larger."""
    if not c.size:
        return c
    largest = jnp.abs(c).max()
    scale = jnp.where(largest == 0, 1.0, largest)  # squares of huge numbers are infinite
    norm = scale * jnp.linalg.norm(c / scale)
    return jnp.where(norm > clip, c * (clip / norm), c)


def correct_gradients(
    gamma: Any, b1: Any, clip: float | None = 1.0
) -> optax.GradientTransformation:
    """c = g + gamma b1 / (1 - b1) (g - previous g), clipped per tensor to the norm `clip`.

    The correction of MARS (Yuan et al. 2024, arXiv:2411.10438, equations 6 to 8) in its approximate
    version: the previous gradient is that of the previous step, on the batch of that step. At the
    first step is not corrected: the paper starts with two equal iterates.
    """

    def init(params: Any) -> CorrectionState:
        return CorrectionState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, CorrectionState]:
        del params

        def corrected(g: jax.Array, previous: jax.Array) -> jax.Array:
            change = jnp.where(state.count == 0, 0, g - previous)
            c = g + gamma * b1 / (1 - b1) * change
            return c if clip is None else _clipped(c, clip)

        done = jax.tree.map(corrected, updates, state.previous)
        return done, CorrectionState(state.count + 1, updates)

    return optax.GradientTransformation(init, update)


def scale_by_mars(
    b1: float = 0.95,
    b2: float = 0.99,
    gamma: float = 0.025,
    *,
    clip: float | None = 1.0,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """MARS-AdamW for kernels and Adam for vectors, as is the default of the authors' code.

    Adam with bias correction on the clipped, corrected gradients of `correct_gradients` (Yuan et
    al. 2024, arXiv:2411.10438, algorithm 2). The norm that is clipped is that of one tensor, as in
    the authors' code. With gamma = 0 and without clipping this is Adam.

    Args:
      b1, b2: decays of the averages of corrected gradients and of their squares.
      gamma: strength of the correction.
      clip: largest norm of a tensor's corrected gradient; None for no limit.
      eps: Adam's, added to the root of the second moment.
    """
    return at_least_float32(
        optax.chain(
            optax.masked(correct_gradients(gamma, b1, clip), kernels),
            optax.scale_by_adam(b1, b2, eps),
        )
    )


@optimizer
def mars(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    gamma: float = 0.025,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """MARS-AdamW: AdamW with variance reduction (Yuan et al. 2024, arXiv:2411.10438).

    The approximate version, which takes one gradient a step. `gamma` is the strength of the
    correction; corrected gradients of kernels are clipped to norm 1. Vectors take Adam.
    """
    return optax.chain(
        scale_by_mars(b1, b2, gamma),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
