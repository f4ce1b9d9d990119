"""Each conformance check catches a broken optimizer, and built-ins pass the fast checks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from optimizers.conformance import checks
from optimizers.conformance.suite import examine
from optimizers.contract import registry
from support.paths import ROOT

HEAD = """
from typing import Annotated
import jax, jax.numpy as jnp, numpy as np, optax
from optimizers import Choice, Log, Schedule, optimizer

calls = [0]
"""
BROKEN = {
    "has_no_dead_hyperparameter": (
        "b1 change",
        """
@optimizer
def broken(
    lr: Annotated[Schedule, Log(1e-2, 1e-1)] = 1e-2,
    *,
    b1: Annotated[float, Choice(0.8, 0.9)] = 0.9,
):
    return optax.adam(lr, 0.9)
""",
    ),
    "has_no_dead_hyperparameter ": (
        "lr, warmup change",
        """
@optimizer
def broken(lr: Annotated[Schedule, Log(1e-2, 1e-1)] = 1e-2):
    return optax.adam(1e-2)
""",
    ),
    "keeps_shapes_and_dtypes": (
        "with bfloat16 parameters, the update",
        """
@optimizer
def broken(lr: Schedule = 1e-2):
    def update(updates, params):
        return jax.tree.map(lambda u: -0.01 * u.astype(jnp.float32), updates)
    return optax.stateless(update)
""",
    ),
    "keeps_shapes_and_dtypes ": (
        "should be float32[5], but is float32[1, 5]",
        """
@optimizer
def broken(lr: Schedule = 1e-2):
    def update(updates, params):
        return jax.tree.map(lambda u: u[None] if u.ndim == 1 else u, updates)
    return optax.stateless(update)
""",
    ),
    "state_is_arrays": (
        "is a Python int: make it an array",
        """
@optimizer
def broken(lr: Schedule = 1e-2):
    def update(updates, state, params=None):
        return updates, {"count": state["count"] + 1}
    return optax.GradientTransformation(lambda params: {"count": 0}, update)
""",
    ),
    "is_deterministic": (
        "two runs from the same start differ",
        """
@optimizer
def broken(lr: Schedule = 1e-2):
    def update(updates, params):
        return jax.tree.map(lambda u: -0.01 * u * np.random.default_rng().uniform(), updates)
    return optax.stateless(update)
""",
    ),
    "is_deterministic ": (
        "global state",
        """
@optimizer
def broken(lr: Schedule = 1e-2):
    def update(updates, params):
        calls[0] += 1
        return jax.tree.map(lambda u: -0.01 * u / calls[0], updates)
    return optax.stateless(update)
""",
    ),
    "traces_once": (
        "traced 2 times",
        """
@optimizer
def broken(lr: Schedule = 1e-2):
    def update(updates, state, params=None):
        return updates, state + jnp.float32(1)
    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)
""",
    ),
    "extras_match": (
        "update(gradients, state, params) raises TypeError",
        """
@optimizer
def broken(lr: Schedule = 1e-2):
    return optax.GradientTransformation(lambda params: (), lambda updates, state: (updates, state))
""",
    ),
    "extras_match ": (
        "update needs 'value': declare it",
        """
@optimizer
def broken(lr: Schedule = 1e-2):
    def update(updates, state, params=None, *, value):
        return jax.tree.map(lambda u: u * value, updates), state
    return optax.GradientTransformationExtraArgs(lambda params: (), update)
""",
    ),
    "extras_match  ": (
        "declares 'grad_fn', but update works without it",
        """
@optimizer(extra_args=("grad_fn",))
def broken(lr: Schedule = 1e-2):
    return optax.with_extra_args_support(optax.sgd(lr))
""",
    ),
    "stays_finite": (
        "not finite after step 8",
        """
@optimizer
def broken(lr: Schedule = 1e-2):
    def update(updates, count, params=None):
        def nan_at_step_8(u):
            return jnp.where(count == 7, jnp.nan, -0.01 * u).astype(u.dtype)
        return jax.tree.map(nan_at_step_8, updates), count + 1
    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)
""",
    ),
    "lowers_losses": (
        "20 steps do not lower a quadratic",
        """
@optimizer
def broken(lr: Schedule = 1e-2):
    return optax.sgd(-1.0)
""",
    ),
    "calls_lapack_one_by_one": (
        "matrices at once: use jax.lax.map",
        """
@optimizer
def broken(lr: Schedule = 1e-2):
    def whiten(u):
        if u.ndim < 2:
            return u
        stack = jnp.stack([u.reshape(-1, u.shape[-1])[:4, :4]] * 3)
        return u * jnp.linalg.eigh(stack @ stack.swapaxes(1, 2))[0].sum()
    return optax.stateless(lambda updates, params: jax.tree.map(whiten, updates))
