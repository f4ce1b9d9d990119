"""Checks that `init` and `update` are functions: all they need is given, all they do is returned.

A compiled program cannot show this. What Python does, it does once, while the program is traced. So
these checks also run a few steps without jit.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import optax

from optimizers.conformance.problems import (
    MOVED,
    ROUNDING,
    apart,
    array,
    build,
    call,
    is_rounding,
    measured,
    moving,
    same,
    start,
    steady,
    take_step,
)
from optimizers.contract.api import Optimizer, offer

FEW = 3  # steps without jit

_graded = jax.jit(lambda i, params: jax.value_and_grad(moving(i))(params))


def leaves_its_arguments_alone(opt: Optimizer) -> str | None:
    """`init` and `update` write into nothing that they are given, neither dicts nor arrays."""
    rule, params = build(steady(opt)), start()
    value, gradients = _graded(0, params)
    with jax.disable_jit():
        before = _seen(given := {"params": params})
        state = rule.init(params)
        if place := _change(before, given):
            return _writes("init", place)
        before = _seen(given := {"gradients": gradients, "state": state, "params": params})
        rule.update(gradients, state, params, **offer(opt.extra_args, moving(0), value, gradients))
        if place := _change(before, given):
            return _writes("update", place)
    return None


def _seen(tree: Any) -> dict[str, tuple[Any, Any]]:
    """Each leaf by its place, with a copy of its numbers."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): (leaf, array(leaf).copy()) for path, leaf in leaves}


def _change(before: dict[str, tuple[Any, Any]], tree: Any) -> str | None:
    """The first place that holds another array than before, or other numbers."""
    now = _seen(tree)
    for place in before | now:
        if place not in now or place not in before or now[place][0] is not before[place][0]:
            return place
        if not same(now[place][1], before[place][1]):
            return place
    return None


def _writes(function: str, place: str) -> str:
    return (
        f"{function} writes into its arguments, at {place}: other code may still use them. "
        "Make new containers and arrays, for example with jax.tree.map, and return them"
    )


def keeps_everything_in_its_state(opt: Optimizer) -> str | None:
    """Steps depend on parameters, gradients and state alone: again, they give the same bits.

    They run without jit, where Python's own counters, caches and random numbers go on from step to
    step. Then a new rule, as a new process builds it, continues from the state after the first.
    """
    rule, first = _first_walk(opt)
    if not same(first, _walk(opt, rule, start(), rule.init(start()))):
        return (
            "without jit, the same steps by the same rule come out differently the second time: "
            "it counts, remembers or draws random numbers in Python, which a compiled program does "
            "once. Put counters and keys (jax.random) into the state"
        )
    resumed = _walk(opt, build(steady(opt)), *first[0], begin=1)
    if not same(resumed, first[1:]):
        return (
            "a new rule that continues from the state after one step goes elsewhere than the rule "
            "that made it: something is kept outside the state. Return it as part of the state"
        )
    return None


def does_the_same_with_jit(opt: Optimizer) -> str | None:
    """Compiled steps end where steps without jit do, up to rounding."""
    new, plain = build(steady(opt)), _first_walk(opt)[1][-1]

    @jax.jit
    def step(i: Any, error: Any, params: Any, state: Any) -> tuple[Any, Any]:
        return take_step(opt, new, moving(i), params, state, error=error)[:2]

    def end(error: float) -> tuple[Any, Any]:
        params, state = start(), jax.jit(new.init)(start())
        for i in range(FEW):
            params, state = step(i, error, params, state)
        return params, measured(opt, state, params)

    def differ(
        one: tuple[Any, Any], other: tuple[Any, Any], share: float
    ) -> tuple[str, float] | None:
        return apart(one[0], other[0], start(), share) or apart(one[1], other[1], start(), share)

    compiled = end(0.0)
    found = differ((plain[0], measured(opt, plain[1], plain[0])), compiled, MOVED)
    if not found:
        return None
    place, difference = found
    if is_rounding(difference, differ(end(ROUNDING), compiled, 0.0)):
        return None
    return (
        f"after {FEW} steps, compiled and not, parameters{place} differ by {difference:.2g}: the "
        "rule asks whether it is traced, or counts or draws random numbers in Python. Decide by "
        "values in the state, with jnp.where or lax.cond"
    )


@functools.lru_cache(maxsize=1)  # two checks begin with it, and it is slow
def _first_walk(opt: Optimizer) -> tuple[Any, list[tuple[Any, Any]]]:
    """A rule, and where it goes from the start."""
    rule = build(steady(opt))
    return rule, _walk(opt, rule, start(), rule.init(start()))


def _walk(
    opt: Optimizer, rule: Any, params: Any, state: Any, begin: int = 0
) -> list[tuple[Any, Any]]:
    """(parameters, state) after each step without jit, from step `begin` to FEW."""
    ends = []
    for i in range(begin, FEW):
        value, gradients = _graded(i, params)
        with jax.disable_jit():
            updates, state = call(opt, rule, moving(i), params, state, value, gradients)
        params = optax.apply_updates(params, updates)
        ends.append((params, state))
    return ends
