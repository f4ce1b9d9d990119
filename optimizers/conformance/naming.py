"""Checks that a rule knows parameters by their shapes, not by their names or places."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp

from optimizers.conformance.problems import (
    apart,
    build,
    call,
    measured,
    quadratic,
    run,
    same,
    start,
    steady,
)
from optimizers.contract.api import Optimizer

FEW = 5  # steps

Names = tuple[tuple[str, ...], ...]
"""The path of each parameter, in the order of `leaves`."""

NEUTRAL: Names = (("a",), ("b",), ("c",), ("d",), ("e",))
# Each shape gets names that a rule may look for. All keep the order of the parameters.
TYPICAL: tuple[Names, ...] = (
    (("bias",), ("conv",), ("dense",), ("scalar",), ("twin",)),
    (
        ("block", "bias"),
        ("block", "kernel"),
        ("head", "bias"),
        ("head", "kernel"),
        ("head", "scale"),
    ),
    (("embedding",), ("head", "weight"), ("norm", "bias"), ("norm", "scale"), ("pos",)),
    (("Dense_0", "kernel"), ("layer_norm", "gain"), ("output", "b"), ("output", "w"), ("root",)),
    (("bn", "beta"), ("bn", "gamma"), ("fc", "weights"), ("stem", "kernel"), ("stem", "mean")),
)
_RANDOM = re.compile(r"random_|threefry|rng_")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def ignores_names(opt: Optimizer) -> str | None:
    """Other names for the same parameters, in the same order, change nothing."""
    neutral = _program(opt, NEUTRAL)
    for names in TYPICAL:
        if _alike(_program(opt, names), neutral):
            continue  # the same program
        if found := apart(_end(opt, names), _end(opt, NEUTRAL), leaves()):
            name = "/".join(names[int(re.sub(r"\D", "", found[0]))])
            return (
                f"a parameter is updated differently when it is called {name!r}: another task has "
                "other names. Decide by shape, as optimizers/masks.py does"
            )
    return None


def ignores_the_order_of_leaves(opt: Optimizer) -> str | None:
    """Names that reverse the order of the parameters change nothing, up to rounding.

    Not for rules that draw random numbers: the order decides which go to which parameter.
    """
    if _RANDOM.search(_program(opt, NEUTRAL)[0]):
        return None
    reverse = tuple((letter,) for letter in "edcba")
    found = apart(_end(opt, reverse), _end(opt, NEUTRAL), leaves())
    if not found:
        return None
    return (
        f"in reverse order, the same parameters end elsewhere after {FEW} steps, by "
        f"{found[1]:.2g}: the update of one depends on its place among the others. Decide by "
        "shape, as optimizers/masks.py does"
    )


def leaves() -> list[Any]:
    """The parameters of `start`, and one more in the shape of the first: shapes name no two."""
    first, *others = jax.tree.leaves(start())
    return [first, *others, first[::-1] - 1]


def _named(values: Any, names: Names) -> dict[str, Any]:
    """Nested dicts that hold each array under its path."""
    tree: dict[str, Any] = {}
    for leaf, path in zip(values, names, strict=True):
        folder = tree
        for part in path[:-1]:
            folder = folder.setdefault(part, {})
        folder[path[-1]] = leaf
    return tree


def _unnamed(tree: Any, names: Names) -> list[Any]:
    """The leaves, in the order of `names`."""
    found = []
    for path in names:
        leaf = tree
        for part in path:
            leaf = leaf[part]
        found.append(leaf)
    return found


def _program(opt: Optimizer, names: Names) -> tuple[str, list[Any]]:
    """The program of a first update as text, and its constants."""
    rule = build(steady(opt))

    def update(params: list[Any], gradients: list[Any]) -> list[Any]:
        tree = _named(params, names)
        updates, _ = call(
            opt, rule, quadratic, tree, rule.init(tree), jnp.float32(1), _named(gradients, names)
        )
        return _unnamed(updates, names)

    program = jax.make_jaxpr(update)(leaves(), leaves())
    return _ADDRESS.sub("", str(program)), program.consts


def _alike(a: tuple[str, list[Any]], b: tuple[str, list[Any]]) -> bool:
    return a[0] == b[0] and same(a[1], b[1])


def _end(opt: Optimizer, names: Names) -> list[Any]:
    """The parameters after a few steps, in the order of `leaves`."""

    def end(values: list[Any]) -> list[Any]:
        params, state = run(steady(opt), {}, params=_named(values, names), steps=FEW)
        return _unnamed(measured(opt, state, params), names)

    return jax.jit(end)(leaves())
