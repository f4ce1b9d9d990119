"""Checks of hyperparameters."""

from __future__ import annotations

import dis
from typing import Any

import jax
import numpy as np

from optimizers.conformance.problems import (
    HORIZONS,
    by_value,
    lengths,
    measured,
    network,
    quadratic,
    run,
    same,
    steady,
)
from optimizers.contract.api import Optimizer
from optimizers.contract.signatures import settings_of

DECAYS = frozenset({"weight_decay", "wd", "l2", "l2_decay"})  # names of weight decay
DISTINCT = 1e-5  # share of the parameters by which weight decay changes them, beyond rounding


def uses_its_hyperparameters(opt: Optimizer) -> str | None:
    """The function of the optimizer, or its schedule, reads each hyperparameter, of any type."""
    code = opt.make.__code__
    parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    read = {setting.name for setting in settings_of(opt.schedule)}
    for instruction in dis.get_instructions(code):
        if instruction.opname.startswith("LOAD_"):
            value = instruction.argval
            read.update(value if isinstance(value, tuple) else (value,))
    unread = [name for name in parameters if name in opt.defaults and name not in read]
    if not unread:
        return None
    return (
        f"{', '.join(unread)} {'is' if len(unread) == 1 else 'are'} not used in {opt.name}: a "
        "value that somebody sets would do nothing. Use it, or remove it"
    )


def has_no_dead_hyperparameter(opt: Optimizer) -> str | None:
    """Changing a hyperparameter that has a domain or is a float changes the parameters.

    Current or evaluated ones. What changes nothing within 20 steps, as during a long warm-up, gets
    a longer run.
    """
    others = {name: values for name in opt.defaults if (values := _other_values(opt, name))}
    dead = list(others)
    for steps in lengths(opt):

        def end(hparams: Any, steps: int = steps) -> Any:
            params, state = run(opt, hparams, network, steps=steps, horizon=steps)
            return params, measured(opt, state, params)

        at = by_value(opt, end)
        base = at({})
        dead = [
            name for name in dead if all(same(base, at({name: value})) for value in others[name])
        ]
        if not dead:
            return None
    return f"{', '.join(dead)} change{'s' * (len(dead) == 1)} nothing within {HORIZONS[-1]:,} steps"


def _other_values(opt: Optimizer, name: str) -> list[Any]:
    """Values of a hyperparameter that should make a difference; none if it need not."""
    default = opt.defaults[name]
    if name in opt.space:
        ends = (opt.space[name].at(0.0), opt.space[name].at(1.0 - 1e-9))
        return [value for value in ends if value != default]
    if isinstance(default, float) and default:
        return [default * 100, default / 2] if default < 1e-3 else [default / 2]
    return []  # an integer may be a limit that is never reached; 0 and None mean off


def decays_towards_zero(opt: Optimizer) -> str | None:
    """More weight decay shrinks the evaluated parameters.

    Known by its name: weight_decay, wd, l2 or l2_decay.
    """
    for name in sorted(DECAYS & opt.defaults.keys()):
        low, high = _more_decay(opt, name)
        if low == high:
            continue
        for steps in lengths(opt):

            def end(hparams: Any, steps: int = steps) -> Any:
                rule = steady(opt)
                params, state = run(rule, hparams, quadratic, steps=steps, horizon=steps)
                return measured(rule, state, params)

            at = by_value(opt, end)
            little, much = (_flat(at({name: value})) for value in (low, high))
            shift = much - little
            if not np.linalg.norm(shift) > DISTINCT * np.linalg.norm(little):
                continue  # nothing to see yet, or not finite
            if (along := shift @ little) < 0:
                break
            return (
                f"with {name}={high:g} instead of {low:g}, the parameters are further from zero "
                f"after {steps:,} steps, by {along / (little @ little):.2%}: more weight decay "
                "must shrink them. The update is added to the parameters: check the sign of the "
                "decay in it"
            )
    return None


def _more_decay(opt: Optimizer, name: str) -> tuple[float, float]:
    """A small and a large value of weight decay."""
    if name in opt.space:
        low, high = opt.space[name].at(0.0), opt.space[name].at(1.0 - 1e-9)
    else:
        default = opt.defaults[name]
        low, high = 0.0, max(10 * default, 0.1) if isinstance(default, float) else 0.0
    return (low, high) if isinstance(low, float) and isinstance(high, float) else (0.0, 0.0)


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])
