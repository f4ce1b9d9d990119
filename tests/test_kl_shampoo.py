"""KL-Shampoo against float64 numpy, block by block."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optimizers.kl_shampoo import scale_by_kl_shampoo
from support.reference import cuts, kl_factors64, power64
from support.shampoo_rules import distance, related, run


def kl_shampoo64(gradients, b1, b2, every):
    """The last update of one block."""
    mean = 0.0
    for g, left, right in kl_factors64(gradients, b2, every):
        mean = b1 * mean + (1 - b1) * g
        update = power64(*left, -0.5) @ mean @ power64(*right, -0.5)
    return update


@pytest.mark.parametrize(("shape", "every"), [((8, 8), 1), ((8, 8), 3), ((2, 2, 4, 16), 2)])
def test_it_matches_float64(shape, every):
    """On square blocks: the first eigenvectors of a rank-deficient factor are not unique."""
    gradients = related(shape, 9)
    rule = scale_by_kl_shampoo(0.9, 0.8, block_size=8, update_every=every)
    updates, _ = run(rule, [{"w": jnp.asarray(g)} for g in gradients])
    matrices = [g.reshape(-1, shape[-1]) for g in gradients]
    expected = np.zeros(matrices[0].shape)
    for rows in cuts(expected.shape[0], 8):
        for columns in cuts(expected.shape[1], 8):
            block = [g[rows, columns] for g in matrices]
            expected[rows, columns] = kl_shampoo64(block, 0.9, 0.8, every)
    assert distance(updates[-1]["w"], expected.reshape(shape)) < 1e-4


def test_it_whitens_kronecker_covariances():
    """Whatever the covariance, updates without momentum have the identity's after a while."""
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((3, 3)), np.diag([0.2, 1.0, 3.0, 0.5])
    gradients = [
        (left @ rng.standard_normal((3, 4)) @ right).astype(np.float32) for _ in range(800)
    ]
    updates, _ = run(scale_by_kl_shampoo(0.0, 0.98, update_every=2), map_arrays(gradients))
    late = np.asarray(updates[300:], np.float64).reshape(500, -1)
    values = np.linalg.eigvalsh(late.T @ late / len(late))
    given = np.linalg.eigvalsh(np.kron(left @ left.T, right @ right.T))
    assert values.max() / values.min() < 5
    assert given.max() / given.min() > 200


def map_arrays(gradients):
    return [jnp.asarray(g) for g in gradients]


@pytest.mark.parametrize("scale", [1e-10, 1e8])
def test_updates_do_not_depend_on_the_scale_of_gradients(scale):
    one, _ = run(scale_by_kl_shampoo(), map_arrays(related((6, 6), 4)))
    other, _ = run(scale_by_kl_shampoo(), map_arrays(related((6, 6), 4, scale)))
    assert distance(other[-1], np.asarray(one[-1])) < 1e-3


def test_vectors_take_adam_and_the_first_gradient_only_begins_the_factors():
    gradients = [{"b": jnp.asarray(g[0]), "w": jnp.asarray(g)} for g in related((5, 7), 4)]
    found, _ = run(scale_by_kl_shampoo(0.8, 0.9), gradients)
    expected, _ = run(optax.scale_by_adam(0.8, 0.9), gradients)
    np.testing.assert_allclose(found[-1]["b"], expected[-1]["b"], rtol=1e-6)
    assert not np.any(found[0]["w"])
    assert np.all(found[1]["w"])


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="update_every=0"):
        scale_by_kl_shampoo(update_every=0)
