"""The distillation loss against a float64 reference."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_bench.training.losses import kl_divergence


def kl64(teacher, student, temperature):
    p, q = (
        np.exp(x / temperature) / np.exp(x / temperature).sum(-1, keepdims=True)
        for x in (teacher.astype(np.float64), student.astype(np.float64))
    )
    return temperature**2 * (p * np.log(p / q)).sum(-1).mean()


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([1.0, 2.0, 10.0]),
    scale=st.floats(0.1, 8.0),
)
def test_kl_matches_float64_and_is_not_negative(seed, temperature, scale):
    teacher, student = scale * np.random.default_rng(seed).standard_normal((2, 7, 5)).astype(
        np.float32
    )
    found = float(kl_divergence(jnp.asarray(teacher), jnp.asarray(student), temperature))
    assert found == pytest.approx(kl64(teacher, student, temperature), rel=1e-3, abs=1e-5)
    assert found >= -1e-6


def test_kl_and_its_gradient_are_zero_for_a_perfect_student():
    logits = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)), jnp.float32)
    loss, gradient = jax.value_and_grad(lambda s: kl_divergence(logits, s, 2.0))(logits + 5.0)
    assert float(loss) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
