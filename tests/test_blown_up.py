"""A run that ends worse than it began has failed, and cannot win."""

from __future__ import annotations

import numpy as np
import pytest

from distill_bench.training.lane_state import Saved
from support.paths import CALM
from support.stores import Silent
from sweeps.execution.execute import execute
from sweeps.execution.request import Faults
from sweeps.execution.resources import Resources
from sweeps.execution.trial_sink import TrialSink
from sweeps.planning.plan import make_plan
from sweeps.planning.study import TUNING_SEED
from sweeps.results import store
from sweeps.results.summary import row_of, winner

EITHER_WAY = """
from typing import Annotated
import optax
from optimizers import Choice, Schedule, optimizer

@optimizer
def either_way(lr: Schedule = 0.3, *, sign: Annotated[float, Choice(-1.0, 1.0)] = 1.0):
    return optax.chain(optax.scale_by_learning_rate(lr), optax.scale(sign))
"""


def test_a_run_that_climbs_has_diverged_and_does_not_win(
    request_of, tiny_engine, monkeypatch, tmp_path
):
    monkeypatch.setattr(Resources, "open_engine", lambda self, task: tiny_engine)
    path = tmp_path / "either_way.py"
    path.write_text(EITHER_WAY)
    display = Silent()
    plan = make_plan(request_of("16", opts=[path], trials=4, seeds=1))
    execute(plan, tmp_path, display, Resources(), Faults())
    (loaded,) = store.load(tmp_path)
    assert loaded.problems == []
    for result in loaded.results:
        probe_loss = result.points[-1][1]["probe_loss"]
        climbed = result.trial.hparams["sign"] < 0
        assert (probe_loss > 1.1 * result.losses[0]) == climbed
        assert (result.status, result.final is None) == (
            ("diverged", True) if climbed else ("ok", False)
        )
        if climbed:
            assert result.detail is not None
            assert f"probe loss of {probe_loss:.4g} is above the {result.losses[0]:.4g}" in (
                result.detail
            )
    tuned = [r for r in loaded.results if r.trial.seed == TUNING_SEED]
    bad = sum(r.status == "diverged" for r in tuned)
    assert 0 < bad < len(tuned)
    best = winner(loaded.study, loaded.results, 16)
    assert best is not None
    assert best.trial.hparams["sign"] > 0
    assert row_of(loaded.study, loaded.results, 16).diverged == bad
    assert sum("either_way diverged: blown up" in text for text in display.said) == bad


@pytest.fixture
def sink(request_of, tmp_path):
    plan = make_plan(request_of("4", opts=[CALM]))
    candidate = plan.candidates[0]
    trial = candidate.trial(candidate.first, 4, TUNING_SEED)

    def sink(**options):
        given = {"resumes": False, **options}
        return TrialSink(tmp_path, candidate, trial, tmp_path / "run", None, {}, print, **given)

    return sink


@pytest.mark.parametrize(("final", "status"), [(1.9, "ok"), (2.19, "ok"), (2.21, "diverged")])
def test_the_measure_is_the_loss_before_the_first_update(sink, final, status):
    one = sink()
    one.losses(1, np.float32([2.0, 1.0]))
    one.losses(3, np.float32([1.0, 1.0]))
    one.point(4, {"probe_loss": final}, {})
    assert one.finish("ok", 4, None)[0] == status


def test_a_resumed_run_is_measured_by_its_first_loss_too(sink):
    one = sink()
    one.losses(1, np.float32([2.0, 3.0]))
    one.save(Saved(2, (np.zeros(1, np.float32),)))
    again = sink(resumes=True)
    assert again.saved is not None
    again.losses(3, np.float32([1.0, 1.0]))
    again.point(4, {"probe_loss": 2.5}, {})
    assert again.finish("ok", 4, None)[0] == "diverged"


def test_another_measure_and_other_failures_stay_as_they_are(sink):
    one = sink(losses_compare=False)
    one.losses(1, np.float32([2.0]))
    one.point(4, {"probe_loss": 2.5}, {})
    assert one.finish("ok", 4, None) == ("ok", None)
    assert one.finish("crashed", 0, "its own words") == ("crashed", "its own words")
