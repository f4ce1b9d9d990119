"""Inverse roots match float64, whatever the scale and the condition of a matrix."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optimizers.kronecker.roots import RootSolution, eigh_root, newton_root
from support.reference import root64


def eigh_roots(stack, p, ridge):
    return RootSolution(
        *(jnp.stack(parts) for parts in zip(*(eigh_root(a, p, ridge) for a in stack), strict=True))
    )


SOLVERS = {"eigh": eigh_roots, "newton": newton_root}


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


def test_eigh_takes_any_order_and_newton_rejects_fractions():
    a = np.diag([4.0, 1.0]).astype(np.float32)
    np.testing.assert_allclose(
        eigh_root(jnp.asarray(a), 2.5, 0.0).root, np.diag([4**-0.4, 1.0]), rtol=1e-5
    )
    with pytest.raises(ValueError, match=r"p=2.5: use the eigh solver"):
        newton_root(jnp.asarray(a)[None], 2.5, 0.0)
