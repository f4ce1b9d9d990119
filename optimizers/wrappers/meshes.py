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
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def _sharding(x: Any) -> NamedSharding | None:
    """The array's sharding if it is on a mesh with an explicit axis."""
    found = jax.typeof(x).sharding if _is_traced(x) else getattr(x, "sharding", None)
    return found if isinstance(found, NamedSharding) and _is_explicit(found.mesh) else None


def _is_traced(x: Any) -> bool:
    return isinstance(x, jax.Array) and not hasattr(x, "sharding")


def _is_explicit(mesh: Mesh | AbstractMesh) -> bool:
    return AxisType.Explicit in mesh.axis_types


def _whole(tree: Any) -> NamedSharding | None:
    """A copy on each device of the tree's explicit mesh; None if it is on no such mesh."""
    for leaf in jax.tree.leaves(tree):
        if found := _sharding(leaf):
            return NamedSharding(found.mesh, P())
    return None


def with_automatic_axes(mesh: Mesh) -> Mesh:
    """The same devices, as they are within a step."""
    return Mesh(mesh.devices, mesh.axis_names) if _is_explicit(mesh) else mesh


def placed(tree: Any, sharding: NamedSharding) -> Any:
    """The tree with all arrays so distributed, inside jit or not."""

    def place(x: jax.Array) -> jax.Array:
        if not _is_traced(x):
            return jax.device_put(x, sharding)
        if _is_explicit(sharding.mesh):
            return jax.reshard(x, sharding)
        return lax.with_sharding_constraint(x, sharding)

    return jax.tree.map(place, tree)


def on_any_mesh(rule: Any) -> optax.GradientTransformationExtraArgs:
    """`rule`, which may be written as if there were no explicit axes."""
    rule = optax.with_extra_args_support(rule)

    def init(params: Any) -> Any:
        state = rule.init(params)
        if (whole := _whole(params)) is None:
            return state
        # What is not made from a parameter is on no mesh yet, and would change its type in a step.
        return jax.tree.map(lambda x: x if _sharding(x) else placed(x, whole), state)

    def update(updates: Any, state: Any, params: Any = None, **extras: Any) -> tuple[Any, Any]:
        if (whole := _whole(updates)) is None:
            return rule.update(updates, state, params, **extras)
        within: Any = jax.sharding.auto_axes(
            lambda updates, state, params, extras: rule.update(updates, state, params, **extras),
            out_sharding=jax.tree.map(lambda x: _sharding(x) or whole, (updates, state)),
        )
        return within(updates, state, params, extras)

    return optax.GradientTransformationExtraArgs(init, update)
