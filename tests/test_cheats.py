"""Ways to take more than the rivals do, or to end a run early. Each is refused or found out.

What no program can find is listed in docs/leaderboard.md, for the reader of an entry's code.
"""

from __future__ import annotations

import dataclasses

import jax
import pytest

from distill_bench.training.engine import open_engine
from distill_bench.training.events import Finished
from distill_bench.training.lane_layout import LayoutOptions, make_layout
from distill_bench.training.train import train
from optimizers.conformance import fairness
from optimizers.contract import registry
from support.cheats import FOUND_OUT, HEAD, HONEST, REFUSED, cheat
from sweeps.planning.plan import lane_of


def loaded(folder, source):
    path = folder / "cheat.py"
    path.write_text(HEAD + source)
    return registry.resolve(str(path)).optimizer


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_declared_is_refused_when_training_starts(tiny_engine, tmp_path, name):
    source, message = REFUSED[name]
    opt = loaded(tmp_path, source)
    lane = lane_of(opt, dict(opt.defaults), opt.steps(40), seed=1)
    (end,) = [event for event in train(tiny_engine, [lane]) if isinstance(event, Finished)]
    assert (end.status, end.step) == ("crashed", 0)
    assert message in end.detail
    if "evaluations" in message:
        assert "@optimizer(evaluations=" in end.detail
        assert "Traceback" not in end.detail


@pytest.mark.parametrize("name", FOUND_OUT)
def test_what_shows_only_in_runs_fails_a_conformance_check(tmp_path, name):
    check, source, message = FOUND_OUT[name]
    reason = check(loaded(tmp_path, source))
    assert reason is not None
    assert message in reason


@pytest.mark.parametrize("name", HONEST)
def test_what_is_declared_may_be_used(tmp_path, name):
    opt = loaded(tmp_path, HONEST[name])
    for check in (
        fairness.evaluates_as_declared,
        fairness.follows_its_schedule,
        fairness.moves_to_the_end,
    ):
        assert check(opt) is None


@pytest.mark.long
@pytest.mark.parametrize("mapping", ["dispatch", "loop", "vmap"])
def test_a_declared_rule_trains_on_every_layout(tiny_task, tmp_path, mapping):
    """The count is that of one lane, however many run together."""
    width = 1 if mapping == "dispatch" else 2
    layout = make_layout(jax.devices()[:1], LayoutOptions(mapping=mapping, lanes_per_device=width))
    engine = open_engine(tiny_task, layout)
    source = cheat("updates = grad_fn(add(params, updates, -0.1))", more=", evaluations=2")
    opt = loaded(tmp_path, source)
    lanes = [lane_of(opt, {"lr": lr}, 3, seed=1) for lr in (0.1, 0.01)]
    ends = [event for event in train(engine, lanes) if isinstance(event, Finished)]
    assert [end.status for end in ends] == ["ok", "ok"], ends[0].detail
    dearer = dataclasses.replace(opt, evaluations=1.5)
    (end,) = [
        event
        for event in train(engine, [lane_of(dearer, {"lr": 0.1}, 3, seed=1)])
        if isinstance(event, Finished)
    ]
    assert "declares evaluations=1.5, but a step of it makes at least 2" in str(end.detail)
