"""Update rules, and which of their hyperparameters may be arguments of a compiled program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import Jaxpr

from distill_bench.networks import bit

Hparams = Mapping[str, Any]
Build = Callable[[Hparams, Any], optax.GradientTransformation]  # (hyperparameters, horizon) -> rule

HORIZON = "horizon"  # the horizon's name among the hyperparameters

# What jax raises when Python code needs the value of a traced argument.
_NEEDS_VALUE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


class Audit(Protocol):
    """Counts what a rule evaluates through its extras, see optimizers/contract/evaluations.py."""

    def marked(
        self, loss: Callable[[bit.Params], jax.Array]
    ) -> Callable[[bit.Params], jax.Array]: ...

    def refusal(self, update: Jaxpr) -> str | None: ...


@dataclass(frozen=True)
class Contract:
    """What an update rule needs besides gradients and parameters, and where it is measured.

    Attributes:
      extra_args: names among "value", "grad", "value_fn", "obj_fn" and "grad_fn". The functions use
        the step's batch.
      eval_params: (rule's state, parameters) -> the parameters to measure; None to measure the
        parameters themselves.
      diagnostics: (rule's state, updates, parameters) -> a tree of scalars to report, or None.
      audit: holds the rule to the gradient evaluations that it declares; None if it gets no
        functions, or to let it evaluate what it likes.
    """

    extra_args: frozenset[str] = frozenset()
    eval_params: Callable[[Any, bit.Params], bit.Params] | None = None
    audit: Audit | None = None
    diagnostics: Callable[[Any, bit.Params, bit.Params], Any] | None = None

    def extras(
        self, loss: jax.Array, gradients: bit.Params, loss_of: Callable[[bit.Params], jax.Array]
    ) -> dict[str, Any]:
        """The keyword arguments of the rule's `update`."""
        if self.audit:
            loss_of = self.audit.marked(loss_of)
        # The same as optimizers.contract.api.offer, which this package may not import.
        offered = {
            "value": loss,
            "grad": gradients,
            "value_fn": loss_of,
            "obj_fn": loss_of,
            "grad_fn": lambda params, _=None: jax.grad(loss_of)(params),
        }
        return {name: offered[name] for name in sorted(self.extra_args)}


@dataclass(frozen=True)
class Lane:
    """One trial: an update rule with its hyperparameters, trained for `horizon` steps.

    seed: of the stream, and of a fresh student.
    build: lanes with the same function object share a compilation.
    final: whether it is measured along its way and by all metrics at its end; otherwise it is
      measured by its probe loss alone, at its end.
    """

    build: Build
    hparams: Hparams
    horizon: int
    seed: int
    contract: Contract = Contract()
    final: bool = True


@dataclass(frozen=True)
class RuleSpec:
    """What lanes of one program share: a builder, and the values that it needs in Python."""

    build: Build
    static: tuple[tuple[str, Any], ...]
    contract: Contract = Contract()

    def rule(self, traced: Mapping[str, jax.Array]) -> optax.GradientTransformation:
        values = dict(self.static) | dict(traced)
        horizon = values.pop(HORIZON)
        return self.build(values, horizon)


def values_of(lane: Lane) -> dict[str, Any]:
    """The lane's hyperparameters and its horizon."""
    return {**lane.hparams, HORIZON: lane.horizon}


def traceable(lane: Lane, params: bit.Params) -> frozenset[str]:
    """Names of the hyperparameters (and HORIZON) that the lane's builder accepts as traced values.

    Floats and the horizon are tried. Strings, booleans and integers shape the program and stay
    static. Any other error is the plug-in's own and is passed on.
    """
    values = values_of(lane)
    candidates = {name for name, value in values.items() if isinstance(value, float)} | {HORIZON}

    def accepts(names: set[str]) -> bool:
        static = tuple((k, v) for k, v in values.items() if k not in names)

        def try_rule(traced: dict[str, jax.Array]):
            rule = RuleSpec(lane.build, static).rule(traced)
            # The norm stands in for the loss: its gradient can be traced.
            return rule.update(
                params,
                rule.init(params),
                params,
                **lane.contract.extras(jnp.float32(1), params, optax.tree.norm),
            )

        try:
            jax.eval_shape(try_rule, {name: as_array(values[name]) for name in names})
        except _NEEDS_VALUE:
            return False
        return True

    if accepts(candidates):
        return frozenset(candidates)
    alone = {name for name in candidates if accepts({name})}
    return frozenset(alone) if alone and accepts(alone) else frozenset()


def spec_of(lane: Lane, traced: frozenset[str]) -> RuleSpec:
    """The lane's update rule, if the values named in `traced` are arguments of its program."""
    return RuleSpec(
        lane.build,
        tuple(sorted((k, v) for k, v in values_of(lane).items() if k not in traced)),
        lane.contract,
    )


def as_array(value: float | int) -> np.ndarray:
    return np.asarray(value, np.int32 if isinstance(value, int) else np.float32)
