"""The conformance checks. Each takes an optimizer and returns None, or why the check failed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optimizers.conformance.problems import (
    HORIZONS,
    PARAMS,
    SHAPES,
    STEPS,
    build,
    corners,
    finite,
    network,
    quadratic,
    run,
    same,
    shortest_horizon,
    take_step,
)
from optimizers.contract.api import EXTRA_ARGS, Optimizer, offer

Check = Callable[[Optimizer], str | None]


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
                    PARAMS,
                    rule.init(PARAMS),
                    PARAMS,
                    **offer(names, quadratic, jnp.float32(1), PARAMS),
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
    for path, leaf in jax.tree_util.tree_leaves_with_path(build(opt).init(PARAMS)):
        if not isinstance(leaf, jax.Array | np.ndarray):
            return (
                f"state{jax.tree_util.keystr(path)} is a Python {type(leaf).__name__}: "
                "make it an array, such as jnp.zeros((), jnp.int32)"
            )
    return None


def keeps_shapes_and_dtypes(opt: Optimizer) -> str | None:
    """Updates have the parameters' shapes and dtypes, and a step keeps those of the state.

    Tried in float32 and bfloat16, on scalars, vectors, matrices, kernels and empty tensors.
    """
    for dtype in (jnp.float32, jnp.bfloat16):
        params = {name: jnp.ones(shape, dtype) for name, shape in SHAPES.items()}
        rule = build(opt)

        def step(params: Any = params, rule: Any = rule) -> tuple:
            state = rule.init(params)
            value, gradients = jax.value_and_grad(quadratic)(params)
            updates, after = rule.update(
                gradients, state, params, **offer(opt.extra_args, quadratic, value, gradients)
            )
            return params, updates, state, after

        params, updates, before, after = jax.eval_shape(step)
        for what, old, new in (("the update", params, updates), ("the state", before, after)):
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

    params, state = PARAMS, rule.init(PARAMS)
    for _ in range(3):
        params, state = step(params, state)
    return (
        f"three steps were traced {traces} times: the state changes its types between steps"
        if traces > 1
        else None
    )


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
        for steps in _lengths(opt):
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


def _lengths(opt: Optimizer) -> list[int]:
    """Lengths of the runs that should show an effect: the next is tried if the first shows none."""
    return [steps for steps in HORIZONS if steps >= shortest_horizon(opt)]


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


def has_no_dead_hyperparameter(opt: Optimizer) -> str | None:
    """Changing a hyperparameter that has a domain or is a float changes the parameters.

    What changes nothing within 20 steps, as during a long warm-up, gets a longer run.
    """
    others = {name: values for name in opt.defaults if (values := _other_values(opt, name))}
    dead = list(others)
    for steps in _lengths(opt):

        def end(hparams: Mapping[str, Any], steps: int = steps) -> Any:
            return jax.jit(lambda: run(opt, hparams, network, steps=steps, horizon=steps)[0])()

        base = end({})
        dead = [
            name for name in dead if all(same(base, end({name: value})) for value in others[name])
        ]
        if not dead:
            return None
    return f"{', '.join(dead)} change{'s' * (len(dead) == 1)} nothing within {HORIZONS[-1]:,} steps"


def _other_values(opt: Optimizer, name: str) -> list[Any]:
    """Values of a hyperparameter that should make a difference; none if it need not."""
    default = opt.defaults[name]
    if name in opt.space:
        ends = (opt.space[name].at(0.0), opt.space[name].at(1.0 - 1e-9))
        return [value for value in ends if value != default]
    if isinstance(default, float) and default:
        return [default * 100, default / 2] if default < 1e-3 else [default / 2]
    return []  # an integer may be a limit that is never reached; 0 and None mean off


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


CHECKS: tuple[Check, ...] = (
    builds,
    extras_match,
    state_is_arrays,
    keeps_shapes_and_dtypes,
    traces_once,
    is_deterministic,
    resumes,
    stays_finite,
    lowers_losses,
    is_batched,
    has_no_dead_hyperparameter,
    calls_lapack_one_by_one,
)
