"""From a request to a plan, and the requests that are refused."""

from __future__ import annotations

import dataclasses
import re

import pytest

from distill_bench.errors import UserError
from support.paths import BRISK, CALM
from sweeps import run
from sweeps.board.entries import BASELINE
from sweeps.planning.plan import make_plan
from sweeps.planning.request import PlanRequest

DEFAULTS = PlanRequest(opts=(str(BRISK),), task="digits", horizons=(), trials=8, seeds=3)


def plan(**changes):
    return make_plan(dataclasses.replace(DEFAULTS, **changes))


def test_the_default_plan():
    made = plan(opts=[str(BRISK), str(CALM)])
    assert made.horizons == (125, 250)
    assert list(made.final_seeds) == [1, 2, 3]
    for candidate in made.candidates:
        assert candidate.search.counts() == {125: 8, 250: 4}
        assert candidate.search.name == candidate.optimizer.name
        assert dict(candidate.search.space) == candidate.optimizer.space
        (known,) = candidate.search.known({})
        assert candidate.first == known[1][0]
        assert candidate.first.keys() == candidate.optimizer.space.keys()
        assert candidate.study.space.keys() == candidate.optimizer.space.keys()


def test_a_sweep_tries_48_points_at_the_shortest_rung_unless_asked():
    assert run.FLAGS["trials"].default == 48
    made = plan(trials=run.FLAGS["trials"].default, horizons=["ladder"])
    assert list(made.candidates[0].search.counts().values()) == [48, 24, 12, 6, 3, 3]
    assert made.horizons[:3] == (125, 250, 500)


def test_listed_values_replace_the_space():
    settings = ["b2=0.5", "weight_decay=0", "warmup=0.1"]
    made = plan(learning_rates=["1e-2", "2e-2"], settings=settings)
    (candidate,) = made.candidates
    fixed = {"b2": 0.5, "weight_decay": 0.0, "warmup": 0.1}
    assert candidate.search.combinations == [{"lr": 0.01} | fixed, {"lr": 0.02} | fixed]
    assert candidate.search.counts() == {125: 2, 250: 2}
    assert candidate.study.space == {}
    assert candidate.study.fixed == {"lr": [0.01, 0.02]} | fixed
    assert candidate.study.id != plan().candidates[0].study.id


def test_an_optimizer_with_nothing_to_choose_is_not_tuned():
    (candidate,) = plan(learning_rates=["1e-2"], settings=["b2=0.5", "warmup=0.2"]).candidates
    assert candidate.search.stages == ()
    assert candidate.first == {"lr": 0.01, "b2": 0.5, "warmup": 0.2}


def test_a_part_of_the_space_may_be_listed():
    (candidate,) = plan(settings=["b2=0.9,0.99"]).candidates
    assert candidate.study.space.keys() == {"lr", "warmup"}
    (known,) = candidate.search.known({})
    assert [point["b2"] for point in known[1]] == 4 * [0.9, 0.99]
    assert len({point["lr"] for point in known[1]}) == 8


def test_a_typed_range_replaces_the_declared_one_and_keeps_its_scale():
    asked = dict(learning_rates=["1e-4:1e-1"], settings=["b2=0.5:0.9"])
    (candidate,) = plan(opts=[BASELINE], **asked).candidates
    assert candidate.study.space["lr"] == {"kind": "Log", "low": 1e-4, "high": 1e-1}
    assert candidate.study.space["b2"] == {"kind": "Decay", "low": 0.5, "high": 0.9}
    assert candidate.study.fixed == {}
    (known,) = candidate.search.known({})
    assert all(1e-4 <= point["lr"] <= 1e-1 and 0.5 <= point["b2"] <= 0.9 for point in known[1])


def test_a_setting_reaches_the_optimizers_that_declare_it():
    made = plan(opts=[str(CALM), str(BRISK)], settings=["period=32"])
    calm, brisk = made.candidates
    assert "period" not in calm.first
    assert brisk.first["period"] == 32


def test_the_number_of_trials_and_seeds_does_not_change_the_study():
    assert (
        plan(trials=4, seeds=1, horizons=["7"]).candidates[0].study.id
        == plan().candidates[0].study.id
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(opts=[]), "Nothing to run"),
        (dict(opts=[f"{BASELINE}x"]), f"Did you mean '{BASELINE}'"),
        (dict(opts=[str(BRISK), str(BRISK)]), "names 'brisk' 2 times"),
        (dict(task="digit"), "Did you mean 'digits'"),
        (dict(trials=0), "--trials=0"),
        (dict(trials=2, settings=["b2=0.9,0.95,0.99"]), "use --trials=3 or more"),
        (dict(seeds=0), "--seeds=0"),
        (dict(horizons=["500", "250"]), "write --horizons=250,500"),
        (dict(horizons=["250", "250"]), "without repeats"),
        (dict(horizons=["0"]), "must be positive"),
        (dict(horizons=["many"]), "must be whole numbers"),
        (
            dict(learning_rates=["abc"]),
            "--lr=abc: 'abc' is not a finite number, such as",
        ),
        (dict(learning_rates=["nan"]), "finite"),
        (dict(settings=["b2"]), "--set name=value"),
        (dict(settings=["weight_decai=1"]), "Did you mean 'weight_decay'"),
        (dict(settings=["b2=1", "b2=2"]), "set twice"),
        (dict(settings=["lr=abc"]), "--set lr=abc: 'abc' is not a finite number"),
        (dict(settings=["period=1.5"]), "a whole number"),
        (dict(learning_rates=["1e-1:1e-3"]), "--lr=1e-1:1e-3 is not a range: .*low < high"),
        (dict(settings=["lr=1e-3:"]), "--set lr=1e-3: is not a range: "),
        (dict(opts=[BASELINE], settings=["b2=0.9:1.5"]), "b2=0.9:1.5 is not a range: Decay"),
        (dict(settings=["lr=1e-3:1e-2,1"]), "give one range, such as low:high, or values"),
        (dict(settings=["period=2:8"]), "--set period=2:8: a range is for numbers with a fraction"),
    ],
)
def test_wrong_input_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        plan(**changes)


