"""Parameters as stacks of equally sized matrix blocks.

A kernel [..., O] folds to the matrix [rest, O]; a dimension above `block_size` splits into equal blocks, padded
with zeros where it does not divide. Blocks of one shape, of whatever parameter, share a stack [N, m, n].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Leaf:
    """How one parameter is cut: matrix [rows, cols] into a grid [r, c] of blocks [m, n]."""

    index: int
    shape: tuple[int, ...]
    rows: int
    cols: int
    grid: tuple[int, int]

    @property
    def block(self) -> tuple[int, int]:
        return -(-self.rows // self.grid[0]), -(-self.cols // self.grid[1])


@dataclass(frozen=True)
class Group:
    """Parameters whose blocks have the same shape, in the order of their stack."""

    block: tuple[int, int]
    leaves: tuple[Leaf, ...]

    @property
    def size(self) -> int:
        """Blocks in the stack."""
        return sum(math.prod(leaf.grid) for leaf in self.leaves)


def plan(shapes: Sequence[tuple[int, ...]], block_size: int) -> tuple[Group, ...]:
    """How parameters of these shapes are blocked; those with fewer than two axes, or empty, are left out.

    Raises:
      ValueError: where `block_size` is below 1.
    """
    if block_size < 1:
        raise ValueError(f"block_size={block_size} holds no element: use 1 or more, such as 128.")
    groups: dict[tuple[int, int], list[Leaf]] = {}
    for index, shape in enumerate(shapes):
        if len(shape) < 2 or not math.prod(shape):
            continue
        rows, cols = math.prod(shape[:-1]), shape[-1]
        leaf = Leaf(index, tuple(shape), rows, cols, (-(-rows // block_size), -(-cols // block_size)))
        groups.setdefault(leaf.block, []).append(leaf)
    return tuple(Group(block, tuple(leaves)) for block, leaves in groups.items())


def to_blocks(leaves: Sequence[jax.Array], group: Group) -> jax.Array:
    """The group's stack [N, m, n], cut from the parameters' full list."""
    m, n = group.block
    stacks = []
    for leaf in group.leaves:
        r, c = leaf.grid
        matrix = leaves[leaf.index].reshape(leaf.rows, leaf.cols)
        matrix = jnp.pad(matrix, ((0, r * m - leaf.rows), (0, c * n - leaf.cols)))
        stacks.append(matrix.reshape(r, m, c, n).swapaxes(1, 2).reshape(r * c, m, n))
    return jnp.concatenate(stacks)


def from_blocks(stack_Nmn: jax.Array, group: Group) -> dict[int, jax.Array]:
    """Inverse of `to_blocks`: index in the full list -> parameter."""
    m, n = group.block
    leaves, start = {}, 0
    for leaf in group.leaves:
        r, c = leaf.grid
        blocks = stack_Nmn[start : start + r * c].reshape(r, c, m, n).swapaxes(1, 2).reshape(r * m, c * n)
        leaves[leaf.index] = blocks[: leaf.rows, : leaf.cols].reshape(leaf.shape)
        start += r * c
    return leaves
