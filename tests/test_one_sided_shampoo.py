"""One-sided Shampoo against float64 numpy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from optimizers.one_sided_shampoo import one_sided_shampoo
from support.reference import cuts, pseudo_inverse64
from support.shampoo_rules import distance, random, related, run


def adam64(gradients, b1, b2):
    m = v = 0.0
    for g in gradients:
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    t = len(gradients)
    return (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-15)


def block64(gradients, b1, b2, threshold):
    """L^+^(1/2) M for a block that is at least as wide as high; the transpose for others."""
    if gradients[0].shape[0] > gradients[0].shape[1]:
        return block64([g.T for g in gradients], b1, b2, threshold).T
    m = left = 0.0
    for g in gradients:
        m, left = b1 * m + (1 - b1) * g, b2 * left + (1 - b2) * g @ g.T
    t = len(gradients)
    return pseudo_inverse64(left / (1 - b2**t), 2, threshold) @ (m / (1 - b1**t))


def update64(gradients, b1, b2, threshold, block_size):
    """The update of a kernel [.., O] after the last of `gradients`, without rate and decay."""
    shape = gradients[0].shape
    matrices = [g.reshape(-1, shape[-1]).astype(np.float64) for g in gradients]
    whitened = np.zeros(matrices[0].shape)
    for rows in cuts(whitened.shape[0], block_size):
        for columns in cuts(whitened.shape[1], block_size):
            block = [g[rows, columns] for g in matrices]
            whitened[rows, columns] = block64(block, b1, b2, threshold)
    norm = np.linalg.norm(adam64(matrices, b1, b2))
    return (whitened * norm / np.linalg.norm(whitened)).reshape(shape)


def bare(rule, gradients):
    """Updates of parameters that are zero, so that nothing decays."""
    steps = [{"w": jnp.asarray(g, jnp.float32)} for g in gradients]
    return [u["w"] for u in run(rule, steps, {"w": jnp.zeros_like(steps[0]["w"])})[0]]


def deficient(shape, n):
    """Gradients of rank 2 with rows of zeros, as of inputs that are always 0."""
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((shape[0], 2)) * (np.arange(shape[0]) % 3 > 0)[:, None]
    return [(rows @ rng.standard_normal((2, shape[1]))).astype(np.float32) for _ in range(n)]


@pytest.mark.parametrize(
    ("gradients", "block_size"),
    [
        (related((6, 10), 6), 128),
        (related((10, 6), 6), 128),
        (related((7, 7), 6), 128),
        (related((2, 2, 3, 9), 6), 8),
        (deficient((6, 10), 6), 128),
        (deficient((12, 8), 6), 128),
    ],
)
def test_it_matches_float64(gradients, block_size):
    params = {"w": random(gradients[0].shape, 3)}
    rule = one_sided_shampoo(0.3, b1=0.8, b2=0.7, weight_decay=0.2, block_size=block_size)
    updates, _ = run(rule, [{"w": jnp.asarray(g)} for g in gradients], params)
    for t in range(len(gradients)):
        whitened = update64(gradients[: t + 1], 0.8, 0.7, 1e-6, block_size)
        expected = -0.3 * (whitened + 0.2 * np.asarray(params["w"], np.float64))
        assert distance(updates[t]["w"], expected) < 2e-4, t


def test_vectors_take_adam():
    gradients = [np.asarray(random(5, i), np.float64) for i in range(4)]
    updates = bare(one_sided_shampoo(0.1), gradients)
    np.testing.assert_allclose(updates[-1], -0.1 * adam64(gradients, 0.9, 0.9), rtol=1e-4)


def test_one_gradient_becomes_orthogonal():
    """(G G^T)^(-1/2) G is the nearest matrix with orthonormal rows, whatever the scale of G."""
    g = np.asarray(random((4, 9)), np.float64)
    u, _, vt = np.linalg.svd(g, full_matrices=False)
    expected = u @ vt * np.sqrt(g.size) / np.linalg.norm(u @ vt)  # Adam's first step has size 1
    for scale in (1e-8, 1.0, 1e4):
        (update,) = bare(one_sided_shampoo(1.0), [scale * g])
        assert distance(-np.asarray(update), expected) < 1e-4


def test_dead_inputs_get_no_update():
    moved = np.abs(np.asarray(bare(one_sided_shampoo(1.0), deficient((6, 10), 5))[-1])).max(1)
    assert (moved[::3] < 1e-5).all()
    assert (moved[1::3] > 0.1).all()
