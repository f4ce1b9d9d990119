"""Helpers of the tests of Shampoo and SOAP."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from optimizers.shampoo import scale_by_shampoo
from optimizers.soap import scale_by_soap

RULES = {"shampoo": scale_by_shampoo, "soap": scale_by_soap}


def random(shape, seed=0, scale=1.0):
    return jnp.asarray(scale * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def run(rule, gradients, params=None, jit=jax.jit):
    """(updates for a sequence of gradients, last state)."""
    state = rule.init(jax.tree.map(jnp.zeros_like, gradients[0]) if params is None else params)
    update = jit(rule.update)
    updates = []
    for g in gradients:
        out, state = update(g, state, params)
        updates.append(out)
    return updates, state


def distance(a, b):
    """||a - b|| / ||b|| in float64."""
    return float(np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b))


def related(shape, n, scale=1.0):
    """`n` gradients with a common part, as in a training run."""
    basis = np.random.default_rng(99).standard_normal(shape)
    return [
        (scale * (basis + np.random.default_rng(i).standard_normal(shape))).astype(np.float32)
        for i in range(n)
    ]
