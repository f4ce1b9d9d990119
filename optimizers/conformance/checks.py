"""All conformance checks. Each takes an optimizer and returns None, or why the check failed."""

from __future__ import annotations

from collections.abc import Callable

from optimizers.conformance.code import imports_no_harness, loads_its_code_when_imported
from optimizers.conformance.fairness import (
    evaluates_as_declared,
    follows_its_schedule,
    moves_to_the_end,
)
from optimizers.conformance.hyperparameters import has_no_dead_hyperparameter
from optimizers.conformance.interface import (
    builds,
    extras_match,
    keeps_shapes_and_dtypes,
    state_is_arrays,
    traces_once,
)
from optimizers.conformance.runs import (
    calls_lapack_one_by_one,
    is_batched,
    is_deterministic,
    lowers_losses,
    resumes,
    stays_finite,
)
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
    is_deterministic,
    resumes,
    stays_finite,
    lowers_losses,
    is_batched,
    has_no_dead_hyperparameter,
    calls_lapack_one_by_one,
)
