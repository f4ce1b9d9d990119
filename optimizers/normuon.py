"""NorMuon: Muon with a second moment for each neuron."""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.masks import kernels
from optimizers.newton_schulz import orthogonalise
from optimizers.wrappers.precision import at_least_float32


class NorMuonState(NamedTuple):
    """State of the kernels.

    Attributes:
      momentum: averages of gradients.
      square: [1, .., 1, O] for each kernel [.., O], averages of a neuron's mean squared update.
    """

    momentum: Any
    square: Any


def _over_neurons(kernel: jax.Array) -> tuple[int, ...]:
    """The axes over which one neuron's weights lie: all but the last."""
    return tuple(range(kernel.ndim - 1))


def _balanced(unit: jax.Array, square: jax.Array) -> jax.Array:
    """Divides each neuron by its root second moment, keeps the kernel's norm, scales by width."""
    root = jnp.sqrt(square)
    new = unit / jnp.where(root == 0, 1.0, root)
    norm = jnp.linalg.norm(new)
    new = new * (jnp.linalg.norm(unit) / jnp.where(norm == 0, 1.0, norm))
    fan_in, fan_out = math.prod(unit.shape[:-1]), unit.shape[-1]
    return new * math.sqrt(max(1.0, fan_out / fan_in))


def _scale_kernels(momentum: Any, b2: Any) -> optax.GradientTransformation:
    """NorMuon for a tree of kernels that are not empty."""

    def mixed(average: jax.Array, g: jax.Array) -> jax.Array:
        return momentum * average + (1 - momentum) * g

    def init(params: Any) -> NorMuonState:
        neurons = jax.tree.map(
            lambda p: jnp.zeros((1,) * (p.ndim - 1) + p.shape[-1:], p.dtype), params
        )
        return NorMuonState(jax.tree.map(jnp.zeros_like, params), neurons)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, NorMuonState]:
        del params
        average = jax.tree.map(mixed, state.momentum, updates)
        unit = jax.tree.map(lambda m, g: orthogonalise(mixed(m, g)), average, updates)
        square = jax.tree.map(
            lambda v, o: b2 * v + (1 - b2) * jnp.mean(o * o, _over_neurons(o), keepdims=True),
            state.square,
            unit,
        )
        return jax.tree.map(_balanced, unit, square), NorMuonState(average, square)

    return optax.GradientTransformation(init, update)


def scale_by_normuon(
    momentum: float = 0.95,
    b2: float = 0.95,
    *,
    adam_b1: float = 0.9,
    adam_b2: float = 0.95,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """NorMuon for kernels, Adam with Nesterov momentum for vectors (Li et al. 2025).

    Source: arXiv:2510.05491, algorithm 1, in the variant of the authors' code: Nesterov momentum
    of averages without bias correction; O = `orthogonalise`; each neuron of O, which is a column
    of the folded kernel [rest, O], is divided by the root of the average (`b2`) of its mean square;
    the result is scaled to the norm of O and then, as in Muon, by sqrt(max(1, O / rest)). (The
    paper's listing scales it to a root mean square of 0.2 instead.) The average needs no bias
    correction, because its scale cancels.

    Args:
      momentum: decay of the average of gradients.
      b2: decay of the averages of neurons' mean squares.
      adam_b1, adam_b2, eps: Adam's, for vectors and empty tensors.
    """

    def kinds(params: Any) -> Any:
        return jax.tree.map(lambda p: "kernel" if p.ndim >= 2 and p.size else "vector", params)

    return at_least_float32(
        optax.partition(
            {
                "kernel": _scale_kernels(momentum, b2),
                "vector": optax.scale_by_adam(adam_b1, adam_b2, eps, nesterov=True),
            },
            kinds,
        )
    )


@optimizer
def normuon(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    momentum: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    adam_b2: float = 0.95,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """NorMuon: Muon whose neurons get updates of like size (Li et al. 2025, arXiv:2510.05491).

    A convolution kernel is treated as the matrix [H*W*I, O] with O neurons. Vectors are updated by
    Adam with the same learning rate.
    """
    return optax.chain(
        scale_by_normuon(momentum, b2, adam_b2=adam_b2),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