""",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_optimizer_fails_the_right_check(tmp_path, name):
    message, source = BROKEN[name]
    path = tmp_path / "broken.py"
    path.write_text(HEAD + source)
    reason = getattr(checks, name.strip())(registry.resolve(str(path)).optimizer)
    assert reason is not None
    assert message in reason


LONG_WARMUP = """
# 1,500 steps of warm-up times a cosine. Up to a horizon of 1,500 steps, the rate is always zero.
def absolute(peak, steps):
    def schedule(count):
        progress = jnp.clip((count - 1500) / (steps - 1500), 0, 1)
        return peak * jnp.minimum(count / 1500, 1) * (1 + jnp.cos(jnp.pi * progress)) / 2
    return schedule

# The same, but a horizon of up to 1,500 steps is refused.
def refusing(peak, steps):
    return optax.warmup_cosine_decay_schedule(0.0, peak, 1500, steps)

@optimizer(schedule=SHAPE)
def patient(
    lr: Annotated[Schedule, Choice(3e-4, 1e-2)] = 3e-3,
    *,
    b1: Annotated[float, Choice(0.8, 0.9)] = 0.9,
    weight_decay: float = 1e-5,
):
    return optax.adamw(RATE, B1, weight_decay=weight_decay)
"""


def patient(folder, shape="absolute", rate="lr", b1="b1"):
    path = folder / "patient.py"
    source = LONG_WARMUP.replace("SHAPE", shape).replace("RATE", rate).replace("B1", b1)
    path.write_text(HEAD + source)
    return registry.resolve(str(path)).optimizer


@pytest.mark.parametrize("shape", ["absolute", pytest.param("refusing", marks=pytest.mark.long)])
def test_a_rule_with_a_long_warmup_passes(tmp_path, shape):
    reasons = {outcome.check: outcome.reason for outcome in examine(patient(tmp_path, shape))}
    assert len(reasons) == len(checks.CHECKS)
    assert not any(reasons.values()), reasons


def test_a_rule_with_a_long_warmup_fails_for_its_own_faults(tmp_path):
    dead = patient(tmp_path, b1="0.9")
    assert checks.has_no_dead_hyperparameter(dead) == "b1 changes nothing within 10,000 steps"
    uphill = patient(tmp_path, rate="lambda count: -lr(count)")
    reason = checks.lowers_losses(uphill)
    assert reason is not None
    assert "10,000 steps do not lower a quadratic" in reason


def test_an_exception_is_reported_with_its_line(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(
        HEAD
        + "\n@optimizer\ndef broken(lr: Schedule = 1e-2):\n"
        + "    raise ArithmeticError('my own words')\n"
    )
    outcomes = list(examine(registry.resolve(str(path)).optimizer))
    assert [o.check for o in outcomes if o.reason] == ["builds"]
    assert outcomes[-1].reason == f"ArithmeticError: my own words ({path}:10)"


def test_the_command_reports_failures_with_reasons(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(HEAD + BROKEN["keeps_shapes_and_dtypes "][1])

    def run(*specs):
        return subprocess.run(
            [sys.executable, "-m", "optimizers.conformance", *specs],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )

    unknown = run("nope")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "Unknown optimizer 'nope'" in unknown.stderr
    done = run(str(path))
    assert done.returncode == 1
    assert "  FAIL  keeps shapes and dtypes: with float32 parameters, the update" in done.stdout
    assert "  pass  state is arrays" in done.stdout


@pytest.mark.parametrize("name", registry.builtins())
def test_every_builtin_passes_the_fast_checks(name):
    """The full suite over all built-ins is slow and run by hand (see CONTRIBUTING.md)."""
    opt = registry.resolve(name).optimizer
    assert opt.doc
    for check in (
        checks.builds,
        checks.extras_match,
        checks.state_is_arrays,
        checks.keeps_shapes_and_dtypes,
        checks.uses_its_hyperparameters,
    ):
        assert check(opt) is None


@pytest.mark.long
def test_a_rule_that_magnifies_rounding_errors_is_batched():
    """Its first eigenvectors, of matrices of low rank, depend on rounding errors."""
    opt = registry.resolve("kl_soap").optimizer
    assert checks.is_batched(opt) is None
    assert checks.does_the_same_with_jit(opt) is None


def test_sam_and_lookahead_hold_where_plain_normalizing_and_keeping_would_not():
    """A gradient of exactly zero has no direction; parameters that are kept are a copy."""
    assert checks.stays_finite(registry.resolve("sam").optimizer) is None
    assert checks.copies_the_parameters_it_keeps(registry.resolve("lookahead").optimizer) is None


@pytest.mark.parametrize("factory", ["yogi", "lbfgs", "momo", "schedule_free_sgd", "sophia"])
def test_optimizers_of_optax_need_no_file(factory):
    opt = registry.resolve(f"optax:{factory}").optimizer
    assert opt.name == f"optax_{factory}"
    assert checks.extras_match(opt) is None
    assert checks.keeps_shapes_and_dtypes(opt) is None


def test_unknown_and_unfit_optimizers_of_optax_are_refused():
    with pytest.raises(registry.UnknownOptimizer, match="Did you mean optax:yogi"):
        registry.resolve("optax:yogy")
    with pytest.raises(registry.UnknownOptimizer, match="write a file"):
        registry.resolve("optax:schedule_free")
