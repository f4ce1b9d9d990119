"""Any factory of optax as an optimizer, without a file: --opt=optax:yogi --set lr=1e-3,3e-3."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from optimizers.contract.api import Optimizer, offer
from optimizers.contract.domains import Log, Value
from optimizers.contract.repairs import keep_dtypes
from optimizers.contract.schedules import SCHEDULES

_RATE = "learning_rate"
# What `update` may want beyond gradients and parameters, tried from nothing to the most.
_EXTRAS = ((), ("value",), ("value", "grad", "value_fn"), ("obj_fn",), ("grad_fn",))


def _factories() -> dict[str, Any]:
    """Functions of optax and optax.contrib that take a learning rate, by name."""
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
    """optax's factory `name`, searched over its learning rate (as `lr`) unless values are given; its plain settings are hyperparameters.

    Raises:
      LookupError: where optax has no such factory, or it wants more than numbers; the message says what to do.
    """
    factories = _factories()
    if name not in factories:
        near = difflib.get_close_matches(name, factories, n=1)
        hint = f" Did you mean optax:{near[0]}?" if near else ""
        raise LookupError(f"optax has no optimizer {name!r} that takes a learning rate.{hint}")
    factory = factories[name]
    parameters = inspect.signature(factory).parameters
    wanted = [p.name for p in parameters.values() if p.default is p.empty and p.name != _RATE]
    if wanted:
        raise LookupError(
            f"optax:{name} wants {', '.join(wanted)}: write a file with a function that builds it (README, Write your own)."
        )
    plain = {
        p.name: p.default
        for p in parameters.values()
        if isinstance(p.default, Value) and p.name != _RATE
    }
    rate = parameters[_RATE].default
    # What has a rate of its own and a schedule would fight over, or tunes itself, keeps optax's default.
    default = float(rate) if isinstance(rate, int | float) else 1e-2

    def make(lr: Any, **values: Any) -> optax.GradientTransformation:
        return keep_dtypes(factory(**{_RATE: lr}, **values))

    def rule(extras: tuple[str, ...]) -> bool:
        params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}

        def step() -> Any:
            made = make(default, **plain)
            return made.update(
                params,
                made.init(params),
                params,
                **offer(extras, optax.tree.norm, jnp.float32(1), params),
            )

        try:
            jax.eval_shape(step)
        except (TypeError, ValueError):
            return False
        return True

    extras = next((extras for extras in _EXTRAS if rule(extras)), None)
    if extras is None:
        raise LookupError(
            f"optax:{name} wants more of its update than the harness offers: write a file (README, Write your own)."
        )
    space = (
        {} if parameters[_RATE].default is not parameters[_RATE].empty else {"lr": Log(1e-3, 3e-1)}
    )
    return Optimizer(
        name=f"optax_{name}",
        make=make,
        space=space,
        defaults={"lr": default, **plain},
        scheduled=frozenset({"lr"}),
        schedule=SCHEDULES["warmup_constant" if "schedule_free" in name else "warmup_cosine"],
        extra_args=frozenset(extras),
        eval_params=eval_params,
        doc=inspect.getdoc(factory) or "",
    )


def eval_params(state: Any, params: Any) -> Any:
    """Schedule-Free's averaged parameters, where its state is anywhere in `state`; else `params`."""

    def is_free(x: Any) -> bool:
        return isinstance(x, contrib.ScheduleFreeState)

    for found in filter(is_free, jax.tree.leaves(state, is_leaf=is_free)):
        return contrib.schedule_free_eval_params(found, params)
    return params
