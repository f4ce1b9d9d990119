"""Turns any factory of optax into an optimizer, without a file: --opt=optax:yogi."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from optimizers.contract.api import EXTRA_ARGS, Optimizer, offer
from optimizers.contract.domains import Log, Value
from optimizers.contract.repairs import keep_dtypes, schedule_free_eval_params
from optimizers.contract.schedules import SCHEDULES
from optimizers.contract.signatures import schedule_settings

_RATE = "learning_rate"
# Sets of extra arguments that an `update` may need, tried in this order.
_EXTRAS = ((), ("value",), ("value", "grad", "value_fn"), ("obj_fn",), ("grad_fn",))


def _factories() -> dict[str, Any]:
    """Functions of optax and optax.contrib that take a learning rate: name -> function."""
    found = {}
    for module in (contrib, optax):
        for name, value in vars(module).items():
            if (
                inspect.isfunction(value)
                and not name.startswith("_")
                and _RATE in inspect.signature(value).parameters
            ):
                found[name] = value
    return found


def wrap(name: str) -> Optimizer:
    """optax's factory `name` as an optimizer.

    Its learning rate is searched as `lr`, unless optax gives it a default; its other plain settings
    are hyperparameters with optax's defaults.

    Raises:
      LookupError: if optax has no such factory, or it needs more than numbers; the message says
        what to do.
    """
    factory = _factory(name)
    parameters = inspect.signature(factory).parameters
    plain = {
        p.name: p.default
        for p in parameters.values()
        if isinstance(p.default, Value) and p.name != _RATE
    }
    rate = parameters[_RATE].default
    # A rule that finds its own rate has a default, which a search would only fight.
    default = float(rate) if isinstance(rate, int | float) else 1e-2

    def make(lr: Any, **values: Any) -> optax.GradientTransformation:
        return keep_dtypes(factory(**{_RATE: lr}, **values))

    extras = _needed_extras(lambda: make(default, **plain))
    if extras is None:
        raise LookupError(
            f"update() of optax:{name} needs more arguments than {', '.join(EXTRA_ARGS)}: write a "
            "file that supplies them (README, Write your own)."
        )
    schedule = SCHEDULES["warmup_constant" if "schedule_free" in name else "warmup_cosine"]
    own = {"lr": default, **plain}
    more, space = schedule_settings(f"optax_{name}", schedule, own)
    return Optimizer(
        name=f"optax_{name}",
        make=make,
        space={"lr": Log(1e-3, 3e-1), **space} if rate is inspect.Parameter.empty else space,
        defaults=own | more,
        scheduled=frozenset({"lr"}),
        schedule=schedule,
        of_schedule=frozenset(more),
        extra_args=frozenset(extras),
        eval_params=schedule_free_eval_params,
        doc=inspect.getdoc(factory) or "",
    )


def _factory(name: str) -> Any:
    """The function of optax with this name, which needs nothing but a learning rate."""
    factories = _factories()
    if name not in factories:
        near = difflib.get_close_matches(name, factories, n=1)
        hint = f" Did you mean optax:{near[0]}?" if near else ""
        raise LookupError(f"optax has no optimizer {name!r} that takes a learning rate.{hint}")
    parameters = inspect.signature(factories[name]).parameters.values()
    if needed := [p.name for p in parameters if p.default is p.empty and p.name != _RATE]:
        raise LookupError(
            f"optax:{name} also needs {', '.join(needed)}: write a file with a function that "
            "builds it (README, Write your own)."
        )
    return factories[name]


def _needed_extras(make: Callable[[], Any]) -> tuple[str, ...] | None:
    """Of `_EXTRAS`, the first with which an update of `make()` works; None if none does."""
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}

    def works(extras: tuple[str, ...]) -> bool:
        def step() -> Any:
            rule = make()
            offered = offer(extras, optax.tree.norm, jnp.float32(1), params)
            return rule.update(params, rule.init(params), params, **offered)

        try:
            jax.eval_shape(step)
        except (TypeError, ValueError):
            return False
        return True

    return next((extras for extras in _EXTRAS if works(extras)), None)
