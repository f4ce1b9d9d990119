"""Lanes: many students on one stream, one compiled program for each update rule.

How lanes lie on devices is the layout's business. A program has no communication between its lanes, so a
lane's numbers do not depend on what runs beside it. Hyperparameters and horizon are arguments of the
program wherever the rule's builder accepts traced values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.extend.core import Jaxpr, jaxprs_in_params
from jax.sharding import PartitionSpec as P

from distill_bench.networks import bit, network
from distill_bench.tasks.task import Task
from distill_bench.training.accumulate import accumulated
from distill_bench.training.lane_layout import LANES
from distill_bench.training.lane_state import BadCheckpoint, Saved, mismatch, to_device, to_host
from distill_bench.training.losses import kl_divergence
from distill_bench.training.rules import Lane, RuleSpec, as_array, values_of
from distill_bench.training.source import Source, init_student
from distill_bench.training.stream import Chunk


class LaneState(NamedTuple):
    """A student's parameters (bit.Params) and its update rule's state (optax.OptState)."""

    params: Any
    rule: Any


_Carry = tuple[LaneState, jax.Array]  # states and the losses of a chunk's steps


def traced_values(
    source: Source, lanes: list[Lane], traced: frozenset[str]
) -> dict[str, jax.Array]:
    """The traced hyperparameters (and horizon) of the lanes of one dispatch."""
    return source.layout.spread(
        [{name: as_array(values_of(lane)[name]) for name in sorted(traced)} for lane in lanes]
    )


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
                raise BadCheckpoint(
                    f"The state saved after step {lane.step} does not fit its update rule: {why}."
                )
            for array, leaf in zip(arrays, lane.leaves, strict=True):
                array[d] = leaf
    return jax.tree.unflatten(
        tree, [to_device(array, leaf) for array, leaf in zip(arrays, leaves, strict=True)]
    )


def make_students(source: Source):
    """jit (seeds [D]) -> the students' first parameters: fresh ones, or those that all start from."""
    layout = source.layout
    if source.start is None:
        return layout.spmd(layout.each(lambda seed: init_student(source.task, seed)))
    # An argument, and no constant of the program: it may be gigabytes.
    copies = layout.spmd(lambda seeds, start: layout.each(lambda seed: start)(seeds), last=P())
    return lambda seeds: copies(seeds, source.start)


def params_of(task: Task, leaves: Sequence[np.ndarray]) -> bit.Params:
    """The student's parameters, of the leaves of a LaneState."""
    tree = jax.tree.structure(jax.eval_shape(lambda: init_student(task, 0)))
    return jax.tree.unflatten(tree, leaves[: tree.num_leaves])


def make_init(source: Source, spec: RuleSpec):
    """jit (traced values, parameters) -> LaneState."""

    def init(traced: dict[str, jax.Array], params: bit.Params) -> LaneState:
        return LaneState(params, spec.rule(traced).init(params))

    return source.layout.spmd(source.layout.each(init))


