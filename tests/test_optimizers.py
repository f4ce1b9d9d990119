"""`@optimizer`, the registry and the built-in optimizers."""

from __future__ import annotations

import math
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizers import Choice, Log, Schedule, Uniform, optimizer
from optimizers.contract import registry, schedules


@optimizer
def example(
    lr: Annotated[Schedule, Log(1e-3, 1e-1)] = 1e-2,
    *,
    b1: Annotated[float, Uniform(0.8, 1)] = 0.9,
    nesterov: bool = False,
    k: int = 3,
):
    """An example."""
    return optax.chain(optax.trace(b1, nesterov), optax.scale_by_learning_rate(lr))


def test_a_declaration_is_read_from_its_signature():
    assert example.name == "example"
    assert example.doc == "An example."
    assert example.space == {"lr": Log(1e-3, 1e-1), "b1": Uniform(0.8, 1)}
    assert example.defaults == {"lr": 1e-2, "b1": 0.9, "nesterov": False, "k": 3}
    assert example.scheduled == {"lr"}
    assert example.builder is example.builder


@given(u=st.floats(0, 1))
def test_domains_map_fractions_to_their_values(u):
    assert 1e-3 * (1 - 1e-9) <= Log(1e-3, 1e-1).at(u) <= 1e-1 * (1 + 1e-9)
    assert Log(1e-3, 1e-1).at(0.5) == pytest.approx(1e-2)
    assert 2 <= Uniform(2, 5).at(u) <= 5
    assert Choice("a", "b", "c").at(u) == "abc"[min(int(3 * u), 2)]


@pytest.mark.parametrize(
    "make", [lambda: Log(0, 1), lambda: Log(2, 1), lambda: Uniform(1, 1), lambda: Choice()]
)
def test_empty_domains_are_rejected(make):
    with pytest.raises(ValueError, match=r"not a range|no values"):
        make()


def test_bad_declarations_are_rejected_by_name():
    def no_default(lr):
        return optax.sgd(lr)

    def variadic(**hparams):
        return optax.sgd(1.0)

    def two(lr: Annotated[Schedule, Log(1, 2), Uniform(1, 2)] = 1.0):
        return optax.sgd(lr)

    def reserved(horizon: float = 1.0):
        return optax.sgd(1.0)

    for function, message in [
        (no_default, "'lr' of no_default has no default"),
        (variadic, "without"),
        (two, "2 search domains"),
        (reserved, "reserved"),
    ]:
        with pytest.raises(TypeError, match=message):
            optimizer(function)
    with pytest.raises(ValueError, match=r"'cosine'.*unknown schedule"):
        optimizer(schedule="cosine")(two)


def test_a_function_that_returns_no_transformation_is_rejected():
    @optimizer
    def wrong(lr: Schedule = 0.1):
        return lr

    with pytest.raises(TypeError, match=r"wrong\(\) returned"):
        wrong.build({}, 10)


@pytest.mark.parametrize("horizon", [1, 10, 250, 4000])
def test_the_default_schedule_warms_up_and_decays_to_zero(horizon):
    rates = np.asarray(schedules.warmup_cosine(0.3, horizon)(np.arange(horizon + 1)), np.float64)
    w = max(0.1 * horizon, 1.0)
    t = np.arange(horizon + 1)
    decay = np.clip((t + 1 - w) / max(horizon - w + 1, 1.0), 0, 1)
    np.testing.assert_allclose(
        rates, 0.3 * np.minimum((t + 1) / w, 0.5 * (1 + np.cos(math.pi * decay))), atol=1e-6
    )
    assert rates[:-1].min() > 0
    assert rates[-1] == pytest.approx(0, abs=1e-6)
    assert rates.max() <= 0.3 * (1 + 1e-6)


def test_a_constant_schedule_is_constant():
    constant = optimizer(schedule="constant")(example.make)
    assert np.asarray(
        constant.learning_rate({"lr": 0.5}, 100, jnp.arange(3))
    ).tolist() == pytest.approx(0.5)


def test_the_builtins_are_listed_without_importing_them():
    assert {"adamw", "muon", "nesterov", "shampoo", "soap"} <= set(registry.builtins())


def write(path, text):
    path.write_text("from optimizers import optimizer\nimport optax\n" + text)
    return path


DECLARATION = "@optimizer\ndef {}(lr: float = 0.1):\n    return optax.sgd(lr)\n"


def test_optimizers_are_found_in_files_packages_and_by_name(tmp_path, monkeypatch):
    one = write(tmp_path / "one.py", DECLARATION.format("mine"))
    assert registry.resolve(str(one)).optimizer.name == "mine"
    two = write(tmp_path / "two.py", DECLARATION.format("a") + DECLARATION.format("b"))
    assert registry.resolve(f"{two}:b").optimizer.name == "b"
    with pytest.raises(registry.UnknownOptimizer, match="declares 2 optimizers"):
        registry.resolve(str(two))
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.resolve("one:mine").optimizer.name == "mine"
    assert registry.resolve("adamw").optimizer.name == "adamw"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("shampo", "Did you mean 'shampoo'"),
        ("./missing.py", "No file found"),
        ("no_such_package:attr", "No package 'no_such_package' found"),
        ("optimizers.adamw:missing", "declares no optimizer 'missing'. Declared there: adamw"),
    ],
)
def test_unknown_optimizers_are_rejected(spec, message):
    with pytest.raises(registry.UnknownOptimizer, match=message):
        registry.resolve(spec)


def test_a_horizon_counts_gradient_evaluations():
    assert registry.resolve("adamw").optimizer.steps(250) == 250
    assert registry.resolve("sam").optimizer.steps(250) == 125
    assert registry.resolve("lbfgs").optimizer.steps(3) == 1


def test_own_schedules_work_and_unknown_extras_are_rejected():
    halves = optimizer(schedule=lambda peak, steps: lambda count: peak * 0.5**count)(example.make)
    assert np.asarray(halves.learning_rate({"lr": 1.0}, 10, np.arange(3))).tolist() == [
        1.0,
        0.5,
        0.25,
    ]
    with pytest.raises(ValueError, match="unknown extra 'loss'"):
        optimizer(extra_args=("loss",))(example.make)
    with pytest.raises(ValueError, match=r"evaluations=0\.5"):
        optimizer(evaluations=0.5)(example.make)


def test_muon_orthogonalises_convolutions_as_matrices():
    rule = registry.resolve("muon").optimizer.build({"weight_decay": 0.0}, 100)
    params = {"conv": jnp.ones((3, 3, 4, 6)), "dense": jnp.ones((8, 5))}
    gradients = jax.tree.map(
        lambda p: jnp.asarray(np.random.default_rng(0).standard_normal(p.shape), jnp.float32),
        params,
    )
    updates, _ = rule.update(gradients, rule.init(params), params)
    for update in updates.values():
        values = np.linalg.svd(np.asarray(update).reshape(-1, update.shape[-1]), compute_uv=False)
        assert (
            values.max() / values.min() < 2
        )  # Newton-Schulz leaves singular values in about 0.7..1.2
