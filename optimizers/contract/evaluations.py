"""Counts the gradient evaluations that an update rule makes through its extras.

`marked` wraps the loss that a rule gets. Each pass through it, forward or backward, is then an
equation `loss_pass` of the rule's program, whatever transformations and control flow the rule uses.
The mark computes nothing: compiled code is the same with and without it. The count is

    evaluations = max(forward passes, backward passes)

so that the loss alone counts 1, a gradient 1, a derivative along a direction (jvp) 2, and a
Hessian-vector product 2. Under vmap a pass counts once for each element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr, Primitive, jaxprs_in_params
from jax.interpreters import ad, batching, mlir

LossOf = Callable[[Any], jax.Array]
Record = Callable[[bool, int], None]
"""Called at run time for every pass, with: whether it is a backward pass, and how many it is."""


class Passes(NamedTuple):
    """Numbers of passes through the loss."""

    forward: float = 0.0
    backward: float = 0.0

    @property
    def evaluations(self) -> float:
        return max(self.forward, self.backward)

    def times(self, factor: float) -> Passes:
        return Passes(*(factor * n if n else 0.0 for n in self))


def marked(loss: LossOf, record: Record | None = None) -> LossOf:
    """`loss`, each of whose passes is an equation `loss_pass`.

    record: for a count at run time; the compiled program then calls back to Python.
    """

    def counted(params: Any) -> jax.Array:
        leaves, tree = jax.tree.flatten(params)
        passed = _loss_pass.bind(*leaves, backward=False, times=1, record=record)
        return loss(jax.tree.unflatten(tree, passed))

    return counted


def bounds(jaxpr: Jaxpr) -> tuple[Passes, Passes]:
    """The fewest and the most passes that a program can make: they differ by its `cond` and `while`
    alone."""
    return _sum(map(_bounds_of, jaxpr.eqns))


def _sum(parts: Iterable[tuple[Passes, Passes]]) -> tuple[Passes, Passes]:
    least, most = Passes(), Passes()
    for low, high in parts:
        least = Passes(least.forward + low.forward, least.backward + low.backward)
        most = Passes(most.forward + high.forward, most.backward + high.backward)
    return least, most


def _bounds_of(equation: Any) -> tuple[Passes, Passes]:
    params = equation.params
    if equation.primitive is _loss_pass:
        times = float(params["times"])
        passes = Passes(0.0, times) if params["backward"] else Passes(times, 0.0)
        return passes, passes
    match equation.primitive.name:
        case "scan":
            least, most = bounds(params["jaxpr"].jaxpr)
            return least.times(params["length"]), most.times(params["length"])
        case "cond":
            branches = [bounds(branch.jaxpr) for branch in params["branches"]]
            low, high = zip(*branches, strict=True)
            return (
                Passes(*(min(n) for n in zip(*low, strict=True))),
                Passes(*(max(n) for n in zip(*high, strict=True))),
            )
        case "while":
            test, body = bounds(params["cond_jaxpr"].jaxpr), bounds(params["body_jaxpr"].jaxpr)
            return test[0], _sum([test, body])[1].times(math.inf)
        case "custom_linear_solve":  # of its programs, only this one runs
            return bounds(params["jaxprs"].solve.jaxpr)
    return _sum(map(bounds, jaxprs_in_params(params)))


@dataclass(frozen=True)
class Audit:
    """Holds an optimizer to the evaluations that it declares.

    Attributes:
      name: the optimizer's name.
      declared: its `evaluations`, per step and with the step's own gradient.
    """

    name: str
    declared: float

    def marked(self, loss: LossOf) -> LossOf:
        return marked(loss)

    def refusal(self, update: Jaxpr) -> str | None:
        """Why the program of one update evaluates more than is declared; None if it may be right.

        A `cond` or `while` can make the number differ between steps. Then only the least number is
        known here, and whether there is any. The conformance checks measure the mean.
        """
        least, most = bounds(update)
        if 1 + least.evaluations > self.declared:
            return self.excess(1 + least.evaluations, "makes at least")
        if self.declared == 1 and most.evaluations:
            return (
                f"{self.name} declares evaluations=1, the gradient that every step gets, but its "
                "update can also evaluate the loss through value_fn, obj_fn or grad_fn, in a cond "
                "or a while loop. Horizons count gradient evaluations: declare the mean per step, "
                "or an upper bound, with @optimizer(evaluations=...). "
                "`python -m optimizers.conformance` measures it."
            )
        return None

    def is_kept_by(self, update: Jaxpr) -> bool:
        """Whether no step of this program can evaluate more than is declared."""
        return 1 + bounds(update)[1].evaluations <= self.declared

    def excess(self, counted: float, makes: str) -> str:
        """Says that a step takes more than is declared."""
        return (
            f"{self.name} declares evaluations={self.declared:g}, but a step of it {makes} "
            f"{counted:.4g} gradient evaluations: its own gradient, and {counted - 1:.4g} through "
            "value_fn, obj_fn or grad_fn. Horizons count gradient evaluations: declare "
            f"@optimizer(evaluations={math.ceil(100 * counted) / 100:g}), or evaluate less."
        )


@dataclass
class Counter:
    """Adds up passes at run time: `marked(loss, counter.record)`."""

    forward: int = 0
    backward: int = 0

    def record(self, backward: bool, times: int) -> None:
        if backward:
            self.backward += times
        else:
            self.forward += times

    @property
    def evaluations(self) -> float:
        return Passes(self.forward, self.backward).evaluations


_loss_pass = Primitive("loss_pass")  # the identity, of several arrays
_loss_pass.multiple_results = True


@_loss_pass.def_impl
def _run(*leaves: Any, backward: bool, times: int, record: Record | None) -> list[Any]:
    if record:
        record(backward, times)
    return list(leaves)


@_loss_pass.def_abstract_eval
def _shapes(*leaves: Any, **params: Any) -> list[Any]:
    return list(leaves)


def _jvp(primals: Any, tangents: Any, **params: Any) -> tuple[list[Any], list[Any]]:
    return (
        _loss_pass.bind(*primals, **params),
        _loss_pass.bind(*map(ad.instantiate_zeros, tangents), **params),
    )


def _transpose(cotangents: Any, *leaves: Any, backward: bool, **params: Any) -> list[Any]:
    given = map(ad.instantiate_zeros, cotangents)
    return _loss_pass.bind(*given, backward=not backward, **params)


def _batch(leaves: Any, dims: Any, *, times: int, **params: Any) -> tuple[list[Any], Any]:
    size = next(leaf.shape[dim] for leaf, dim in zip(leaves, dims, strict=True) if dim is not None)
    return _loss_pass.bind(*leaves, times=times * size, **params), dims


def _lowered(*leaves: Any, backward: bool, times: int, record: Record | None) -> list[Any]:
    if record is None:
        return list(leaves)
    # The result depends on the call, so that the call cannot be left out.
    place = next(i for i, leaf in enumerate(leaves) if leaf.size)
    leaf = leaves[place]

    def call(element: Any) -> Any:
        record(backward, times)
        return element - element

    element = leaf.ravel()[0]
    zero = jax.pure_callback(call, jax.ShapeDtypeStruct((), leaf.dtype), element)
    return [*leaves[:place], leaf + zero, *leaves[place + 1 :]]


ad.primitive_jvps[_loss_pass] = _jvp
ad.primitive_transposes[_loss_pass] = _transpose
batching.primitive_batchers[_loss_pass] = _batch
mlir.register_lowering(_loss_pass, mlir.lower_fun(_lowered, multiple_results=True))
