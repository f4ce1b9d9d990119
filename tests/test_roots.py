"""Inverse roots match float64, whatever the scale and the condition of a matrix."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optimizers.kronecker.newton import newton_root
from optimizers.kronecker.polar import polar_root
from optimizers.kronecker.roots import RootSolution, eigh_root, pseudo_inverse_root
from support.reference import pseudo_inverse64, root64


def eigh_roots(stack, p, ridge):
    return RootSolution(
        *(jnp.stack(parts) for parts in zip(*(eigh_root(a, p, ridge) for a in stack), strict=True))
    )


SOLVERS = {"eigh": eigh_roots, "newton": newton_root, "polar": polar_root}


def spectrum(name, d):
    return {
        "well": np.geomspace(1, 0.1, d),
        "ill": np.geomspace(1, 1e-10, d),
        "deficient": np.r_[np.ones(d // 8), np.zeros(d - d // 8)],
    }[name]


@pytest.mark.parametrize("p", [2, 3, 4, 6])
@pytest.mark.parametrize("solver", SOLVERS)
def test_roots_match_float64_over_scales_and_conditions(solver, p):
    rng = np.random.default_rng(0)
    d, kinds, scales = 32, ("well", "ill", "deficient"), (1e-12, 1e-4, 1.0, 1e8)
    bases = [np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in kinds]
    unit = [(q * spectrum(kind, d)) @ q.T for q, kind in zip(bases, kinds, strict=True)]
    found = jax.jit(lambda s: SOLVERS[solver](s, p, 1e-6))(
        jnp.asarray(np.stack([s * a for a in unit for s in scales]), jnp.float32)
    )
    assert (found.residual < 1e-3).all()
    for i, (a, kind) in enumerate(
        (a, kind) for a, kind in zip(unit, kinds, strict=True) for _ in scales
    ):
        scale = scales[i % len(scales)]
        expected = root64(scale * a, p, 1e-6)
        # What matters is the preconditioned gradient, for gradients in the range of the statistics.
        g = a @ rng.standard_normal((d, 8))
        error = np.linalg.norm(
            np.asarray(found.root[i], np.float64) @ g - expected @ g
        ) / np.linalg.norm(expected @ g)
        assert error <= (1e-4 if kind == "well" else 2e-2), (kind, scale, error)
        np.testing.assert_allclose(found.condition[i], 10 if kind == "well" else 1e6, rtol=0.3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_zero_matrices_have_identity_roots_and_nan_gives_nan(solver):
    stack = jnp.stack([jnp.zeros((4, 4)), jnp.full((4, 4), jnp.nan), 2 * jnp.eye(4)])
    found = SOLVERS[solver](stack, 4, 1e-6)
    np.testing.assert_allclose(found.root[0], np.eye(4), atol=1e-5)
    assert not np.isfinite(found.root[1]).any()
    np.testing.assert_allclose(found.root[2], 2**-0.25 * np.eye(4), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("root", [newton_root, polar_root])
def test_eigh_takes_any_order_and_iterations_reject_fractions(root):
    a = jnp.diag(jnp.asarray([4.0, 1.0]))
    np.testing.assert_allclose(eigh_root(a, 2.5, 0.0).root, np.diag([4**-0.4, 1.0]), rtol=1e-5)
    for p in (2.5, 0, -2):
        with pytest.raises(ValueError, match=rf"not p={p}: use the eigh solver"):
            root(a[None], p, 0.0)
    with pytest.raises(ValueError, match=r"not p=.*Tracer.*: use the eigh solver"):
        jax.jit(lambda p: root(a[None], p, 0.0))(2)


@pytest.mark.parametrize("p", [1, 2, 4, 2.5])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e8])
def test_pseudo_inverse_roots_match_float64_and_are_zero_outside_the_range(scale, p):
    rng = np.random.default_rng(1)
    thin = rng.standard_normal((24, 5))
    for a in (thin @ thin.T, np.diag(np.r_[0.0, np.geomspace(1, 1e-4, 6), 0.0])):
        found = jax.jit(lambda a: pseudo_inverse_root(a, p, 1e-6))(jnp.asarray(scale * a, "f4"))
        expected = pseudo_inverse64(scale * a, p, 1e-6)
        np.testing.assert_allclose(found.root, expected, atol=1e-3 * np.abs(expected).max())
        outside = np.eye(len(a)) - np.linalg.pinv(a, 1e-6, hermitian=True) @ a
        assert np.linalg.norm(found.root @ outside) < 1e-3 * np.linalg.norm(found.root)
        values = np.linalg.eigvalsh(a)
        kept = values[values > 1e-6 * values[-1]]
        np.testing.assert_allclose(found.condition, kept[-1] / kept[0], rtol=1e-3)
        assert found.residual < 1e-5


def test_the_threshold_of_a_pseudo_inverse_is_relative_and_counts_what_is_at_most_that_as_zero():
    a = jnp.diag(jnp.asarray([1e4, 1e2, 1.0]))
    for threshold, kept in ((1e-5, 3), (1e-3, 2), (0.5, 1), (0.0, 3)):
        root = pseudo_inverse_root(a, 2, threshold).root
        np.testing.assert_allclose(root, np.diag([1e-2, 1e-1, 1.0] * (np.arange(3) < kept)))


def test_the_pseudo_inverse_of_zero_is_the_identity_and_nan_gives_nan():
    zero, bad = (pseudo_inverse_root(jnp.full((3, 3), x), 2, 1e-6) for x in (0.0, jnp.nan))
    np.testing.assert_array_equal(zero.root, np.eye(3))
    assert (zero.residual, zero.condition) == (0, 1)
    assert np.isnan(bad.root).all()
