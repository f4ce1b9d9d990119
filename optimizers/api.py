"""The whole API of an entrant: a function from hyperparameters to an optax transformation.

    @optimizer
    def my_opt(lr: Annotated[Schedule, Log(1e-3, 1e-1)] = 1e-2, *, b1: float = 0.9) -> optax.GradientTransformation:
        return optax.chain(optax.scale_by_adam(b1), optax.scale_by_learning_rate(lr))

Name, type, search domain and default of a hyperparameter stand on one line, once. A parameter without a
domain is fixed at its default and never searched.
"""

from __future__ import annotations

import functools
import inspect
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

if TYPE_CHECKING:
    import jax
    import optax


class _OfCount(Protocol):
    def __call__(self, count: Any, /) -> Any: ...


Schedule = float | _OfCount
"""Annotates a hyperparameter that is written as a peak value and arrives as a function of the step count, which starts at 0."""


Value = float | int | str | bool
RESERVED = "horizon"  # travels with the hyperparameters


@dataclass(frozen=True)
class Log:
    """Values spread evenly in their logarithm between `low` and `high`, both positive."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"Log({self.low}, {self.high}) is no range: it wants 0 < low < high.")

    def at(self, u: float) -> float:
        """The value at fraction `u` in [0, 1] of the range."""
        return math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))


@dataclass(frozen=True)
class Uniform:
    """Values spread evenly between `low` and `high`."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Uniform({self.low}, {self.high}) is no range: it wants low < high.")

    def at(self, u: float) -> float:
        """The value at fraction `u` in [0, 1] of the range."""
        return self.low + u * (self.high - self.low)


