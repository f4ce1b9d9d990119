"""Schedules that a sweep gives to all its optimizers."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_bench.errors import UserError
from optimizers.contract.rescheduling import CHOICES, COOLDOWN, warmup_linear, with_schedule, wsd
from support.paths import BRISK, CALM
from sweeps.board.entries import BASELINE
from sweeps.planning.plug_ins import resolve

HORIZONS, WARMUPS = st.integers(64, 5000), st.floats(0.03, 0.5)
PLACES = np.linspace(0, 1, 64)  # one shape for all horizons, compiled once


def places(horizon):
    """Steps of a run, its first and its last among them."""
    return np.floor(PLACES * (horizon - 1)).astype(np.int32)


def rates(shape, horizon, **settings):
    return np.asarray(shape(2.0, horizon, **settings)(places(horizon)), np.float64)


@given(HORIZONS, WARMUPS)
def test_linear_is_a_rise_and_a_fall(horizon, warmup):
    found, w = rates(warmup_linear, horizon, warmup=warmup), max(warmup * horizon, 1.0)
    expected = 2 * np.interp(places(horizon), [-1, w - 1, horizon], [0, 1, 0])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert found.min() > 0


@given(HORIZONS, WARMUPS)
def test_wsd_is_flat_between(horizon, warmup):
    found, w = rates(wsd, horizon, warmup=warmup), max(warmup * horizon, 1.0)
    fall = COOLDOWN * horizon
    corners = [-1, w - 1, horizon - fall, horizon]
    expected = 2 * np.interp(places(horizon), corners, [0, 1, 1, 0])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert found.min() > 0


@pytest.mark.parametrize("name", CHOICES)
def test_an_optimizer_gets_the_schedule_and_its_hyperparameters(name):
    base = resolve(BASELINE).optimizer
    changed = with_schedule(base, name)
    takes_warmup = name in ("warmup_cosine", "warmup_linear", "wsd", "warmup_constant")
    assert ("warmup" in changed.space, "warmup" in changed.defaults) == (takes_warmup,) * 2
    assert changed.space.keys() - {"warmup"} == base.space.keys() - {"warmup"}
    hparams = {"lr": 0.5, **({"warmup": 0.25} if takes_warmup else {})}
    expected = CHOICES[name](0.5, 40, **({"warmup": 0.25} if takes_warmup else {}))
    steps = np.arange(40)
    np.testing.assert_array_equal(changed.learning_rate(hparams, 40, steps), expected(steps))
    changed.build({**changed.defaults, **hparams}, 40)


def test_without_a_schedule_there_is_nothing_to_change():
    fixed = resolve(str(BRISK)).optimizer
    assert (with_schedule(fixed, "wsd") is fixed) == (not fixed.scheduled)


@pytest.mark.long
def test_a_sweep_records_its_schedule(script, tmp_path):
    flags = [f"--opt={CALM}", "--horizons=20", "--trials=2", "--seeds=1"]
    done = script("run", *flags, "--schedule=constant")
    assert done.returncode == 0, done.stderr
    assert "warmup" not in done.stdout
    (study,) = (tmp_path / "runs" / "tiny").glob("calm-*/study.json")
    content = json.loads(study.read_text())
    assert content["fixed"] == {"--schedule": "constant"}
    assert "warmup" not in content["space"]
    wrong = script("run", *flags, "--schedule=constnt")
    assert (wrong.returncode, "Did you mean 'constant'?" in wrong.stderr) == (2, True)


def test_an_unknown_schedule_is_one_message(request_of):
    from sweeps.planning.plan import make_plan

    with pytest.raises(UserError, match="Unknown schedule 'cosine'"):
        make_plan(dataclasses.replace(request_of("4", opts=[CALM]), schedule="cosine"))
