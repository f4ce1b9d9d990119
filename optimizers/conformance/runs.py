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
    ROUNDING,
    STEPS,
    apart,
    build,
    by_value,
    corners,
    finite,
    is_rounding,
    lengths,
    measured,
    network,
    quadratic,
    run,
    same,
    start,
    steady,
    take_step,
)
from optimizers.contract.api import Optimizer

GRADIENTS = {
    "ordinary": (1.0,) * STEPS,
    "zero": (0.0, 0.0, 0.0, 1.0),
    "tiny (1e-20)": (1e-20,) * 3,
    "huge (1e8)": (1e8,) * 3,
    "ordinary and then zero": (1.0, 1.0, 0.0, 0.0, 1.0),
}
"""Factors of the gradients in each step."""
LEAST = 0.01  # share by which a rule lowers a loss, at least


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
    rule = steady(opt)  # so that it moves
    go = jax.jit(
        lambda params, state, n: jax.lax.fori_loop(
            0, n, lambda _, c: run(rule, {}, params=c[0], state=c[1], steps=1), (params, state)
        )
    )
    for stop in (1, 7, 13):
        begun = go(start(), build(rule).init(start()), stop)
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
            go(start(), build(rule).init(start()), STEPS),
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

    @jax.jit
    def step(params: Any, state: Any, scale: Any) -> tuple[Any, Any, Any]:
        params, state, _ = take_step(opt, rule, quadratic, params, state, scale)
        return params, state, measured(opt, state, params)

    for name, scales in GRADIENTS.items():
        params, state = start(), rule.init(start())
        for i, scale in enumerate(scales, 1):
            params, state, evaluated = step(params, state, scale)
            if not finite((params, evaluated)):
                return f"with {name} gradients, parameters are not finite after step {i}"
    return None


def lowers_losses(opt: Optimizer) -> str | None:
    """Lowers two losses, a quadratic and a small network's, at its defaults or at a corner.

    By 1 % at least, and the quadratic in each parameter by itself. A rule that 20 steps barely
    move, such as one with a long warm-up, gets a longer run.
    """
    for name, loss in (("a quadratic", quadratic), ("a small network's loss", network)):
        before = float(loss(start()))
        for steps in lengths(opt):

            def end(hparams: Mapping[str, Any], steps: int = steps, loss: Callable = loss) -> Any:
                params, state = run(opt, hparams, loss, steps=steps, horizon=steps)
                return measured(opt, state, params)

            ends = list(map(by_value(opt, end), corners(opt)))
            after = [float(loss(params)) for params in ends]
            best = min(a if np.isfinite(a) else np.inf for a in after)
            left = [_not_lower(params) for params in ends] if loss is quadratic else [None]
            lowered = best < (1 - LEAST) * before
            if lowered and None in left:
                break
            last = steps == HORIZONS[-1]
            if last and lowered:
                return (
                    f"{steps:,} steps lower the quadratic, but not in {left[0]}: is the sign of "
                    "its update wrong, or is it left out?"
                )
            if last or (best >= before and not np.allclose(after, before, rtol=1e-3)):
                return (
                    f"{steps:,} steps do not lower {name} by {LEAST:.0%}: it goes from "
                    f"{before:.4g} to {', '.join(f'{a:.4g}' for a in after)} (at the defaults, "
                    "then at the corners of the search space)"
                )
    return None


def _not_lower(params: Any) -> str | None:
    """The first parameter in which the quadratic is not lower than at the start."""
    for (path, leaf), begin in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(start()), strict=True
    ):
        if not float(quadratic(leaf)) < float(quadratic(begin)):
            return f"parameters{jax.tree_util.keystr(path)}"
    return None


def is_batched(opt: Optimizer) -> str | None:
    """Runs under vmap give the same result as runs alone, up to rounding."""
    rule, one = steady(opt), jax.tree.map(lambda p: 0.5 * p, start())
    two = jax.tree.map(lambda p, q: jnp.stack([p, q]), start(), one)

    def end(params: Any, error: Any) -> Any:
        return run(rule, {}, params=params, steps=2, error=error)[0]

    both = jax.jit(jax.vmap(end, (0, None)))(two, 0.0)
    alone = jax.jit(end)(one, 0.0)
    if not (found := apart(jax.tree.map(lambda p: p[1], both), alone, one)):
        return None
    place, difference = found
    if is_rounding(difference, apart(jax.jit(end)(one, ROUNDING), alone, one, 0.0)):
        return None
    return (
        f"under vmap, parameters{place} differ by {difference:.2g} from those of the same run "
        "alone: several trials run as one program, and each must be as if it were alone"
    )


def calls_lapack_one_by_one(opt: Optimizer) -> str | None:
    """LAPACK is called on single matrices, never on a batch.

    On XLA:CPU (jax 0.10.2), batched LAPACK calls deadlock when two run at once.
    """
    rule = build(opt)
    text = (
        jax.jit(lambda params, state: take_step(opt, rule, quadratic, params, state))
        .lower(start(), rule.init(start()))
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
