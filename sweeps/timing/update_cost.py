"""What an update rule costs by itself, beside the baseline's: time, state, compilation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from distill_bench.networks import bit
from distill_bench.tasks.task import Task
from optimizers.contract.api import Optimizer, offer
from sweeps.timing.measure import interleaved


def parameter_shapes(name: str) -> list[tuple[int, ...]]:
    """Shapes to time optimizers on: "twenty" convolutions, dense layers and biases, 648,266 parameters; "r50x1", BiT-R50x1 of 102 classes."""
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
    """Milliseconds of single steps on parameters of these shapes, in turn with `baseline`, each dispatched and waited for alone.

    "largest" is the median over periods of ten steps of the slowest of each: of a rule with refreshes, a refresh.
    """
    rng = np.random.default_rng(0)
    params = [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]
    gradients = [
        [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes] for _ in range(2)
    ]
    figures, times, runs = {}, {}, {}
    for name, one in (("step", opt), ("baseline", baseline)):
        rule = one.build({}, steps)
        state = jax.jit(rule.init)(params)
        began = time.perf_counter()
        update = jax.jit(rule.update, donate_argnums=1).lower(gradients[0], state, params).compile()
        figures[f"{name}_compile_seconds"] = time.perf_counter() - began
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        figures[f"{name}_state_bytes_per_parameter"] = size / sum(p.size for p in params)
        runs[name], times[name] = [update, state], []
    for i in range(steps):
        for name, run in runs.items():
            began = time.perf_counter()
            updates, run[1] = run[0](gradients[i % 2], run[1], params)
            jax.block_until_ready((updates, run[1]))
            times[name].append(1e3 * (time.perf_counter() - began))
    for name, taken in times.items():
        periods = np.array(taken[10:]).reshape(-1, 10)  # the first ten warm up
        figures |= {
            f"{name}_ms_largest": float(np.median(periods.max(1))),
            f"{name}_ms_median": float(np.median(periods)),
            f"{name}_ms_mean": float(periods.mean()),
        }
    return figures


def optimizer_cost(
    task: Task, opt: Optimizer, baseline: Optimizer, steps: int = 100
) -> dict[str, float]:
    """Update time and state of `opt` on the student's parameters against `baseline`, taken in turn; and seconds to compile."""
    from distill_bench.training.source import init_student

    params = jax.device_get(jax.jit(init_student, static_argnums=0)(task, 0))
    gradients = jax.tree.map(
        lambda p: jnp.asarray(np.random.default_rng(0).standard_normal(p.shape), jnp.float32),
        params,
    )

    def prepare(one: Optimizer) -> tuple[Callable[[], Any], float, int]:
        rule = one.build({}, steps)

        def run(params: Any, gradients: Any):
            def step(i: jax.Array, carry: Any):
                params, state = carry
                # Gradients that change, so that no work can be moved out of the loop.
                changed = jax.tree.map(lambda g: g * (1 + 0.01 * i), gradients)
                # A loss that costs next to nothing, for rules that evaluate it.
                extras = offer(one.extra_args, optax.tree.norm, jnp.float32(1), changed)
                updates, state = rule.update(changed, state, params, **extras)
                return optax.apply_updates(params, updates), state

            return jax.lax.fori_loop(0, steps, step, (params, rule.init(params)))

        began = time.perf_counter()
        compiled = jax.jit(run).lower(params, gradients).compile()
        took = time.perf_counter() - began
        state = jax.eval_shape(rule.init, params)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        return (lambda: compiled(params, gradients)), took, size

    mine, compile_seconds, state_bytes = prepare(opt)
    theirs, _, _ = prepare(baseline)
    a, b = interleaved(mine, theirs)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {
        "update_ms": 1e3 * a / steps,
        "baseline_update_ms": 1e3 * b / steps,
        "update_ratio": a / b,
        "state_bytes_per_parameter": state_bytes / parameters,
        "compile_seconds": compile_seconds,
    }
