"""What the rules of recent papers owe any training loop: dtypes, extras, vmap, scan, donation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optimizers.adam_mini import scale_by_adam_mini
from optimizers.cautious import add_cautious_weight_decay, cautious
from optimizers.kl_shampoo import scale_by_kl_shampoo
from optimizers.kl_soap import scale_by_kl_soap
from optimizers.mars import scale_by_mars
from optimizers.normuon import scale_by_normuon
from optimizers.one_sided_shampoo import one_sided_shampoo
from optimizers.psgd_kron import scale_by_psgd_kron
from optimizers.scion import scale_by_scion
from optimizers.soap_muon import scale_by_soap_muon
from optimizers.splus import scale_by_splus
from support.shampoo_rules import distance, random, run

RULES = {
    "normuon": scale_by_normuon,
    "cautious": lambda: optax.chain(
        cautious(optax.scale_by_adam()), add_cautious_weight_decay(0.1)
    ),
    "mars": scale_by_mars,
    "scion": scale_by_scion,
    "adam-mini": scale_by_adam_mini,
    "kron": scale_by_psgd_kron,
    "signs": scale_by_splus,
    "kl": scale_by_kl_shampoo,
    "kl-adam": scale_by_kl_soap,
    "orthogonal": scale_by_soap_muon,
    "one-sided": lambda: one_sided_shampoo(1.0, block_size=4),
}
SHAPES = {"conv": (2, 2, 3, 4), "dense": (5, 3), "bias": (4,), "scalar": (), "empty": (0, 3)}
PARAMS = {name: random(shape, i) for i, (name, shape) in enumerate(SHAPES.items())}


def gradients(n, dtype=jnp.float32):
    return [
        {
            name: random(shape, 100 + 10 * i + j).astype(dtype)
            for j, (name, shape) in enumerate(SHAPES.items())
        }
        for i in range(n)
    ]


def train(rule, params, steps):
    """Parameters after a scan over `steps`, a stack of gradients."""

    def step(carry, g):
        params, state = carry
        updates, state = rule.update(g, state, params, value=jnp.float32(1), ignored=None)
        return (optax.apply_updates(params, jax.tree.map(lambda u: -0.1 * u, updates)), state), None

    return jax.lax.scan(step, (params, rule.init(params)), steps)[0][0]


def stacked(trees):
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


@pytest.mark.parametrize("name", RULES)
def test_lanes_in_a_vmapped_scan_are_runs_alone(name):
    """With extra arguments that the rule does not use."""
    rule, steps = RULES[name](), stacked(gradients(4))
    starts = stacked([PARAMS, jax.tree.map(lambda p: 0.5 * p, PARAMS)])
    both = jax.jit(jax.vmap(lambda p: train(rule, p, steps)))(starts)
    alone = jax.jit(lambda p: train(rule, p, steps))(PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, 1e-4, 1e-5), both, alone)


@pytest.mark.parametrize("name", RULES)
def test_bfloat16_parameters_have_float32_statistics(name):
    narrow = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    state = RULES[name]().init(narrow)
    if name != "cautious":  # which wraps any rule, and keeps its state
        kinds = {x.dtype for x in jax.tree.leaves(state)}
        assert kinds <= {jnp.dtype(t) for t in (jnp.float32, jnp.int32, jnp.uint32)}
    updates, after = run(RULES[name](), gradients(2, jnp.bfloat16), narrow)
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}
    assert [x.dtype for x in jax.tree.leaves(after)] == [x.dtype for x in jax.tree.leaves(state)]


@pytest.mark.parametrize("name", RULES)
def test_a_state_can_be_donated_and_mapped_over_parameters(name):
    rule = RULES[name]()
    state = rule.init(PARAMS)
    tagged = optax.tree.map_params(rule, lambda x: x + 1, state)
    assert jax.tree.structure(tagged) == jax.tree.structure(state)
    step = jax.jit(rule.update, donate_argnums=1)  # fails if a buffer is in the state twice
    updates, _ = step(gradients(1)[0], state, PARAMS)
    assert all(bool(jnp.isfinite(u).all()) for u in jax.tree.leaves(updates))


@pytest.mark.parametrize("name", RULES)
def test_it_runs_with_64_bits(name):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: p.astype(jnp.float64), PARAMS)
        steps = [jax.tree.map(lambda g: g.astype(jnp.float64), g) for g in gradients(3)]
        updates, _ = run(RULES[name](), steps, wide)
        assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(jnp.float64)}
        mixed, _ = run(RULES[name](), gradients(3), PARAMS)
        assert {u.dtype for u in jax.tree.leaves(mixed)} == {jnp.dtype(jnp.float32)}
    # The eigenvectors of a rank-deficient average are not unique.
    for key in ("bias",) if name in ("signs", "kl", "kl-adam") else ("conv", "dense", "bias"):
        assert distance(mixed[-1][key], np.asarray(updates[-1][key])) < 1e-4


@pytest.mark.parametrize("name", RULES)
def test_no_parameters_are_no_fault(name):
    state = RULES[name]().init({})
    updates, after = RULES[name]().update({}, state, {})
    assert updates == {}
    assert jax.tree.structure(after) == jax.tree.structure(state)
