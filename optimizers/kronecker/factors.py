"""The matrices of Shampoo's and SOAP's factors: their averages, what is computed of them, and when."""

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
    """All matrices of one size and order, a leading axis N over each of these.

    total, weight: [N, d, d] and [N], the average of G G^T and the sum of its weights; their quotient is unbiased. (Where all is
      summed, not averaged, the weight is 1.)
    held: [N, d, d], what was last computed of the average.
    residual, condition: [N], of that computation.
    failures, skips: [N], how often a computation was refused, and how often it was not worth doing.
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
    """How `held` comes from an average.

    solve: (average, held before, order) -> RootSolution; of one matrix [d, d] where `one_by_one`, else of a stack [M, d, d].
    stale: (average, held, order) -> how far `held` is out of date, with the same shapes.
    one_by_one: for LAPACK on CPU, see roots.py.
    max_residual: a result worse than this, or not finite, is refused, and the matrix before it kept.
    """

    solve: Callable[[jax.Array, jax.Array, int], RootSolution]
    stale: Callable[[jax.Array, jax.Array, int], jax.Array]
    one_by_one: bool
    max_residual: float = 0.1


@dataclass(frozen=True)
class Cadence:
    """When matrices are renewed.

    every: steps between two turns of a matrix; the first step is a turn of all.
    stagger: spread the turns over the steps of a period, so that none takes much longer than another.
    tolerance: at its turn, a matrix that is stale by no more than this is left alone; 0 renews all.
    """

    every: int
    stagger: bool = False
    tolerance: float = 0.0


def _mean(total: jax.Array, weight: jax.Array) -> jax.Array:
    return total / jnp.where(weight == 0, 1.0, weight)[..., None, None]


def _accept(factor: Factor, new: RootSolution, stale: jax.Array, max_residual: float) -> Factor:
    """Of matrices [M] whose turn it is: the result, or what was held before."""
    good = jnp.isfinite(new.root).all((-2, -1)) & (new.residual <= max_residual)
    take = stale & good
    return factor._replace(
        held=jnp.where(take[..., None, None], new.root, factor.held),
        residual=jnp.where(stale, new.residual, factor.residual),
        condition=jnp.where(take, new.condition, factor.condition),
        failures=factor.failures + (stale & ~good),
        skips=factor.skips + ~stale,
    )


def one_by_one(
    factor: Factor,
    turn_N: np.ndarray,
    order: Any,
    count: jax.Array,
    cadence: Cadence,
    solver: Solver,
) -> Factor:
    """A loop over the matrices whose turn it is, and no others; over all at the first step."""
    places_N = jnp.asarray(np.argsort(turn_N, kind="stable"))
    bounds = jnp.asarray(np.searchsorted(np.sort(turn_N), np.arange(cadence.every + 1)))
    now = count % cadence.every
    averages = (factor.total, factor.weight)  # outside of the loop, which only reads them

    def renew(i: jax.Array, rest: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        j = places_N[i]
        one = Factor(*(x[j] for x in (*averages, *rest)))
        mean = _mean(one.total, one.weight)

        def solve() -> Factor:
            return _accept(
                one, solver.solve(mean, one.held, order), jnp.array(True), solver.max_residual
            )

        if cadence.tolerance > 0:
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
    """One stack of the matrices whose turn it is; of all at the first step."""

    def renew(places: jax.Array) -> Factor:
        some = jax.tree.map(lambda x: x.at[places].get(mode="clip"), factor)
        mean = _mean(some.total, some.weight)
        stale = (
            jnp.ones(len(places), bool)
            if cadence.tolerance <= 0
            else ~(solver.stale(mean, some.held, order) <= cadence.tolerance)
        )
        new = _accept(some, solver.solve(mean, some.held, order), stale, solver.max_residual)
        return jax.tree.map(
            lambda whole, part: whole.at[places].set(part, mode="drop"), factor, new
        )

    counts = np.bincount(turn_N, minlength=cadence.every)
    # Each turn's matrices, filled up with places beyond the end, which are dropped.
    table = np.full((cadence.every, counts.max()), len(turn_N))
    for turn in range(cadence.every):
        table[turn, : counts[turn]] = np.flatnonzero(turn_N == turn)
    now = count % cadence.every
    some = lax.cond(
        jnp.asarray(counts)[now] > 0, lambda: renew(jnp.asarray(table)[now]), lambda: factor
    )
    if counts.max() == len(turn_N):
        return some
    return lax.cond(count == 0, lambda: renew(jnp.arange(len(turn_N))), lambda: some)


def diagnostics(state: Any) -> dict[str, jax.Array]:
    """Figures of all factors found anywhere in an optimizer's state; empty where there are none.

    residual and condition: the largest; failures and skips: in total.
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
