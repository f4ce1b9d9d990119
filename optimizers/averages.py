"""Decaying averages that carry their weights: unbiased even if some steps were skipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Average(NamedTuple):
    """Decaying averages of a list of tensors.

    total: the weighted sum of each; weight: [number of tensors], the sums of the weights.
    """

    total: list[jax.Array]
    weight: jax.Array

    def mean(self) -> list[jax.Array]:
        """The unbiased averages; zero before the first update."""
        return [
            total / jnp.where(w == 0, 1.0, w)
            for total, w in zip(self.total, self.weight, strict=True)
        ]

    def updated(self, leaves: Sequence[jax.Array], decay: Any) -> Average:
        """The averages with one more value each; a tensor with NaN or infinity is skipped."""
        finite = [jnp.isfinite(leaf).all() for leaf in leaves]
        total = [
            jnp.where(ok, decay * t + (1 - decay) * leaf, t)
            for ok, t, leaf in zip(finite, self.total, leaves, strict=True)
        ]
        added = jnp.stack(finite) if finite else jnp.zeros(0, bool)
        return Average(total, jnp.where(added, decay * self.weight + (1 - decay), self.weight))


def no_average(shapes: Sequence[tuple[int, ...]]) -> Average:
    """Averages of tensors of these shapes, before the first update."""
    return Average([jnp.zeros(shape, jnp.float32) for shape in shapes], jnp.zeros(len(shapes)))
