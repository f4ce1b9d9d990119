"""Cuts parameters into stacks of equally sized blocks, and puts them together again.

A kernel [..., O] is folded to a matrix [rest, O], or as its `Fold` says, or its axes are merged
(see `plan`). Each axis is cut into blocks of `block_size` and one remainder. Blocks of one shape
share a stack [N, ...], whichever parameters they come from. Nothing is padded, and `from_blocks` is
the exact inverse of `to_blocks`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Fold:
    """How a tensor holds matrices.

    Attributes:
      rows: axes that are folded to the rows.
      columns: axes that are folded to the columns. The others, if any, count matrices.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Tile:
    """A part of the folded parameter `index`: a `grid` of whole blocks that begins at `start`."""

    index: int
    start: tuple[int, ...]
    grid: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """All blocks of one shape.

    Attributes:
      block: the shape; the folded parameters may have more axes before, which count matrices.
      axes: axes of a block that are preconditioned.
      tiles: where the blocks come from, in the order of their stack.
    """

    block: tuple[int, ...]
    axes: tuple[int, ...]
    tiles: tuple[Tile, ...]

    @property
    def size(self) -> int:
        """Number of blocks in the stack."""
        return sum(math.prod(tile.grid) for tile in self.tiles)


@dataclass(frozen=True)
class BlockPlan:
    """How a list of parameters is cut into blocks.

    Attributes:
      shapes: shapes of the parameters.
      orders: of the axes of each parameter, before it is folded.
      folded: the shape in which each parameter is cut; None if it is left out.
      groups: all blocks.
    """

    shapes: tuple[tuple[int, ...], ...]
    orders: tuple[tuple[int, ...], ...]
    folded: tuple[tuple[int, ...] | None, ...]
    groups: tuple[Group, ...]


def plan(
    shapes: Sequence[tuple[int, ...]],
    block_size: int = 128,
    *,
    merge: bool = False,
    max_dim: int | None = None,
    one_sided: bool = False,
    folds: Sequence[Fold | None] | None = None,
) -> BlockPlan:
    """Plans how parameters of these shapes are cut into blocks.

    Empty parameters and those with fewer than two axes longer than 1 are left out.

    Args:
      shapes: shapes of the parameters.
      block_size: longest side of a block.
      merge: instead of folding [..., O] to a matrix, merge neighbouring axes while their product
        is at most `block_size` (Anil et al. 2020, arXiv:2002.09018, section 5). A block can then
        have any number of axes.
      max_dim: do not precondition an axis that is longer than this after folding; None for no
        limit.
      one_sided: precondition only the shortest axis of each block.
      folds: for each parameter, which of its axes are a matrix's, or None to leave it out; None
        for the rules above.

    Raises:
      ValueError: if `block_size` is below 1, or a fold does not fit its parameter.
    """
    if block_size < 1:
        raise ValueError(
            f"block_size={block_size} is not a block size: use 1 or more, such as 128."
        )
    if folds is None:
        orders = [tuple(range(len(shape))) for shape in shapes]
        folded = [_merge(shape, block_size) if merge else _fold(shape) for shape in shapes]
    else:
        orders = [_order(shape, fold) for shape, fold in zip(shapes, folds, strict=True)]
        folded = [_folded(shape, fold) for shape, fold in zip(shapes, folds, strict=True)]
    tiles: dict[tuple[tuple[int, ...], tuple[int, ...]], list[Tile]] = {}
    kept: list[tuple[int, ...] | None] = []
    for index, form in enumerate(folded):
        batch = 0 if folds is None or not form else len(form) - 2
        sides = (form or ())[batch:]
        short = [axis for axis, length in enumerate(sides) if max_dim is None or length <= max_dim]
        kept.append(form if short else None)
        if not form or not short:
            continue
        for cut in itertools.product(*(_segments(length, block_size) for length in sides)):
            block = tuple(side for _, _, side in cut)
            axes = (min(short, key=lambda axis: block[axis]),) if one_sided else tuple(short)
            tiles.setdefault((block, axes), []).append(
                Tile(
                    index,
                    (0,) * batch + tuple(start for start, _, _ in cut),
                    form[:batch] + tuple(count for _, count, _ in cut),
                )
            )
    return BlockPlan(
        tuple(map(tuple, shapes)),
        tuple(orders),
        tuple(kept),
        tuple(Group(block, axes, tuple(own)) for (block, axes), own in tiles.items()),
    )


def _order(shape: tuple[int, ...], fold: Fold | None) -> tuple[int, ...]:
    """The axes of a parameter as they are folded: those that count matrices, rows, columns."""
    if fold is None:
        return tuple(range(len(shape)))
    named = [*fold.rows, *fold.columns]
    if not fold.rows or not fold.columns or not {*named} <= {*range(len(shape))}:
        raise ValueError(
            f"{fold} does not fit a parameter of shape {list(shape)}: name one or more of its axes "
            f"0 to {len(shape) - 1} as rows, and one or more as columns."
        )
    if len({*named}) < len(named):
        raise ValueError(f"{fold} names an axis twice.")
    return (*(axis for axis in range(len(shape)) if axis not in named), *named)


