"""What the conformance checks run an optimizer on: small parameters, two losses and short runs.

A rule is free to write into what it is given, and one check finds out. So every check starts from
its own copy (`start`), and a rule gets trees of its own (`call`).
"""

from __future__ import annotations

import dataclasses
import functools
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


def start() -> dict[str, jax.Array]:
    """The parameters at which all runs start: the same numbers, in new arrays, at every call."""
    return {
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


def moving(i: Any) -> Callable[[Any], jax.Array]:
    """`quadratic` around a centre that moves with the step `i`: its gradient never vanishes."""

    def loss(params: Any) -> jax.Array:
        return quadratic(
            jax.tree.map(lambda x: x - jnp.cos(i * (1.0 + x.size % 7)).astype(x.dtype), params)
        )

    return loss


def network(params: Any) -> jax.Array:
    """A small loss that is not convex: a network with one hidden layer on fixed data."""
    return _network_on(_random((32, 8), 4), params)


def minibatch(i: Any) -> Callable[[Any], jax.Array]:
    """`network` on the data of step `i`, which no other step sees."""
    inputs = jax.random.normal(jax.random.fold_in(jax.random.key(4), i), (32, 8))
    return functools.partial(_network_on, inputs)


def _network_on(inputs: jax.Array, params: Any) -> jax.Array:
    hidden = jnp.tanh(inputs @ params["dense"] + params["bias"][None, :5])
    targets = jnp.sin(inputs[:, 0])
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


def steady(opt: Optimizer, rate: float = 1.0) -> Optimizer:
    """`opt` without its schedules: what they would set stays at `rate` times its peak.

    A warm-up of any length is over at once.
    """

    def shape(peak: Any, steps: Any) -> Callable[[Any], Any]:
        return lambda count: jnp.asarray(rate * peak, jnp.float32)

    return dataclasses.replace(opt, schedule=shape)


def copied(tree: Any) -> Any:
    """The same leaves in new containers."""
    return jax.tree.map(lambda x: x, tree)


def call(
    opt: Optimizer,
    rule: Any,
    loss: Callable[[Any], jax.Array],
    params: Any,
    state: Any,
    value: Any,
    gradients: Any,
) -> tuple[Any, Any]:
    """(updates, state) of one call of `update`, which gets containers of its own."""
    offered = offer(opt.extra_args, loss, value, copied(gradients))
    return rule.update(copied(gradients), copied(state), copied(params), **offered)


def take_step(
    opt: Optimizer,
    rule: Any,
    loss: Callable[[Any], jax.Array],
    params: Any,
    state: Any,
    scale: Any = 1.0,
    error: Any = None,
) -> tuple[Any, Any, Any]:
    """(parameters, state, updates) after one step on `loss`, with gradients scaled by `scale`, and
    with relative errors of up to `error`."""
    value, gradients = jax.value_and_grad(loss)(params)
    gradients = jax.tree.map(lambda g: (g * scale).astype(g.dtype), gradients)
    if error is not None:
        gradients = jax.tree.map(
            lambda g: g * (1 + error * jnp.cos(jnp.arange(g.size))).reshape(g.shape), gradients
        )
    updates, state = call(opt, rule, loss, params, state, value, gradients)
    return optax.apply_updates(params, updates), state, updates


def measured(opt: Optimizer, state: Any, params: Any) -> Any:
    """The parameters at which losses are measured."""
    return opt.eval_params(copied(state), copied(params)) if opt.eval_params else params


def run(
    opt: Optimizer,
    hparams: Mapping[str, Any],
    loss: Callable = quadratic,
    params: Any = None,
    steps: int = STEPS,
    state: Any = None,
    horizon: int | None = None,
    error: Any = None,
) -> tuple:
    """(parameters, state) after `steps` steps in one scan.

    Args:
      opt, hparams: the rule.
      loss: function from parameters to a loss.
      params: where to start; None for `start()`.
      steps: how many steps.
      state: where to start; None to initialise it.
      horizon: the horizon that the rule is built for; None for the shortest.
      error: relative errors of the gradients (see `take_step`).
    """
    return run_on(opt, hparams, lambda i: loss, params, steps, state, horizon, error)


def run_on(
    opt: Optimizer,
    hparams: Mapping[str, Any],
    loss_of: Callable[[Any], Callable[[Any], jax.Array]],
    params: Any = None,
    steps: int = STEPS,
    state: Any = None,
    horizon: int | None = None,
    error: Any = None,
) -> tuple:
    """As `run`, on the loss `loss_of(i)` in step i, from 0."""
    rule = build(opt, hparams, horizon)
    begin = start() if params is None else params

    def body(carry: tuple, i: jax.Array) -> tuple[tuple, None]:
        params, state, _ = take_step(opt, rule, loss_of(i), *carry, error=error)
        return (params, state), None

    first = rule.init(copied(begin)) if state is None else state
    return jax.lax.scan(body, (begin, first), jnp.arange(steps))[0]


def by_value(opt: Optimizer, function: Callable[[Mapping[str, Any]], Any]) -> Callable[..., Any]:
    """`function` of hyperparameters, compiled.

    Once for all values of floats, as the harness does it, if the rule takes traced values; else
    once for each value.
    """

    @functools.partial(jax.jit, static_argnums=1)
    def traced(floats: dict[str, Any], others: tuple[tuple[str, Any], ...]) -> Any:
        return function({**floats, **dict(others)})

    def compiled(hparams: Mapping[str, Any]) -> Any:
        values = {**opt.defaults, **hparams}
        floats = {name: value for name, value in values.items() if isinstance(value, float)}
        others = tuple(sorted((k, v) for k, v in values.items() if k not in floats))
        try:
            return traced(floats, others)
        except Exception:  # it may need the value, and raise anything; or else raises it again
            return jax.jit(lambda: function(values))()

    return compiled


def finite(tree: Any) -> bool:
    """Whether no array of floats in the tree holds NaN or infinity."""
    return all(
        bool(jnp.isfinite(leaf).all())
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)
    )


