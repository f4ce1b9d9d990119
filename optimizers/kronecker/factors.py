"""The Kronecker factors of Shampoo and SOAP.

Holds their averages, computes a root or an eigenbasis of each, and decides when.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from optimizers.kronecker.roots import RootSolution


class Factor(NamedTuple):
    """All N matrices of one size d and one order of root.

    Attributes:
      total: [N, d, d], weighted sums of G G^T.
      weight: [N], sums of the weights; total / weight is the unbiased average. 1 if the products
        are summed, not averaged.
      held: [N, d, d], the root or eigenbasis in use: the last one that was computed and accepted.
      residual: [N], error of the last computation.
      condition: [N], condition number of the last accepted one.
      failures: [N], how many computations were rejected.
      skips: [N], how many were skipped because `held` was still good.
    """

    total: jax.Array
    weight: jax.Array
    held: jax.Array
    residual: jax.Array
    condition: jax.Array
    failures: jax.Array
    skips: jax.Array


@dataclass(frozen=True)
class Solver:
    """Computes `held` from an average.

    Attributes:
      solve: (average, previous held, order) -> RootSolution, for one matrix [d, d] if `one_by_one`,
        else for a stack [M, d, d].
      stale: (average, held, order) -> how far `held` is out of date; same shapes.
      one_by_one: whether matrices are solved in a loop, as LAPACK on CPU needs it (see roots.py).
      max_residual: a result with a larger residual, or with NaN or infinity, is rejected; the
        previous matrix stays.
    """

    solve: Callable[[jax.Array, jax.Array, int], RootSolution]
    stale: Callable[[jax.Array, jax.Array, int], jax.Array]
    one_by_one: bool
    max_residual: float = 0.1


@dataclass(frozen=True)
class Cadence:
    """When matrices are refreshed.

    Attributes:
      every: steps between two refreshes of a matrix. The first step refreshes all.
      stagger: spread the refreshes over the period, so that all steps take about equally long.
      tolerance: skip a matrix that is stale by at most this; 0 skips none.
    """

    every: int
    stagger: bool = False
    tolerance: Any = 0.0

    @property
    def skips(self) -> bool:
        """Whether matrices can be skipped; a tolerance may be traced."""
        return not isinstance(self.tolerance, float | int) or self.tolerance > 0


def _mean(total: jax.Array, weight: jax.Array) -> jax.Array:
    return total / jnp.where(weight == 0, 1.0, weight)[..., None, None]


def _accept(factor: Factor, new: RootSolution, stale: jax.Array, max_residual: float) -> Factor:
    """Takes the new result of each stale matrix [M] if it is good; else keeps the previous one."""
    good = jnp.isfinite(new.root).all((-2, -1)) & (new.residual <= max_residual)
    take = stale & good
    return factor._replace(
        held=jnp.where(take[..., None, None], new.root, factor.held).astype(factor.held.dtype),
        residual=jnp.where(stale, new.residual, factor.residual).astype(factor.residual.dtype),
        condition=jnp.where(take, new.condition, factor.condition).astype(factor.condition.dtype),
        failures=factor.failures + (stale & ~good).astype(jnp.int32),
        skips=factor.skips + (~stale).astype(jnp.int32),
    )


def one_by_one(
    factor: Factor,
    turn_N: np.ndarray,
    order: Any,
    count: jax.Array,
    cadence: Cadence,
    solver: Solver,
) -> Factor:
    """Refreshes the matrices that are due in a loop; all of them at the first step."""
    places_N = jnp.asarray(np.argsort(turn_N, kind="stable"))
    bounds = jnp.asarray(np.searchsorted(np.sort(turn_N), np.arange(cadence.every + 1)))
    now = count % cadence.every
    averages = (factor.total, factor.weight)  # the loop only reads them

    def renew(i: jax.Array, rest: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        j = places_N[i]
        one = Factor(*(x[j] for x in (*averages, *rest)))
        mean = _mean(one.total, one.weight)

        def solve() -> Factor:
            return _accept(
                one, solver.solve(mean, one.held, order), jnp.array(True), solver.max_residual
            )

        if cadence.skips:
            stale = ~(solver.stale(mean, one.held, order) <= cadence.tolerance)
            new = lax.cond(stale, solve, lambda: one._replace(skips=one.skips + 1))
        else:
            new = solve()
        return tuple(old.at[j].set(value) for old, value in zip(rest, new[2:], strict=True))

    first, last = (
        jnp.where(count == 0, 0, bounds[now]),
        jnp.where(count == 0, len(turn_N), bounds[now + 1]),
    )
    return Factor(*averages, *lax.fori_loop(first, last, renew, tuple(factor[2:])))


def together(
    factor: Factor,
    turn_N: np.ndarray,
    order: Any,
    count: jax.Array,
    cadence: Cadence,
    solver: Solver,
) -> Factor:
    """Refreshes the matrices that are due as one stack; all of them at the first step."""

    def renew(places: jax.Array) -> Factor:
        due = jax.tree.map(lambda x: x.at[places].get(mode="clip"), factor)
        mean = _mean(due.total, due.weight)
        stale = (
            jnp.ones(len(places), bool)
            if not cadence.skips
            else ~(solver.stale(mean, due.held, order) <= cadence.tolerance)
        )
        new = _accept(due, solver.solve(mean, due.held, order), stale, solver.max_residual)
        return jax.tree.map(
            lambda whole, part: whole.at[places].set(part, mode="drop"), factor, new
        )

    counts = np.bincount(turn_N, minlength=cadence.every)
    # The matrices that are due at each step, padded with indices beyond the end: those are dropped.
    table = np.full((cadence.every, counts.max()), len(turn_N))
    for turn in range(cadence.every):
        table[turn, : counts[turn]] = np.flatnonzero(turn_N == turn)
    now = count % cadence.every
    refreshed = lax.cond(
        jnp.asarray(counts)[now] > 0, lambda: renew(jnp.asarray(table)[now]), lambda: factor
    )
    if counts.max() == len(turn_N):
        return refreshed
    return lax.cond(count == 0, lambda: renew(jnp.arange(len(turn_N))), lambda: refreshed)


def diagnostics(state: Any) -> dict[str, jax.Array]:
    """Optimizer diagnostics of Shampoo and SOAP, found anywhere in an optimizer's state.

    Returns:
      "residual" and "condition": the largest over all matrices; "failures" and "skips": their sums
      (see `Factor`). Empty if the state has no factors.
    """
    factors = [
        x
        for x in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, Factor))
        if isinstance(x, Factor)
    ]
    if not factors:
        return {}
    return {
        "residual": jnp.max(jnp.stack([f.residual.max() for f in factors])),
        "condition": jnp.max(jnp.stack([f.condition.max() for f in factors])),
        "failures": sum((f.failures.sum() for f in factors), jnp.int32(0)),
        "skips": sum((f.skips.sum() for f in factors), jnp.int32(0)),
    }
