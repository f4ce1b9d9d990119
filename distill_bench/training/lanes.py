"""Lanes: many students trained on one stream, by one compiled program for each update rule.

The layout decides how lanes lie on devices. Lanes do not communicate within a program, so a
lane's numbers do not depend on what runs beside it. Hyperparameters and horizon are arguments of
the program if the rule's builder accepts traced values.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import PartitionSpec as P

from distill_bench.networks import bit, network
from distill_bench.tasks.task import Task
from distill_bench.training.lane_layout import LANES
from distill_bench.training.lane_state import Saved, mismatch, to_device, to_host
from distill_bench.training.losses import kl_divergence
from distill_bench.training.parts import LossOf, accumulated, fitting
from distill_bench.training.program import Program
from distill_bench.training.rules import Lane, RuleSpec, as_array, values_of
from distill_bench.training.source import Source, init_student
from distill_bench.training.stream import Chunk
from distill_bench.training.update_program import audited, batches_well

Traced = dict[str, jax.Array]  # hyperparameters and horizon that are arguments of the program


class LaneState(NamedTuple):
    """A student's parameters (bit.Params) and its update rule's state (optax.OptState)."""

    params: Any
    rule: Any


_Carry = tuple[LaneState, jax.Array]  # states, and the losses of a chunk's steps


def traced_values(source: Source, lanes: list[Lane], traced: frozenset[str]) -> Traced:
    """The traced hyperparameters (and horizon) of the lanes of one dispatch."""
    return source.layout.spread(
        [{name: as_array(values_of(lane)[name]) for name in sorted(traced)} for lane in lanes]
    )


def on_host(state: LaneState, places: Sequence[int]) -> dict[int, tuple[np.ndarray, ...]]:
    """The state's leaves for the lanes at these places of a dispatch."""
    leaves = [to_host(leaf) for leaf in jax.tree.leaves(state)] if places else []
    return {place: tuple(leaf[place] for leaf in leaves) for place in places}


def restore(state: LaneState, saved: Sequence[Saved | None]) -> tuple[LaneState, dict[int, str]]:
    """`state` with every lane that has a saved state put back to it.

    A saved state that does not fit is not used: the second result says why, by place.
    """
    leaves, tree = jax.tree.flatten(state)
    arrays = [np.array(to_host(leaf)) for leaf in leaves]
    unfit: dict[int, str] = {}
    for place, lane in enumerate(saved):
        if lane is None:
            continue
        if why := mismatch(lane.leaves, [array[place] for array in arrays]):
            unfit[place] = why
            continue
        for array, leaf in zip(arrays, lane.leaves, strict=True):
            array[place] = leaf
    restored = [to_device(array, leaf) for array, leaf in zip(arrays, leaves, strict=True)]
    return jax.tree.unflatten(tree, restored), unfit


def make_students(source: Source) -> Program:
    """Program (seeds [D], `source.start`) -> the students' first parameters.

    They are fresh, or copies of the start parameters.
    """
    layout, task = source.layout, source.task
    if source.start is None:
        fresh = layout.each(lambda seed: init_student(task, seed))
        return layout.spmd(lambda seeds, start: fresh(seeds), last=P())
    return layout.spmd(lambda seeds, start: layout.each(lambda seed: start)(seeds), last=P())


def make_init(source: Source, spec: RuleSpec) -> Program:
    """Program (traced values, parameters) -> LaneState."""

    def init(traced: Traced, params: bit.Params) -> LaneState:
        return LaneState(params, spec.rule(traced).init(params))

    return source.layout.spmd(source.layout.each(init))


@dataclass(frozen=True)
class _Training:
    """What the functions of one program share.

    step_loss: (parameters, (teacher logits, views) of a batch) -> loss.
    """

    spec: RuleSpec
    step_loss: LossOf


def make_advance(source: Source, spec: RuleSpec) -> Program:
    """Program (state, traced values, start [D], stop [D], chunk) -> (state, losses [D, C]).

    The chunk is scattered over the rows of devices, see stream.SCATTERED.
    D is the number of lanes of a dispatch. Lane d runs the chunk's steps start[d] to stop[d]. The
    loss of a step is measured before its update; losses of all other steps are NaN. The state is
    donated.
    """
    layout, task = source.layout, source.task
    parts = fitting(layout, task.student, task.views.size, task.batch_size, layout.microbatches)
    loss_of = functools.partial(batch_loss, task, layout.remat)
    training = _Training(spec, accumulated(loss_of, parts))

    def advance(
        states: LaneState, traced: Traced, start: jax.Array, stop: jax.Array, scattered: Chunk
    ) -> _Carry:
        chunk = jax.tree.map(lambda x: x[0], scattered)
        if layout.mapping == "vmap":
            return _advance_together(training, chunk, states, traced, start, stop)
        alone = functools.partial(_advance_alone, training, chunk)
        return layout.each(alone)(states, traced, start, stop)

    return layout.spmd(advance, last=P(LANES), donate=(0,))


