"""From a request to a plan, and the requests that are refused."""

from __future__ import annotations

import dataclasses

import pytest

from distill_bench.errors import UserError
from support.paths import BRISK, CALM
from sweeps.board.entries import BASELINE
from sweeps.planning.plan import make_plan
from sweeps.planning.request import PlanRequest

DEFAULTS = PlanRequest(opts=(str(BRISK),), task="digits", horizons=(), trials=8, seeds=3)


def plan(**changes):
    return make_plan(dataclasses.replace(DEFAULTS, **changes))


def test_the_default_plan():
    made = plan(opts=[str(BRISK), str(CALM)])
    assert made.horizons == (250, 500)
    assert len(made.tuning) == 2 * 2 * 8
    assert {trial.seed for _, trial in made.tuning} == {0}
    assert list(made.final_seeds) == [1, 2, 3]
    assert [len(candidate.trials) for candidate in made.candidates] == [8, 8]


def test_listed_values_replace_the_space():
    made = plan(learning_rates=["1e-2", "2e-2"], settings=["b2=0.5", "weight_decay=0"])
    (candidate,) = made.candidates
    assert list(candidate.trials) == [
        {"lr": 0.01, "b2": 0.5, "weight_decay": 0.0},
        {"lr": 0.02, "b2": 0.5, "weight_decay": 0.0},
    ]
    assert candidate.study.space == {}
    assert candidate.study.id != plan().candidates[0].study.id


def test_a_setting_reaches_the_optimizers_that_declare_it():
    made = plan(opts=[str(CALM), str(BRISK)], settings=["period=32"])
    calm, brisk = made.candidates
    assert "period" not in calm.trials[0]
    assert brisk.trials[0]["period"] == 32


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
        (dict(seeds=0), "--seeds=0"),
        (dict(horizons=["500", "250"]), "write --horizons=250,500"),
        (dict(horizons=["250", "250"]), "without repeats"),
        (dict(horizons=["0"]), "must be positive"),
        (dict(horizons=["many"]), "must be whole numbers"),
        (
            dict(learning_rates=["abc"]),
            "--lr=abc: 'abc' is not a value of 'lr', which takes a finite number",
        ),
        (dict(learning_rates=["nan"]), "finite"),
        (dict(settings=["b2"]), "--set name=value"),
        (dict(settings=["weight_decai=1"]), "Did you mean 'weight_decay'"),
        (dict(settings=["b2=1", "b2=2"]), "set twice"),
        (dict(settings=["period=1.5"]), "a whole number"),
    ],
)
def test_wrong_input_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        plan(**changes)


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
