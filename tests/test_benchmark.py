"""sweeps/benchmark.py: every combination of flags gives figures, or one message."""

from __future__ import annotations

import copy
import sys

import jax
import optax
import pytest

from distill_bench import command
from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from optimizers.contract import registry
from optimizers.contract.api import optimizer
from sweeps import benchmark
from sweeps.board.entries import BASELINE
from sweeps.timing import measure, update_cost
from sweeps.timing.step_cost import step_cost


@pytest.fixture
def run(monkeypatch, capsys, tiny_task):
    """Runs the command in this process. Returns its exit code and what it wrote on stderr."""
    monkeypatch.setitem(catalogue.CATALOGUE, "tiny", tiny_task)
    monkeypatch.setattr(benchmark.cli, "set_up_jax", lambda *_: None)

    def run(*arguments):
        values = copy.deepcopy(benchmark.FLAGS)
        monkeypatch.setattr(benchmark, "FLAGS", values)
        code = command.run(benchmark.main, values, "", ["it", *arguments], after_interrupt="")
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--set b2=0.9", "--set has no effect in the full benchmark: leave it out. It goes with"),
        ("--params=twenty --throughput", "--params and --throughput each measure one thing only"),
        ("--input --teacher", "--input and --teacher each measure one thing only"),
        ("--params=twenty --task=tiny", "--task has no effect with --params"),
        ("--teacher --lane_mapping=vmap", "--lane_mapping has no effect with --teacher"),
        ("--against=pytorch --teacher", "--teacher and --against each measure one thing only"),
        ("--profile --against=pytorch", "--profile and --against each measure one thing only"),
        ("--profile --devices=1", "--devices has no effect with --profile"),
        ("--against=pytorch --opt=x", "--opt has no effect with --against"),
        ("--throughput --set b2=0.9", "--set has no effect with --throughput"),
        ("--throughput --nothroughput --set b2=0.9", "--set has no effect in the full benchmark"),
        ("--params=twenty --set bb=1", "no hyperparameter 'bb'."),
        ("--params=twenty --set b2=0.9,0.99", "one value can be timed at a time"),
        ("--task=tiny --devices=8 --batch_shards=3", "--batch_shards=3 does not divide the 8"),
        ("--task=tiny --devices=3 --batch_shards=3", "A batch of 16 images cannot be divided"),
        ("--task=tiny --lanes_per_device=2", "does not go with --lane_mapping=dispatch"),
        ("--task=tiny@labels", "is for tasks whose teacher runs at every step"),
        ("--task=flowers102@synthetic", "is for float32 tasks"),
        ("--task=tiny --input", "nothing is streamed"),
        ("--steps=9", "--steps=9: expected integer >= 10."),
        ("--opt=", "Unknown optimizer ''."),
        ("--opt=none_such", "Unknown optimizer 'none_such'."),
        ("--task=none_such", "Unknown task 'none_such'."),
    ],
)
def test_a_contradiction_is_one_message(run, arguments, message):
    code, err = run(*arguments.split())
    assert (code, err.startswith("error: "), message in err) == (command.MISUSED, True, True), err


def test_a_missing_pytorch_is_one_message(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, err = run("--task=tiny", "--against=pytorch")
    assert (code, err) == (
        command.MISUSED,
        "error: --against=pytorch needs PyTorch, which is not installed: "
        "pip install 'distill-bench[peers]'\n",
    )


def descent_with_value(learning_rate):
    """Gradient descent that asks for the loss, as rules with line searches do."""

    def update(gradients, state, params=None, *, value, value_fn):
        step = learning_rate + 0 * (value + value_fn(params))
        return jax.tree.map(lambda g: -step * g, gradients), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


@optimizer(extra_args=("value", "value_fn"), evaluations=2)
def without_a_rate(scale: float = 0.01):
    return descent_with_value(scale)


@optimizer
def refusing(lr: float = 0.01):
    raise ValueError("too small\nfor this rule")


@pytest.mark.long
def test_a_rule_that_evaluates_the_loss_and_has_no_learning_rate_is_measured(tiny_engine):
    figures = measure.sweep(tiny_engine, without_a_rate, 2, 10)
    assert figures["ms_per_trial_step"] > 0
    assert measure.one_by_one(tiny_engine, without_a_rate, 10) > 0
    costs = update_cost.optimizer_steps(without_a_rate, without_a_rate, [(3, 2), (2,)], 20)
    assert costs["step_ms_mean"] > 0


def test_a_rule_that_raises_is_one_message(tiny_engine):
    with pytest.raises(UserError, match="refusing raised an exception in training: ") as error:
        measure.sweep(tiny_engine, refusing, 2, 10)
    assert "ValueError: too small" in str(error.value)


def test_a_step_costs_what_its_rule_holds_and_computes(tiny_engine):
    """Rules are timed in the engine, where one that evaluates the loss does so."""
    baseline = registry.resolve(BASELINE).optimizer
    cost = step_cost(tiny_engine, without_a_rate, baseline)
    assert cost["state_bytes_per_parameter"] == 0.0
    assert step_cost(tiny_engine, baseline, baseline)["state_bytes_per_parameter"] == (
        pytest.approx(8.0, rel=0.1)  # two moments of float32, and counters
    )
    assert all(cost[name] > 0 for name in ("step_ms", "baseline_step_ms", "teacher_ms"))
    with pytest.raises(UserError, match="refusing raised an exception: ValueError: too small"):
        step_cost(tiny_engine, refusing, baseline)