@dataclass(frozen=True, init=False)
class Choice:
    """One of the given values."""

    values: tuple[Value, ...]

    def __init__(self, *values: Value):
        if not values:
            raise ValueError("Choice() has nothing to choose from: give it at least one value.")
        object.__setattr__(self, "values", values)

    def at(self, u: float) -> Value:
        """The value in whose equal share of [0, 1) `u` lies."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]


Domain = Log | Uniform | Choice


def warmup_cosine(peak: Any, horizon: Any, warmup: float = 0.1) -> _OfCount:
    """The harness's schedule: linear over the first tenth of the horizon, then a half cosine to zero.

    The rate of step t (from 0) is peak * min((t + 1) / w, (1 + cos(pi * max(t + 1 - w, 0) / (horizon - w))) / 2),
    w = warmup * horizon; the first step moves and the last rate is zero only after the horizon. `peak` and
    `horizon` may be traced.
    """
    import jax.numpy as jnp

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        w = jnp.maximum(warmup * horizon, 1.0)
        t = jnp.asarray(count, jnp.float32)
        decay = jnp.clip((t + 1 - w) / jnp.maximum(horizon - w + 1, 1.0), 0.0, 1.0)
        return peak * jnp.minimum((t + 1) / w, 0.5 * (1 + jnp.cos(jnp.pi * decay)))

    return schedule


def warmup_quadratic(peak: Any, horizon: Any) -> _OfCount:
    """Linear warm-up over 1,800 steps, a tenth of the horizon at most, then quadratic decay to zero (Beyer et al. 2021, appendix D)."""
    import jax.numpy as jnp

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        w = jnp.clip(0.1 * horizon, 1.0, 1800.0)
        t = jnp.asarray(count, jnp.float32)
        left = jnp.clip((horizon - t) / jnp.maximum(horizon - w + 1, 1.0), 0.0, 1.0)
        return peak * jnp.minimum((t + 1) / w, left**2)

    return schedule


def constant(peak: Any, horizon: Any) -> _OfCount:
    """The same rate at every step."""
    import jax.numpy as jnp

    return lambda count: jnp.asarray(peak, jnp.float32)


SCHEDULES = {"warmup_cosine": warmup_cosine, "warmup_quadratic": warmup_quadratic, "constant": constant}
ScheduleName = Literal["warmup_cosine", "warmup_quadratic", "constant"]


@dataclass(frozen=True)
class Optimizer:
    """An entrant, as declared by `@optimizer`.

    Attributes:
      name: of the decorated function.
      make: the decorated function.
      space: search domain of each hyperparameter that has one.
      defaults: default of every hyperparameter.
      scheduled: hyperparameters annotated as Schedule; they hold peak values and arrive as schedules.
      schedule: which of SCHEDULES shapes them.
    """

    name: str
    make: Callable[..., optax.GradientTransformation]
    space: Mapping[str, Domain]
    defaults: Mapping[str, Value]
    scheduled: frozenset[str]
    schedule: ScheduleName = "warmup_cosine"
    doc: str = ""
    _cache: dict = field(default_factory=dict, repr=False, compare=False)

    def __hash__(self) -> int:
        return hash((self.name, self.make))

    def build(self, hparams: Mapping[str, Any], horizon: Any) -> optax.GradientTransformation:
        """The update rule at `hparams` (others at their defaults) for a run of `horizon` steps; values may be traced."""
        values = {**self.defaults, **hparams}
        shape = SCHEDULES[self.schedule]
        rule = self.make(**{k: shape(v, horizon) if k in self.scheduled else v for k, v in values.items()})
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

    def learning_rate(self, hparams: Mapping[str, Any], horizon: int, step: Any) -> Any:
        """The scheduled learning rate at `step`, or None where no hyperparameter is scheduled."""
        for name in sorted(self.scheduled):
            return SCHEDULES[self.schedule](hparams.get(name, self.defaults[name]), horizon)(step)
        return None


def _declare(function: Callable, schedule: ScheduleName) -> Optimizer:
    name = function.__name__
    hints = typing.get_type_hints(function, include_extras=True)
    space, defaults, scheduled = {}, {}, set()
    for parameter in inspect.signature(function).parameters.values():
        where = f"Hyperparameter {parameter.name!r} of {name}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{where} must be passed by keyword: spell each hyperparameter out, without * or **.")
        if parameter.name == RESERVED:
            raise TypeError(f"{where} has a reserved name: the horizon reaches an optimizer through its schedule.")
        if parameter.default is parameter.empty:
            raise TypeError(f"{where} has no default: give it the value to use when it is not tuned.")
        hint = hints.get(parameter.name, Any)
        default = parameter.default
        extras = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
        domains = [extra for extra in extras if isinstance(extra, Log | Uniform | Choice)]
        if len(domains) > 1:
            raise TypeError(f"{where} has {len(domains)} search domains: keep one of Log, Uniform and Choice.")
        plain = typing.get_args(hint)[0] if extras else hint
        if plain == Schedule:
            scheduled.add(parameter.name)
        if (plain is float or plain == Schedule) and isinstance(default, int) and not isinstance(default, bool):
            default = float(default)
        defaults[parameter.name] = default
        if domains:
            space[parameter.name] = domains[0]
    return Optimizer(name, function, space, defaults, frozenset(scheduled), schedule, inspect.getdoc(function) or "")


@overload
def optimizer(function: Callable[..., optax.GradientTransformation], /) -> Optimizer: ...
@overload
def optimizer(*, schedule: ScheduleName = ...) -> Callable[[Callable[..., optax.GradientTransformation]], Optimizer]: ...


def optimizer(function: Any = None, /, *, schedule: Any = "warmup_cosine") -> Any:
    """Declares an optimizer; returns an `Optimizer` and touches no global state.

    `schedule` says what a parameter annotated as Schedule arrives as: "warmup_cosine" (the harness's) or
    "warmup_quadratic", "constant" (for self-tuning rules, or for a rule that brings its own shape).

    Raises:
      TypeError: where a hyperparameter has no default, is variadic, or has several domains.
      ValueError: where `schedule` is unknown.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"@optimizer(schedule={schedule!r}) is unknown: use one of {', '.join(map(repr, SCHEDULES))}.")
    if function is None:
        return functools.partial(_declare, schedule=schedule)
    return _declare(function, schedule)
