"""How Shampoo and SOAP cut parameters into blocks and distribute them, as their users choose."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh
from optax import contrib

from optimizers.kronecker.blocking import Fold, plan
from optimizers.kronecker.kronecker import Kronecker, MeshAxis
from optimizers.wrappers.precision import refuse_complex

DimensionNumbers = contrib.MuonDimensionNumbers
DimensionNumbersOf = Mapping[str, Any] | Sequence[Any] | Callable[[Any], Any]
"""A tree like the parameters with a DimensionNumbers or None for each, or a function from the
parameters to it."""


@dataclass(frozen=True, eq=False)
class BlockOptions:
    """See `blocking.plan` and `Kronecker`; `dimension_numbers` gives the folds."""

    block_size: int
    merge: bool
    max_dim: int | None
    one_sided: bool
    dimension_numbers: DimensionNumbersOf | None
    mesh: Mesh | None
    mesh_axis: MeshAxis | None

    def kronecker(self, params: Any, order: Callable[[int], Any]) -> Kronecker:
        """The factors for these parameters, with roots of `order` (see `Kronecker`).

        Raises:
          ValueError: if a parameter is complex, or an option does not fit.
        """
        leaves = jax.tree.leaves(params)
        refuse_complex(params)
        cut = plan(
            [leaf.shape for leaf in leaves],
            self.block_size,
            merge=self.merge,
            max_dim=self.max_dim,
            one_sided=self.one_sided,
            folds=folds(params, self.dimension_numbers),
        )
        return Kronecker(cut, order, self.mesh, self.mesh_axis)


def folds(params: Any, dimension_numbers: DimensionNumbersOf | None) -> list[Fold | None] | None:
    """The fold of each parameter, in the order of its leaves; None without dimension numbers."""
    if dimension_numbers is None:
        return None
    given = dimension_numbers(params) if callable(dimension_numbers) else dimension_numbers
    return [
        None if one is None else Fold(_axes(one.reduction_axis), _axes(one.output_axis))
        for one in jax.tree.structure(params).flatten_up_to(given)
    ]


def matrix_axes(
    params: Any, dimension_numbers: DimensionNumbersOf | None = None
) -> list[tuple[int, ...] | None]:
    """For each parameter the axes that make its matrices; None if it is not preconditioned."""
    leaves, given = jax.tree.leaves(params), folds(params, dimension_numbers)
    if given is None:
        return [tuple(range(leaf.ndim)) if has_matrix(leaf.shape) else None for leaf in leaves]
    return [
        tuple(sorted((*fold.rows, *fold.columns)))
        if fold and leaf.size and has_matrix(_sides(leaf.shape, fold))
        else None
        for leaf, fold in zip(leaves, given, strict=True)
    ]


def has_matrix(shape: tuple[int, ...]) -> bool:
    """Whether a tensor can be preconditioned: it has two axes longer than 1, and elements."""
    return math.prod(shape) > 0 and sum(n > 1 for n in shape) > 1


def _sides(shape: tuple[int, ...], fold: Fold) -> tuple[int, int]:
    rows, columns = (math.prod(shape[axis] for axis in side) for side in (fold.rows, fold.columns))
    return rows, columns


def _axes(axis: int | tuple[int, ...]) -> tuple[int, ...]:
    return (axis,) if isinstance(axis, int) else tuple(axis)
