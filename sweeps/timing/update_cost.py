"""An optimizer's single updates and the baseline's, without a student: time, state, compilation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from distill_bench.networks import bit
from optimizers.contract.api import Optimizer, offer


def parameter_shapes(name: str) -> list[tuple[int, ...]]:
    """Shapes of parameters to time optimizers on.

    "twenty": convolutions, dense layers and biases, 648,266 parameters. "r50x1": BiT-R50x1 with 102
    classes.
    """
    if name == "twenty":
        convolutions = [
            (3, 3, i, o)
            for i, o in (
                (3, 32),
                (32, 32),
                (32, 64),
                (64, 64),
                (64, 64),
                (64, 128),
                (128, 128),
                (128, 128),
            )
        ]
        points = [(1, 1, 32, 64), (1, 1, 64, 128)]
        dense = [(128, 256), (256, 256), (256, 256), (256, 10)]
        return [*convolutions, *points, *dense, (32,), (64,), (128,), (256,), (256,), (10,)]
    shapes = jax.eval_shape(
        lambda: bit.init(bit.BiTConfig((3, 4, 6, 3), width=64, classes=102), jax.random.key(0))
    )
    return [leaf.shape for leaf in jax.tree.leaves(shapes)]


def optimizer_steps(
    opt: Optimizer, baseline: Optimizer, shapes: list[tuple[int, ...]], steps: int = 60
) -> dict[str, float]:
    """Milliseconds of single steps on parameters of these shapes, `opt` and `baseline` in turn.

    Each step is dispatched and waited for by itself. "largest" is the slowest of ten steps, as
    the median over all tens: the cost of a refresh, if the rule has refreshes.
    """
    rng = np.random.default_rng(0)
    params = [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]
    gradients = [
        [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes] for _ in range(2)
    ]
    figures, times, runs = {}, {}, {}
    for name, candidate in (("step", opt), ("baseline", baseline)):
        rule = candidate.build({}, steps)
        state = jax.jit(rule.init)(params)
        began = time.perf_counter()
        update = jax.jit(_update_of(candidate, rule), donate_argnums=1)
        update = update.lower(gradients[0], state, params).compile()
        figures[f"{name}_compile_seconds"] = time.perf_counter() - began
        count = sum(leaf.size for leaf in params)
        figures[f"{name}_state_bytes_per_parameter"] = tree_bytes(state) / count
        runs[name], times[name] = [update, state], []
    for i in range(steps):
        for name, run in runs.items():
            began = time.perf_counter()
            updates, run[1] = run[0](gradients[i % 2], run[1], params)
            jax.block_until_ready((updates, run[1]))
            times[name].append(1e3 * (time.perf_counter() - began))
    for name, taken in times.items():
        periods = np.array(taken[10:]).reshape(-1, 10)  # the first ten are the warm-up
        figures |= {
            f"{name}_ms_largest": float(np.median(periods.max(1))),
            f"{name}_ms_median": float(np.median(periods)),
            f"{name}_ms_mean": float(periods.mean()),
        }
    return figures


def _update_of(opt: Optimizer, rule: optax.GradientTransformation) -> Callable:
    """(gradients, state, parameters) -> (updates, state)."""

    def update(gradients: Any, state: Any, params: Any):
        # For rules that evaluate the loss: one that costs next to nothing.
        extras = offer(opt.extra_args, optax.tree.norm, jnp.float32(1), gradients)
        return rule.update(gradients, state, params, **extras)

    return update


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree, which may be their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
