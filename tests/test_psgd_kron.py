"""PSGD-Kron against float64 numpy over the whole Kronecker product, and that it whitens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optimizers.psgd_kron import annealed, scale_by_psgd_kron
from support.shampoo_rules import distance, related, run


def spectral_bound64(s):
    """One power step from the column of the largest norm."""
    v = s @ s[:, np.linalg.norm(s, axis=0).argmax()]
    return np.linalg.norm(s @ v) / np.linalg.norm(v)


def stepped64(q, full, g, v, side, rate):
    """One step of the factor of this side; `full` is the matrix Q of the flattened tensor.

    a = Q g and b = Q^-T v, of which the criterion is the sum of squares. Q <- Q - rate E Q with
    E = a a^T - b b^T summed over the other axis.
    """
    a, b = full @ g.reshape(-1), np.linalg.solve(full.T, v.reshape(-1))
    a, b = (np.moveaxis(x.reshape(g.shape), side, 0) for x in (a, b))
    if q.ndim == 1:
        plus, minus = (a**2 + b**2).sum(1), (a**2 - b**2).sum(1)
        return q - rate / plus.max() * minus * q
    plus, minus = a @ a.T + b @ b.T, a @ a.T - b @ b.T
    return q - rate / spectral_bound64(plus) * np.triu(minus) @ q


def kron64(gradients, b1, rate, max_size, updated, seed=0):
    """The last update for gradients [m, n], or [n]; `updated`: the steps that update factors."""
    vector = gradients[0].ndim == 1
    m, n = (len(gradients[0]), 1) if vector else gradients[0].shape
    factors = [np.ones(k) if vector or k == 1 or k > max_size else np.eye(k) for k in (m, n)]

    def matrix(q):
        return np.diag(q) if q.ndim == 1 else q

    average = np.zeros((m, n))
    for t, g in enumerate(gradients):
        average = b1 * average + (1 - b1) * g.astype(np.float64).reshape(m, n)
        mean = average / (1 - b1 ** (t + 1))
        if t in updated:
            key = jax.random.fold_in(jax.random.PRNGKey(seed), t)
            v = np.asarray(jax.random.normal(key, (m, n)), np.float64)
            full = np.kron(*map(matrix, factors))
            factors = [stepped64(q, full, mean, v, i, rate) for i, q in enumerate(factors)]
    full = np.kron(*map(matrix, factors))
    update = full.T @ full @ mean.reshape(-1)
    update *= min(1, np.sqrt(update.size) / np.linalg.norm(update))
    return np.clip(update, -1, 1).reshape(gradients[0].shape)


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        ((6, 4), {}),
        ((4, 7), {}),
        ((9, 4), {"max_size": 8}),
        ((5,), {}),
        ((6, 4), {"probability": 0.5}),
    ],
)
@pytest.mark.parametrize("scale", [0.1, 10.0])  # the second is clipped
def test_it_matches_float64(shape, given, scale):
    gradients = related(shape, 7, scale)
    rule = scale_by_psgd_kron(0.8, rate=0.3, **given)
    updates, _ = run(rule, [{"w": jnp.asarray(g)} for g in gradients])
    updated = range(0, 7, 2) if given.get("probability") else range(7)
    expected = kron64(gradients, 0.8, 0.3, given.get("max_size", 512), updated)
    assert distance(updates[-1]["w"], expected) < 1e-5


def test_convolutions_are_folded():
    gradients = related((2, 3, 2, 5), 4)
    given, _ = run(scale_by_psgd_kron(), [jnp.asarray(g) for g in gradients])
    folded, _ = run(scale_by_psgd_kron(), [jnp.asarray(g.reshape(12, 5)) for g in gradients])
    np.testing.assert_allclose(given[-1].reshape(12, 5), folded[-1], rtol=1e-6)


def test_it_whitens_gradients():
    """P = E[g g^T]^(-1/2): the updates' covariance is the identity, whatever the gradients'."""
    rng = np.random.default_rng(0)
    left, right = np.diag([0.02, 0.3]) @ rng.standard_normal((2, 2)), np.diag([0.1, 0.5, 0.2])
    draws = left @ rng.standard_normal((4000, 2, 3)) @ right
    rule = scale_by_psgd_kron(0.0, probability=1.0, rate=0.05)

    def step(state, g):
        _, state = rule.update(g, state)
        return state, (state.left, state.right)

    start = rule.init(jnp.zeros((2, 3)))
    _, (lefts, rights) = jax.jit(lambda g: jax.lax.scan(step, start, g))(
        jnp.asarray(draws, jnp.float32)
    )
    q_left, q_right = (np.asarray(q[-1], np.float64) for q in (lefts, rights))
    whitened = (q_left.T @ q_left) @ draws @ (q_right.T @ q_right)
    found, given = (np.linalg.eigvalsh(np.cov(x.reshape(4000, -1).T)) for x in (whitened, draws))
    assert found.min() > 0.4
    assert found.max() < 1.7
    assert given.max() / given.min() > 1000


@pytest.mark.parametrize("probability", [0.1, 0.03, 1 / 3])
def test_the_factors_are_updated_as_often_as_asked(probability):
    rule = scale_by_psgd_kron(probability=probability)
    state, update, changes = rule.init(jnp.ones((2, 2))), jax.jit(rule.update), []
    for t in range(100):
        _, after = update(jnp.ones((2, 2)), state)
        if not np.array_equal(after.left, state.left):
            changes.append(t)
        state = after
    assert changes[0] == 0
    gaps = np.diff(changes)
    assert gaps.min() >= int(1 / probability + 1e-6)
    assert gaps.max() <= np.ceil(1 / probability - 1e-6)


def test_the_share_of_updates_falls():
    shares = annealed()(jnp.asarray([0, 200, 1200, 10_000]))
    np.testing.assert_allclose(shares, [1, 1, np.exp(-1), 0.03], rtol=1e-5)


def test_seeds_differ_and_a_seed_repeats():
    gradients = [jnp.asarray(g) for g in related((4, 3), 3, 0.1)]
    one, again, other = (run(scale_by_psgd_kron(seed=seed), gradients)[0][-1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert distance(one, np.asarray(other)) > 1e-3
