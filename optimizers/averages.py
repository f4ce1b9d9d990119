"""Decaying averages that carry their weights, so that they are unbiased whatever was left out of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Average(NamedTuple):
    """A decaying average of each leaf: its sum, and the sum of its weights [number of leaves]."""

    total: list[jax.Array]
    weight: jax.Array

    def mean(self) -> list[jax.Array]:
        """Unbiased; zero where nothing was seen."""
        return [
            total / jnp.where(w == 0, 1.0, w)
            for total, w in zip(self.total, self.weight, strict=True)
        ]

    def see(self, leaves: Sequence[jax.Array], decay: Any) -> Average:
        """With one more of each; a leaf that is not finite is not seen."""
        finite = [jnp.isfinite(leaf).all() for leaf in leaves]
        total = [
            jnp.where(ok, decay * t + (1 - decay) * leaf, t)
            for ok, t, leaf in zip(finite, self.total, leaves, strict=True)
        ]
        seen = jnp.stack(finite) if finite else jnp.zeros(0, bool)
        return Average(total, jnp.where(seen, decay * self.weight + (1 - decay), self.weight))


def no_average(shapes: Sequence[tuple[int, ...]]) -> Average:
    return Average([jnp.zeros(shape, jnp.float32) for shape in shapes], jnp.zeros(len(shapes)))
