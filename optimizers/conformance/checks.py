"""The checks of the conformance suite: each returns None, or the reason why it failed."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before jax: its LAPACK calls are small

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optimizers.contract.api import EXTRA_ARGS, Optimizer, offer

STEPS = 20

Check = Callable[[Optimizer], str | None]


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


def _quadratic(params: Any) -> jax.Array:
    """A loss of curvature 0.02, which suits rates that are made for losses of about 1."""
    return 0.01 * sum(
        (jnp.sum((leaf.astype(jnp.float32) - 0.3) ** 2) for leaf in jax.tree.leaves(params)),
        jnp.float32(0),
    )


def _network(params: Any) -> jax.Array:
    """A small loss that is not convex: a network with one hidden layer on fixed data."""
    inputs, targets = _random((32, 8), 4), jnp.sin(_random((32, 8), 4)[:, 0])
    hidden = jnp.tanh(inputs @ params["dense"] + params["bias"][None, :5])
    return jnp.mean((hidden.sum(1) + params["scalar"] - targets) ** 2) + 0.01 * jnp.sum(
        params["conv"] ** 2
    )


def _step(
    opt: Optimizer,
    rule: Any,
    loss: Callable[[Any], jax.Array],
    params: Any,
    state: Any,
    scale: Any = 1.0,
) -> tuple[Any, Any, Any]:
    """(parameters, state, updates) after one step on `loss`, its gradient multiplied by `scale`."""
    value, gradients = jax.value_and_grad(loss)(params)
    gradients = jax.tree.map(lambda g: (g * scale).astype(g.dtype), gradients)
    updates, state = rule.update(
        gradients, state, params, **offer(opt.extra_args, loss, value, gradients)
    )
    return optax.apply_updates(params, updates), state, updates


def _run(
    opt: Optimizer,
    hparams: Mapping[str, Any],
    loss: Callable = _quadratic,
    params: Any = None,
    steps: int = STEPS,
    state: Any = None,
) -> tuple:
    """(parameters, state) after `steps` steps in one scan, from `state` if it is given."""
    rule = opt.build(hparams, STEPS)
    start = PARAMS if params is None else params

    def body(carry: tuple, _: None) -> tuple[tuple, None]:
        params, state, _ = _step(opt, rule, loss, *carry)
        return (params, state), None

    return jax.lax.scan(body, (start, rule.init(start) if state is None else state), length=steps)[
        0
    ]


def _corners(opt: Optimizer) -> list[dict[str, Any]]:
    """The defaults, then all hyperparameters at the low and at the high ends of their domains."""
    ends = [{name: domain.at(u) for name, domain in opt.space.items()} for u in (0.0, 1.0 - 1e-9)]
    return [{}, *(end for end in ends if end)]


def _finite(tree: Any) -> bool:
    return all(
        bool(jnp.isfinite(leaf).all())
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)
    )


def _same(a: Any, b: Any) -> bool:
    pairs = itertools.zip_longest(jax.tree.leaves(a), jax.tree.leaves(b))
    return all(np.array_equal(np.asarray(x), np.asarray(y), equal_nan=True) for x, y in pairs)


def builds(opt: Optimizer) -> str | None:
    """It can be built at its defaults and at the corners of its space."""
    for hparams in _corners(opt):
        opt.build(hparams, STEPS)
    return None


def extras_match(opt: Optimizer) -> str | None:
    """`update` takes parameters, and needs exactly the extra arguments that it declares."""
    rule = opt.build({}, STEPS)

    def error(names: Any) -> Exception | None:
        try:
            jax.eval_shape(
                lambda: rule.update(
                    PARAMS,
                    rule.init(PARAMS),
                    PARAMS,
                    **offer(names, _quadratic, jnp.float32(1), PARAMS),
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
        f"extra_args declares {', '.join(map(repr, unused))}, which update does not need"
        if unused
        else None
    )


def state_is_arrays(opt: Optimizer) -> str | None:
    """The state holds arrays only, so that it can be saved and restored."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt.build({}, STEPS).init(PARAMS)):
        if not isinstance(leaf, jax.Array | np.ndarray):
            return (
                f"state{jax.tree_util.keystr(path)} is a Python {type(leaf).__name__}: "
                "make it an array, such as jnp.zeros((), jnp.int32)"
            )
    return None


def keeps_shapes_and_dtypes(opt: Optimizer) -> str | None:
    """Updates have the parameters' shapes and dtypes; a step keeps those of the state.

    In float32 and bfloat16, for scalars, vectors, matrices, kernels and empty tensors.
    """
    for dtype in (jnp.float32, jnp.bfloat16):
        params = {name: jnp.ones(shape, dtype) for name, shape in SHAPES.items()}
        rule = opt.build({}, STEPS)

        def step(params: Any = params, rule: Any = rule) -> tuple:
            state = rule.init(params)
            value, gradients = jax.value_and_grad(_quadratic)(params)
            updates, after = rule.update(
                gradients, state, params, **offer(opt.extra_args, _quadratic, value, gradients)
            )
            return params, updates, state, after

        params, updates, before, after = jax.eval_shape(step)
        for what, old, new in (("the update", params, updates), ("the state", before, after)):
            if jax.tree.structure(old) != jax.tree.structure(new):
                structures = jax.tree.structure(old), jax.tree.structure(new)
                return f"{what} changes its structure from {structures[0]} to {structures[1]}"[:300]
            for (path, a), b in zip(
                jax.tree_util.tree_leaves_with_path(old), jax.tree.leaves(new), strict=True
            ):
                if (a.shape, a.dtype) != (b.shape, b.dtype):
                    place = jax.tree_util.keystr(path)
                    return (
                        f"with {dtype.__name__} parameters {what}{place} is "
                        f"{b.dtype}{list(b.shape)}, not {a.dtype}{list(a.shape)}"
                    )
    return None


