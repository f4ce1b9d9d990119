"""Requests, shards, profiles and damaged records, in this process and on the tiny task."""

from __future__ import annotations

from collections import Counter

import optax
import pytest
from jax.profiler import ProfileData

from distill_bench import machine
from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from distill_bench.tasks.variation import Variation
from distill_bench.training.engine import Engine
from distill_bench.training.events import Finished
from distill_bench.training.lane_layout import LayoutOptions
from distill_bench.training.rules import Lane
from distill_bench.training.train import train
from support.paths import BRISK, CALM
from support.stores import Silent, contents
from sweeps.execution.execute import execute
from sweeps.execution.multihost import Hosts
from sweeps.execution.profiling import Profiler
from sweeps.execution.request import Fault, Faults, Request
from sweeps.execution.resources import Resources
from sweeps.planning.parsing import parse_shard
from sweeps.planning.plan import make_plan
from sweeps.planning.request import PlanRequest
from sweeps.planning.study import TUNING_SEED
from sweeps.results import store

TWO_DEVICES = LayoutOptions(devices=2)


@pytest.fixture
def run(tiny_task, monkeypatch, tmp_path):
    monkeypatch.setitem(catalogue.CATALOGUE, "tiny", tiny_task)

    def run(folder, shard="0/1", trials=2):
        opts = (str(CALM), str(BRISK))
        request = PlanRequest(opts, "tiny", ("10", "20"), trials, 2, shard=shard)
        display = Silent()
        resources = Resources(layout=TWO_DEVICES)
        execute(make_plan(request), tmp_path / folder, display, resources, Faults())
        return display.said

    run.root = tmp_path
    return run


def test_a_request_survives_json():
    request = Request(
        PlanRequest(
            opts=("all", "./mine.py"),
            task="digits",
            horizons=("ladder",),
            trials=8,
            seeds=3,
            learning_rates=("1e-2",),
            settings=("b2=0.9,0.99",),
            shard="1/4",
            variation=Variation(mode="same/ic", batch_size=8),
        ),
        "runs",
        Resources(
            executor="multihost",
            hosts=Hosts("host:1234", 2, 1),
            layout=LayoutOptions(devices=2, mapping="loop", remat=True),
        ),
        Faults(frozenset({"mine", "yours"}), {"mine": Fault("timeout", "It hung.")}),
        "students",
    )
    assert Request.from_json(request.to_json()) == request


@pytest.mark.long
def test_rules_that_do_not_fit_into_a_process_together_give_the_same_results(run, monkeypatch):
    run("together")
    held = []
    monkeypatch.setattr(Resources, "rules_at_once", lambda self: 1)
    forget = Engine.forget_all

    def watched(engine):
        held.append(len(engine.islands[0].rules))
        forget(engine)
        assert not any(island.rules for island in engine.islands)

    monkeypatch.setattr(Engine, "forget_all", watched)
    run("apart")
    assert held == [1] * len(held)
    assert len(held) >= 4  # two optimizers, in tuning and in the finals
    assert contents(run.root / "apart") == contents(run.root / "together")


@pytest.mark.parametrize(("limit", "devices", "most"), [(65_530, 2, 13), (65_530, 64, 1)])
def test_the_number_of_rules_follows_linuxs_limit(limit, devices, most, monkeypatch):
    resources = Resources(layout=LayoutOptions(devices=devices))
    monkeypatch.setattr(machine, "most_mappings", lambda: limit)
    assert resources.rules_at_once() == most
    monkeypatch.setattr(machine, "most_mappings", lambda: None)
    assert resources.rules_at_once() is None


@pytest.mark.long
def test_a_profile_covers_chunks_after_the_first_and_names_their_programs(
    tiny_task, monkeypatch, tmp_path
):
    monkeypatch.setitem(catalogue.CATALOGUE, "tiny", tiny_task)

    def profile():
        display = Silent()
        plan = make_plan(PlanRequest((str(CALM),), "tiny", ("5",), 2, 1))
        resources = Resources(layout=TWO_DEVICES, profile=True)
        execute(plan, tmp_path, display, resources, Faults())
        return "\n".join(display.said)

    said = profile()  # tuning is one chunk, the final run another
    (file,) = (tmp_path / "plugins" / "profile").glob("*/*.xplane.pb")
    assert str(file.parent) in said
    assert any(
        "advance" in event.name
        for plane in ProfileData.from_file(str(file)).planes
        for line in plane.lines
        for event in line.events
    )
    assert len(store.load(tmp_path)[0].results) == 3
    assert "nothing was left to run" in profile()


def test_a_profile_waits_for_the_second_chunk_and_ends_with_the_training(tiny_engine, tmp_path):
    said = []

    def profile(steps, folder):
        profiler = Profiler(tmp_path / folder, said.append)
        lane = Lane(lambda hparams, horizon: optax.sgd(0.1), {}, steps, 0)
        ends = [
            type(event)
            for event in profiler.watch(train(tiny_engine, [lane]))
            if isinstance(event, Finished)
        ]
        profiler.close()
        return ends, (tmp_path / folder).exists()

    assert profile(tiny_engine.steps, "one") == ([Finished], False)
    assert profile(2 * tiny_engine.steps, "two") == ([Finished], True)
    assert "only one chunk of steps ran" in said[0]
    assert "Profile of " in said[1]
    assert len(said) == 2


@pytest.mark.long
def test_shards_together_give_the_results_of_one_process(run, tmp_path):
    """Each stage depends on the one before: shards run what is known and wait for one another."""
    waits = "Other shards have not finished tuning trials"
    said = run("sharded", "0/3", trials=8)
    assert any(waits in text for text in said)
    for i in range(1, 3 * 6):
        said = run("sharded", f"{i % 3}/3", trials=8)
    assert said == []
    run("whole", trials=8)
    assert contents(tmp_path / "sharded") == contents(tmp_path / "whole")
    for study in store.load(tmp_path / "sharded"):
        tuned = Counter(r.trial.horizon for r in study.results if r.trial.seed == TUNING_SEED)
        assert tuned == {10: 8, 20: 4}
        assert len(study.results) == 8 + 4 + 2 * 2


@pytest.mark.slow
def test_a_truncated_line_is_reported_and_its_trial_runs_again(run, tmp_path):
    run("runs")
    before = contents(tmp_path / "runs")
    path = next((tmp_path / "runs").rglob("records.jsonl"))
    path.write_text(path.read_text()[:-20])
    assert any(
        "is cut short" in reason
        for study in store.load(tmp_path / "runs")
        for _, reason in study.problems
    )
    assert any("Set aside" in text for text in run("runs"))
    assert {
        name: content
        for name, content in contents(tmp_path / "runs").items()
        if "/damaged/" not in name
    } == before


def test_a_wrong_slice_is_refused():
    for text in ("2/2", "1", "a/b", "-1/2"):
        with pytest.raises(UserError, match="is not a slice"):
            parse_shard(text)