def test_plug_ins_whose_helpers_have_one_name_run_apart(tmp_path):
    for folder, scale in (("a", "1.0"), ("b", "1.0"), ("c", "2.0")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "helper.py").write_text(f"SCALE = {scale}\n")
        (tmp_path / folder / "mine.py").write_text(
            "from optimizers import optimizer\n"
            f"@optimizer\ndef mine_{folder}(lr: float = 1.0):\n    import helper\n"
        )
    a, b, c = (str(tmp_path / folder / "mine.py") for folder in "abc")
    assert len(plan(opts=[a, b]).candidates) == 2  # the same text
    with pytest.raises(UserError, match=r"a/mine\.py and --opt=.*different files called helper"):
        plan(opts=[a, c])


def test_a_plug_ins_error_is_shown_from_its_own_frame_on(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import optax\n\n\ndef help_me():\n    return 1 / 0\n\n\nhelp_me()\n")
    with pytest.raises(UserError) as caught:
        plan(opts=[str(path)])
    text = str(caught.value)
    assert "ZeroDivisionError" in text
    assert "line 5, in help_me" in text
    assert "registry.py" not in text
    path.write_text("def broken(:\n    pass\n")
    with pytest.raises(UserError, match=r"(?s)mine\.py.*line 1.*SyntaxError"):
        plan(opts=[str(path)])


HOSTILE = """
import math
from typing import Annotated, Any
import numpy as np, optax
from optimizers import Choice, Decay, Log, Schedule, Uniform, optimizer

@optimizer
def mine(lr: Annotated[Schedule, Log(1e-2, 1e-1)] = 0.03, *, {parameters}):
    return optax.sgd(lr)
"""
MANY = ", ".join(f"p{i}: Annotated[float, Log(0.1, 1)] = 0.5" for i in range(1000))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("b: Annotated[Any, Choice((0.9, 0.99), (0.8, 0.9))] = 1", "cannot hold (0.9, 0.99), a tu"),
        (
            "b: Annotated[Any, Choice(math.sin, math.cos)] = 1",
            "Choice cannot hold <built-in functi",
        ),
        ("b: Annotated[Any, Choice(None, 0.5)] = 0.5", "Choice cannot hold None, a NoneType"),
        ("b: Annotated[float, Choice(np.float32(0.5), 1.0)] = 1.0", "a float32"),
        ("b: Annotated[float, Choice(0.5, math.inf)] = 0.5", "Choice cannot hold inf"),
        ("b: Annotated[int, Choice(1, 10**400)] = 1", "use numbers of at most 3.4e+38"),
        ("b: Annotated[float, Log(0.1, math.inf)] = 0.5", "Log cannot hold inf"),
        ("b: Annotated[float, Uniform(-math.inf, 1)] = 0.5", "Uniform cannot hold -inf"),
        ("b: Annotated[float, Uniform(-1e308, 1e308)] = 0.5", "Uniform cannot hold -1e+308"),
        ("b: Annotated[float, Uniform(math.nan, 1)] = 0.5", "Uniform cannot hold nan"),
        ("b: Annotated[float, Uniform(0, 10**400)] = 0.5", "Uniform cannot hold 1000"),
        ("b: Annotated[float, Decay(0, math.nan)] = 0.5", "Decay cannot hold nan"),
        ("b: Annotated[float, Log('0.1', 1)] = 0.5", "Log cannot hold '0.1', a str"),
        ("b: Annotated[float, Log(np.float32(0.1), 1)] = 0.5", "Log cannot hold np.float32(0.1)"),
        (MANY, "mine searches 1002 hyperparameters; at most 100 can be searched"),
    ],
)
def test_a_space_that_cannot_be_searched_is_one_message(tmp_path, parameters, message):
    (tmp_path / "mine.py").write_text(HOSTILE.format(parameters=parameters))
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        plan(opts=[str(tmp_path / "mine.py")])
    assert str(refused.value).count("\n") < 25


@pytest.mark.parametrize(
    ("default", "kind"), [("(1, 2)", "tuple"), ("math.sin", "builtin_function_or_method")]
)
def test_a_hyperparameter_that_cannot_be_typed_cannot_be_set(tmp_path, default, kind):
    (tmp_path / "mine.py").write_text(HOSTILE.format(parameters=f"b: Any = {default}"))
    spec = str(tmp_path / "mine.py")
    assert "b" not in plan(opts=[spec]).candidates[0].first
    with pytest.raises(
        UserError, match=f"--set b=3 cannot be set, because the default is a {kind}"
    ):
        plan(opts=[spec], settings=["b=3"])


def test_many_hyperparameters_may_be_set_or_left_alone(tmp_path):
    (tmp_path / "mine.py").write_text(HOSTILE.format(parameters=MANY))
    settings = [f"p{i}=0.25" for i in range(910)]
    (candidate,) = plan(opts=[str(tmp_path / "mine.py")], settings=settings).candidates
    assert len(candidate.study.space) == 92
    assert len(candidate.trial(candidate.first, 5, 0).name.encode()) <= 240