def batch_loss(
    task: Task, remat: bool, params: bit.Params, batch: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """The distillation loss of a student on (teacher logits, views)."""
    logits, views_NHWC = batch
    student_NK = network.apply(task.student, params, views_NHWC.astype(task.precision), remat)
    # A temperature would flatten labels, which are certain.
    return kl_divergence(logits, student_NK, 1.0 if task.teaching.labels else task.temperature)


def _loss(training: _Training, params: bit.Params, chunk: Chunk, i: jax.Array) -> jax.Array:
    """The loss on step `i` of the chunk."""
    return training.step_loss(params, (chunk.logits[i], chunk.views[i]))


def _update(
    training: _Training,
    chunk: Chunk,
    i: jax.Array,
    state: LaneState,
    loss: jax.Array,
    gradients: bit.Params,
    traced: Traced,
) -> LaneState:
    """One lane's update on step `i` of the chunk."""
    update = functools.partial(_unchecked_update, training)
    if audit := training.spec.contract.audit:
        update = audited(audit, update)
    return update(chunk, i, state, loss, gradients, traced)


def _unchecked_update(
    training: _Training,
    chunk: Chunk,
    i: jax.Array,
    state: LaneState,
    loss: jax.Array,
    gradients: bit.Params,
    traced: Traced,
) -> LaneState:
    spec = training.spec
    extras = spec.contract.extras(loss, gradients, lambda params: _loss(training, params, chunk, i))
    updates, rule_state = spec.rule(traced).update(gradients, state.rule, state.params, **extras)
    return LaneState(optax.apply_updates(state.params, updates), rule_state)


def _advance_alone(
    training: _Training,
    chunk: Chunk,
    state: LaneState,
    traced: Traced,
    start: jax.Array,
    stop: jax.Array,
) -> _Carry:
    """One lane's steps."""

    def step(i: jax.Array, carry: _Carry) -> _Carry:
        state, losses_C = carry
        loss, gradients = jax.value_and_grad(functools.partial(_loss, training))(
            state.params, chunk, i
        )
        state = _update(training, chunk, i, state, loss, gradients, traced)
        return state, losses_C.at[i].set(loss)

    return lax.fori_loop(start, stop, step, (state, jnp.full(len(chunk.views), jnp.nan)))


def _advance_together(
    training: _Training,
    chunk: Chunk,
    states: LaneState,
    traced: Traced,
    start_L: jax.Array,
    stop_L: jax.Array,
) -> _Carry:
    """The steps of all L lanes, whose gradients are one batched computation.

    A lane stands still in steps outside its own start and stop.
    """
    loss_of = functools.partial(_loss, training)
    state, own_traced = jax.tree.map(lambda x: x[0], (states, traced))
    batched = batches_well(
        functools.partial(_update, training),
        *(chunk, start_L[0], state, jnp.float32(0), state.params, own_traced),
    )

    def step(i: jax.Array, carry: _Carry) -> _Carry:
        states, losses_LC = carry
        loss_L, gradients = jax.vmap(jax.value_and_grad(loss_of), (0, None, None))(
            states.params, chunk, i
        )
        runs_L = (start_L <= i) & (i < stop_L)
        update = functools.partial(_update_if, training, chunk, i)
        lanes = (runs_L, states, loss_L, gradients, traced)
        states = jax.vmap(update)(*lanes) if batched else lax.map(lambda lane: update(*lane), lanes)
        return states, losses_LC.at[:, i].set(jnp.where(runs_L, loss_L, jnp.nan))

    losses_LC = jnp.full((len(start_L), len(chunk.views)), jnp.nan)
    return lax.fori_loop(start_L.min(), stop_L.max(), step, (states, losses_LC))


def _update_if(
    training: _Training,
    chunk: Chunk,
    i: jax.Array,
    runs: jax.Array,
    state: LaneState,
    loss: jax.Array,
    gradients: bit.Params,
    traced: Traced,
) -> LaneState:
    """One lane's update if the lane runs, else its state as it is."""
    return lax.cond(
        runs,
        lambda: _update(training, chunk, i, state, loss, gradients, traced),
        lambda: state,
    )


def make_eval_params(source: Source, spec: RuleSpec) -> Program | None:
    """Program (states) -> the parameters at which each lane is measured.

    None if a lane is measured at its parameters.
    """
    eval_params = spec.contract.eval_params
    if eval_params is None:
        return None
    return source.layout.spmd(
        source.layout.each(lambda state: eval_params(state.rule, state.params))
    )
