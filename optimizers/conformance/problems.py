"""What the conformance checks run an optimizer on: small parameters, two losses and short runs."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # set before importing jax; matrices are small

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optimizers.contract.api import Optimizer, offer

STEPS = 20
HORIZONS = (STEPS, 10_000)
"""The second is for rules with a long warm-up, which do nothing within the first. FunMatch's
longest takes 5,000 steps."""


def _random(shape: tuple[int, ...], seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


PARAMS = {
    "conv": _random((3, 3, 4, 6), 0),
    "dense": _random((8, 5), 1),
    "bias": _random((6,), 2),
    "scalar": _random((), 3),
}
SHAPES = {
    "scalar": (),
    "vector": (5,),
    "matrix": (4, 3),
    "kernel": (2, 2, 3, 4),
    "empty": (0, 3),
    "ones": (1, 1),
}


def quadratic(params: Any) -> jax.Array:
    """A quadratic with curvature 0.02, which suits learning rates meant for losses of about 1."""
    return 0.01 * sum(
        (jnp.sum((leaf.astype(jnp.float32) - 0.3) ** 2) for leaf in jax.tree.leaves(params)),
        jnp.float32(0),
    )


def network(params: Any) -> jax.Array:
    """A small loss that is not convex: a network with one hidden layer on fixed data."""
    inputs, targets = _random((32, 8), 4), jnp.sin(_random((32, 8), 4)[:, 0])
    hidden = jnp.tanh(inputs @ params["dense"] + params["bias"][None, :5])
    return jnp.mean((hidden.sum(1) + params["scalar"] - targets) ** 2) + 0.01 * jnp.sum(
        params["conv"] ** 2
    )


def corners(opt: Optimizer) -> list[dict[str, Any]]:
    """Three settings: the defaults, every domain at its low end, every domain at its high end."""
    ends = [{name: domain.at(u) for name, domain in opt.space.items()} for u in (0.0, 1.0 - 1e-9)]
    return [{}, *(end for end in ends if end)]


@functools.cache
def shortest_horizon(opt: Optimizer) -> int:
    """The shortest of HORIZONS that the optimizer can be built for.

    A rule may refuse a run that is shorter than its warm-up.
    """
    for horizon in HORIZONS[:-1]:
        try:
            for hparams in corners(opt):
                opt.build(hparams, horizon)
        except Exception:  # the optimizer may raise anything; `builds` reports it
            continue
        return horizon
    return HORIZONS[-1]


def lengths(opt: Optimizer) -> list[int]:
    """Lengths of the runs that should show an effect: the next is tried if the first shows none."""
    return [steps for steps in HORIZONS if steps >= shortest_horizon(opt)]


def build(opt: Optimizer, hparams: Mapping[str, Any] = {}, horizon: int | None = None) -> Any:
    """The rule for a run of `horizon` steps; None for the shortest horizon that it accepts."""
    return opt.build(hparams, shortest_horizon(opt) if horizon is None else horizon)


def take_step(
    opt: Optimizer,
    rule: Any,
    loss: Callable[[Any], jax.Array],
    params: Any,
    state: Any,
    scale: Any = 1.0,
) -> tuple[Any, Any, Any]:
    """(parameters, state, updates) after one step on `loss`, with gradients scaled by `scale`."""
    value, gradients = jax.value_and_grad(loss)(params)
    gradients = jax.tree.map(lambda g: (g * scale).astype(g.dtype), gradients)
    updates, state = rule.update(
        gradients, state, params, **offer(opt.extra_args, loss, value, gradients)
    )
    return optax.apply_updates(params, updates), state, updates


def run(
    opt: Optimizer,
    hparams: Mapping[str, Any],
    loss: Callable = quadratic,
    params: Any = None,
    steps: int = STEPS,
    state: Any = None,
    horizon: int | None = None,
) -> tuple:
    """(parameters, state) after `steps` steps in one scan.

    Args:
      opt, hparams: the rule.
      loss: function from parameters to a loss.
      params: where to start; None for PARAMS.
      steps: how many steps.
      state: where to start; None to initialise it.
      horizon: the horizon that the rule is built for; None for the shortest.
    """
    rule = build(opt, hparams, horizon)
    start = PARAMS if params is None else params

    def body(carry: tuple, _: None) -> tuple[tuple, None]:
        params, state, _ = take_step(opt, rule, loss, *carry)
        return (params, state), None

    begin = (start, rule.init(start) if state is None else state)
    return jax.lax.scan(body, begin, length=steps)[0]


def finite(tree: Any) -> bool:
    """Whether no array of floats in the tree holds NaN or infinity."""
    return all(
        bool(jnp.isfinite(leaf).all())
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)
    )


def same(a: Any, b: Any) -> bool:
    """Whether two trees hold the same bits."""
    pairs = itertools.zip_longest(jax.tree.leaves(a), jax.tree.leaves(b))
    return all(np.array_equal(np.asarray(x), np.asarray(y), equal_nan=True) for x, y in pairs)
