"""`adamw_funmatch` is the rule that was released: float64, optax's chain, decay, schedule."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from optimizers.adamw_funmatch import adamw_funmatch, warmup_times_cosine
from optimizers.masks import kernels

STEPS = 2500
SHAPES = {"conv": (3, 3, 4, 6), "dense": (8, 5), "bias": (6,), "gain": (5,)}
SETTINGS = [
    {"lr": 3e-3, "weight_decay": 3e-4, "warmup_steps": 1500},
    {"lr": 3e-4, "weight_decay": 1e-3, "warmup_steps": 200},
]


@functools.cache
def problem():
    """Start parameters, and gradients of every step with a common part and changing norms.

    They do not depend on the parameters, so that rounding is not amplified.
    """
    rng = np.random.default_rng(0)
    params = {name: 0.5 + rng.standard_normal(shape) for name, shape in SHAPES.items()}
    scales = 0.05 * np.exp(rng.standard_normal(STEPS))
    gradients = {
        name: np.einsum(
            "t,t...->t...",
            scales,
            rng.standard_normal(shape) + 0.7 * rng.standard_normal((STEPS, *shape)),
        )
        for name, shape in SHAPES.items()
    }
    return params, gradients


def released_schedule(step, warmup_steps, total_steps):
    """big_vision's schedule, from its description: warm-up from 0, times a half cosine."""
    progress = np.clip((step - warmup_steps) / (total_steps - warmup_steps), 0, 1)
    return min(1.0, step / warmup_steps) * 0.5 * (1 + np.cos(np.pi * progress))


def reference(lr, weight_decay, warmup_steps):
    """The released chain in float64. The first moment is stored in bfloat16.

    Its product with b1 is bfloat16 times a Python number, which is rounded before and after.
    """

    def rounded(x):
        return np.asarray(x, ml_dtypes.bfloat16).astype(np.float64)

    params, gradients = problem()
    params = {name: value.copy() for name, value in params.items()}
    mu = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    nu = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    clipped = 0
    for t in range(STEPS):
        norm = np.sqrt(sum((gradients[name][t] ** 2).sum() for name in SHAPES))
        clipped += norm > 1
        s = released_schedule(t, warmup_steps, STEPS)
        for name, p in params.items():
            g = gradients[name][t] / max(norm, 1)
            m = 0.1 * g + rounded(rounded(0.9) * mu[name])
            nu[name] = 0.001 * g**2 + 0.999 * nu[name]
            u = m / (1 - 0.9 ** (t + 1)) / (np.sqrt(nu[name] / (1 - 0.999 ** (t + 1))) + 1e-8)
            mu[name] = rounded(m)
            params[name] = p - s * (lr * u + (weight_decay * p if p.ndim > 1 else 0))
    assert 0.1 < clipped / STEPS < 0.9
    return params


def train(rule, dtype):
    """The parameters after all steps."""

    def body(carry, gradients):
        params, state = carry
        updates, state = rule.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    start, gradients = jax.tree.map(lambda x: jnp.asarray(x, dtype), problem())
    run = jax.jit(
        lambda start, gradients: jax.lax.scan(body, (start, rule.init(start)), gradients)[0][0],
        # XLA leaves out roundings to bfloat16 otherwise, which moves the parameters by 8e-4.
        compiler_options={"xla_allow_excess_precision": False},
    )
    return run(start, gradients)


def distance(ours, other):
    """The largest ||a - b|| / ||b|| over the tensors."""
    return max(
        np.linalg.norm(np.asarray(ours[name], np.float64) - np.asarray(other[name], np.float64))
        / np.linalg.norm(other[name])
        for name in SHAPES
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: str(s["warmup_steps"]))
def test_it_matches_float64_over_2500_steps(settings):
    expected = reference(**settings)
    rule = adamw_funmatch.build(settings, STEPS)
    with jax.enable_x64(True):
        assert distance(train(rule, jnp.float64), expected) < 1e-6
    # In float32, b2 = 0.999 leaves 1 - b2 off by 1.3e-5, and so the step size by 6e-6.
    assert distance(train(rule, jnp.float32), expected) < 2e-5
    start, _ = problem()
    assert distance(start, expected) > 0.1


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: str(s["warmup_steps"]))
def test_it_is_the_chain_of_big_vision(settings):
    def schedule(step):
        w = settings["warmup_steps"]
        progress = jnp.clip((step - w) / float(STEPS - w), 0.0, 1.0)
        value = 0.5 * (1.0 + jnp.cos(jnp.pi * progress)) * jnp.minimum(1.0, step / w)
        return jnp.asarray(value, jnp.float32)

    chain = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(mu_dtype="bfloat16"),
        optax.scale(settings["lr"]),
        optax.add_decayed_weights(settings["weight_decay"], kernels),
        optax.scale_by_schedule(schedule),
        optax.scale(-1.0),
    )
    rule = adamw_funmatch.build(settings, STEPS)
    for x64, dtype in ((True, jnp.float64), (False, jnp.float32)):
        with jax.enable_x64(x64):
            assert distance(train(rule, dtype), train(chain, dtype)) < 1e-6


@pytest.mark.parametrize("lr", [3e-4, 1e-2])
def test_decay_follows_the_schedule_and_not_the_learning_rate_and_spares_vectors(lr):
    horizon, w, decay = 100, 30, 0.2
    rule = adamw_funmatch.build({"lr": lr, "weight_decay": decay, "warmup_steps": w}, horizon)
    params = {"kernel": jnp.full((2, 3), 2.0), "vector": jnp.full(3, 2.0)}
    state = rule.init(params)
    update = jax.jit(rule.update)
    for t in range(horizon):
        before = params
        updates, state = update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, updates)
        kept = 1 - decay * released_schedule(t, w, horizon)
        np.testing.assert_allclose(params["kernel"], kept * before["kernel"], rtol=1e-6)
        assert np.array_equal(params["vector"], before["vector"])
    assert params["kernel"].max() < 0.1


@pytest.mark.parametrize(
    ("horizon", "warmup_steps", "effective"),
    [
        (1501, 1500, 1500),  # the shortest run that big_vision accepts
        (1992, 1500, 1500),  # Flowers, 1,000 epochs
        (91_959, 5000, 5000),  # ImageNet, 300 epochs
        (1500, 1500, 150),
        (250, 1500, 25),  # the first rung of digits
        (4, 1500, 0.4),  # a dry run
    ],
)
def test_the_schedule_is_as_released_beyond_the_warmup(horizon, warmup_steps, effective):
    steps = np.unique(np.linspace(0, horizon, 2000).astype(int))
    rates = np.asarray(
        adamw_funmatch.learning_rate({"lr": 0.01, "warmup_steps": warmup_steps}, horizon, steps)
    )
    expected = [0.01 * released_schedule(t, effective, horizon) for t in steps]
    np.testing.assert_allclose(rates, expected, atol=1e-8)
    assert rates[0] == 0
    assert rates[1:-1].min() > 0
    assert rates[-1] == pytest.approx(0, abs=1e-8)


def test_a_warmup_may_be_left_out_but_not_negative():
    rates = warmup_times_cosine(1.0, 10, warmup_steps=0)(np.arange(2))
    np.testing.assert_allclose(rates, 0.5 * (1 + np.cos(np.pi * np.arange(2) / 10)), rtol=1e-6)
    with pytest.raises(ValueError, match="warmup_steps=-1 is not a number of steps"):
        adamw_funmatch.build({"warmup_steps": -1}, 10)
