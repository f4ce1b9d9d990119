"""The part that Shampoo and SOAP share.

For each axis of each block it keeps an average of G G^T, from which it computes a root or an
eigenbasis every few steps. All matrices of one size and order share a stack, whichever parameters
they come from: this needs few arrays and compiles one solver for each size. With a mesh, blocks are
distributed over its devices: each averages, solves and multiplies its own, and keeps their state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from optimizers.kronecker.blocking import BlockPlan
from optimizers.kronecker.factors import Cadence, Factor, Solver, one_by_one, together
from optimizers.wrappers.meshes import placed, with_automatic_axes

_HIGHEST = lax.Precision.HIGHEST

MeshAxis = str | tuple[str, ...]


@dataclass(frozen=True)
class Kronecker:
    """The factors of all blocks. The object is static; its methods are pure functions of arrays.

    Attributes:
      plan: how parameters are cut into blocks.
      order: number of preconditioned axes of a block -> order of its matrices' roots.
      mesh, axis: distribute the blocks over this axis of these devices, or over all axes; None for
        one device.
    """

    plan: BlockPlan
    order: Callable[[int], Any]
    mesh: Mesh | None = None
    axis: MeshAxis | None = None
    _places: tuple[tuple[tuple[int, int], tuple[tuple[int, int, int, int], ...]], ...] = field(
        init=False, repr=False
    )

    def __post_init__(self) -> None:
        places: dict[tuple[int, int], list[tuple[int, int, int, int]]] = {}
        for g, group in enumerate(self.plan.groups):
            for axis in group.axes:
                key = (group.block[axis], len(group.axes))
                members = places.setdefault(key, [])
                start = members[-1][3] if members else 0
                members.append((g, axis, start, start + self._local(g)))
        # ((size, number of axes), ((group, axis, start, stop), ..)), largest first: a staggered
        # cadence then spreads the large ones evenly.
        object.__setattr__(
            self,
            "_places",
            tuple((key, tuple(places[key])) for key in sorted(places, reverse=True)),
        )

    @property
    def _axes(self) -> MeshAxis:
        return self.mesh.axis_names if self.axis is None and self.mesh else self.axis or ()

    @property
    def shards(self) -> int:
        if self.mesh is None:
            return 1
        axes = (self._axes,) if isinstance(self._axes, str) else self._axes
        return math.prod(self.mesh.shape[axis] for axis in axes)

    def _local(self, g: int) -> int:
        """Number of blocks of group g on each device."""
        return -(-self.plan.groups[g].size // self.shards)

    def _sharded(self, function: Callable, *kinds: str) -> Callable:
        """`function`, run on each device with its share of the blocks.

        kinds: for each argument "own" if it is split over the devices, "all" if it is not.
        """
        if self.mesh is None:
            return function
        specs = tuple(P(self._axes) if kind == "own" else P() for kind in kinds)
        return jax.shard_map(
            function,
            mesh=with_automatic_axes(self.mesh),
            in_specs=specs,
            out_specs=P(self._axes),
            check_vma=False,
        )

    def _pad(self, stacks: Sequence[jax.Array]) -> list[jax.Array]:
        """The stacks, padded with zero blocks so that all devices get the same number."""
        lengths = [self.shards * self._local(g) - len(stack) for g, stack in enumerate(stacks)]
        return [
            jnp.pad(s, ((0, n), *[(0, 0)] * (s.ndim - 1))) if n else s
            for s, n in zip(stacks, lengths, strict=True)
        ]

    def init(self) -> tuple[Factor, ...]:
        """The factors before the first step: no average, and identities as roots."""
        factors = []
        for (d, _), members in self._places:
            n = self.shards * members[-1][3]
            # Each array is made by itself: an array that is there twice cannot be donated.
            factors.append(
                Factor(
                    total=jnp.zeros((n, d, d), jnp.float32),
                    weight=jnp.zeros(n, jnp.float32),
                    held=jnp.tile(jnp.eye(d, dtype=jnp.float32), (n, 1, 1)),
                    residual=jnp.zeros(n, jnp.float32),
                    condition=jnp.ones(n, jnp.float32),
                    failures=jnp.zeros(n, jnp.int32),
                    skips=jnp.zeros(n, jnp.int32),
                ),
            )
        if self.mesh is None:
            return tuple(factors)
        return placed(tuple(factors), NamedSharding(self.mesh, P(self._axes)))

    def observe(
        self, factors: tuple[Factor, ...], stacks: Sequence[jax.Array], decay: Any
    ) -> tuple[Factor, ...]:
        """Adds the blocks' G G^T (G^T G for the last axis) to the averages, in float32.

        total <- decay total + (1 - decay) G G^T; with decay 1, the plain sum (Gupta et al. 2018).
        A block with NaN or infinity is skipped.
        """
        gain = jnp.where(decay == 1, 1.0, 1.0 - decay)

        def local(averages: Any, stacks: list[jax.Array]) -> Any:
            updated = []
            for (total, weight), (_, members) in zip(averages, self._places, strict=True):
                for g, axis, start, stop in members:
                    new_Ndd = _gram(stacks[g], axis)
                    # The diagonal holds the largest element, so NaN or infinity shows there.
                    finite_N = jnp.isfinite(jnp.trace(new_Ndd, axis1=1, axis2=2))
                    mean_Ndd = jnp.where(
                        finite_N[:, None, None],
                        decay * total[start:stop] + gain * new_Ndd,
                        total[start:stop],
                    )
                    total = total.at[start:stop].set(mean_Ndd.astype(total.dtype))
                    weight_N = jnp.where(decay == 1, 1.0, decay * weight[start:stop] + gain)
                    weight = weight.at[start:stop].set(
                        jnp.where(finite_N, weight_N, weight[start:stop]).astype(weight.dtype)
                    )
                updated.append((total, weight))
            return updated

        averages = [(factor.total, factor.weight) for factor in factors]
        updated = self._sharded(local, "own", "own")(averages, self._pad(stacks))
        return tuple(
            factor._replace(total=total, weight=weight)
            for factor, (total, weight) in zip(factors, updated, strict=True)
        )

    def refresh(
        self, factors: tuple[Factor, ...], count: jax.Array, cadence: Cadence, solver: Solver
    ) -> tuple[Factor, ...]:
        """Computes `held` again for the matrices that are due at step `count` (from 0)."""
        turns, begin = [], 0
        for _, members in self._places:
            n = members[-1][3]
            turns.append(
                np.arange(begin, begin + n) % cadence.every if cadence.stagger else np.zeros(n, int)
            )
            begin += n

        def local(factors: tuple[Factor, ...], count: jax.Array) -> tuple[Factor, ...]:
            run = one_by_one if solver.one_by_one else together
            orders = [self.order(axes) for (_, axes), _ in self._places]
            return tuple(
                run(*of, count, cadence, solver) for of in zip(factors, turns, orders, strict=True)
            )

        def renew() -> tuple[Factor, ...]:
            return self._sharded(local, "own", "all")(factors, count)

        if cadence.every == 1 or (cadence.stagger and begin >= cadence.every):
            return renew()
        now = count % cadence.every
        return lax.cond(
            (count == 0) | (now < begin if cadence.stagger else now == 0), renew, lambda: factors
        )

    def apply(
        self, factors: tuple[Factor, ...], stacks: Sequence[jax.Array], transpose: bool = False
    ) -> list[jax.Array]:
        """Multiplies each block by `held` along each preconditioned axis.

        For a matrix: H G for its first axis, G H^T for its last. `transpose` uses H^T for H.
        """

        def local(held: Sequence[jax.Array], stacks: list[jax.Array]) -> list[jax.Array]:
            for held_Ndd, (_, members) in zip(held, self._places, strict=True):
                for g, axis, start, stop in members:
                    stacks[g] = _multiply(stacks[g], held_Ndd[start:stop], axis, transpose)
            return stacks

        out = self._sharded(local, "own", "own")([f.held for f in factors], self._pad(stacks))
        return [stack[: group.size] for stack, group in zip(out, self.plan.groups, strict=True)]


def _letters(stack: jax.Array, axis: int) -> tuple[str, str]:
    """einsum subscripts of a stack, and the same with Z for `axis`."""
    names = "abcdefgh"[: stack.ndim - 1]
    return "n" + names, "n" + names[:axis] + "Z" + names[axis + 1 :]


def _gram(stack: jax.Array, axis: int) -> jax.Array:
    """[N, d, d], the inner products of a block's slices along `axis`."""
    names, others = _letters(stack, axis)
    return jnp.einsum(f"{names},{others}->n{names[axis + 1]}Z", stack, stack, precision=_HIGHEST)


def _multiply(stack: jax.Array, matrix_Ndd: jax.Array, axis: int, transpose: bool) -> jax.Array:
    names, result = _letters(stack, axis)
    inner = names[axis + 1]
    return jnp.einsum(
        f"{names},{f'n{inner}Z' if transpose else f'nZ{inner}'}->{result}",
        stack,
        matrix_Ndd,
        precision=_HIGHEST,
    )
