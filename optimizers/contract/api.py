"""The contract between an optimizer and this benchmark. This page is the whole of it.

    @optimizer
    def my_optimizer(
        lr: Annotated[Schedule, Log(1e-3, 1e-1)] = 1e-2,  # searched; arrives as a schedule
        b1: Annotated[float, Choice(0.9, 0.95)] = 0.9,  # searched
        eps: float = 1e-8,  # not searched: no domain
    ) -> optax.GradientTransformation:
        return optax.adam(lr, b1, eps=eps)

An optimizer is a function from hyperparameters to an optax transformation.

Hyperparameters
- Each one is a parameter with a default, passed by keyword. `*args` and `**kwargs` are not allowed,
  and the name "horizon" is reserved.
- A domain (Log, Decay, Uniform or Choice) makes it searched. Without one it keeps its default,
  unless the user changes it with `--set`.
- If it is annotated as Schedule, its default and domain are peak values. It arrives as a function
  of the step count, which starts at 0. `@optimizer(schedule=...)` sets the shape: a name in
  SCHEDULES ("warmup_cosine" by default), or your own function (peak, steps) -> (count -> value).
- A schedule may have hyperparameters of its own, keyword-only: (peak, steps, *, warmup=0.1). They
  are searched (if they have a domain) and set like the optimizer's, which need not list them.
  "warmup_cosine" and "warmup_constant" search `warmup`, the fraction of the run that warms up. An
  optimizer that has a parameter of that name decides its default and domain.
- A parameter of another type than a number, text or boolean, such as a Mesh, is not a
  hyperparameter: the testbed leaves it at its default.
- Floats and peak values may arrive as traced JAX values, so that all trials share one compilation.
  If your function needs the value in Python, as `if b1 > 0` does, it is compiled once per value.
  Integers, strings and booleans are always plain Python values.

Elsewhere
- `my_optimizer(1e-3, b1=0.95)` is the update rule, for any training loop of optax. A learning rate
  is then a number or a schedule, and `lr` is also called `learning_rate`.

Training
- Each trial calls `init(params)` once, then `update(gradients, state, params, **extras)` at every
  step. The result is added to the parameters, so it has their shapes and dtypes.
- `gradients` is the raw gradient of the batch's mean loss. Clipping, weight decay and averaging are
  up to the optimizer.
- The state holds arrays only, and they keep their shapes and dtypes. Everything that the next step
  needs is in it: a trial may be stopped, saved and resumed after any step.
- Parameters' names and their order mean nothing: tell kernels from vectors by their shapes.
- Both functions are pure JAX functions. They are compiled, and several trials may run under one
  `vmap`: no np.random, no clock, no global variables that change. Call LAPACK (`eigh`, `svd`) on
  one matrix at a time, with `jax.lax.map`: on CPU, batched calls can deadlock.
- `@optimizer(extra_args=...)` names what else `update` needs. It gets these keyword arguments only:
    "value"               the loss of this step
    "grad"                the gradient of this step, the same as `gradients`
    "value_fn", "obj_fn"  a function: parameters -> loss on the same batch
    "grad_fn"             a function: (parameters, ignored) -> gradient on the same batch

Measurement
- Horizons count gradient evaluations, not steps. `@optimizer(evaluations=2)` says that a step costs
  two, so a horizon of 250 allows 125 steps. Schedules run over the steps.
- `evaluations` is the mean per step, or an upper bound. It includes the gradient that every step
  gets. A call of value_fn or obj_fn counts 1 more, a gradient 1, a Hessian-vector product 2: what
  counts is the passes through the loss, forward or backward, whichever are more. They are counted
  in the program of `update`, in loops, branches, vmap and derivatives too, and a rule that makes
  more than it declares does not run (evaluations.py).
- Losses are measured at the current parameters, or at `eval_params(state, params)` if
  `@optimizer(eval_params=...)` gives that function (Schedule-Free, Lookahead, averages).
- `@optimizer(diagnostics=...)` gives a function (state, updates, params) -> named scalars, or a
  tree of them (one for each layer, say). They are logged at the points of a curve, as diagnostics/:
  of a step on a fixed batch of views, which is looked at and not taken.
- A trial ends as "diverged" if its loss is not finite, or its final probe loss is above that of the
  untrained student, and as "crashed" if the optimizer raises an exception.
- A Schedule is read at every step, at the number of steps taken so far, from 0 or from 1.

`python -m optimizers.conformance my_opt.py` checks that an optimizer keeps this contract.
`sweeps/run.py` runs the first of these checks before it trains an optimizer that is not built in,
and warns; the leaderboard takes no entry that fails any.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from optimizers.contract.domains import Domain, Value
from optimizers.contract.schedules import SCHEDULES, OfCount
from optimizers.contract.signatures import Schedule as Schedule
from optimizers.contract.signatures import (
    Shape,
    is_setting,
    schedule_settings,
    settings_of,
    typed,
)

if TYPE_CHECKING:
    import optax

EXTRA_ARGS = ("value", "grad", "value_fn", "obj_fn", "grad_fn")
FUNCTIONS = frozenset({"value_fn", "obj_fn", "grad_fn"})  # of these, what evaluates the loss
RESERVED = "horizon"  # the trainer passes it along with the hyperparameters

EvalParams = Callable[[Any, Any], Any]
Diagnostics = Callable[[Any, Any, Any], Any]


def offer(
    names: Collection[str], loss: Callable[[Any], Any], value: Any, gradients: Any
) -> dict[str, Any]:
    """The extra arguments of `update` for one step.

    Args:
      names: which of EXTRA_ARGS to return.
      loss: function from parameters to the loss on the step's batch.
      value: the loss at the current parameters.
      gradients: the gradient at the current parameters.
    """
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
      space: the search domain of each hyperparameter that has one.
      defaults: the default of every hyperparameter.
      scheduled: names of the hyperparameters annotated as Schedule.
      schedule: shape of these hyperparameters over a run: (peak, steps) -> (count -> value). It
        may also take hyperparameters, by name.
      of_schedule: names of the hyperparameters that the schedule alone takes, and `make` does not.
      extra_args: names in EXTRA_ARGS; `update` gets these as keyword arguments.
      eval_params: (state, params) -> the parameters to measure; None to measure the current ones.
      diagnostics: (state, updates, params) -> a tree of scalars to log; None for none.
      evaluations: gradient evaluations per step on average, or an upper bound if that varies.
      doc: docstring of the decorated function.
    """

    name: str
    make: Callable[..., optax.GradientTransformation]
    space: Mapping[str, Domain]
    defaults: Mapping[str, Value | None]
    scheduled: frozenset[str]
    schedule: Shape = SCHEDULES["warmup_cosine"]
    of_schedule: frozenset[str] = frozenset()
    extra_args: frozenset[str] = frozenset()
    eval_params: EvalParams | None = None
    evaluations: float = 1.0
    doc: str = ""
    diagnostics: Diagnostics | None = None

    def __hash__(self) -> int:
        return hash((self.name, self.make))

    def __call__(self, *args: Any, **kwargs: Any) -> optax.GradientTransformation:
        """The update rule for any training loop: the decorated function, called as in optax.

        A learning rate, or another Schedule, is a number or a function of the step count. `lr` may
        also be called `learning_rate`. The testbed's own schedules play no part.

        Raises:
          TypeError: if an argument is unknown or given twice.
        """
        from optimizers.contract.calls import bound, for_any_loop

        rule = self._checked(self.make(**bound(self, args, kwargs)))
        return for_any_loop(rule, self.extra_args, bool(FUNCTIONS & self.extra_args))

    @property
    def __signature__(self) -> inspect.Signature:
        """That of a call, for `inspect` and `optax.inject_hyperparams`."""
        from optimizers.contract.calls import signature

        return signature(self)

    @property
    def static_args(self) -> tuple[str, ...]:
        """Names of the arguments of a call that stay Python values under jit: all but floats.

        For `optax.inject_hyperparams(rule, rule.static_args)`.
        """
        from optimizers.contract.calls import static_args

        return static_args(self)

    def steps(self, horizon: int) -> int:
        """Number of steps in a horizon of `horizon` gradient evaluations; at least 1."""
        return max(1, int(horizon / self.evaluations))

    def build(self, hparams: Mapping[str, Any], horizon: Any) -> optax.GradientTransformation:
        """The update rule for a run of `horizon` steps. Both arguments may hold traced values.

        Hyperparameters that are not in `hparams` keep their defaults.

        Raises:
          TypeError: if the decorated function does not return an optax transformation.
        """
        values = {**self.defaults, **hparams}
        settings = {name: value for name, value in values.items() if name not in self.of_schedule}
        return self._checked(self.make(**{**settings, **self._schedules(values, horizon)}))

    def _checked(self, rule: Any) -> optax.GradientTransformation:
        if not (callable(getattr(rule, "init", None)) and callable(getattr(rule, "update", None))):
            raise TypeError(
                f"{self.name}() returned {type(rule).__name__}, which is not an "
                "optax.GradientTransformation: return an object with init(params) and "
                "update(gradients, state, params), such as optax.chain(...)."
            )
        return rule

    @functools.cached_property
    def builder(self) -> Callable[[Mapping[str, Any], Any], optax.GradientTransformation]:
        """`build`, the same object at every access: trials that use it share one compilation."""
        return self.build

    def learning_rate(self, hparams: Mapping[str, Any], steps: int, step: Any) -> Any:
        """The scheduled learning rate at `step` of `steps`; None if nothing is scheduled."""
        for rate in self._schedules({**self.defaults, **hparams}, steps).values():
            return rate(step)
        return None

    def _schedules(self, values: Mapping[str, Any], horizon: Any) -> dict[str, OfCount]:
        """The schedule of each scheduled hyperparameter, in the order of their names."""
        if not self.scheduled:
            return {}
        settings = {
            parameter.name: values[parameter.name] for parameter in settings_of(self.schedule)
        }
        return {
            name: self.schedule(values[name], horizon, **settings)
            for name in sorted(self.scheduled)
        }


