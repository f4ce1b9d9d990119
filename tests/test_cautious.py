"""Cautious AdamW and cautious weight decay against float64 numpy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optimizers.cautious import add_cautious_weight_decay, cautious
from optimizers.contract import registry
from support.shampoo_rules import distance, random, related, run


def adam64(gradients, b1, b2, eps=1e-8):
    """Adam's direction at each step."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        g = g.astype(np.float64)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        yield (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)


def noisy(shape, n):
    return [np.random.default_rng(i).standard_normal(shape).astype(np.float32) for i in range(n)]


@pytest.mark.parametrize("shape", [(9, 5), (7,)])
def test_it_matches_float64(shape):
    gradients, x = noisy(shape, 5), np.asarray(random(shape, 50), np.float64)
    hparams = {"b1": 0.9, "b2": 0.8, "weight_decay": 0.1, "lr": 0.5}
    rule = registry.resolve("cautious_adamw").optimizer.build(hparams | {"warmup": 0.0}, 10**9)
    updates, _ = run(rule, [jnp.asarray(g) for g in gradients], jnp.asarray(x, jnp.float32))
    for found, u, g in zip(updates, adam64(gradients, 0.9, 0.8), gradients, strict=True):
        keep = u * g > 0
        assert keep.mean() > 0
        decay = 0.1 * x * (len(shape) > 1)
        assert distance(found, -0.5 * (u * keep / keep.mean() + decay)) < 1e-5


@pytest.mark.parametrize(
    ("name", "start"), [("cautious_adamw", 1.0), ("cautious_decay_adamw", 1.0)]
)
def test_it_is_adamw_if_all_signs_agree(name, start):
    gradients = [{"w": jnp.asarray(abs(g)), "b": jnp.asarray(abs(g[0]))} for g in noisy((6, 4), 5)]
    params = {"w": jnp.full((6, 4), start), "b": jnp.ones(4)}
    hparams = {"b1": 0.9, "b2": 0.9, "weight_decay": 0.1, "lr": 0.1}
    one, other = (
        run(registry.resolve(n).optimizer.build(hparams, 10), gradients, params)[0]
        for n in (name, "adamw")
    )
    for a, b in zip(one, other, strict=True):
        for key in a:
            assert distance(a[key], np.asarray(b[key])) < 1e-6


def test_few_elements_that_move_are_not_scaled_without_bound():
    g = -np.ones(5000, np.float32)
    g[0] = 1
    direction = optax.stateless(lambda updates, _: jnp.ones_like(updates))
    updates, _ = run(cautious(direction), [jnp.asarray(g)])
    assert float(updates[0][0]) == pytest.approx(1000)
    assert not np.any(updates[0][1:])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_signs_of_tiny_and_huge_numbers_count(scale):
    direction = optax.stateless(lambda updates, _: 2 * updates)
    g = scale * random((4, 3))
    np.testing.assert_allclose(run(cautious(direction), [g])[0][0], 2 * g, rtol=1e-6)


def test_weight_decay_follows_the_paper():
    u = jnp.asarray([1.0, 1.0, -1.0, -1.0, 0.0, 0.0])
    x = jnp.asarray([2.0, -2.0, 2.0, -2.0, 3.0, -3.0])
    updates, _ = run(add_cautious_weight_decay(0.1), [u], x)
    np.testing.assert_allclose(updates[0], u + 0.1 * x * np.asarray([1, 0, 0, 1, 1, 1]), rtol=1e-6)


def test_the_rule_with_cautious_decay_matches_float64():
    gradients, x = related((6, 5), 4), np.asarray(random((6, 5), 9), np.float64)
    hparams = {"b1": 0.9, "b2": 0.8, "weight_decay": 0.3, "lr": 0.5, "warmup": 0.0}
    rule = registry.resolve("cautious_decay_adamw").optimizer.build(hparams, 10**9)
    updates, _ = run(rule, [jnp.asarray(g) for g in gradients], jnp.asarray(x, jnp.float32))
    for found, u in zip(updates, adam64(gradients, 0.9, 0.8), strict=True):
        assert distance(found, -0.5 * (u + 0.3 * (u * x >= 0) * x)) < 1e-5


def test_weight_decay_needs_parameters():
    rule = add_cautious_weight_decay(0.1)
    with pytest.raises(ValueError, match="pass params"):
        rule.update(jnp.ones(3), rule.init(jnp.ones(3)))
