"""Shampoo with each root solver: lanes, dtypes, skipped refreshes, and what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optimizers.kronecker import root_solvers
from optimizers.kronecker.factors import diagnostics
from optimizers.kronecker.polar import polar_root
from optimizers.shampoo import scale_by_shampoo, shampoo
from support.shampoo_rules import distance, random, related, run

STACKED = ("newton", "polar")
SOLVERS = (*STACKED, "pseudo_inverse")


@pytest.mark.parametrize("solver", SOLVERS)
def test_lanes_under_vmap_are_runs_alone(solver):
    rule = scale_by_shampoo(block_size=4, update_every=2, epsilon=1e-3, root_solver=solver)
    lanes = [related((6, 5), 4, scale) for scale in (1.0, 1e-6, 1e3)]
    gradients = {"w": jnp.asarray(np.stack(lanes))}

    def train(gradients):
        state = rule.init({"w": jnp.zeros((6, 5))})
        return jax.lax.scan(lambda state, g: rule.update(g, state)[::-1], state, gradients)[1]

    together = jax.jit(jax.vmap(train))(gradients)["w"]
    for lane, alone in enumerate(jnp.asarray(np.stack(lanes))):
        expected = jax.jit(train)({"w": alone})["w"]
        np.testing.assert_allclose(together[lane], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_bfloat16_parameters_have_float32_roots(solver):
    gradients = [{"w": random((6, 5), i).astype(jnp.bfloat16)} for i in range(3)]
    rule = scale_by_shampoo(root_solver=solver, update_every=1)
    updates, state = run(rule, gradients)
    wide, _ = run(rule, [{"w": g["w"].astype(jnp.float32)} for g in gradients])
    assert updates[-1]["w"].dtype == jnp.bfloat16
    assert {f.held.dtype for f in state.factors} == {jnp.dtype(jnp.float32)}
    np.testing.assert_array_equal(updates[-1]["w"], wide[-1]["w"].astype(jnp.bfloat16))


@pytest.mark.parametrize("solver", STACKED)
def test_a_traced_or_fractional_exponent_is_refused(solver):
    params = {"w": random((4, 3))}

    def update(exponent):
        rule = scale_by_shampoo(exponent=exponent, root_solver=solver)
        return rule.update(params, rule.init(params))[0]

    jax.block_until_ready(update(-0.25))
    for call in (lambda: update(-0.4), lambda: jax.jit(update)(-0.25)):
        with pytest.raises(ValueError, match=r"takes whole orders only, not p=.*: use the eigh"):
            call()


def test_auto_is_eigh_on_cpu_and_polar_elsewhere(monkeypatch):
    assert root_solvers.solver("auto", 1e-6).one_by_one
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    elsewhere = root_solvers.solver("auto", 1e-6)
    monkeypatch.undo()
    a = jnp.diag(jnp.asarray([3.0, 2.0]))[None]
    assert not elsewhere.one_by_one
    np.testing.assert_array_equal(elsewhere.solve(a, a, 4).root, polar_root(a, 4, 1e-6).root)


def test_a_pseudo_inverse_leaves_what_lies_outside_the_range_at_zero():
    """A later gradient in a new direction, before the roots are refreshed."""
    first, other = jnp.zeros((5, 4)).at[:2].set(random((2, 4))), random((5, 4), 1)
    rule = scale_by_shampoo(0.0, update_every=2, root_solver="pseudo_inverse")
    updates, _ = run(rule, [{"w": first}, {"w": other}])
    assert np.abs(updates[1]["w"][:2]).max() > 0.1
    assert np.abs(updates[1]["w"][2:]).max() < 1e-5
    ridged, _ = run(scale_by_shampoo(0.0, update_every=2), [{"w": first}, {"w": other}])
    assert np.abs(ridged[1]["w"][2:]).max() > 1.0


def test_a_pseudo_inverse_that_is_still_good_is_not_computed_again():
    gradient = jnp.outer(jnp.arange(1.0, 6), jnp.ones(4))
    options = {"update_every": 1, "tolerance": 0.05, "root_solver": "pseudo_inverse"}
    _, state = run(scale_by_shampoo(**options), [{"w": gradient}] * 4)
    counts = diagnostics(state)
    assert (int(counts["skips"]), int(counts["failures"])) == (6, 0)  # 3 steps, 2 sides
    _, moved = run(scale_by_shampoo(**options), [{"w": gradient}, {"w": 3 * gradient}])
    assert int(diagnostics(moved)["skips"]) == 0


def test_the_optimizer_takes_every_solver():
    gradients = [{"w": jnp.asarray(g), "b": random(4, i)} for i, g in enumerate(related((6, 4), 3))]
    params = {"w": random((6, 4)), "b": random(4)}
    found = {
        name: run(shampoo(0.1, update_every=1, root_solver=name), gradients, params)[0][-1]["w"]
        for name in ("eigh", *SOLVERS)
    }
    for name in SOLVERS:
        assert distance(found[name], np.asarray(found["eigh"])) < 1e-2, name