def _folded(shape: tuple[int, ...], fold: Fold | None) -> tuple[int, ...] | None:
    """The shape [.., rows, columns]; None without a fold, or if a side is 1."""
    if fold is None:
        return None
    rows, columns = (math.prod(shape[axis] for axis in side) for side in (fold.rows, fold.columns))
    batch = _order(shape, fold)[: len(shape) - len(fold.rows) - len(fold.columns)]
    if not math.prod(shape) or min(rows, columns) == 1:
        return None
    return (*(shape[axis] for axis in batch), rows, columns)


def _segments(length: int, block_size: int) -> list[tuple[int, int, int]]:
    """(start, number of blocks, side) of the whole blocks, then of the remainder."""
    whole, rest = divmod(length, block_size)
    return [(0, whole, block_size)] * bool(whole) + [(whole * block_size, 1, rest)] * bool(rest)


def _fold(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """[..., O] as (rest, O); None if fewer than two axes are longer than 1."""
    return (
        (math.prod(shape[:-1]), shape[-1])
        if math.prod(shape) and sum(n > 1 for n in shape) > 1
        else None
    )


def _merge(shape: tuple[int, ...], block_size: int) -> tuple[int, ...] | None:
    """The shape with neighbouring axes merged while their product is at most `block_size`.

    If fewer than two axes are left, the shape is folded instead.
    """
    merged: list[int] = []
    for n in shape:
        if merged and merged[-1] * n <= block_size:
            merged[-1] *= n
        elif n != 1:
            merged.append(n)
    return tuple(merged) if math.prod(shape) and len(merged) > 1 else _fold(shape)


def to_blocks(leaves: Sequence[jax.Array], cut: BlockPlan) -> list[jax.Array]:
    """The stack [N, *block] of each group, cut from the full list of parameters."""
    stacks = []
    for group in cut.groups:
        parts = []
        for tile in group.tiles:
            sides = _sides(tile, group)
            extent = [
                slice(s, s + g * b) for s, g, b in zip(tile.start, tile.grid, sides, strict=True)
            ]
            whole = leaves[tile.index].transpose(cut.orders[tile.index])
            part = whole.reshape(_form(cut, tile.index))[tuple(extent)]
            # [g0 * b0, g1 * b1, ..] -> [g0, b0, g1, b1, ..] -> [g0, g1, .., b0, b1, ..]
            part = part.reshape(list(itertools.chain(*zip(tile.grid, sides, strict=True))))
            k = len(sides)
            parts.append(
                part.transpose([*range(0, 2 * k, 2), *range(1, 2 * k, 2)]).reshape(-1, *group.block)
            )
        stacks.append(jnp.concatenate(parts))
    return stacks


def _sides(tile: Tile, group: Group) -> tuple[int, ...]:
    """The shape of a block as a part of the folded parameter."""
    return (1,) * (len(tile.grid) - len(group.block)) + group.block


def from_blocks(stacks: Sequence[jax.Array], cut: BlockPlan) -> dict[int, jax.Array]:
    """Inverse of `to_blocks`: index in the full list -> parameter, without those left out."""
    leaves: dict[int, jax.Array] = {}
    for stack, group in zip(stacks, cut.groups, strict=True):
        begin = 0
        for tile in group.tiles:
            count, sides = math.prod(tile.grid), _sides(tile, group)
            k = len(sides)
            part = stack[begin : begin + count].reshape(*tile.grid, *sides)
            begin += count
            part = part.transpose(
                [axis for pair in zip(range(k), range(k, 2 * k), strict=True) for axis in pair]
            )
            part = part.reshape([g * b for g, b in zip(tile.grid, sides, strict=True)])
            form = _form(cut, tile.index)
            whole = leaves.get(tile.index)
            if whole is None and part.shape == form:
                leaves[tile.index] = part
                continue
            whole = jnp.zeros(form, stack.dtype) if whole is None else whole
            leaves[tile.index] = whole.at[
                tuple(slice(s, s + n) for s, n in zip(tile.start, part.shape, strict=True))
            ].set(part)
    return {index: _unfolded(leaf, cut, index) for index, leaf in leaves.items()}


def _unfolded(leaf: jax.Array, cut: BlockPlan, index: int) -> jax.Array:
    shape, order = cut.shapes[index], cut.orders[index]
    return leaf.reshape([shape[axis] for axis in order]).transpose(
        [order.index(axis) for axis in range(len(order))]
    )


def _form(cut: BlockPlan, index: int) -> tuple[int, ...]:
    form = cut.folded[index]
    assert form is not None
    return form
