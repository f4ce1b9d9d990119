"""NorMuon against float64 numpy, and where it is Muon."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optimizers.contract import registry
from optimizers.newton_schulz import orthogonalise
from optimizers.normuon import scale_by_normuon
from support.reference import newton_schulz64
from support.shampoo_rules import distance, related, run


def normuon64(gradients, momentum, b2):
    """The last update for gradients [rest, O]."""
    average, square = 0.0, 0.0
    for g in gradients:
        g = g.astype(np.float64).reshape(-1, g.shape[-1])
        average = momentum * average + (1 - momentum) * g
        unit = newton_schulz64(momentum * average + (1 - momentum) * g)
        square = b2 * square + (1 - b2) * (unit**2).mean(0)
        new = unit / np.sqrt(square)
        new *= np.linalg.norm(unit) / np.linalg.norm(new)
    rows, columns = unit.shape
    return (new * max(1, columns / rows) ** 0.5).reshape(gradients[0].shape)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (3, 3, 2, 7)])
def test_it_matches_float64(shape):
    gradients = related(shape, 6)
    updates, _ = run(scale_by_normuon(0.9, 0.8), [{"w": jnp.asarray(g)} for g in gradients])
    assert distance(updates[-1]["w"], normuon64(gradients, 0.9, 0.8)) < 1e-5


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12])
def test_orthogonalisation_does_not_depend_on_scale(scale):
    g = related((4, 9), 1)[0]
    found = orthogonalise(jnp.asarray(scale * g, jnp.float32))
    assert distance(found, newton_schulz64(g.astype(np.float64))) < 1e-5


def test_neurons_get_updates_of_like_size():
    g = np.random.default_rng(0).standard_normal((6, 6)) * np.geomspace(1e-2, 1, 6)[:, None]
    updates, _ = run(scale_by_normuon(0.9, 0.9), [{"w": jnp.asarray(g, jnp.float32)}])
    sizes = np.linalg.norm(updates[0]["w"], axis=0)
    np.testing.assert_allclose(sizes, sizes[0], rtol=1e-5)


def test_it_is_muon_if_neurons_are_alike():
    """The columns of a scaled orthogonal matrix stay equally long."""
    q = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))[0]
    gradients = [{"w": jnp.asarray(q, jnp.float32), "b": jnp.asarray(q[0], jnp.float32)}] * 4
    hparams = {"momentum": 0.9, "adam_b2": 0.9, "weight_decay": 0.1, "lr": 0.1}
    params = {"w": jnp.ones((8, 8)), "b": jnp.ones(8)}
    one, other = (
        run(registry.resolve(name).optimizer.build(hparams, 10), gradients, params)[0]
        for name in ("normuon", "muon")
    )
    for a, b in zip(one, other, strict=True):
        for key in a:
            assert distance(a[key], np.asarray(b[key])) < 1e-5


def test_vectors_take_adam():
    gradients = [{"b": jnp.asarray(g)} for g in related((7,), 4)]
    found, _ = run(scale_by_normuon(adam_b1=0.8, adam_b2=0.9), gradients)
    expected, _ = run(optax.scale_by_adam(0.8, 0.9, nesterov=True), gradients)
    np.testing.assert_array_equal(found[-1]["b"], expected[-1]["b"])