def _declare(
    function: Callable,
    schedule: Shape,
    extra_args: frozenset[str],
    eval_params: EvalParams | None,
    evaluations: float,
    diagnostics: Diagnostics | None,
) -> Optimizer:
    name = function.__name__
    hints = typing.get_type_hints(function, include_extras=True)
    space, defaults, scheduled = {}, {}, set()
    for parameter in inspect.signature(function).parameters.values():
        subject = f"Hyperparameter {parameter.name!r} of {name}"
        if parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
            parameter.POSITIONAL_ONLY,
        ):
            raise TypeError(
                f"{subject} cannot be passed by keyword: list each hyperparameter by name, "
                "without *, ** or /."
            )
        if parameter.name == RESERVED:
            raise TypeError(
                f"{subject} has a reserved name: rename it. To use the horizon, annotate a "
                "hyperparameter as Schedule."
            )
        if parameter.default is parameter.empty:
            raise TypeError(
                f"{subject} has no default: give it the value to use when it is not searched."
            )
        plain, default, domain = typed(parameter, hints, subject)
        if domain is None and not is_setting(plain):
            continue
        if plain == Schedule:
            scheduled.add(parameter.name)
        defaults[parameter.name] = default
        if domain:
            space[parameter.name] = domain
    more, wider = schedule_settings(name, schedule, defaults) if scheduled else ({}, {})
    return Optimizer(
        name,
        function,
        space | wider,
        defaults | more,
        frozenset(scheduled),
        schedule,
        frozenset(more),
        extra_args,
        eval_params,
        evaluations,
        inspect.getdoc(function) or "",
        diagnostics,
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
    diagnostics: Diagnostics | None = ...,
) -> Callable[[Callable[..., optax.GradientTransformation]], Optimizer]: ...