def traces_once(opt: Optimizer) -> str | None:
    """A second call with arrays of the same shapes is not compiled again."""
    traces = 0
    rule = opt.build({}, STEPS)

    @jax.jit
    def step(params: Any, state: Any) -> tuple:
        nonlocal traces
        traces += 1
        return _step(opt, rule, _quadratic, params, state)[:2]

    params, state = PARAMS, rule.init(PARAMS)
    for _ in range(3):
        params, state = step(params, state)
    return (
        f"three calls are traced {traces} times: the types of its state change from step to step"
        if traces > 1
        else None
    )


def is_deterministic(opt: Optimizer) -> str | None:
    """Two builds give the same bits: no np.random, no clock, no global state."""
    first, second = (jax.jit(lambda: _run(opt, {}))() for _ in range(2))
    return (
        None
        if _same(first, second)
        else "two runs from the same start differ: "
        "use no np.random, time or global state in init and update"
    )


def resumes(opt: Optimizer) -> str | None:
    """A run that is resumed from a state saved on the host gives the same bits."""
    go = jax.jit(
        lambda params, state, n: jax.lax.fori_loop(
            0, n, lambda _, c: _run(opt, {}, params=c[0], state=c[1], steps=1), (params, state)
        )
    )
    for stop in (1, 7, 13):
        begun = go(PARAMS, opt.build({}, STEPS).init(PARAMS), stop)
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
            go(PARAMS, opt.build({}, STEPS).init(PARAMS), STEPS),
        )
        if not _same(resumed, straight):
            return (
                f"a run that is interrupted after {stop} steps gives other parameters: something "
                "that it needs is not in its state"
            )
    return None


def stays_finite(opt: Optimizer) -> str | None:
    """Parameters stay finite in an ordinary run and on zero, tiny and huge gradients."""
    rule = opt.build({}, STEPS)
    step = jax.jit(
        lambda params, state, scale: _step(opt, rule, _quadratic, params, state, scale)[:2]
    )
    params, state = PARAMS, rule.init(PARAMS)
    for i in range(1, STEPS + 1):
        params, state = step(params, state, 1.0)
        if not _finite(params):
            return f"the parameters have NaN or infinity after step {i} of an ordinary run"
    for name, scale in (("zero", 0.0), ("tiny (1e-20)", 1e-20), ("huge (1e8)", 1e8)):
        params, state = PARAMS, rule.init(PARAMS)
        for i in range(1, 4):
            params, state = step(params, state, scale)
            if not _finite(params):
                return f"{name} gradients give parameters with NaN or infinity at step {i}"
    return None


def lowers_losses(opt: Optimizer) -> str | None:
    """At its defaults or a corner of its space it lowers two losses: quadratic and network."""
    measure = opt.eval_params or (lambda state, params: params)
    for name, loss in (("a quadratic", _quadratic), ("a small network's loss", _network)):

        def trained(hparams: Mapping[str, Any], loss: Callable = loss) -> jax.Array:
            params, state = _run(opt, hparams, loss)
            return loss(measure(state, params))

        before, after = (
            float(loss(PARAMS)),
            [float(jax.jit(lambda h=h, trained=trained: trained(h))()) for h in _corners(opt)],
        )
        if not min(a if np.isfinite(a) else np.inf for a in after) < before:
            return (
                f"in {STEPS} steps {name} goes from {before:.4g} to "
                f"{', '.join(f'{a:.4g}' for a in after)} (defaults, then corners of the space)"
            )
    return None


def is_batched(opt: Optimizer) -> str | None:
    """Under vmap each run gives what it gives alone, up to rounding."""
    two = jax.tree.map(lambda p: jnp.stack([p, 0.5 * p]), PARAMS)
    both = jax.jit(jax.vmap(lambda params: _run(opt, {}, params=params, steps=2)[0]))(two)
    alone = jax.jit(lambda: _run(opt, {}, params=jax.tree.map(lambda p: p[1], two), steps=2)[0])()
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
    """Each hyperparameter with a domain, and each float, changes the parameters in a few steps."""
    dead = []
    base = jax.jit(lambda: _run(opt, {}, _network)[0])()
    for name, default in opt.defaults.items():
        if name in opt.space:
            others = [
                v for v in (opt.space[name].at(0.0), opt.space[name].at(1.0 - 1e-9)) if v != default
            ]
        elif isinstance(default, float) and default:
            others = [default * 100, default / 2] if default < 1e-3 else [default / 2]
        else:
            continue  # 20 steps may not reach a limit that is an integer; 0 and None switch off
        runs = (
            jax.jit(lambda name=name, value=value: _run(opt, {name: value}, _network)[0])()
            for value in others
        )
        if all(_same(base, run) for run in runs):
            dead.append(name)
    return (
        f"{', '.join(dead)} change{'s' * (len(dead) == 1)} nothing in {STEPS} steps"
        if dead
        else None
    )


def calls_lapack_one_by_one(opt: Optimizer) -> str | None:
    """It makes no batched LAPACK calls: two at once deadlock on XLA:CPU (jax 0.10.2)."""
    rule = opt.build({}, STEPS)
    text = (
        jax.jit(lambda params, state: _step(opt, rule, _quadratic, params, state))
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
                "use jax.lax.map over single ones"
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
