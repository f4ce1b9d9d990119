"""KL-SOAP against float64 numpy, block by block, and what is left of it without its bases."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optimizers.kl_soap import scale_by_kl_soap
from support.reference import cuts, kl_factors64
from support.shampoo_rules import distance, related, run


def kl_soap64(gradients, b1, b2, epsilon, every):
    """The last update of one block. As in the authors' code, the average of gradients is kept in
    the bases, and rotated when they change."""
    mean = square = old = 0.0
    for t, (g, (left, _), (right, _)) in enumerate(kl_factors64(gradients, b2, every), 1):
        if t > 1:
            mean = left.T @ old[0] @ mean @ old[1].T @ right
        old = left, right
        inside = left.T @ g @ right
        mean = b1 * mean + (1 - b1) * inside
        square = b2 * square + (1 - b2) * inside**2
        root = np.sqrt(square / (1 - b2**t))
        update = left @ (mean / (1 - b1**t) / (root + epsilon * root.max())) @ right.T
    return update


@pytest.mark.parametrize(("shape", "every"), [((8, 8), 1), ((8, 8), 3), ((2, 2, 4, 16), 2)])
def test_it_matches_float64(shape, every):
    """On square blocks: the first eigenvectors of a rank-deficient factor are not unique."""
    gradients = related(shape, 9)
    rule = scale_by_kl_soap(0.9, 0.8, epsilon=1e-3, block_size=8, update_every=every)
    updates, _ = run(rule, [{"w": jnp.asarray(g)} for g in gradients])
    matrices = [g.reshape(-1, shape[-1]) for g in gradients]
    expected = np.zeros(matrices[0].shape)
    for rows in cuts(expected.shape[0], 8):
        for columns in cuts(expected.shape[1], 8):
            block = [g[rows, columns] for g in matrices]
            expected[rows, columns] = kl_soap64(block, 0.9, 0.8, 1e-3, every)
    assert distance(updates[-1]["w"], expected.reshape(shape)) < 1e-4


def test_it_turns_with_the_gradients():
    """Updates for U G W^T are U, W^T times those for G. Those of Adam are not."""
    rng = np.random.default_rng(5)
    u, w = (np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(2))
    gradients = related((6, 6), 7)
    turned = [(u @ g @ w.T).astype(np.float32) for g in gradients]
    for rule, low, high in (
        (scale_by_kl_soap(epsilon=1e-3, update_every=2), 0, 1e-3),
        (optax.scale_by_adam(), 0.1, 2),
    ):
        one, other = (run(rule, [jnp.asarray(g) for g in of])[0] for of in (gradients, turned))
        assert low <= distance(other[-1], u @ np.asarray(one[-1], np.float64) @ w.T) <= high


def test_directions_that_hold_only_rounding_errors_stay_small():
    a, b = np.random.default_rng(3).standard_normal((2, 6))
    gradients = [jnp.asarray(s * np.outer(a, b), jnp.float32) for s in (1.0, 0.7, 1.3, 0.9)]
    unit = np.outer(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
    for epsilon, low, high in ((1e-4, 0, 0.1), (0.0, 0.3, np.inf)):
        updates, _ = run(scale_by_kl_soap(epsilon=epsilon), gradients)
        update = np.asarray(updates[-1], np.float64)
        assert low <= distance(update, np.sum(update * unit) * unit) <= high


@pytest.mark.parametrize("scale", [1e-10, 1e8])
def test_updates_do_not_depend_on_the_scale_of_gradients(scale):
    one, _ = run(scale_by_kl_soap(), [jnp.asarray(g) for g in related((6, 6), 4)])
    other, _ = run(scale_by_kl_soap(), [jnp.asarray(g) for g in related((6, 6), 4, scale)])
    assert distance(other[-1], np.asarray(one[-1])) < 1e-3


def test_vectors_take_adam_and_the_first_gradient_only_begins_the_factors():
    gradients = [{"b": jnp.asarray(g[0]), "w": jnp.asarray(g)} for g in related((5, 7), 4)]
    found, _ = run(scale_by_kl_soap(0.8, 0.9), gradients)
    expected, _ = run(optax.scale_by_adam(0.8, 0.9), gradients)
    np.testing.assert_allclose(found[-1]["b"], expected[-1]["b"], rtol=1e-6)
    assert not np.any(found[0]["w"])
    assert np.all(found[1]["w"])


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="update_every=0"):
        scale_by_kl_soap(update_every=0)