def make_advance(source: Source, spec: RuleSpec):
    """jit (state, traced values, start [D], stop [D], scattered chunk) -> (state, losses [D, C]), D the lanes of a dispatch.

    Runs steps start..stop of the chunk. The loss of a step is measured before its update; those of other steps
    are NaN. The state is donated.
    """
    task, layout = source.task, source.layout

    def batch_loss(params: bit.Params, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits_NK, views_NHWC = batch
        return kl_divergence(
            logits_NK,
            network.apply(task.student, params, views_NHWC.astype(task.precision), layout.remat),
            task.temperature,
        )

    step_loss = accumulated(batch_loss, layout.microbatches)

    def loss_of(params: bit.Params, chunk: Chunk, i: jax.Array) -> jax.Array:
        return step_loss(params, (chunk.logits[i], chunk.views[i]))

    def update(
        chunk: Chunk,
        i: jax.Array,
        state: LaneState,
        loss: jax.Array,
        gradients: bit.Params,
        traced: dict[str, jax.Array],
    ) -> LaneState:
        extras = spec.contract.extras(loss, gradients, lambda params: loss_of(params, chunk, i))
        updates, rule_state = spec.rule(traced).update(
            gradients, state.rule, state.params, **extras
        )
        return LaneState(optax.apply_updates(state.params, updates), rule_state)

    def alone(
        chunk: Chunk,
        state: LaneState,
        traced: dict[str, jax.Array],
        start: jax.Array,
        stop: jax.Array,
    ) -> _Carry:
        def step(i: jax.Array, carry: _Carry) -> _Carry:
            state, losses = carry
            loss, gradients = jax.value_and_grad(loss_of)(state.params, chunk, i)
            return update(chunk, i, state, loss, gradients, traced), losses.at[i].set(loss)

        return lax.fori_loop(start, stop, step, (state, jnp.full(len(chunk.views), jnp.nan)))

    def together(
        states: LaneState,
        traced: dict[str, jax.Array],
        start_L: jax.Array,
        stop_L: jax.Array,
        chunk: Chunk,
    ) -> _Carry:
        """All students' gradients as one batched computation; a lane outside of its start..stop stands still."""

        def step(i: jax.Array, carry: _Carry) -> _Carry:
            states, losses_LC = carry
            loss_L, gradients = jax.vmap(jax.value_and_grad(loss_of), (0, None, None))(
                states.params, chunk, i
            )
            runs_L = (start_L <= i) & (i < stop_L)

            def update_one(
                args: tuple[LaneState, jax.Array, bit.Params, dict[str, jax.Array], jax.Array],
            ) -> LaneState:
                state, loss, gradients, traced, runs = args
                return lax.cond(
                    runs, lambda: update(chunk, i, state, loss, gradients, traced), lambda: state
                )

            args = (states, loss_L, gradients, traced, runs_L)
            states = (
                jax.vmap(lambda *own: update_one(own))(*args)
                if batched
                else lax.map(update_one, args)
            )
            return states, losses_LC.at[:, i].set(jnp.where(runs_L, loss_L, jnp.nan))

        lane, a_traced = jax.tree.map(lambda x: x[0], (states, traced))
        batched = batches_well(
            update, chunk, start_L[0], lane, jnp.float32(0), lane.params, a_traced
        )
        return lax.fori_loop(
            start_L.min(),
            stop_L.max(),
            step,
            (states, jnp.full((len(start_L), len(chunk.views)), jnp.nan)),
        )

    def advance(
        states: LaneState,
        traced: dict[str, jax.Array],
        start: jax.Array,
        stop: jax.Array,
        scattered: Chunk,
    ) -> _Carry:
        chunk = jax.tree.map(lambda x: x[0], scattered)
        if layout.mapping == "vmap":
            return together(states, traced, start, stop, chunk)
        return layout.each(functools.partial(alone, chunk))(states, traced, start, stop)

    return layout.spmd(advance, last=P(LANES), donate=(0,))


def make_eval_params(source: Source, spec: RuleSpec):
    """jit (states) -> the parameters at which each lane is measured."""
    eval_params = spec.contract.eval_params
    if eval_params is None:
        return lambda states: states.params
    return source.layout.spmd(
        source.layout.each(lambda state: eval_params(state.rule, state.params))
    )


def make_diagnose(source: Source, diagnose: Callable[[Any], dict[str, jax.Array]]):
    """jit (states of the update rules) -> scalars [D] under their names."""
    return source.layout.spmd(source.layout.each(diagnose))


# A batch of lanes computes both sides of a branch, runs a loop to its longest, and batches LAPACK, which deadlocks on CPU.
_NOT_BATCHED = {
    "cond",
    "while",
    "eigh",
    "eig",
    "qr",
    "svd",
    "cholesky",
    "lu",
    "householder_product",
    "triangular_solve",
}


def batches_well(function: Callable, *args: Any) -> bool:
    """Whether the traced function holds nothing that vmap would make slow or unsafe."""

    def well(jaxpr: Jaxpr) -> bool:
        return all(
            equation.primitive.name not in _NOT_BATCHED
            and all(map(well, jaxprs_in_params(equation.params)))
            for equation in jaxpr.eqns
        )

    return well(jax.make_jaxpr(function)(*args).jaxpr)
