"""Lanes: many students on one stream, one compiled program for each update rule.

Each device of the mesh runs its own lane of a row. A program has no communication between its lanes, so a
lane's numbers do not depend on what runs beside it. Hyperparameters and horizon are arguments of the
program wherever the rule's builder accepts traced values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench import bit
from distill_bench.checkpointing import BadCheckpoint, Saved, mismatch, to_device, to_host
from distill_bench.losses import kl_divergence
from distill_bench.stream import AXIS, Chunk, Source, init_student

Hparams = Mapping[str, Any]
Build = Callable[[Hparams, Any], optax.GradientTransformation]

HORIZON = "horizon"  # the horizon travels with the hyperparameters, under this name

# What jax raises where Python code asks for the value of a traced argument.
_NEEDS_VALUE = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError)


@dataclass(frozen=True)
class Lane:
    """One trial: an update rule at one point of its space, trained for `horizon` steps on the stream of `seed`.

    Lanes with the same `build` share compilations: pass the same function object.
    """

    build: Build
    hparams: Hparams
    horizon: int
    seed: int


class LaneState(NamedTuple):
    """A student's parameters (bit.Params) and its update rule's state (optax.OptState)."""

    params: Any
    rule: Any


@dataclass(frozen=True)
class RuleSpec:
    """What one compilation serves: a builder and the values that it wants to know while tracing."""

    build: Build
    static: tuple[tuple[str, Any], ...]

    def rule(self, traced: Mapping[str, jax.Array]) -> optax.GradientTransformation:
        values = dict(self.static) | dict(traced)
        horizon = values.pop(HORIZON)
        return self.build(values, horizon)


def _values(lane: Lane) -> dict[str, Any]:
    return {**lane.hparams, HORIZON: lane.horizon}


def traceable(lane: Lane, params: bit.Params) -> frozenset[str]:
    """Names of the hyperparameters (and HORIZON) that the lane's builder accepts as traced values.

    Floats and the horizon are tried; strings, booleans and integers shape the program and stay static.
    Whatever else the builder raises is the plug-in's own error and is passed on.
    """
    values = _values(lane)
    candidates = {name for name, value in values.items() if isinstance(value, float)} | {HORIZON}

    def accepts(names: set[str]) -> bool:
        static = tuple((k, v) for k, v in values.items() if k not in names)

        def try_rule(traced: dict[str, jax.Array]):
            rule = RuleSpec(lane.build, static).rule(traced)
            return rule.update(params, rule.init(params), params)

        try:
            jax.eval_shape(try_rule, {name: _array(values[name]) for name in names})
        except _NEEDS_VALUE:
            return False
        return True

    if accepts(candidates):
        return frozenset(candidates)
    alone = {name for name in candidates if accepts({name})}
    return frozenset(alone) if alone and accepts(alone) else frozenset()


def spec_of(lane: Lane, traced: frozenset[str]) -> RuleSpec:
    return RuleSpec(lane.build, tuple(sorted((k, v) for k, v in _values(lane).items() if k not in traced)))


def _array(value: float | int) -> np.ndarray:
    return np.asarray(value, np.int32 if isinstance(value, int) else np.float32)


def per_lane(source: Source, function: Callable, donate: tuple[int, ...] = ()):
    """jit of `function(own, ..., shared)`: all arguments but the last have a leading axis over devices, one lane on each."""

    def body(own, shared):
        out = function(*jax.tree.map(lambda x: x[0], own), shared)
        return jax.tree.map(lambda x: jnp.asarray(x)[None], out)

    mapped = jax.shard_map(body, mesh=source.mesh, in_specs=(P(AXIS), P()), out_specs=P(AXIS), check_vma=False)
    return jax.jit(lambda *args: mapped(args[:-1], args[-1]), donate_argnums=donate)


def spread(source: Source, values: list) -> Any:
    """Stacks one pytree per device along a leading axis, and places each on its device."""
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *values)
    return jax.device_put(stacked, NamedSharding(source.mesh, P(AXIS)))


def traced_values(source: Source, lanes: list[Lane], traced: frozenset[str]) -> dict[str, jax.Array]:
    """The traced hyperparameters (and horizon) of one lane per device."""
    return spread(source, [{name: _array(_values(lane)[name]) for name in sorted(traced)} for lane in lanes])


def on_host(state: LaneState, devices: Sequence[int]) -> dict[int, tuple[np.ndarray, ...]]:
    """The leaves of the states of these devices' lanes."""
    leaves = [to_host(leaf) for leaf in jax.tree.leaves(state)] if devices else []
    return {d: tuple(leaf[d] for leaf in leaves) for d in devices}


def restore(state: LaneState, saved: Sequence[Saved | None]) -> LaneState:
    """`state` with each device's lane put back to what was saved of it.

    Raises:
      BadCheckpoint: where what was saved does not fit.
    """
    leaves, tree = jax.tree.flatten(state)
    arrays = [np.array(to_host(leaf)) for leaf in leaves]
    for d, lane in enumerate(saved):
        if lane is not None:
            if why := mismatch(lane.leaves, [array[d] for array in arrays]):
                raise BadCheckpoint(f"The state saved after step {lane.step} does not fit its update rule: {why}.")
            for array, leaf in zip(arrays, lane.leaves, strict=True):
                array[d] = leaf
    return jax.tree.unflatten(tree, [to_device(array, leaf) for array, leaf in zip(arrays, leaves, strict=True)])


def make_students(source: Source):
    """jit (seeds [D], None) -> the students' first parameters."""
    return per_lane(source, lambda seed, _: init_student(source.task, seed))


def make_init(source: Source, spec: RuleSpec):
    """jit (traced values, parameters, None) -> LaneState."""

    def init(traced: dict[str, jax.Array], params: bit.Params, _: None) -> LaneState:
        return LaneState(params, spec.rule(traced).init(params))

    return per_lane(source, init)


def make_advance(source: Source, spec: RuleSpec):
    """jit (state, traced values, start [D], stop [D], chunk, None) -> (state, losses [D, C]).

    Runs steps start..stop of the chunk. The loss of a step is measured before its update; those of other steps
    are NaN. The state is donated.
    """
    task = source.task

    def advance(state: LaneState, traced: dict[str, jax.Array], start: jax.Array, stop: jax.Array, chunk: Chunk, _: None):
        rule = spec.rule(traced)

        def loss_of(params: bit.Params, i: jax.Array) -> jax.Array:
            return kl_divergence(chunk.logits[i], bit.apply(task.student, params, chunk.views[i]), task.temperature)

        def step(i: jax.Array, carry: tuple[LaneState, jax.Array]):
            state, losses = carry
            loss, gradients = jax.value_and_grad(loss_of)(state.params, i)
            updates, rule_state = rule.update(gradients, state.rule, state.params)
            return LaneState(optax.apply_updates(state.params, updates), rule_state), losses.at[i].set(loss)

        return lax.fori_loop(start, stop, step, (state, jnp.full(len(chunk.views), jnp.nan)))

    return per_lane(source, advance, donate=(0,))
