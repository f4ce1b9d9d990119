"""Checks of whole runs: repeatable, resumable, finite, useful, and the same beside others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optimizers.conformance.problems import (
    HORIZONS,
    PARAMS,
    STEPS,
    build,
    corners,
    finite,
    lengths,
    network,
    quadratic,
    run,
    same,
    take_step,
)
from optimizers.contract.api import Optimizer


def is_deterministic(opt: Optimizer) -> str | None:
    """Two runs give the same bits: no np.random, no clock and no changing global variables."""
    first, second = (jax.jit(lambda: run(opt, {}))() for _ in range(2))
    return (
        None
        if same(first, second)
        else "two runs from the same start differ: "
        "do not use np.random, the time or global state in init and update"
    )


def resumes(opt: Optimizer) -> str | None:
    """A run that is stopped, copied to the host and resumed ends with the same bits."""
    go = jax.jit(
        lambda params, state, n: jax.lax.fori_loop(
            0, n, lambda _, c: run(opt, {}, params=c[0], state=c[1], steps=1), (params, state)
        )
    )
    for stop in (1, 7, 13):
        begun = go(PARAMS, build(opt).init(PARAMS), stop)
        held = jax.tree.map(
            lambda x: (
                jnp.asarray(np.array(x), x.dtype)
                if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
                else x
            ),
            begun,
        )
        resumed, straight = (
            go(*held, STEPS - stop),
            go(PARAMS, build(opt).init(PARAMS), STEPS),
        )
        if not same(resumed, straight):
            return (
                f"a run resumed after {stop} steps ends differently from an uninterrupted one: "
                "something that the optimizer needs is missing from its state"
            )
    return None


def stays_finite(opt: Optimizer) -> str | None:
    """Parameters stay finite in an ordinary run, and with zero, tiny and huge gradients."""
    rule = build(opt)
    step = jax.jit(
        lambda params, state, scale: take_step(opt, rule, quadratic, params, state, scale)[:2]
    )
    params, state = PARAMS, rule.init(PARAMS)
    for i in range(1, STEPS + 1):
        params, state = step(params, state, 1.0)
        if not finite(params):
            return f"parameters are not finite after step {i} of an ordinary run"
    for name, scale in (("zero", 0.0), ("tiny (1e-20)", 1e-20), ("huge (1e8)", 1e8)):
        params, state = PARAMS, rule.init(PARAMS)
        for i in range(1, 4):
            params, state = step(params, state, scale)
            if not finite(params):
                return f"with {name} gradients, parameters are not finite after step {i}"
    return None


def lowers_losses(opt: Optimizer) -> str | None:
    """Lowers two losses, a quadratic and a small network's, at its defaults or at a corner.

    A rule that 20 steps barely move, such as one with a long warm-up, gets a longer run.
    """
    measure = opt.eval_params or (lambda state, params: params)
    for name, loss in (("a quadratic", quadratic), ("a small network's loss", network)):

        def trained(hparams: Mapping[str, Any], steps: int, loss: Callable = loss) -> jax.Array:
            params, state = run(opt, hparams, loss, steps=steps, horizon=steps)
            return loss(measure(state, params))

        before = float(loss(PARAMS))
        for steps in lengths(opt):
            after = [
                float(jax.jit(lambda h=h, n=steps, trained=trained: trained(h, n))())
                for h in corners(opt)
            ]
            if min(a if np.isfinite(a) else np.inf for a in after) < before:
                break
            if steps == HORIZONS[-1] or not np.allclose(after, before, rtol=1e-3):
                return (
                    f"{steps:,} steps do not lower {name}: it goes from {before:.4g} to "
                    f"{', '.join(f'{a:.4g}' for a in after)} (at the defaults, then at the corners "
                    "of the search space)"
                )
    return None


def is_batched(opt: Optimizer) -> str | None:
    """Runs under vmap give the same result as runs alone, up to rounding."""
    two = jax.tree.map(lambda p: jnp.stack([p, 0.5 * p]), PARAMS)
    both = jax.jit(jax.vmap(lambda params: run(opt, {}, params=params, steps=2)[0]))(two)
    alone = jax.jit(lambda: run(opt, {}, params=jax.tree.map(lambda p: p[1], two), steps=2)[0])()
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(both), jax.tree.leaves(alone), strict=True
    ):
        if not np.allclose(a[1], b, rtol=1e-2, atol=1e-3):
            return (
                f"under vmap, parameters{jax.tree_util.keystr(path)} differ by "
                f"{float(jnp.abs(a[1] - b).max()):.2g} from those of the same run alone"
            )
    return None


def calls_lapack_one_by_one(opt: Optimizer) -> str | None:
    """LAPACK is called on single matrices, never on a batch.

    On XLA:CPU (jax 0.10.2), batched LAPACK calls deadlock when two run at once.
    """
    rule = build(opt)
    text = (
        jax.jit(lambda params, state: take_step(opt, rule, quadratic, params, state))
        .lower(PARAMS, rule.init(PARAMS))
        .as_text()
    )
    for line in text.splitlines():
        if (
            "custom_call" in line
            and "lapack" in line
            and (found := re.search(r"tensor<(\d+)x\d+x\d+x", line))
            and int(found[1]) > 1
        ):
            call = re.search(r"@(\w+)", line)
            return (
                f"{call[1] if call else 'LAPACK'} is called on {found[1]} matrices at once: "
                "use jax.lax.map over single matrices"
            )
    return None
