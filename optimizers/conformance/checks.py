"""All conformance checks. Each takes an optimizer and returns None, or why the check failed."""

from __future__ import annotations

from collections.abc import Callable

from optimizers.conformance.buffers import (
    copies_the_parameters_it_keeps,
    holds_no_buffer_twice,
)
from optimizers.conformance.code import imports_no_harness, loads_its_code_when_imported
from optimizers.conformance.fairness import (
    evaluates_as_declared,
    follows_its_schedule,
    moves_to_the_end,
    rests_at_rate_zero,
)
from optimizers.conformance.hyperparameters import (
    decays_towards_zero,
    has_no_dead_hyperparameter,
    uses_its_hyperparameters,
)
from optimizers.conformance.interface import (
    builds,
    extras_match,
    keeps_shapes_and_dtypes,
    state_is_arrays,
    traces_once,
)
from optimizers.conformance.naming import ignores_names, ignores_the_order_of_leaves
from optimizers.conformance.purity import (
    does_the_same_with_jit,
    keeps_everything_in_its_state,
    leaves_its_arguments_alone,
)
from optimizers.conformance.runs import (
    calls_lapack_one_by_one,
    is_batched,
    is_deterministic,
    lowers_losses,
    resumes,
    stays_finite,
)
from optimizers.conformance.state import updates_its_state, uses_every_gradient
from optimizers.contract.api import Optimizer

Check = Callable[[Optimizer], str | None]

QUICK: tuple[Check, ...] = (
    loads_its_code_when_imported,  # before any other runs the optimizer
    builds,
    extras_match,
    state_is_arrays,
    imports_no_harness,
    evaluates_as_declared,
    follows_its_schedule,
    moves_to_the_end,
)
"""Without these, a run fails, or its comparison with others is not fair."""

CHECKS: tuple[Check, ...] = (
    *QUICK,
    keeps_shapes_and_dtypes,
    traces_once,
    holds_no_buffer_twice,
    copies_the_parameters_it_keeps,
    leaves_its_arguments_alone,
    keeps_everything_in_its_state,
    does_the_same_with_jit,
    is_deterministic,
    resumes,
    stays_finite,
    updates_its_state,
    uses_every_gradient,
    lowers_losses,
    is_batched,
    ignores_names,
    ignores_the_order_of_leaves,
    uses_its_hyperparameters,
    has_no_dead_hyperparameter,
    decays_towards_zero,
    rests_at_rate_zero,
    calls_lapack_one_by_one,
)

STRUCTURAL: frozenset[Check] = frozenset(
    {builds, extras_match, state_is_arrays, keeps_shapes_and_dtypes}
)
"""The checks that follow need these: after the first that fails, they would repeat its fault."""

WARNINGS: frozenset[Check] = frozenset({copies_the_parameters_it_keeps, rests_at_rate_zero})
"""What these find may be meant so: it is shown, and fails nothing."""
