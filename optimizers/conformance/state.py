"""Checks that a rule learns from every step: its state and its steps follow the gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optimizers.conformance.problems import (
    STEPS,
    array,
    build,
    call,
    lengths,
    moving,
    run_on,
    same,
    start,
    steady,
)
from optimizers.contract.api import Optimizer

ODD_STEPS = (0, 4, 9, 16)  # of STEPS: in one of these, the gradient is another one


def updates_its_state(opt: Optimizer) -> str | None:
    """Counts and averages that start at a constant do not stay there.

    Numbers that a state may well hold unchanged are left out: keys, arrays that differ from place
    to place, scalars other than integers of 0 or 1 (a bound of 0 may stay), and the hyperparameters
    of optax.inject_hyperparams.
    """
    first = jax.tree_util.tree_leaves_with_path(build(opt).init(start()))
    passed = _passed_on(opt)
    suspects = [i for i, (path, leaf) in enumerate(first) if _may_be_frozen(path, leaf)]
    frozen = [i for i in suspects if passed[i]]
    quiet = [i for i in suspects if not passed[i] and _is_average(first[i][1])]
    for steps in lengths(opt) if quiet else ():
        end = jax.jit(lambda n=steps: run_on(opt, {}, moving, steps=n, horizon=n)[1])()
        leaves = jax.tree.leaves(end)
        quiet = [i for i in quiet if same(leaves[i], first[i][1])]
        if not quiet:
            break
    if not (stuck := sorted(frozen + quiet)):
        return None
    place = jax.tree_util.keystr(first[stuck[0]][0])
    value = array(first[stuck[0]][1]).ravel()[0]
    more = f" (and {len(stuck) - 1} more)" if len(stuck) > 1 else ""
    return (
        f"state{place}{more} stays at {value:g} in every step: let update return the new count or "
        "average, or leave it out of the state"
    )


def _may_be_frozen(path: Any, leaf: Any) -> bool:
    if not leaf.size or not jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == jnp.uint32:
        return False
    if any("hyperparams" in str(key) for key in path):
        return False
    values = array(leaf).ravel()
    if np.any(values != values[0]):
        return False
    if leaf.ndim:
        return _is_average(leaf)
    return bool(jnp.issubdtype(leaf.dtype, jnp.integer) and values[0] in (0, 1))


def _is_average(leaf: Any) -> bool:
    """Floats that start at a constant, in the shape of a parameter."""
    shapes = {p.shape for p in jax.tree.leaves(start()) if p.ndim}
    return bool(jnp.issubdtype(leaf.dtype, jnp.inexact)) and leaf.shape in shapes


def _passed_on(opt: Optimizer) -> list[bool]:
    """Which arrays of the state an update hands on as they are, by its program."""
    rule, params = build(opt), start()

    def update(state: Any, params: Any, gradients: Any, value: Any) -> Any:
        return call(opt, rule, moving(0), params, state, value, gradients)[1]

    program = jax.make_jaxpr(update)(rule.init(params), params, params, jnp.float32(1)).jaxpr
    return [out is given for out, given in zip(program.outvars, program.invars, strict=False)]


def uses_every_gradient(opt: Optimizer) -> str | None:
    """Another gradient in one step alone, early or late, changes what follows."""
    moves = steady(opt)

    @jax.jit
    def end(odd: Any) -> Any:
        return run_on(moves, {}, lambda i: moving(jnp.where(i == odd, i + 0.5, i)))

    usual = end(-1)
    for odd in ODD_STEPS:
        if same(end(odd), usual):
            return (
                f"another gradient in step {odd} (from 0) of {STEPS} changes neither parameters "
                "nor state: the rule does not use the gradient of this step. Use all of them"
            )
    return None
