"""Masks by shape, for rules that treat kernels, vectors and empty tensors differently."""

from __future__ import annotations

from typing import Any

import jax
from optax import contrib


def kernels(params: Any) -> Any:
    """True for kernels (two axes or more), False for biases and normalisation gains.

    A mask for weight decay.
    """
    return jax.tree.map(lambda p: p.ndim >= 2, params)


def not_empty(params: Any) -> Any:
    """True for tensors with at least one element."""
    return jax.tree.map(lambda p: p.size > 0, params)


def fold_kernel(params: Any) -> Any:
    """How `optax.contrib.muon` folds each kernel to a matrix: a convolution HWIO to [H*W*I, O].

    None for vectors and empty tensors.
    """

    def fold(p: jax.Array) -> contrib.MuonDimensionNumbers | None:
        if p.ndim < 2 or not p.size:
            return None
        return contrib.MuonDimensionNumbers(
            reduction_axis=tuple(range(p.ndim - 1)), output_axis=p.ndim - 1
        )

    return jax.tree.map(fold, params)
