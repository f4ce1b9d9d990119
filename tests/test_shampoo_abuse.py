"""Shampoo and SOAP survive every gradient: NaN, infinity, zeros, huge and tiny values."""

from __future__ import annotations

import faulthandler

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distill_bench.training.lane_layout import LayoutOptions, make_layout
from optimizers.shampoo import scale_by_shampoo, shampoo
from optimizers.shampoo_funmatch import shampoo_funmatch
from optimizers.soap import soap
from support.shampoo_rules import RULES, random, run

ODD = {
    "scalar": (),
    "ones": (1, 1, 1, 1),
    "vector": (5,),
    "empty": (0, 4),
    "five": (2, 1, 3, 2, 5),
    "prime": (13, 7),
}


@pytest.mark.parametrize("make", [shampoo, soap, shampoo_funmatch], ids=lambda opt: opt.name)
def test_updates_stay_finite_on_bad_gradients_and_recover_after_them(make):
    """Zeros, rank 1, tiny, huge, NaN, infinity; then good ones, which move the parameters again."""
    rule = make.build(
        {"update_every": 2} | ({"block_size": 4} if make is not shampoo_funmatch else {}), 100
    )
    params = {name: jnp.ones(shape) for name, shape in ODD.items()}
    good = {name: random(shape) for name, shape in ODD.items()}
    bad = [
        jnp.zeros_like,
        jnp.ones_like,
        lambda g: 1e-20 * g,
        lambda g: 1e8 * g,
        lambda g: g.at[...].set(jnp.nan),
        lambda g: g * jnp.inf,
    ]
    gradients = [good, *(jax.tree.map(f, good) for f in bad for _ in range(2)), *[good] * 3]
    updates, _ = run(rule, gradients, params)
    for t, update in enumerate(updates):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(update)), t
    direction = RULES["soap" if make is soap else "shampoo"](block_size=4, update_every=2)
    updates, state = run(direction, gradients, params)
    for update in updates:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(update))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert np.abs(updates[-1]["prime"]).max() > 1e-9


def test_a_gradient_with_nan_changes_no_average():
    for make in RULES.values():
        good, poison = {"w": random((4, 3))}, {"w": random((4, 3)).at[0, 0].set(jnp.nan)}
        rule = make(update_every=1)
        _, before = run(rule, [good])
        _, after = jax.jit(rule.update)(poison, before)
        for one, other in zip(before.factors, after.factors, strict=True):
            np.testing.assert_array_equal(one.total, other.total)
            np.testing.assert_array_equal(one.weight, other.weight)
        np.testing.assert_array_equal(before.momentum.total["w"], after.momentum.total["w"])


def test_a_failed_root_is_counted_and_the_previous_one_is_kept():
    rule = scale_by_shampoo(0.0, 0.9, update_every=1)
    _, state = run(rule, [{"w": random((4, 3))}])
    broken = tuple(f._replace(total=jnp.full_like(f.total, jnp.nan)) for f in state.factors)
    updates, after = jax.jit(rule.update)({"w": random((4, 3))}, state._replace(factors=broken))
    assert np.isfinite(updates["w"]).all()
    assert [int(f.failures.sum()) for f in after.factors] == [1, 1]
    for before, kept in zip(state.factors, after.factors, strict=True):
        np.testing.assert_array_equal(before.held, kept.held)


@pytest.mark.parametrize("name", RULES)
def test_the_cpu_program_has_no_batched_lapack_call(name):
    """Two batched LAPACK calls that run at once deadlock on XLA:CPU (jax 0.10.2)."""
    params = {"a": jnp.ones((12, 9)), "b": jnp.ones((8, 8))}
    for option in [{}, {"basis_solver": "qr"}] if name == "soap" else [{}]:
        rule = RULES[name](block_size=8, **option)
        lowered = jax.jit(rule.update).lower(params, rule.init(params)).as_text()
        calls = [
            line for line in lowered.splitlines() if "custom_call" in line and "lapack" in line
        ]
        assert calls
        assert not [line for line in calls if any(f"tensor<{n}x8x8" in line for n in range(2, 20))]


@pytest.mark.parametrize("opt", [shampoo, soap], ids=lambda opt: opt.name)
def test_eight_lanes_of_a_thousand_steps_over_two_devices_neither_hang_nor_blow_up(opt):
    """A thousand refreshes of several sizes at once; some gradients are NaN, zero or huge.

    A hang ends the process.
    """
    layout = make_layout(jax.devices()[:2], LayoutOptions(mapping="loop", lanes_per_device=4))
    target = {"w": random((12, 8)), "k": random((2, 2, 3, 5), 1), "b": random(5)}
    rule = opt.build({"lr": 0.05, "block_size": 8, "update_every": 1}, 1000)

    def loss(params):
        return sum(jnp.sum((params[key] - target[key]) ** 2) for key in target)

    def lane(seed):
        params = jax.tree.map(lambda t: jax.random.normal(jax.random.key(seed), t.shape), target)

        def step(i, carry):
            params, state, bad = carry
            injected = jnp.where(
                i % 50 == 7,
                jnp.nan,
                jnp.where(i % 50 == 17, 0.0, jnp.where(i % 50 == 27, 1e8, 1.0)),
            )
            gradients = jax.tree.map(lambda g: g * injected, jax.grad(loss)(params))
            updates, state = rule.update(gradients, state, params)
            finite = jnp.stack([jnp.isfinite(u).all() for u in jax.tree.leaves(updates)]).all()
            return optax.apply_updates(params, updates), state, bad + ~finite

        params, state, bad = jax.lax.fori_loop(
            0, 1000, step, (params, rule.init(params), jnp.int32(0))
        )
        finite = jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(state)]).all()
        return (
            bad,
            finite,
            loss(params)
            < 0.5
            * loss(
                jax.tree.map(lambda t: jax.random.normal(jax.random.key(seed), t.shape), target)
            ),
        )

    faulthandler.dump_traceback_later(240, exit=True)
    try:
        bad, finite, last = jax.block_until_ready(
            layout.spmd(layout.each(lane))(layout.spread([np.int32(i) for i in range(8)]))
        )
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert not np.asarray(bad).any()
    assert np.asarray(finite).all()
    assert np.asarray(last).all()
