"""Decaying averages that carry their weights: unbiased even if some steps were skipped."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Average(NamedTuple):
    """Decaying averages of the tensors of a tree.

    total: a tree of the same form, the weighted sum of each in float32; weight: [number of
    tensors], the sums of the weights.
    """

    total: Any
    weight: jax.Array

    def mean(self) -> Any:
        """The unbiased averages, a tree; zero before the first update."""
        leaves, tree = jax.tree.flatten(self.total)
        return tree.unflatten(
            total / jnp.where(w == 0, 1.0, w) for total, w in zip(leaves, self.weight, strict=True)
        )

    def updated(self, values: Any, decay: Any) -> Average:
        """The averages with one more tree of values; a tensor with NaN or infinity is skipped."""
        leaves, tree = jax.tree.flatten(values)
        finite = [jnp.isfinite(leaf).all() for leaf in leaves]
        total = [
            jnp.where(ok, decay * t + (1 - decay) * leaf, t).astype(t.dtype)
            for ok, t, leaf in zip(finite, jax.tree.leaves(self.total), leaves, strict=True)
        ]
        added = jnp.stack(finite) if finite else jnp.zeros(0, bool)
        weight = jnp.where(added, decay * self.weight + (1 - decay), self.weight)
        return Average(tree.unflatten(total), weight.astype(self.weight.dtype))


def no_average(params: Any) -> Average:
    """Averages of tensors of these shapes, before the first update."""
    total = jax.tree.map(lambda p: jnp.zeros_like(p, dtype=jnp.float32), params)
    return Average(total, jnp.zeros(len(jax.tree.leaves(params)), jnp.float32))
