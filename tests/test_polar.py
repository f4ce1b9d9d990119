"""The polynomials and the matrix iteration of the polar root solver."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from scipy.optimize import linprog

from optimizers.kronecker.polar import best_polynomial, polar_root, polynomials
from optimizers.muon import COEFFICIENTS
from support.reference import root64

LOWS = (1e-3, 0.05, 0.5, 0.9)


def values(c, p, s):
    """s h(s^p) in float64."""
    return s * np.polyval(c[::-1], s**p)


@pytest.mark.parametrize("low", LOWS)
@pytest.mark.parametrize("p", [1, 2, 3, 4, 8])
def test_polynomials_err_equally_far_in_turn_at_four_points(p, low):
    """Which no better polynomial of three terms could do (Chebyshev's theorem)."""
    c, error = best_polynomial(p, low)
    off = values(c, p, np.linspace(low, 1, 200_001)) - 1
    assert np.abs(off).max() == pytest.approx(error, rel=1e-6)
    extreme = np.sign(off[np.abs(off) > (1 - 1e-6) * error])
    assert extreme[np.r_[True, np.diff(extreme) != 0]].tolist() == [-1, 1, -1, 1]


@pytest.mark.parametrize("low", LOWS)
@pytest.mark.parametrize("p", [2, 4])
def test_polynomials_are_those_of_linear_programming(p, low):
    """The smallest E with -E <= s h(s^p) - 1 <= E on a grid."""
    s = np.geomspace(low, 1, 4001)[:, None]
    powers, one = s ** (1 + p * np.arange(3)), np.ones_like(s)
    found = linprog(
        [0, 0, 0, 1],
        np.block([[powers, -one], [-powers, -one]]),
        np.r_[one[:, 0], -one[:, 0]],
        bounds=[(None, None)] * 3 + [(0, None)],
    )
    c, error = best_polynomial(p, low)
    assert error == pytest.approx(found.fun, rel=1e-4, abs=1e-8)
    np.testing.assert_allclose(c, found.x[:3], rtol=1e-2)


def test_for_square_roots_they_are_those_of_polar_express():
    """Its last two published steps, on the intervals that the steps before them leave. (The first
    three have another cushion.)"""
    s = np.geomspace(1e-3, 1, 1_000_001)
    for step, published in enumerate(COEFFICIENTS["polar_express"]):
        high = s.max()
        if step > 2:
            c, _ = best_polynomial(2, s.min() / high)
            np.testing.assert_allclose(c / high ** np.array([1, 3, 5]), published, rtol=1e-6)
        s = values(np.array(published), 2, s)


@pytest.mark.parametrize("lowest", [1e-10, 1e-6, 1e-3, 0.3, 0.999])
@pytest.mark.parametrize("p", [1, 2, 3, 4, 6, 8])
def test_steps_take_every_eigenvalue_to_one_and_none_that_is_large_to_almost_zero(p, lowest):
    """Rounding errors of float32 would be a large part of an eigenvalue that was almost zero."""
    start = s = np.geomspace(lowest ** (1 / p), 1, 100_001)
    *steps, last = polynomials(p, lowest)
    for c in steps:
        s = values(c, p, s)
        assert s.max() <= 1 + 1e-9
        assert s[start >= 0.5].min() > 0.7
    assert np.abs(values(last, p, s) - 1).max() < 3.1e-6


SPECTRA = {
    "geometric": np.geomspace(1, 1e-10, 128),
    "rank 16": np.r_[np.ones(16), np.zeros(112)],
    "identity": np.ones(128),
}


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e8])
@pytest.mark.parametrize(("p", "tolerance"), [(2, 2e-3), (4, 1e-4)])
def test_preconditioned_gradients_match_float64(p, tolerance, scale):
    rng = np.random.default_rng(0)
    bases = [np.linalg.qr(rng.standard_normal((128, 128)))[0] for _ in SPECTRA]
    stack = [scale * (q * s) @ q.T for q, s in zip(bases, SPECTRA.values(), strict=True)]
    found = jax.jit(lambda a: polar_root(a, p, 1e-6))(jnp.asarray(np.stack(stack), jnp.float32))
    assert (found.residual < 1e-5).all()
    np.testing.assert_allclose(found.condition, [1e6, 1e6, 1], rtol=0.1)
    for name, a, root in zip(SPECTRA, stack, found.root, strict=True):
        g = a @ rng.standard_normal((128, 8))
        expected = root64(a, p, 1e-6) @ g
        error = np.linalg.norm(np.asarray(root, np.float64) @ g - expected)
        assert error < tolerance * np.linalg.norm(expected), name


def products(jaxpr):
    """(products of stacks of matrices, whether there is a loop of unknown length)."""
    count, open_ended = 0, False
    for one in jaxpr.eqns:
        count += one.primitive.name == "dot_general"
        open_ended |= one.primitive.name == "while"
        for inner in jaxprs_in_params(one.params):
            more, unknown = products(inner)
            count += one.params.get("length", 1) * more
            open_ended |= unknown
    return count, open_ended


@pytest.mark.parametrize("p", [2, 4])
def test_a_root_takes_42_products_and_nothing_else_that_multiplies(p):
    traced = jax.make_jaxpr(lambda a: polar_root(a, p, 1e-6))(jnp.ones((3, 128, 128)))
    assert products(traced.jaxpr) == (42, False)


def test_the_steps_follow_from_the_ridge_and_a_traced_ridge_gives_the_same_root():
    a = jnp.diag(jnp.asarray([1.0, 0.5, 0.0]))[None]
    for ridge in (1e-12, 1e-9, 1e-3, 1.0, 1e3):
        found = polar_root(a, 4, ridge)
        expected = np.diag((np.array([1.0, 0.5, 0.0]) + ridge) ** -0.25)
        np.testing.assert_allclose(found.root[0], expected, rtol=1e-4)
        assert found.residual < 1e-4
    traced = jax.jit(lambda ridge: polar_root(a, 4, ridge))
    np.testing.assert_allclose(traced(1e-6).root, polar_root(a, 4, 1e-6).root, rtol=1e-4)
    assert traced(1e-12).residual > 0.1  # which keeps the previous root
