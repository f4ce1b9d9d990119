"""The contract between an optimizer and this harness: all of it is in this file.

    @optimizer
    def my_opt(lr: Annotated[Schedule, Log(1e-3, 1e-1)] = 1e-2, *, b1: float = 0.9) -> optax.GradientTransformation:
        return optax.chain(optax.scale_by_adam(b1), optax.scale_by_learning_rate(lr))

An optimizer is a function from hyperparameters to an optax transformation. Name, type, search domain and default of a
hyperparameter stand on one line, once; one without a domain is fixed at its default and never searched. The harness

- calls `init(params)` once, and `update(gradients, state, params, **extras)` at every step with the raw gradient of the mean loss
  and the parameters; clipping, weight decay and averaging are the optimizer's own;
- hands over, as `extras`, what `@optimizer(extra_args=...)` names and nothing else: "value" (the step's loss), "grad" (its gradient),
  "value_fn" and "obj_fn" (parameters -> loss on the same batch), "grad_fn" (parameters, anything -> gradient on the same batch);
- measures at `eval_params(state, params)` where `@optimizer(eval_params=...)` gives one: Schedule-Free, Lookahead, averages;
- counts gradient evaluations, not steps: of a horizon of 250, a rule with `@optimizer(evaluations=2)` takes 125 steps;
- shapes a hyperparameter annotated as Schedule over those steps: by "warmup_cosine", unless `@optimizer(schedule=...)` names another of
  SCHEDULES or is a function (peak, steps) -> (count -> value) of the optimizer's own;
- calls the function with traced values for float hyperparameters, so that all trials share one compilation; where it asks for a value in
  Python it is compiled once for each. Integers, strings and booleans are always plain values;
- starts each trial with a fresh `init`, and keeps the state as arrays between steps: a state holds arrays and nothing else.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from optimizers.contract.domains import Choice, Domain, Log, Uniform, Value
from optimizers.contract.schedules import SCHEDULES, OfCount, Shape

if TYPE_CHECKING:
    import optax

Schedule = float | OfCount
"""Annotates a hyperparameter that is written as a peak value and arrives as a function of the step count, which starts at 0."""

EXTRA_ARGS = ("value", "grad", "value_fn", "obj_fn", "grad_fn")
RESERVED = "horizon"  # travels with the hyperparameters

EvalParams = Callable[[Any, Any], Any]


def offer(
    names: Collection[str], loss: Callable[[Any], Any], value: Any, gradients: Any
) -> dict[str, Any]:
    """Those of EXTRA_ARGS that are named, for a step on `loss` with this value and these gradients."""
    import jax

    offered = {
        "value": value,
        "grad": gradients,
        "value_fn": loss,
        "obj_fn": loss,
        "grad_fn": lambda params, _=None: jax.grad(loss)(params),
    }
    return {name: offered[name] for name in sorted(names)}


@dataclass(frozen=True)
class Optimizer:
    """An candidate, as declared by `@optimizer`.

    Attributes:
      name: of the decorated function.
      make: the decorated function.
      space: search domain of each hyperparameter that has one.
      defaults: default of every hyperparameter.
      scheduled: hyperparameters annotated as Schedule; they hold peak values and arrive as schedules.
      schedule: what shapes them: (peak, steps) -> schedule.
      extra_args: which of EXTRA_ARGS `update` is given.
      eval_params: (state, params) -> the parameters at which to measure; None for the parameters themselves.
      evaluations: gradient evaluations of one step, on average; an upper bound where they vary.
      doc: the decorated function's.
    """

    name: str
    make: Callable[..., optax.GradientTransformation]
    space: Mapping[str, Domain]
    defaults: Mapping[str, Value | None]
    scheduled: frozenset[str]
    schedule: Shape = SCHEDULES["warmup_cosine"]
    extra_args: frozenset[str] = frozenset()
    eval_params: EvalParams | None = None
    evaluations: float = 1.0
    doc: str = ""

    def __hash__(self) -> int:
        return hash((self.name, self.make))

    def steps(self, horizon: int) -> int:
        """Steps that a horizon of so many gradient evaluations allows, at least one."""
        return max(1, int(horizon / self.evaluations))

    def build(self, hparams: Mapping[str, Any], horizon: Any) -> optax.GradientTransformation:
        """The update rule at `hparams` (others at their defaults) for a run of `horizon` steps; values may be traced.

        Raises:
          TypeError: where the function returns something else.
        """
        values = {**self.defaults, **hparams}
        rule = self.make(
            **{
                k: self.schedule(v, horizon) if k in self.scheduled else v
                for k, v in values.items()
            }
        )
        if not (callable(getattr(rule, "init", None)) and callable(getattr(rule, "update", None))):
            raise TypeError(
                f"{self.name}() returned {type(rule).__name__}, which is no optax.GradientTransformation: "
                "return something with init(params) and update(gradients, state, params), such as optax.chain(...)."
            )
        return rule

    @functools.cached_property
    def builder(self) -> Callable[[Mapping[str, Any], Any], optax.GradientTransformation]:
        """`build` as one object, the same at every access: trials that share it share a compilation."""
        return self.build

    def learning_rate(self, hparams: Mapping[str, Any], steps: int, step: Any) -> Any:
        """The scheduled learning rate at `step` of `steps`, or None where no hyperparameter is scheduled."""
        for name in sorted(self.scheduled):
            return self.schedule(hparams.get(name, self.defaults[name]), steps)(step)
        return None


def _declare(
    function: Callable,
    schedule: Shape,
    extra_args: frozenset[str],
    eval_params: EvalParams | None,
    evaluations: float,
) -> Optimizer:
    name = function.__name__
    hints = typing.get_type_hints(function, include_extras=True)
    space, defaults, scheduled = {}, {}, set()
    for parameter in inspect.signature(function).parameters.values():
        where = f"Hyperparameter {parameter.name!r} of {name}"
        if parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
            parameter.POSITIONAL_ONLY,
        ):
            raise TypeError(
                f"{where} must be passed by keyword: spell each hyperparameter out, without * or **."
            )
        if parameter.name == RESERVED:
            raise TypeError(
                f"{where} has a reserved name: the horizon reaches an optimizer through its schedule."
            )
        if parameter.default is parameter.empty:
            raise TypeError(
                f"{where} has no default: give it the value to use when it is not tuned."
            )
        hint = hints.get(parameter.name, Any)
        default = parameter.default
        extras = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
        domains = [extra for extra in extras if isinstance(extra, Log | Uniform | Choice)]
        if len(domains) > 1:
            raise TypeError(
                f"{where} has {len(domains)} search domains: keep one of Log, Uniform and Choice."
            )
        plain = typing.get_args(hint)[0] if extras else hint
        if plain == Schedule:
            scheduled.add(parameter.name)
        if (
            (plain is float or plain == Schedule)
            and isinstance(default, int)
            and not isinstance(default, bool)
        ):
            default = float(default)
        defaults[parameter.name] = default
        if domains:
            space[parameter.name] = domains[0]
    return Optimizer(
        name,
        function,
        space,
        defaults,
        frozenset(scheduled),
        schedule,
        extra_args,
        eval_params,
        evaluations,
        inspect.getdoc(function) or "",
    )


@overload
def optimizer(function: Callable[..., optax.GradientTransformation], /) -> Optimizer: ...
@overload
def optimizer(
    *,
    schedule: str | Shape = ...,
    extra_args: Collection[str] = ...,
    eval_params: EvalParams | None = ...,
    evaluations: float = ...,
) -> Callable[[Callable[..., optax.GradientTransformation]], Optimizer]: ...


def optimizer(
    function: Any = None,
    /,
    *,
    schedule: str | Shape = "warmup_cosine",
    extra_args: Collection[str] = (),
    eval_params: EvalParams | None = None,
    evaluations: float = 1.0,
) -> Any:
    """Declares an optimizer; returns an `Optimizer` and touches no global state. See this module's docstring.

    Raises:
      TypeError: where a hyperparameter has no default, is variadic, or has several domains.
      ValueError: where `schedule` or one of `extra_args` is unknown, or `evaluations` is below 1.
    """
    if isinstance(schedule, str) and schedule not in SCHEDULES:
        raise ValueError(
            f"@optimizer(schedule={schedule!r}) is unknown: use one of {', '.join(map(repr, SCHEDULES))}, or a function."
        )
    extras = (extra_args,) if isinstance(extra_args, str) else tuple(extra_args)
    if unknown := sorted(set(extras) - set(EXTRA_ARGS)):
        raise ValueError(
            f"@optimizer(extra_args=...) names {unknown[0]!r}, which the harness has not: use some of {', '.join(map(repr, EXTRA_ARGS))}."
        )
    if evaluations < 1:
        raise ValueError(
            f"@optimizer(evaluations={evaluations}) is too few: a step needs its own gradient, which is 1."
        )
    shape = SCHEDULES[schedule] if isinstance(schedule, str) else schedule
    declare = functools.partial(
        _declare,
        schedule=shape,
        extra_args=frozenset(extras),
        eval_params=eval_params,
        evaluations=float(evaluations),
    )
    return declare if function is None else declare(function)
