"""SOAP-Muon against float64 numpy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from optimizers.soap import scale_by_soap
from optimizers.soap_muon import scale_by_soap_muon
from support.reference import newton_schulz64, soap64
from support.shampoo_rules import distance, related, run


def soap_muon64(gradients, b1, b2, epsilon, block_size, update_every):
    """The last update for gradients [.., O]."""
    whole = soap64(gradients, b1, b2, epsilon, block_size, update_every)
    matrix = newton_schulz64(whole.reshape(-1, whole.shape[-1]))
    rows, columns = matrix.shape
    return (matrix * max(1, columns / rows) ** 0.5).reshape(whole.shape)


@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (2, 2, 4, 8)])
def test_it_matches_float64(shape):
    """In square blocks: the first eigenvectors of a rank-deficient average are not unique."""
    gradients = related(shape, 7)
    rule = scale_by_soap_muon(0.9, 0.8, epsilon=1e-3, block_size=4, update_every=3)
    updates, _ = run(rule, [{"w": jnp.asarray(g)} for g in gradients])
    expected = soap_muon64(gradients, 0.9, 0.8, 1e-3, 4, 3)
    assert distance(updates[-1]["w"], expected) < 1e-4


@pytest.mark.parametrize("options", [{"one_sided": True}, {"basis_solver": "qr"}])
def test_soap_takes_its_options(options):
    gradients = [{"w": jnp.asarray(g)} for g in related((6, 10), 5)]
    found, _ = run(scale_by_soap_muon(update_every=2, **options), gradients)
    whole, _ = run(scale_by_soap(update_every=2, **options), gradients)
    expected = newton_schulz64(np.asarray(whole[-1]["w"], np.float64)) * (10 / 6) ** 0.5
    assert distance(found[-1]["w"], expected) < 1e-4
    plain, _ = run(scale_by_soap_muon(update_every=2, basis_solver="eigh"), gradients)
    assert distance(plain[-1]["w"], expected) > 1e-3


@pytest.mark.parametrize("scale", [1e-10, 1e8])
def test_updates_do_not_depend_on_the_scale_of_gradients(scale):
    one, _ = run(scale_by_soap_muon(), [jnp.asarray(g) for g in related((6, 6), 4)])
    other, _ = run(scale_by_soap_muon(), [jnp.asarray(g) for g in related((6, 6), 4, scale)])
    assert distance(other[-1], np.asarray(one[-1])) < 1e-3


def test_other_tensors_take_adam_as_in_soap():
    gradients = [{"b": jnp.asarray(g[0]), "row": jnp.asarray(g[:1])} for g in related((4, 5), 4)]
    found, _ = run(scale_by_soap_muon(0.8, 0.9), gradients)
    expected, _ = run(scale_by_soap(0.8, 0.9), gradients)
    for key in ("b", "row"):
        np.testing.assert_array_equal(found[-1][key], expected[-1][key])


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="update_every=0"):
        scale_by_soap_muon(update_every=0)
