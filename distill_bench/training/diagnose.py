"""Diagnostics of update rules: what a step would do to a student, on a batch that never changes.

They are computed beside training, at the points of a curve, so that training is the same without
them: the gradient is that of the loss on the first batch of the evaluation set (probe views), and
the update that follows from it is looked at and not applied.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from distill_bench.networks import bit
from distill_bench.training.evaluate import EvalSet
from distill_bench.training.lanes import LaneState, Traced, batch_loss
from distill_bench.training.program import Program
from distill_bench.training.rules import Contract, RuleSpec
from distill_bench.training.source import Source

Observe = Callable[[Any, bit.Params, bit.Params, bit.Params], dict[str, jax.Array]]
"""(rule's state, updates, parameters, gradients) -> scalars by name."""


def make_diagnose(source: Source, spec: RuleSpec, observe: Observe | None) -> Program:
    """Program (states, traced values, eval_set) -> scalars [D] by name.

    Those of `observe`, and those that the rule itself declares (`Contract.diagnostics`).

    The program raises ValueError while it is traced, if one of the rule's own is not a scalar.
    """
    layout, own = source.layout, spec.contract.diagnostics
    # What is evaluated here is not training, so nobody counts it.
    contract = dataclasses.replace(spec.contract, audit=None)

    def one(eval_set: EvalSet, state: LaneState, traced: Traced) -> dict[str, jax.Array]:
        updates, gradients = _step(source, spec, contract, eval_set, state, traced)
        found = observe(state.rule, updates, state.params, gradients) if observe else {}
        return found | (named(own(state.rule, updates, state.params)) if own else {})

    def diagnose(states: LaneState, traced: Traced, eval_set: EvalSet) -> dict[str, jax.Array]:
        return layout.each(lambda state, values: one(eval_set, state, values))(states, traced)

    return layout.spmd(diagnose, last=P())


def _step(
    source: Source,
    spec: RuleSpec,
    contract: Contract,
    eval_set: EvalSet,
    state: LaneState,
    traced: Traced,
) -> tuple[bit.Params, bit.Params]:
    """The update, and the gradient, on the first batch of the evaluation set."""

    def loss_of(params: bit.Params) -> jax.Array:
        batch = (eval_set.logits[0], eval_set.images[0])
        return batch_loss(source.task, source.layout.remat, params, batch)

    loss, gradients = jax.value_and_grad(loss_of)(state.params)
    extras = contract.extras(loss, gradients, loss_of)
    updates: Any = spec.rule(traced).update(gradients, state.rule, state.params, **extras)[0]
    return updates, gradients


def norms(
    state: Any, updates: bit.Params, params: bit.Params, gradients: bit.Params
) -> dict[str, jax.Array]:
    """Euclidean norms over all parameters, and the update's relative to the weights'."""
    del state
    update, weights = optax.tree.norm(updates), optax.tree.norm(params)
    return {
        "gradient_norm": optax.tree.norm(gradients),
        "update_norm": update,
        "update_to_weight": update / jnp.maximum(weights, 1e-12),
    }


def named(tree: Any) -> dict[str, jax.Array]:
    """The tree's leaves by their paths, such as "block1/unit01/a".

    Raises:
      ValueError: if a leaf is not a scalar.
    """
    found: dict[str, jax.Array] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name, value = jax.tree_util.keystr(path, simple=True, separator="/"), jnp.asarray(leaf)
        if value.shape:
            raise ValueError(
                f"The diagnostic {name or 'that it returned'} has shape {value.shape}: return one "
                "number for each name, such as its mean."
            )
        found[name or "value"] = value
    return found
