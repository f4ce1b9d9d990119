"""Adam-mini: Adam with one second moment for each neuron."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.masks import kernels
from optimizers.wrappers.precision import at_least_float32


class AdamMiniState(NamedTuple):
    """State of `scale_by_adam_mini`.

    Attributes:
      count: steps taken.
      momentum: averages of gradients.
      square: averages of mean squares: [1, .., 1, O] for a kernel [.., O], [1] for a vector.
    """

    count: jax.Array
    momentum: Any
    square: Any


def _block(p: jax.Array) -> tuple[int, ...]:
    """The axes of a block: all but a kernel's last; the only one of a vector."""
    return tuple(range(max(p.ndim - 1, min(p.ndim, 1))))


def _mean_square(g: jax.Array) -> jax.Array:
    return jnp.mean(g * g, _block(g), keepdims=True) if g.size else _one_a_block(g)


def _one_a_block(p: jax.Array) -> jax.Array:
    """Zeros [1, .., 1, O] for a kernel, [1] for a vector, [] for a scalar."""
    block = _block(p)
    return jnp.zeros([1 if axis in block else n for axis, n in enumerate(p.shape)], p.dtype)


def scale_by_adam_mini(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Adam whose second moment is the mean over a block (Zhang et al. 2024, arXiv:2406.16793).

    A block is the weights of one output neuron, kernel[..., o], or a whole vector: the paper's
    partition for layers without attention. (Its code keeps Adam's moments for embeddings and the
    output layer of a language model.) Bias correction and eps are Adam's.

    Args:
      b1, b2: decays of the averages of gradients and of blocks' mean squares.
      eps: added to the root of the second moment.
    """

    def init(params: Any) -> AdamMiniState:
        return AdamMiniState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.map(_one_a_block, params),
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AdamMiniState]:
        del params
        count = state.count + 1
        momentum = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.momentum, updates)
        square = jax.tree.map(
            lambda v, g: b2 * v + (1 - b2) * _mean_square(g), state.square, updates
        )
        means = optax.tree.bias_correction(momentum, b1, count)
        squares = optax.tree.bias_correction(square, b2, count)
        directions = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), means, squares)
        return directions, AdamMiniState(count, momentum, square)

    return at_least_float32(optax.GradientTransformation(init, update))


@optimizer
def adam_mini(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """Adam-mini: AdamW with one second moment for each neuron (Zhang et al. 2024).

    arXiv:2406.16793. Vectors have one for the whole tensor.
    """
    return optax.chain(
        scale_by_adam_mini(b1, b2),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
