"""Muon's options, against float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optimizers.muon import COEFFICIENTS, muon
from support.shampoo_rules import distance, random


def singular64(s, coefficients):
    """Singular values after five steps of the iteration, in float64."""
    steps = np.asarray(coefficients, np.float64)
    for a, b, c in np.broadcast_to(steps, (5, 3)):
        s = a * s + b * s**3 + c * s**5
    return s


def first_update(gradient, **given):
    """-1 times the first update at rate 1 without weight decay."""
    params = {"w": jnp.zeros_like(gradient)}
    rule = muon(1.0, weight_decay=0.0, **given)
    updates, _ = rule.update({"w": gradient}, rule.init(params), params)
    return -np.asarray(updates["w"])


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_singular_values_go_through_the_polynomials(name):
    u, s, vt = np.linalg.svd(np.asarray(random((12, 8), 1), np.float64), full_matrices=False)
    s = s[0] * 10.0 ** -np.linspace(0, 2, 8)  # from 1 down to a hundredth
    found = first_update(jnp.asarray(u * s @ vt, jnp.float32), coefficients=name)
    expected = u * singular64(s / np.linalg.norm(s), COEFFICIENTS[name]) @ vt
    assert distance(found, expected) < 1e-4


def test_the_polynomials_of_polar_express_are_the_best():
    """The best polynomials err above 1 as much as below it, after each step (Chebyshev)."""
    s = np.geomspace(1e-3, 1, 100_000)
    for a, b, c in COEFFICIENTS["polar_express"]:
        s = a * s + b * s**3 + c * s**5
        assert s.max() - 1 == pytest.approx(1 - s.min(), abs=1e-6)
    assert s.max() < 1.13
    assert singular64(np.linspace(0.1, 1, 1000), COEFFICIENTS["jordan"]).min() < 0.75


def test_consistent_rms_is_the_root_mean_square_of_an_orthogonal_update():
    update = first_update(random((40, 10), 2), consistent_rms=0.2, coefficients="polar_express")
    assert np.sqrt(np.mean(update**2)) == pytest.approx(
        0.2, rel=0.13
    )  # singular values are that close to 1


def test_vectors_have_a_rate_of_their_own():
    params = {"w": random((4, 3)), "b": random(3)}
    updates = []
    for factor in (None, 0.25):
        rule = muon(0.1, adam_lr_factor=factor)
        updates.append(rule.update(params, rule.init(params), params)[0])
    np.testing.assert_array_equal(updates[0]["w"], updates[1]["w"])
    np.testing.assert_allclose(updates[1]["b"], 0.25 * updates[0]["b"], rtol=1e-6)


def test_stacked_kernels_are_as_many_kernels():
    layers = random((3, 6, 5), 3)
    axes = {"w": optax.contrib.MuonDimensionNumbers(1, 2)}
    found = first_update(layers, dimension_numbers=axes)
    for i in range(3):
        np.testing.assert_allclose(found[i], first_update(layers[i]), rtol=1e-4, atol=1e-6)


def test_unknown_coefficients_are_refused():
    with pytest.raises(ValueError, match="unknown coefficients 'newton': use jordan or polar"):
        muon(0.1, coefficients="newton")


def test_the_options_run_in_a_training_loop():
    params = {"w": random((3, 3, 4, 6)), "b": random(6)}
    for name in COEFFICIENTS:
        rule = muon.build({"coefficients": name, "adam_lr_factor": 0.5}, 20)

        def step(carry, _, rule=rule):
            params, state = carry
            gradients = jax.tree.map(lambda p: p - 0.3, params)
            updates, state = rule.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        end = jax.lax.scan(step, (params, rule.init(params)), length=20)[0][0]
        assert optax.tree.norm(end) < optax.tree.norm(params)


def test_the_scale_of_convolutions_leaves_their_weight_decay_and_other_kernels_alone():
    """A wide 1x1 convolution and a tall filter: the two scales are 2 and 1, and 1 and 2."""
    params = {"wide": random((1, 1, 2, 8), 1), "tall": random((4, 1, 2, 3), 2)}
    params |= {"dense": random((2, 8), 3), "bias": random(3, 4)}
    gradients = {name: random(p.shape, 5) for name, p in params.items()}
    moved = {}
    for scale in ("matrix", "kernel"):
        rule = muon(lambda count: 0.1, weight_decay=0.5, convolution_scale=scale)
        updates, _ = rule.update(gradients, rule.init(params), params)
        decay = {name: 0.05 * p if p.ndim > 1 else 0 for name, p in params.items()}
        moved[scale] = {name: -np.asarray(updates[name] + decay[name]) for name in params}
    expected = moved["matrix"] | {
        "wide": moved["matrix"]["wide"] / 2,
        "tall": moved["matrix"]["tall"] * 2,
    }
    for name in params:
        np.testing.assert_allclose(moved["kernel"][name], expected[name], rtol=1e-4, atol=1e-6)


def test_two_scales_at_once_are_refused():
    with pytest.raises(ValueError, match="consistent_rms replaces convolution_scale"):
        muon(0.1, convolution_scale="kernel", consistent_rms=0.2)
    with pytest.raises(ValueError, match="unknown scale 'both'"):
        muon(0.1, convolution_scale="both")
