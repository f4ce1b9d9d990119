"""Adam-mini against float64 numpy, and where it is Adam."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optimizers.adam_mini import scale_by_adam_mini
from support.shampoo_rules import distance, related, run


def adam_mini64(gradients, b1, b2):
    """The last direction."""
    m = v = 0.0
    for g in gradients:
        g = g.astype(np.float64)
        neurons = tuple(range(g.ndim - 1)) if g.ndim > 1 else None
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * (g * g).mean(neurons, keepdims=True)
    t = len(gradients)
    return (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8)


@pytest.mark.parametrize("shape", [(9, 5), (3, 3, 2, 4), (7,), ()])
def test_it_matches_float64(shape):
    gradients = related(shape, 6)
    updates, _ = run(scale_by_adam_mini(0.9, 0.8), [{"w": jnp.asarray(g)} for g in gradients])
    assert distance(updates[-1]["w"], adam_mini64(gradients, 0.9, 0.8)) < 1e-5


def test_it_is_adam_if_the_squares_of_a_block_are_equal():
    rng = np.random.default_rng(0)
    gradients = [
        {
            "w": jnp.asarray(rng.choice([-1, 1], (6, 4)) * rng.uniform(1, 2, 4), jnp.float32),
            "b": jnp.asarray(rng.choice([-1, 1], 4) * rng.uniform(1, 2), jnp.float32),
        }
        for _ in range(5)
    ]
    one, _ = run(scale_by_adam_mini(0.9, 0.8), gradients)
    other, _ = run(optax.scale_by_adam(0.9, 0.8), gradients)
    for a, b in zip(one, other, strict=True):
        for key in a:
            assert distance(a[key], np.asarray(b[key])) < 1e-6


def test_the_second_moments_take_one_number_a_block():
    params = {"conv": jnp.ones((3, 3, 4, 6)), "b": jnp.ones(6), "scalar": jnp.ones(())}
    square = scale_by_adam_mini().init(params).square
    assert jax.tree.map(jnp.size, square) == {"conv": 6, "b": 1, "scalar": 1}