def optimizer(
    function: Any = None,
    /,
    *,
    schedule: str | Shape = "warmup_cosine",
    extra_args: Collection[str] = (),
    eval_params: EvalParams | None = None,
    evaluations: float = 1.0,
    diagnostics: Diagnostics | None = None,
) -> Any:
    """Declares an optimizer: returns an `Optimizer` and changes no global state.

    The docstring of this module explains the arguments.

    Raises:
      TypeError: if a hyperparameter has no default, cannot be passed by keyword, has more than one
        domain, or has the reserved name; if the schedule needs a hyperparameter that is not there.
      ValueError: if `schedule` or a name in `extra_args` is unknown, or `evaluations` is below 1.
    """
    if isinstance(schedule, str) and schedule not in SCHEDULES:
        raise ValueError(
            f"Unknown schedule in @optimizer(schedule={schedule!r}): use a function "
            f"(peak, steps) -> (count -> value), or one of {', '.join(map(repr, SCHEDULES))}."
        )
    extras = (extra_args,) if isinstance(extra_args, str) else tuple(extra_args)
    if unknown := sorted(set(extras) - set(EXTRA_ARGS)):
        raise ValueError(
            f"Unknown extra argument {unknown[0]!r} in @optimizer(extra_args=...): choose from "
            f"{', '.join(map(repr, EXTRA_ARGS))}."
        )
    if evaluations < 1:
        raise ValueError(
            f"@optimizer(evaluations={evaluations}) is below 1: every step already takes one "
            "gradient. Give the total per step, 1 or more."
        )
    shape = SCHEDULES[schedule] if isinstance(schedule, str) else schedule
    declare = functools.partial(
        _declare,
        schedule=shape,
        extra_args=frozenset(extras),
        eval_params=eval_params,
        evaluations=float(evaluations),
        diagnostics=diagnostics,
    )
    return declare if function is None else declare(function)
