"""Scion: steps of fixed size in a norm that suits the layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.masks import kernels
from optimizers.newton_schulz import orthogonalise
from optimizers.wrappers.precision import at_least_float32


def _spectral(d: jax.Array) -> jax.Array:
    """sqrt(O / I) / (H W) times about U V^T, for a kernel [H, W, I, O] = U S V^T when folded."""
    window = math.prod(d.shape[:-2])
    return orthogonalise(d) * (math.sqrt(d.shape[-1] / d.shape[-2]) / window)


def _unit_rms(d: jax.Array) -> jax.Array:
    """The tensor over its root mean square; 0 for a zero tensor."""
    largest = jnp.abs(d).max()
    d = d / jnp.where(largest == 0, 1.0, largest)  # the squares of tiny numbers vanish
    rms = jnp.sqrt(jnp.mean(d * d))
    return d / jnp.where(rms == 0, 1.0, rms)


def _sign(d: jax.Array) -> jax.Array:
    """Signs over the number of inputs of a neuron."""
    return jnp.sign(d) / math.prod(d.shape[:-1])


def scale_by_scion(
    b1: float = 0.9,
    *,
    output: Callable[[Any], Any] | None = None,
    output_radius: float = 100.0,
    vector_radius: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """Minus the point of a unit ball where the averaged gradient d is smallest, per tensor.

    Pethick et al. 2025 (arXiv:2502.07529): unconstrained Scion with d = b1 d + (1 - b1) g and,
    as the authors' code does for convolutional networks,
    - for a kernel [H, W, I, O], or [I, O]: sqrt(O / I) / (H W) times about U V^T of the folded
      kernel [H*W*I, O] (the spectral norm, by the Newton-Schulz iteration of Muon);
    - for a vector or scalar: `vector_radius` times d over its root mean square;
    - for the output layer's kernel, if `output` names it: `output_radius` sign(d) / (number of
      inputs).
    The other radii are 1.

    Weight decay w after this rule and a learning rate of r is their constrained version with the
    step r w: parameters that decay stay in the ball of radius 1 / w.

    Args:
      b1: decay of the average of gradients: 1 minus what the authors call momentum.
      output: parameters -> tree of booleans, True for the output layer's kernel; None for a
        spectral step there too.
      output_radius: radius of the output layer's ball, relative to the others.
      vector_radius: the same of vectors and scalars.
    """

    def step(d: jax.Array, signs: bool) -> jax.Array:
        if not d.size:
            return d
        if d.ndim < 2:
            return vector_radius * _unit_rms(d)
        return output_radius * _sign(d) if signs else _spectral(d)

    def steps(updates: Any, _: Any) -> Any:
        outputs = jax.tree.map(lambda d: False, updates) if output is None else output(updates)
        return jax.tree.map(step, updates, outputs)

    # Without bias correction: steps do not depend on the scale of d.
    return at_least_float32(optax.chain(optax.ema(b1, debias=False), optax.stateless(steps)))


@optimizer
def scion(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b1: Annotated[float, Decay(0.5, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
    vector_radius: float = 1.0,
) -> optax.GradientTransformation:
    """Scion: steps on the ball of a norm for each layer (Pethick et al. 2025, arXiv:2502.07529).

    Spectral steps for all kernels and normalised ones for vectors, `vector_radius` times as large.
    The unconstrained version, with weight decay on kernels. The output layer is treated as the
    others: its shape does not show it.
    """
    return optax.chain(
        scale_by_scion(b1, vector_radius=vector_radius),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
