"""Scion against float64 numpy and against the definition of its steps."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from optimizers.contract import registry
from optimizers.scion import scale_by_scion
from support.shampoo_rules import distance, related, run


def newton_schulz64(d):
    left, values, right = np.linalg.svd(d, full_matrices=False)
    values = values / np.linalg.norm(values)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values) @ right


def average64(gradients, b1):
    d = 0.0
    for g in gradients:
        d = b1 * d + (1 - b1) * g.astype(np.float64)
    return d


@pytest.mark.parametrize(
    ("shape", "radius"), [((8, 5), (5 / 8) ** 0.5), ((3, 2, 4, 9), (9 / 4) ** 0.5 / 6)]
)
def test_kernels_match_float64(shape, radius):
    gradients = related(shape, 5)
    updates, _ = run(scale_by_scion(0.8), [{"w": jnp.asarray(g)} for g in gradients])
    d = average64(gradients, 0.8)
    expected = radius * newton_schulz64(d.reshape(-1, shape[-1])).reshape(shape)
    assert distance(updates[-1]["w"], expected) < 1e-5


@pytest.mark.parametrize("shape", [(6,), ()])
@pytest.mark.parametrize("radius", [1.0, 0.25])
def test_vectors_are_divided_by_their_root_mean_square(shape, radius):
    gradients = related(shape, 5)
    rule = scale_by_scion(0.8, vector_radius=radius)
    updates, _ = run(rule, [jnp.asarray(g) for g in gradients])
    d = average64(gradients, 0.8)
    assert distance(updates[-1], radius * d / np.sqrt((d**2).mean())) < 1e-6


def test_the_kernel_of_the_output_layer_takes_signs():
    gradients = related((6, 4), 3)
    trees = [{"w": jnp.asarray(g), "last": jnp.asarray(g)} for g in gradients]

    def last(params):
        return {name: name == "last" for name in params}

    updates, _ = run(scale_by_scion(0.8, output=last, output_radius=30.0), trees)
    d = average64(gradients, 0.8)
    assert distance(updates[-1]["last"], 30 / 6 * np.sign(d)) < 1e-6
    assert distance(updates[-1]["w"], (4 / 6) ** 0.5 * newton_schulz64(d)) < 1e-5


@pytest.mark.parametrize("shape", [(5, 5), (3,)])
def test_steps_do_not_depend_on_the_scale_of_gradients(shape):
    one, _ = run(scale_by_scion(), [jnp.asarray(g) for g in related(shape, 3)])
    tiny, _ = run(scale_by_scion(), [jnp.asarray(g) for g in related(shape, 3, 1e-25)])
    assert distance(tiny[-1], np.asarray(one[-1])) < 1e-5


def test_weight_decay_is_the_constrained_version():
    """Their step: x <- (1 - gamma) x - gamma rho s, with rho = 1 / w and gamma = lr w."""
    g, x = related((4, 6), 1)[0], np.asarray(related((4, 6), 1)[0][::-1], np.float64)
    hparams = {"lr": 0.3, "weight_decay": 0.2, "warmup": 0.0}
    rule = registry.resolve("scion").optimizer.build(hparams, 10**9)
    updates, _ = run(rule, [jnp.asarray(g)], jnp.asarray(x, jnp.float32))
    s = (6 / 4) ** 0.5 * newton_schulz64(g.astype(np.float64))
    gamma, rho = 0.3 * 0.2, 1 / 0.2
    assert distance(x + np.asarray(updates[0]), (1 - gamma) * x - gamma * rho * s) < 1e-5
