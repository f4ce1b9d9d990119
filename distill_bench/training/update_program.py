"""The program of an update: what it may evaluate, and whether it can run batched over lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.extend.core import Jaxpr, jaxpr_as_fun, jaxprs_in_params

from distill_bench.errors import UserError
from distill_bench.training.rules import Audit

Result = TypeVar("Result")


def audited(audit: Audit, update: Callable[..., Result]) -> Callable[..., Result]:
    """`update`, traced once: the program that runs is the one whose evaluations are counted.

    Raises:
      UserError: while it is traced, if it evaluates more than its rule declares.
    """

    def run(*args: Any) -> Result:
        program, shapes = jax.make_jaxpr(update, return_shape=True)(*args)
        if refusal := audit.refusal(program.jaxpr):
            raise UserError(refusal)
        leaves = jaxpr_as_fun(program)(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    return run


# Batched over lanes, a branch computes both sides, a loop runs as long as its longest lane, and
# LAPACK deadlocks on CPU.
_NOT_BATCHED = {
    "cond",
    "while",
    "eigh",
    "eig",
    "qr",
    "svd",
    "cholesky",
    "lu",
    "householder_product",
    "triangular_solve",
}


def batches_well(function: Callable, *args: Any) -> bool:
    """Whether the function contains nothing that vmap would make slow or unsafe."""

    def allowed(jaxpr: Jaxpr) -> bool:
        return all(
            equation.primitive.name not in _NOT_BATCHED
            and all(map(allowed, jaxprs_in_params(equation.params)))
            for equation in jaxpr.eqns
        )

    return allowed(jax.make_jaxpr(function)(*args).jaxpr)
