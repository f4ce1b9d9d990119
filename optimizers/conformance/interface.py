"""Checks that an optimizer has the form of the contract: built, called, saved and compiled."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optimizers.conformance.problems import (
    SHAPES,
    build,
    call,
    corners,
    measured,
    quadratic,
    start,
    take_step,
)
from optimizers.contract.api import EXTRA_ARGS, Optimizer, offer


def builds(opt: Optimizer) -> str | None:
    """The optimizer can be built at its defaults and at the corners of its search space."""
    for hparams in corners(opt):
        build(opt, hparams)
    return None


def extras_match(opt: Optimizer) -> str | None:
    """`update` accepts `params`, and `extra_args` declares exactly what `update` needs."""
    rule = build(opt)

    def error(names: Any) -> Exception | None:
        try:
            jax.eval_shape(
                lambda: rule.update(
                    start(),
                    rule.init(start()),
                    start(),
                    **offer(names, quadratic, jnp.float32(1), start()),
                )
            )
        except (TypeError, ValueError, KeyError) as error:
            return error
        return None

    if failure := error(opt.extra_args):
        for size in (1, 2, 3):
            for more in itertools.combinations(sorted(set(EXTRA_ARGS) - opt.extra_args), size):
                if error({*opt.extra_args, *more}) is None:
                    return (
                        f"update needs {', '.join(map(repr, more))}: declare it with "
                        f"@optimizer(extra_args={[*sorted(opt.extra_args), *more]})"
                    )
        return f"update(gradients, state, params) raises {type(failure).__name__}: {failure}"
    unused = [name for name in sorted(opt.extra_args) if error(opt.extra_args - {name}) is None]
    return (
        f"extra_args declares {', '.join(map(repr, unused))}, but update works without it"
        if unused
        else None
    )


def state_is_arrays(opt: Optimizer) -> str | None:
    """The state holds arrays only, so that it can be saved and restored."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(build(opt).init(start())):
        if not isinstance(leaf, jax.Array | np.ndarray):
            return (
                f"state{jax.tree_util.keystr(path)} is a Python {type(leaf).__name__}: "
                "make it an array, such as jnp.zeros((), jnp.int32)"
            )
    return None


def keeps_shapes_and_dtypes(opt: Optimizer) -> str | None:
    """Updates have the parameters' shapes and dtypes, and a step keeps those of the state.

    So do the parameters to measure. Tried in float32 and bfloat16, on scalars, vectors, matrices,
    kernels and empty tensors.
    """
    for dtype in (jnp.float32, jnp.bfloat16):
        params = {name: jnp.ones(shape, dtype) for name, shape in SHAPES.items()}
        rule = build(opt)

        def step(params: Any = params, rule: Any = rule) -> tuple:
            state = rule.init(params)
            value, gradients = jax.value_and_grad(quadratic)(params)
            updates, after = call(opt, rule, quadratic, params, state, value, gradients)
            return params, updates, state, after, measured(opt, after, params)

        params, updates, before, after, evaluated = jax.eval_shape(step)
        for what, old, new in (
            ("the update", params, updates),
            ("the state", before, after),
            ("what eval_params returns", params, evaluated),
        ):
            if jax.tree.structure(old) != jax.tree.structure(new):
                return (
                    f"{what} should have the structure {jax.tree.structure(old)}, "
                    f"but has {jax.tree.structure(new)}"
                )[:300]
            for (path, a), b in zip(
                jax.tree_util.tree_leaves_with_path(old), jax.tree.leaves(new), strict=True
            ):
                if (a.shape, a.dtype) != (b.shape, b.dtype):
                    place = jax.tree_util.keystr(path)
                    return (
                        f"with {dtype.__name__} parameters, {what}{place} should be "
                        f"{a.dtype}{list(a.shape)}, but is {b.dtype}{list(b.shape)}"
                    )
    return None


def traces_once(opt: Optimizer) -> str | None:
    """A step is traced once: later calls with the same shapes compile nothing."""
    traces = 0
    rule = build(opt)

    @jax.jit
    def step(params: Any, state: Any) -> tuple:
        nonlocal traces
        traces += 1
        return take_step(opt, rule, quadratic, params, state)[:2]

    params, state = start(), rule.init(start())
    for _ in range(3):
        params, state = step(params, state)
    return (
        f"three steps were traced {traces} times: the state changes its types between steps"
        if traces > 1
        else None
    )
