"""Lanes: many students on one stream, one compiled program for each update rule.

How lanes lie on devices is the layout's business. A program has no communication between its lanes, so a
lane's numbers do not depend on what runs beside it. Hyperparameters and horizon are arguments of the
program wherever the rule's builder accepts traced values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.extend.core import Jaxpr, jaxprs_in_params
from jax.sharding import PartitionSpec as P

from distill_bench import bit, networks
from distill_bench.accumulate import accumulated
from distill_bench.checkpointing import BadCheckpoint, Saved, mismatch, to_device, to_host
from distill_bench.layout import LANES
from distill_bench.losses import kl_divergence
from distill_bench.stream import Chunk, Source, init_student

Hparams = Mapping[str, Any]
Build = Callable[[Hparams, Any], optax.GradientTransformation]

HORIZON = "horizon"  # the horizon travels with the hyperparameters, under this name

# What jax raises where Python code asks for the value of a traced argument.
_NEEDS_VALUE = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError)


@dataclass(frozen=True)
class Contract:
    """What an update rule is given beyond gradients and parameters, and where it is measured.

    extra_args: names among "value", "grad", "value_fn", "obj_fn" and "grad_fn"; the functions see the step's batch.
    eval_params: (state of the rule, parameters) -> the parameters to measure; None for the parameters themselves.
    """

    extra_args: frozenset[str] = frozenset()
    eval_params: Callable[[Any, bit.Params], bit.Params] | None = None

    def extras(self, loss: jax.Array, gradients: bit.Params, loss_of: Callable[[bit.Params], jax.Array]) -> dict[str, Any]:
        offered = {"value": loss, "grad": gradients, "value_fn": loss_of, "obj_fn": loss_of, "grad_fn": lambda params, _=None: jax.grad(loss_of)(params)}
        return {name: offered[name] for name in sorted(self.extra_args)}


@dataclass(frozen=True)
class Lane:
    """One trial: an update rule at one point of its space, trained for `horizon` steps on the stream of `seed`.

    Lanes with the same `build` share compilations: pass the same function object.
    """

    build: Build
    hparams: Hparams
    horizon: int
    seed: int
    contract: Contract = Contract()


class LaneState(NamedTuple):
    """A student's parameters (bit.Params) and its update rule's state (optax.OptState)."""

    params: Any
    rule: Any


_Carry = tuple[LaneState, jax.Array]  # states and the losses of a chunk's steps


@dataclass(frozen=True)
class RuleSpec:
    """What one compilation serves: a builder and the values that it wants to know while tracing."""

    build: Build
    static: tuple[tuple[str, Any], ...]
    contract: Contract = Contract()

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
            # The norm stands in for the loss: a function of the parameters of which one traces the gradient.
            return rule.update(params, rule.init(params), params, **lane.contract.extras(jnp.float32(1), params, optax.tree.norm))

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
    return RuleSpec(lane.build, tuple(sorted((k, v) for k, v in _values(lane).items() if k not in traced)), lane.contract)


def _array(value: float | int) -> np.ndarray:
    return np.asarray(value, np.int32 if isinstance(value, int) else np.float32)


def traced_values(source: Source, lanes: list[Lane], traced: frozenset[str]) -> dict[str, jax.Array]:
    """The traced hyperparameters (and horizon) of the lanes of one dispatch."""
    return source.layout.spread([{name: _array(_values(lane)[name]) for name in sorted(traced)} for lane in lanes])


def on_host(state: LaneState, places: Sequence[int]) -> dict[int, tuple[np.ndarray, ...]]:
    """The leaves of the states of the lanes at these places of a dispatch."""
    leaves = [to_host(leaf) for leaf in jax.tree.leaves(state)] if places else []
    return {d: tuple(leaf[d] for leaf in leaves) for d in places}


def restore(state: LaneState, saved: Sequence[Saved | None]) -> LaneState:
    """`state` with each lane put back to what was saved of it.

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
    """jit (seeds [D]) -> the students' first parameters."""
    return source.layout.spmd(source.layout.each(lambda seed: init_student(source.task, seed)))


def make_init(source: Source, spec: RuleSpec):
    """jit (traced values, parameters) -> LaneState."""

    def init(traced: dict[str, jax.Array], params: bit.Params) -> LaneState:
        return LaneState(params, spec.rule(traced).init(params))

    return source.layout.spmd(source.layout.each(init))


