"""The contract between an optimizer and the harness. All of it is in this file.

    @optimizer
    def my_opt(
        lr: Annotated[Schedule, Log(1e-3, 1e-1)] = 1e-2, *, b1: float = 0.9
    ) -> optax.GradientTransformation:
        return optax.chain(optax.scale_by_adam(b1), optax.scale_by_learning_rate(lr))

An optimizer is a function from hyperparameters to an optax transformation. Name, type, search
domain and default of a hyperparameter stand on one line. A hyperparameter without a domain keeps
its default and is never searched. The harness

- calls `init(params)` once, then `update(gradients, state, params, **extras)` at every step with
  the raw gradient of the mean loss; clipping, weight decay and averaging are up to the optimizer;
- passes as `extras` only what `@optimizer(extra_args=...)` names: "value" (loss of the step),
  "grad" (its gradient), "value_fn" and "obj_fn" (parameters -> loss on the same batch), "grad_fn"
  (parameters, anything -> gradient on the same batch);
- measures at `eval_params(state, params)` if `@optimizer(eval_params=...)` gives this function, as
  Schedule-Free, Lookahead and averaging need it;
- counts gradient evaluations, not steps: a rule with `@optimizer(evaluations=2)` takes 125 steps at
  horizon 250;
- turns a hyperparameter annotated as Schedule into a schedule over these steps: "warmup_cosine",
  unless `@optimizer(schedule=...)` names another of SCHEDULES or is a function
  (peak, steps) -> (count -> value);
- calls the function with traced values for float hyperparameters, so that all trials share one
  compilation. If the function needs a value in Python (`if b1 > 0`), it is compiled once for each
  value. Integers, strings and booleans are always plain values;
- starts each trial with a fresh `init` and keeps the state as arrays between steps: a state must
  hold arrays only.
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
"""Annotates a hyperparameter that is given as a peak value and arrives as a function of the step
count, which starts at 0."""

EXTRA_ARGS = ("value", "grad", "value_fn", "obj_fn", "grad_fn")
RESERVED = "horizon"  # travels with the hyperparameters

EvalParams = Callable[[Any, Any], Any]


def offer(
    names: Collection[str], loss: Callable[[Any], Any], value: Any, gradients: Any
) -> dict[str, Any]:
    """The extra arguments `names` of a step on `loss`, with its value and gradients."""
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
    """An optimizer, as declared by `@optimizer`.

    Attributes:
      name: name of the decorated function.
      make: the decorated function.
      space: search domain of each hyperparameter that has one.
      defaults: default of every hyperparameter.
      scheduled: hyperparameters annotated as Schedule: given as peak values, passed as schedules.
      schedule: (peak, steps) -> the schedule of these hyperparameters.
      extra_args: which of EXTRA_ARGS `update` gets.
      eval_params: (state, params) -> the parameters to measure at; None for `params` themselves.
      evaluations: gradient evaluations of a step on average; an upper bound if they vary.
      doc: docstring of the decorated function.
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
        """Number of steps in a horizon, which counts gradient evaluations; at least one."""
        return max(1, int(horizon / self.evaluations))

    def build(self, hparams: Mapping[str, Any], horizon: Any) -> optax.GradientTransformation:
        """The update rule at `hparams`, others at their defaults, for a run of `horizon` steps.

        Values may be traced.

        Raises:
          TypeError: if the decorated function does not return an optax transformation.
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
                f"{self.name}() returned {type(rule).__name__}, not an "
                "optax.GradientTransformation: return something with init(params) and "
                "update(gradients, state, params), such as optax.chain(...)."
            )
        return rule

    @functools.cached_property
    def builder(self) -> Callable[[Mapping[str, Any], Any], optax.GradientTransformation]:
        """`build`, the same object at every access: trials that share it share a compilation."""
        return self.build

    def learning_rate(self, hparams: Mapping[str, Any], steps: int, step: Any) -> Any:
        """The scheduled learning rate at `step` of `steps`; None if nothing is scheduled."""
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
    hints = typing.get_type_hints(function, include_extras=True)
    space, defaults, scheduled = {}, {}, set()
    for parameter in inspect.signature(function).parameters.values():
        where = f"Hyperparameter {parameter.name!r} of {function.__name__}"
        _check_parameter(parameter, where)
        hint = hints.get(parameter.name, Any)
        extras = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
        domains = [extra for extra in extras if isinstance(extra, Log | Uniform | Choice)]
        if len(domains) > 1:
            raise TypeError(
                f"{where} has {len(domains)} search domains: keep one of Log, Uniform and Choice."
            )
        kind = typing.get_args(hint)[0] if extras else hint
        if kind == Schedule:
            scheduled.add(parameter.name)
        default = parameter.default
        is_float = kind is float or kind == Schedule
        if is_float and isinstance(default, int) and not isinstance(default, bool):
            default = float(default)
        defaults[parameter.name] = default
        if domains:
            space[parameter.name] = domains[0]
    return Optimizer(
        name=function.__name__,
        make=function,
        space=space,
        defaults=defaults,
        scheduled=frozenset(scheduled),
        schedule=schedule,
        extra_args=extra_args,
        eval_params=eval_params,
        evaluations=evaluations,
        doc=inspect.getdoc(function) or "",
    )


def _check_parameter(parameter: inspect.Parameter, where: str) -> None:
    """Raises TypeError unless the parameter can be a hyperparameter; `where` names it."""
    by_position = (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY)
    if parameter.kind in by_position:
        raise TypeError(
            f"{where} must be passed by keyword: spell each hyperparameter out, without * or **."
        )
    if parameter.name == RESERVED:
        raise TypeError(
            f"{where} has a reserved name: the horizon reaches an optimizer through its schedule."
        )
    if parameter.default is parameter.empty:
        raise TypeError(f"{where} has no default: give it the value to use if it is not tuned.")


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
    """Declares an optimizer: turns a function into an `Optimizer`. See this module's docstring.

    Nothing global is changed.

    Raises:
      TypeError: if a hyperparameter has no default, is variadic, or has several domains.
      ValueError: if `schedule` or one of `extra_args` is unknown, or `evaluations` is below 1.
    """
    if isinstance(schedule, str) and schedule not in SCHEDULES:
        raise ValueError(
            f"@optimizer(schedule={schedule!r}): unknown schedule. "
            f"Use one of {', '.join(map(repr, SCHEDULES))}, or a function."
        )
    extras = (extra_args,) if isinstance(extra_args, str) else tuple(extra_args)
    if unknown := sorted(set(extras) - set(EXTRA_ARGS)):
        raise ValueError(
            f"@optimizer(extra_args=...): unknown extra {unknown[0]!r}. "
            f"Use some of {', '.join(map(repr, EXTRA_ARGS))}."
        )
    if evaluations < 1:
        raise ValueError(
            f"@optimizer(evaluations={evaluations}): a step needs at least 1, its gradient."
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