def array(leaf: Any) -> np.ndarray:
    """The numbers of an array, also of random keys."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf))
    return np.asarray(leaf)


def same(a: Any, b: Any) -> bool:
    """Whether two trees hold the same bits."""
    ours, theirs = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(ours) == len(theirs) and all(
        np.array_equal(array(x), array(y), equal_nan=True)
        for x, y in zip(ours, theirs, strict=True)
    )


MOVED = 0.02  # share of the way that a run went, below which two ends are the same but for rounding


def apart(a: Any, b: Any, begin: Any, share: float = MOVED) -> tuple[str, float] | None:
    """The first array that differs between two ends of a run, and by how much; None if none does.

    Differences count from `share` of the way that it went from `begin`: smaller ones are rounding.
    """
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), jax.tree.leaves(begin), strict=True)
    for (path, _), leaves in zip(jax.tree_util.tree_leaves_with_path(a), pairs, strict=True):
        x, y, z = (np.asarray(leaf, np.float64) for leaf in leaves)
        if not x.size:
            continue
        far = max(np.abs(x - z).max(), np.abs(y - z).max())
        least = share * far + 1e-6 * np.abs(z).max()
        if not (difference := np.abs(x - y).max()) <= least:  # also if it is NaN
            return jax.tree_util.keystr(path), float(difference)
    return None


ROUNDING = 1e-6
"""Relative errors of gradients that are as small as rounding errors in a sum of floats."""


def is_rounding(difference: float, by_error: tuple[str, float] | None) -> bool:
    """Whether errors in the gradients explain a difference between two ends of a run.

    Some rules magnify rounding errors, such as those that rotate into eigenvectors of a matrix that
    has few.

    Args:
      difference: how far apart the ends are.
      by_error: how far apart errors of `ROUNDING` bring them, by `apart` with share 0.
    """
    return by_error is not None and difference < 10 * by_error[1]
