"""MARS-AdamW against float64 numpy, and where it is AdamW."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optimizers.contract import registry
from optimizers.mars import correct_gradients, scale_by_mars
from support.shampoo_rules import distance, related, run


def mars64(gradients, b1, b2, gamma, clip):
    """The last direction."""
    m = v = 0.0
    previous = gradients[0].astype(np.float64)
    for g in gradients:
        g = g.astype(np.float64)
        c = g + gamma * b1 / (1 - b1) * (g - previous)
        c = c * min(1, clip / np.linalg.norm(c))
        m, v, previous = b1 * m + (1 - b1) * c, b2 * v + (1 - b2) * c * c, g
    t = len(gradients)
    return (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8)


@pytest.mark.parametrize("shape", [(9, 5), (3, 3, 2, 4)])
@pytest.mark.parametrize("scale", [1e-3, 1.0])  # without and with clipping
def test_it_matches_float64(shape, scale):
    gradients = related(shape, 6, scale)
    rule = scale_by_mars(0.9, 0.8, 0.3, clip=1.0)
    updates, _ = run(rule, [{"w": jnp.asarray(g)} for g in gradients])
    assert distance(updates[-1]["w"], mars64(gradients, 0.9, 0.8, 0.3, 1.0)) < 1e-5


def test_it_is_adamw_without_correction():
    """Gradients are too small to be clipped."""
    gradients = [{"w": jnp.asarray(g), "b": jnp.asarray(g[0])} for g in related((6, 4), 5, 1e-3)]
    params = {"w": jnp.ones((6, 4)), "b": jnp.ones(4)}
    hparams = {"b1": 0.9, "b2": 0.9, "weight_decay": 0.1, "lr": 0.1}
    make = registry.resolve("mars").optimizer.build
    one, _ = run(make(hparams | {"gamma": 0.0}, 10), gradients, params)
    other, _ = run(registry.resolve("adamw").optimizer.build(hparams, 10), gradients, params)
    for a, b in zip(one, other, strict=True):
        for key in a:
            assert distance(a[key], np.asarray(b[key])) < 1e-6
    corrected, _ = run(make(hparams, 10), gradients, params)
    assert distance(corrected[-1]["w"], np.asarray(other[-1]["w"])) > 1e-3


def test_vectors_take_adam():
    gradients = [{"b": jnp.asarray(g)} for g in related((7,), 4)]
    found, _ = run(scale_by_mars(0.8, 0.9), gradients)
    expected, _ = run(optax.scale_by_adam(0.8, 0.9), gradients)
    np.testing.assert_array_equal(found[-1]["b"], expected[-1]["b"])


def test_huge_and_zero_gradients_are_clipped_without_overflow():
    rule = correct_gradients(0.0, 0.9)
    updates, _ = run(rule, [jnp.full((3, 3), 1e30), jnp.zeros((3, 3))])
    np.testing.assert_allclose(updates[0], 1 / 3, rtol=1e-6)
    np.testing.assert_array_equal(updates[1], 0)
