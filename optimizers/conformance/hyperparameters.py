"""Checks of hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from optimizers.conformance.problems import HORIZONS, lengths, network, run, same
from optimizers.contract.api import Optimizer


def has_no_dead_hyperparameter(opt: Optimizer) -> str | None:
    """Changing a hyperparameter that has a domain or is a float changes the parameters.

    What changes nothing within 20 steps, as during a long warm-up, gets a longer run.
    """
    others = {name: values for name in opt.defaults if (values := _other_values(opt, name))}
    dead = list(others)
    for steps in lengths(opt):

        def end(hparams: Mapping[str, Any], steps: int = steps) -> Any:
            return jax.jit(lambda: run(opt, hparams, network, steps=steps, horizon=steps)[0])()

        base = end({})
        dead = [
            name for name in dead if all(same(base, end({name: value})) for value in others[name])
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
