"""Shampoo and SOAP compute what they should."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from optimizers.kronecker.block_options import matrix_axes
from optimizers.kronecker.factors import diagnostics
from optimizers.kronecker.grafting import graft, magnitude_of
from optimizers.shampoo import scale_by_shampoo, shampoo
from optimizers.shampoo_funmatch import shampoo_funmatch
from optimizers.soap import scale_by_soap, soap
from support.reference import root64, shampoo64, soap64
from support.shampoo_rules import RULES, distance, random, related, run


@pytest.mark.parametrize(
    ("shape", "given", "reference"),
    [
        ((12, 9), {"update_every": 3}, {"update_every": 3}),
        ((3, 3, 4, 6), {}, {}),
        ((2, 1, 3, 2, 5), {}, {}),
        ((20, 7), {"b2": 1.0}, {"b2": 1}),
        ((20, 7), {"exponent": -1 / 3}, {"order": 3}),
        ((12, 9), {"root_solver": "newton", "update_every": 2}, {"update_every": 2}),
        ((12, 9), {"root_solver": "polar", "update_every": 2}, {"update_every": 2}),
        ((20, 7), {"root_solver": "polar", "exponent": -1 / 2}, {"order": 2}),
        ((2, 3, 7, 8), {"root_solver": "polar", "merge": True}, {"form": (6, 7, 8)}),
        ((3, 3, 5, 8), {"merge": True}, {"form": (3, 3, 5, 8)}),
        ((2, 3, 7, 8), {"merge": True}, {"form": (6, 7, 8)}),
    ],
)
def test_shampoo_matches_float64(shape, given, reference):
    gradients = related(shape, 7)
    rule = scale_by_shampoo(
        **{"b1": 0.9, "b2": 0.8, "epsilon": 1e-3, "block_size": 8, "update_every": 1} | given
    )
    updates, _ = run(rule, [{"w": jnp.asarray(g)} for g in gradients])
    expected = shampoo64(
        gradients,
        **{"b1": 0.9, "b2": 0.8, "epsilon": 1e-3, "block_size": 8, "update_every": 1} | reference,
    )
    assert distance(updates[-1]["w"], expected) < 1e-4


# On square blocks: a rank-deficient average has eigenvectors that are not unique.
@pytest.mark.parametrize("shape", [(8, 8), (3, 2, 4, 16)])
@pytest.mark.parametrize("given", [{"update_every": 1}, {"update_every": 3}])
def test_soap_matches_float64(shape, given):
    gradients = related(shape, 7)
    updates, _ = run(
        scale_by_soap(0.9, 0.8, epsilon=1e-3, block_size=8, **given),
        [{"w": jnp.asarray(g)} for g in gradients],
    )
    expected = soap64(gradients, 0.9, 0.8, 1e-3, 8, **given)
    assert distance(updates[-1]["w"], expected) < 2e-3


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1.0, 1e4, 1e8])
@pytest.mark.parametrize("name", RULES)
def test_updates_do_not_depend_on_the_scale_of_gradients(name, scale):
    rule = RULES[name](block_size=8, update_every=2)
    shape = (12, 9) if name == "shampoo" else (8, 16)
    one, _ = run(rule, [{"w": jnp.asarray(g)} for g in related(shape, 5)])
    other, _ = run(rule, [{"w": jnp.asarray(g)} for g in related(shape, 5, scale)])
    assert distance(other[-1]["w"], np.asarray(one[-1]["w"])) < 1e-3


def test_one_block_solves_the_kronecker_system():
    """vec(L^-1/4 G R^-1/4) = (L (x) R)^(-1/4) vec(G)."""
    g = related((4, 3), 1)[0].astype(np.float64)
    left, right = (
        g @ g.T + 1e-3 * np.linalg.norm(g @ g.T, 2) * np.eye(4),
        g.T @ g + 1e-3 * np.linalg.norm(g.T @ g, 2) * np.eye(3),
    )
    expected = (root64(np.kron(left, right), 4, 0.0) @ g.reshape(-1)).reshape(4, 3)
    updates, _ = run(scale_by_shampoo(0.0, epsilon=1e-3), [{"w": jnp.asarray(g, jnp.float32)}])
    assert distance(updates[0]["w"], expected) < 1e-4


@pytest.mark.parametrize("name", RULES)
def test_one_block_is_equivariant_to_rotations(name):
    rng = np.random.default_rng(5)
    u, v = (np.linalg.qr(rng.standard_normal((n, n)))[0] for n in (6, 6))
    gradients = related((6, 6), 4)
    rule = RULES[name](0.9, 0.8, epsilon=1e-3, update_every=1)
    plain, _ = run(rule, [{"w": jnp.asarray(g)} for g in gradients])
    turned, _ = run(rule, [{"w": jnp.asarray(u @ g @ v.T, jnp.float32)} for g in gradients])
    assert distance(turned[-1]["w"], u @ np.asarray(plain[-1]["w"]) @ v.T) < 2e-3


@pytest.mark.parametrize("name", RULES)
def test_without_preconditioning_shampoo_is_momentum_and_soap_is_adam(name):
    """With max_dim=1 no axis is preconditioned: roots and bases are identities."""
    gradients = [{"w": jnp.asarray(g), "b": jnp.asarray(g[0])} for g in related((5, 4), 4)]
    found, _ = run(
        RULES[name](0.9, 0.8, max_dim=1, **({"epsilon": 1e-12} if name == "soap" else {})),
        gradients,
    )
    same = (
        optax.scale_by_adam(0.9, 0.8, eps=1e-12) if name == "soap" else optax.ema(0.9, debias=True)
    )
    expected, _ = run(same, gradients)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, expected
    )


@pytest.mark.parametrize("name", RULES)
def test_the_order_of_parameters_does_not_matter(name):
    gradients = [
        {"a": random((9, 5), i), "b": random((4, 4), i + 50), "c": random(3, i)} for i in range(3)
    ]
    renamed = [{"z": g["a"], "b": g["b"], "a": g["c"]} for g in gradients]
    one, _ = run(RULES[name](block_size=4), gradients)
    other, _ = run(RULES[name](block_size=4), renamed)
    for i, j in (("a", "z"), ("b", "b"), ("c", "a")):
        np.testing.assert_allclose(one[-1][i], other[-1][j], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "magnitude",
    [
        "sgd",
        "sqrt_n",
        "adam",
        "rmsprop",
        "adagrad",
        "sgd_normalized",
        "adam_normalized",
        "rmsprop_normalized",
    ],
)
def test_grafting_keeps_the_direction_and_takes_the_other_norm(magnitude):
    gradients = [
        {
            "w": random((5, 4), i),
            "b": random(4, i),
            "one": random((1, 1, 3), i),
            "zero": jnp.zeros((2, 2)),
        }
        for i in range(3)
    ]
    direction, other = scale_by_shampoo(), magnitude_of(magnitude, 0.9, 0.99)
    grafted, _ = run(graft(direction, other, matrix_axes, start_step=1), gradients, jit=lambda f: f)
    # Without jit, so that bits can be compared.
    d, m = (run(rule, gradients, jit=lambda f: f)[0] for rule in (direction, other))
    jax.tree.map(np.testing.assert_array_equal, grafted[0], m[0])  # before start_step, bit for bit
    for t in (1, 2):
        assert float(jnp.linalg.norm(grafted[t]["w"])) == pytest.approx(
            float(jnp.linalg.norm(m[t]["w"])), rel=1e-5
        )
        cosine = jnp.sum(grafted[t]["w"] * d[t]["w"]) / (
            jnp.linalg.norm(grafted[t]["w"]) * jnp.linalg.norm(d[t]["w"])
        )
        assert float(cosine) == pytest.approx(1, abs=1e-5)
        for name in ("b", "one"):
            np.testing.assert_array_equal(grafted[t][name], m[t][name])
        assert not grafted[t]["zero"].any()


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("enters", ["before_momentum", "after_momentum"])
def test_shampoo_of_funmatch_decays_before_or_after_momentum(enters, vectors):
    """As in the public code (scalable_shampoo), and as AdamW does."""
    lr, wd, steps = 0.05, 0.1, 15
    gradients = [
        {"kernel": g, "bias": b}
        for g, b in zip(related((4, 6), steps), related((6,), steps), strict=True)
    ]
    params = {"kernel": random((4, 6), 7), "bias": random((6,), 8)}

    def rule(**hparams):
        return shampoo_funmatch.build({"lr": lr, **hparams}, steps)

    def rate(t):
        return float(shampoo_funmatch.learning_rate({"lr": lr}, steps, t))

    # Shampoo's own update does not depend on the parameters.
    plain, _ = run(rule(momentum=0.0, weight_decay=0.0), gradients, params)
    expected = {name: np.asarray(p, np.float64) for name, p in params.items()}
    momentum = dict.fromkeys(params, 0.0)
    for t, update in enumerate(plain):
        for name, p in expected.items():
            u = np.asarray(update[name], np.float64) / -rate(t)
            decay = wd * p if name == "kernel" or vectors else 0.0
            before, after = (decay, 0.0) if enters == "before_momentum" else (0.0, decay)
            momentum[name] = 0.9 * momentum[name] + u + before
            expected[name] = p - rate(t) * (u + before + 0.9 * momentum[name] + after)

    tested = rule(weight_decay=wd, weight_decay_enters=enters, decay_vectors=vectors)
    state = tested.init(params)
    for g in gradients:
        updates, state = jax.jit(tested.update)(g, state, params)
        params = optax.apply_updates(params, updates)
    for name, p in params.items():
        assert distance(p, expected[name]) < 1e-5


def test_decay_before_momentum_is_ten_times_as_strong():
    """Without gradients: how far a parameter of 1 moves in a step, once momentum has built up."""

    def pull(enters):
        rule = shampoo_funmatch.build({"lr": 1e-6, "weight_decay_enters": enters}, 1000)
        params, zero = {"w": jnp.ones((3, 2))}, {"w": jnp.zeros((3, 2))}
        updates, _ = run(rule, [zero] * 200, params)
        return float(updates[-1]["w"][0, 0])

    assert pull("before_momentum") / pull("after_momentum") == pytest.approx(10, rel=1e-4)
    with pytest.raises(ValueError, match="unknown weight_decay_enters 'early'"):
        shampoo_funmatch.build({"weight_decay_enters": "early"}, 10)


def test_bad_settings_are_rejected_by_name():
    for make, message in [
        (lambda: magnitude_of("adamx"), "unknown grafting magnitude 'adamx'"),
        (lambda: scale_by_shampoo(root_solver="lu"), "unknown root solver 'lu'"),
        (lambda: scale_by_soap(basis_solver="lu"), "unknown basis solver 'lu'"),
        (lambda: scale_by_shampoo(update_every=0), "update_every=0"),
        (lambda: scale_by_shampoo(exponent=0.5), "exponent=0.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize("name", RULES)
def test_staggering_refreshes_each_matrix_once_a_period_and_a_tolerance_skips(name):
    gradients = [{"w": jnp.asarray(g)} for g in related((16, 12), 9)]
    rule = RULES[name](block_size=4, update_every=4, stagger=True)
    state = rule.init(gradients[0])
    update = jax.jit(rule.update)
    changes = []
    for g in gradients:
        before = state.factors[0].held
        _, state = update(g, state)
        changes.append(np.asarray((state.factors[0].held != before).any((1, 2))))
    changes = np.stack(changes)
    assert changes[0].all()  # the first step refreshes all
    assert (changes[1:5].sum(0) == 1).all()
    assert (changes[5:9].sum(0) == 1).all()
    assert changes[1:].sum(1).max() == changes.shape[1] / 4
    # With a huge tolerance nothing is ever stale: every refresh is skipped.
    lazy = RULES[name](block_size=4, update_every=1, tolerance=1e9)
    updates, state = run(lazy, gradients[:4])
    reported = diagnostics(state)
    assert int(reported["skips"]) == 4 * sum(len(f.held) for f in state.factors)
    assert int(reported["failures"]) == 0
    assert diagnostics(optax.adam(1.0).init(gradients[0])) == {}
    strict = RULES[name](block_size=4, update_every=1, tolerance=1e-9)
    same, _ = run(strict, gradients[:4])
    always, _ = run(RULES[name](block_size=4, update_every=1), gradients[:4])
    np.testing.assert_allclose(same[-1]["w"], always[-1]["w"], rtol=1e-5, atol=1e-6)
    assert distance(updates[-1]["w"], np.asarray(always[-1]["w"])) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "solver"),
    [
        ("shampoo", "eigh"),
        ("soap", "qr"),
        *(
            pytest.param(name, solver, marks=pytest.mark.long)
            for name, solver in (
                ("shampoo", "newton"),
                ("shampoo", "polar"),
                ("shampoo", "pseudo_inverse"),
                ("soap", "eigh"),
            )
        ),
    ],
)
def test_sharded_equals_unsharded(name, solver):
    option = {"root_solver" if name == "shampoo" else "basis_solver": solver}
    gradients = [
        {"w": jnp.asarray(g), "b": random(5, i)} for i, g in enumerate(related((15, 10), 4))
    ]
    given = {"block_size": 5, "update_every": 2, "epsilon": 1e-3} | option
    expected, _ = run(RULES[name](**given), gradients)
    for n in (1, 2, 4, 8) if solver == "eigh" else (4,):
        mesh = Mesh(np.array(jax.devices()[:n]), ("blocks",))
        found, state = run(RULES[name](mesh=mesh, mesh_axis="blocks", **given), gradients)
        for t in range(4):
            assert distance(found[t]["w"], np.asarray(expected[t]["w"])) < 1e-4
            np.testing.assert_allclose(found[t]["b"], expected[t]["b"], rtol=1e-5)
        assert len(state.factors[0].total.sharding.device_set) == n
        assert n == 1 or not state.factors[0].total.sharding.is_fully_replicated


@pytest.mark.parametrize("name", RULES)
def test_resuming_at_any_step_gives_the_same_bits(name):
    gradients = [{"w": jnp.asarray(g)} for g in related((9, 6), 7)]
    rule = RULES[name](block_size=4, update_every=3, stagger=name == "soap")
    expected, _ = run(rule, gradients)
    update = jax.jit(rule.update)
    for stop in range(7):
        _, state = run(rule, gradients[:stop]) if stop else (None, rule.init(gradients[0]))
        state = jax.tree.map(
            lambda x: jnp.asarray(np.array(x)), state
        )  # through the host, as in a checkpoint
        for g in gradients[stop:]:
            updates, state = update(g, state)
        np.testing.assert_array_equal(updates["w"], expected[-1]["w"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "opt",
    [pytest.param(shampoo, marks=pytest.mark.long), soap],
    ids=lambda opt: opt.name,
)
def test_it_works_inside_the_wrappers_of_optax(opt):
    params = {"w": random((6, 4)).astype(jnp.bfloat16), "b": jnp.ones(4, jnp.bfloat16)}
    gradients = jax.tree.map(lambda p: jnp.ones_like(p) * jnp.asarray(0.5, p.dtype), params)
    rule = opt.build({"lr": 0.1}, 100)
    wrapped = {
        "masked": optax.masked(rule, {"w": True, "b": False}),
        "multi": optax.multi_transform({"a": rule, "z": optax.sgd(0.1)}, {"w": "a", "b": "z"}),
        "steps": optax.MultiSteps(rule, 2),
        "finite": optax.apply_if_finite(rule, 3),
        "injected": optax.inject_hyperparams(lambda lr, b1, b2: opt.make(lr, b1=b1, b2=b2))(
            lr=0.1, b1=0.9, b2=optax.linear_schedule(0.5, 0.99, 10)
        ),
    }
    for name, one in {"plain": rule, **wrapped}.items():
        if opt is soap and name not in ("plain", "multi", "injected"):
            continue

        def step(carry, _, one=one):
            params, state = carry
            updates, state = one.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        run = jax.jit(
            lambda params, one=one, step=step: jax.lax.scan(
                step, (params, one.init(params)), length=3
            )[0],
            donate_argnums=0,
        )
        after, state = run(jax.tree.map(jnp.copy, params))
        assert after["w"].dtype == jnp.bfloat16, name
        assert (after["w"] != params["w"]).any(), name
        if name == "injected":
            assert float(state.hyperparams["b2"]) > 0.5
    batched = jax.vmap(lambda g: rule.update(g, rule.init(g), g)[0])(
        jax.tree.map(lambda p: jnp.stack([p, 2 * p]).astype(jnp.float32), params)
    )
    single = rule.update(
        *(lambda g: (g, rule.init(g), g))(jax.tree.map(lambda p: p.astype(jnp.float32), params))
    )[0]
    np.testing.assert_allclose(batched["w"][0], single["w"], rtol=1e-3, atol=1e-5)
    assert jax.tree.leaves(rule.update({}, rule.init({}), {})[0]) == []
