"""Update rules on parameters that are sharded over a mesh whose axes are explicit.

On such a mesh (`jax.make_mesh`'s default) the sharding is part of an array's type, and each reshape
or product must say how its result is sharded. These rules cut and fold parameters, so that they
leave that to the compiler: within a step, the axes are automatic. What goes in and comes out has
explicit types like the parameters'.
"""

from __future__ import annotations

from typing import Any

import jax
import optax
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P


def _sharding(x: Any) -> NamedSharding | None:
    """The array's sharding if it is on a mesh with an explicit axis."""
    traced = isinstance(x, jax.core.Tracer)
    found = jax.typeof(x).sharding if traced else getattr(x, "sharding", None)
    if isinstance(found, NamedSharding) and AxisType.Explicit in found.mesh.axis_types:
        return found
    return None


def _whole(tree: Any) -> NamedSharding | None:
    """A copy on each device of the tree's explicit mesh; None if it is on no such mesh."""
    for leaf in jax.tree.leaves(tree):
        if found := _sharding(leaf):
            return NamedSharding(found.mesh, P())
    return None


def on_any_mesh(rule: Any) -> optax.GradientTransformationExtraArgs:
    """`rule`, which may be written as if there were no explicit axes."""
    rule = optax.with_extra_args_support(rule)

    def init(params: Any) -> Any:
        state = rule.init(params)
        if (whole := _whole(params)) is None:
            return state
        # What is not made from a parameter is on no mesh yet, and would change its type in a step.
        traced = isinstance(whole.mesh, AbstractMesh)
        place = jax.reshard if traced else jax.device_put
        return jax.tree.map(lambda x: x if _sharding(x) else place(x, whole), state)

    def update(updates: Any, state: Any, params: Any = None, **extras: Any) -> tuple[Any, Any]:
        if (whole := _whole(updates)) is None:
            return rule.update(updates, state, params, **extras)
        return jax.sharding.auto_axes(
            lambda *arrays: rule.update(*arrays, **extras),
            out_sharding=jax.tree.map(lambda x: _sharding(x) or whole, (updates, state)),
        )(updates, state, params)

    return optax.GradientTransformationExtraArgs(init, update)