def make_advance(source: Source, spec: RuleSpec):
    """jit (state, traced values, start [D], stop [D], dealt chunk) -> (state, losses [D, C]), D the lanes of a dispatch.

    Runs steps start..stop of the chunk. The loss of a step is measured before its update; those of other steps
    are NaN. The state is donated.
    """
    task, layout = source.task, source.layout

    def batch_loss(params: bit.Params, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits_NK, views_NHWC = batch
        return kl_divergence(logits_NK, networks.apply(task.student, params, views_NHWC.astype(task.precision), layout.remat), task.temperature)

    step_loss = accumulated(batch_loss, layout.microbatches)

    def loss_of(params: bit.Params, chunk: Chunk, i: jax.Array) -> jax.Array:
        return step_loss(params, (chunk.logits[i], chunk.views[i]))

    def update(chunk: Chunk, i: jax.Array, state: LaneState, loss: jax.Array, gradients: bit.Params, traced: dict[str, jax.Array]) -> LaneState:
        extras = spec.contract.extras(loss, gradients, lambda params: loss_of(params, chunk, i))
        updates, rule_state = spec.rule(traced).update(gradients, state.rule, state.params, **extras)
        return LaneState(optax.apply_updates(state.params, updates), rule_state)

    def alone(chunk: Chunk, state: LaneState, traced: dict[str, jax.Array], start: jax.Array, stop: jax.Array) -> _Carry:
        def step(i: jax.Array, carry: _Carry) -> _Carry:
            state, losses = carry
            loss, gradients = jax.value_and_grad(loss_of)(state.params, chunk, i)
            return update(chunk, i, state, loss, gradients, traced), losses.at[i].set(loss)

        return lax.fori_loop(start, stop, step, (state, jnp.full(len(chunk.views), jnp.nan)))

    def together(states: LaneState, traced: dict[str, jax.Array], start_L: jax.Array, stop_L: jax.Array, chunk: Chunk) -> _Carry:
        """All students' gradients as one batched computation; a lane outside of its start..stop stands still."""

        def step(i: jax.Array, carry: _Carry) -> _Carry:
            states, losses_LC = carry
            loss_L, gradients = jax.vmap(jax.value_and_grad(loss_of), (0, None, None))(states.params, chunk, i)
            runs_L = (start_L <= i) & (i < stop_L)

            def update_one(args: tuple[LaneState, jax.Array, bit.Params, dict[str, jax.Array], jax.Array]) -> LaneState:
                state, loss, gradients, traced, runs = args
                return lax.cond(runs, lambda: update(chunk, i, state, loss, gradients, traced), lambda: state)

            args = (states, loss_L, gradients, traced, runs_L)
            states = jax.vmap(lambda *own: update_one(own))(*args) if batched else lax.map(update_one, args)
            return states, losses_LC.at[:, i].set(jnp.where(runs_L, loss_L, jnp.nan))

        lane, a_traced = jax.tree.map(lambda x: x[0], (states, traced))
        batched = batches_well(update, chunk, start_L[0], lane, jnp.float32(0), lane.params, a_traced)
        return lax.fori_loop(start_L.min(), stop_L.max(), step, (states, jnp.full((len(start_L), len(chunk.views)), jnp.nan)))

    def advance(states: LaneState, traced: dict[str, jax.Array], start: jax.Array, stop: jax.Array, dealt: Chunk) -> _Carry:
        chunk = jax.tree.map(lambda x: x[0], dealt)
        if layout.mapping == "vmap":
            return together(states, traced, start, stop, chunk)
        return layout.each(functools.partial(alone, chunk))(states, traced, start, stop)

    return layout.spmd(advance, last=P(LANES), donate=(0,))


def make_eval_params(source: Source, spec: RuleSpec):
    """jit (states) -> the parameters at which each lane is measured."""
    eval_params = spec.contract.eval_params
    if eval_params is None:
        return lambda states: states.params
    return source.layout.spmd(source.layout.each(lambda state: eval_params(state.rule, state.params)))


def make_diagnose(source: Source, diagnose: Callable[[Any], dict[str, jax.Array]]):
    """jit (states of the update rules) -> scalars [D] under their names."""
    return source.layout.spmd(source.layout.each(diagnose))


# A batch of lanes computes both sides of a branch, runs a loop to its longest, and batches LAPACK, which deadlocks on CPU.
_NOT_BATCHED = {"cond", "while", "eigh", "eig", "qr", "svd", "cholesky", "lu", "householder_product", "triangular_solve"}


def batches_well(function: Callable, *args: Any) -> bool:
    """Whether the traced function holds nothing that vmap would make slow or unsafe."""

    def well(jaxpr: Jaxpr) -> bool:
        return all(equation.primitive.name not in _NOT_BATCHED and all(map(well, jaxprs_in_params(equation.params))) for equation in jaxpr.eqns)

    return well(jax.make_jaxpr(function)(*args).jaxpr)
