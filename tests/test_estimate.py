"""What `run.py --dry_run` says: what is left to run, what it costs, and how long it takes."""

from __future__ import annotations

import dataclasses
import re
import shutil

import pytest

from distill_bench.tasks import catalogue
from distill_bench.training.lane_layout import LayoutOptions
from distill_bench.training.train import exams
from support.paths import BRISK, CALM
from support.stores import Silent, contents, unseal
from sweeps.execution.execute import execute
from sweeps.execution.request import Faults
from sweeps.execution.resources import Resources
from sweeps.planning import assumed, costs, trial_run, workload
from sweeps.planning.costs import Costs, RuleCost, Seconds
from sweeps.planning.duration import duration
from sweeps.planning.estimate import NEW_RULE, describe, describe_rest, estimate
from sweeps.planning.plan import make_plan
from sweeps.planning.request import PlanRequest
from sweeps.planning.stopwatch import STUDENT_FRACTION
from sweeps.planning.study import TUNING_SEED
from sweeps.results.pending import finals, pending


def keep(cache, plan, layouts, *, rules=None, **changes):
    """Writes costs of the plan's rules to the cache: 1 s a step, unless given."""
    steps = dict.fromkeys(map(workload.rule_id, plan.candidates), 1.0) | (rules or {})
    made = Costs(
        **{"stream": 10.0, "view": 0.5, "opening": Seconds(100.0, 20.0)} | changes,
        rules={name: RuleCost(step, Seconds(40.0, 8.0)) for name, step in steps.items()},
    )
    costs.write(str(cache), costs.setting(plan.task, layouts), made)
    return made


# What is left to run


def test_finished_trials_do_not_count(request_of, tmp_path):
    plan = make_plan(request_of("10", "20"))
    root = tmp_path / "runs"
    left = pending(plan, root)
    assert (len(left.tuning), len(left.finals)) == (8, 8)
    assert describe_rest(plan, left.tuning, left.finals, "runs") == ""
    assert not root.exists()

    execute(plan, root, Silent(), Resources(layout=LayoutOptions(devices=2)), Faults())
    before = contents(root)
    left = pending(plan, root)
    assert left == type(left)((), ())
    assert "nothing left to run" in describe_rest(plan, left.tuning, left.finals, "runs")

    more = pending(make_plan(request_of("10", "20", seeds=3)), root)
    assert (len(more.tuning), len(more.finals)) == (0, 4)  # a seed of each winner
    longer = pending(make_plan(request_of("10", "20", "30")), root)
    # Results at the new rung may change what wins at the others.
    assert (len(longer.tuning), len(longer.finals)) == (4, 12)
    assert {trial.horizon for _, trial in longer.tuning} == {30}
    assert contents(root) == before

    # A crashed tuning trial runs again; until then the best of the others wins.
    candidate = plan.candidates[0]
    best = finals(plan, root)[0][1]
    assert best.horizon == 10
    trial = candidate.trial(best.hparams, 10, TUNING_SEED)
    folder = next(root.glob(f"*/*/{trial.name}/"))
    unseal(folder / "result.json")
    (folder / "result.json").write_text(
        (folder / "result.json").read_text().replace('"status": "ok"', '"status": "crashed"')
    )
    crashed = pending(plan, root)
    assert [job[1].id for job in crashed.tuning] == [trial.id]
    assert [(job[0].study.id, job[1].horizon, job[1].seed) for job in crashed.finals] == [
        (candidate.study.id, 10, seed) for seed in (1, 2)
    ]
    assert all(job[1].hparams != best.hparams for job in crashed.finals)
    rest = describe_rest(plan, crashed.tuning, crashed.finals, "runs")
    assert rest == "left to run: 1 tuning runs and 2 final runs"

    # What depends on a trial that is not there at all is not known: stand-ins count.
    shutil.rmtree(folder)
    lost = pending(plan, root)
    assert {job[0].study.id for job in (*lost.tuning, *lost.finals)} == {candidate.study.id}
    assert sorted(job[1].horizon for job in lost.tuning) == [10, 20, 20]
    assert lost.tuning[0][1].id == trial.id
    assert sorted(job[1].horizon for job in lost.finals) == [10, 10, 20, 20]


def test_a_new_plan_counts_every_run_of_every_stage(request_of, tmp_path):
    plan = make_plan(request_of("10", "20", "40", trials=16, seeds=3))
    for candidate in plan.candidates:
        assert candidate.search.counts() == {10: 16, 20: 8, 40: 4}
    left = pending(plan, tmp_path / "runs")
    assert (len(left.tuning), len(left.finals)) == (2 * 28, 2 * 3 * 3)
    assert "56 tuning runs (16, 8, 4 for each optimizer), then 18 final runs" in describe(plan)
    shards = [pending(dataclasses.replace(plan, shard=(i, 3)), tmp_path / "runs") for i in range(3)]
    assert sum(len(shard.tuning) for shard in shards) == 2 * 28
    assert sum(len(shard.finals) for shard in shards) == 2 * 3 * 3


# The estimate


def estimated(plan, layouts, cache, root, planning=1.0):
    left = pending(plan, root)
    said = []
    cache = str(cache) if cache else None
    made = estimate(plan, left.tuning, left.finals, layouts, cache, planning, said.append)
    return made, said


def test_each_rule_counts_at_its_own_cost(request_of, layouts, tmp_path):
    plan = make_plan(request_of("50"))
    calm, brisk = map(workload.rule_id, plan.candidates)
    keep(tmp_path, plan, layouts, rules={calm: 1.0, brisk: 3.0})
    made, said = estimated(plan, layouts, tmp_path, tmp_path / "runs")
    # Two devices: the two tuning trials of a rule are one run, and so are its two finals.
    tuning = 2 * 0.5 * workload.views_of_point(plan.task, False, True)
    along = (len(exams(50, True)) - 1) * workload.views_of_point(plan.task, True, False)
    finals = 2 * 0.5 * (workload.views_of_point(plan.task, True, True) + along)
    assert made.parts["tuning"] == pytest.approx(10.0 * 50 + (1.0 + 3.0) * 50 + tuning)
    assert made.parts["finals"] == pytest.approx(10.0 * 2 * 50 + (1.0 + 3.0) * 50 + finals)
    assert made.parts["opening the task"] == 20.0
    assert made.notes == ("costs as measured when these optimizers ran here before",)
    assert said == []
    assert made.describe().startswith(f"about {duration(made.seconds)} on this machine: ")


def test_rules_that_have_not_run_are_assumed_in_one_line(request_of, layouts, tmp_path):
    known = make_plan(request_of("50", opts=(CALM,)))
    keep(tmp_path, known, layouts)
    plan = make_plan(request_of("50", opts=(CALM, BRISK, "optax:yogi", "optax:adam", "optax:lion")))
    made, said = estimated(plan, layouts, tmp_path, tmp_path / "runs")
    alone, _ = estimated(known, layouts, tmp_path, tmp_path / "runs")
    (note,) = made.notes
    assert note.startswith("4 update rules have not run here yet")
    assert "calm" in note
    views = 0.5 * workload.views_of_point(plan.task, False, True)
    each = NEW_RULE * 50 + views
    assert made.parts["tuning"] == pytest.approx(alone.parts["tuning"] + 4 * each)
    assert said == []


@pytest.mark.long
def test_a_new_rule_is_measured_by_a_short_training(request_of, layouts, tmp_path):
    plan = make_plan(request_of("50"))
    made, said = estimated(plan, layouts, tmp_path / "cache", tmp_path / "runs")
    assert made.notes == ("measured now, in a short training: calm, brisk",)
    assert len(said) == 1
    assert not (tmp_path / "runs").exists()
    again, said = estimated(plan, layouts, tmp_path / "cache", tmp_path / "runs")
    assert again.parts == made.parts
    assert said == []


def test_a_rule_that_raises_is_assumed(request_of, layouts, tmp_path):
    path = tmp_path / "raises.py"
    path.write_text(
        "import optax\nfrom optimizers import Schedule, optimizer\n\n@optimizer\n"
        "def raises(lr: Schedule = 0.1):\n    raise ValueError('mine')\n"
    )
    plan = make_plan(request_of("50", opts=(path,)))
    made, _ = estimated(plan, layouts, None, tmp_path / "runs")
    assert made.seconds > 0
    assert "matrix-product peak" in " ".join(made.notes)


@pytest.mark.parametrize("task", ["flowers102", "imagenet2012"])
def test_a_large_task_is_not_measured_and_says_what_is_assumed(layouts, tmp_path, task):
    plan = make_plan(PlanRequest((str(BRISK),), task, ("ladder",), 2, 1))
    assert not trial_run.is_cheap(plan.task)
    made, said = estimated(plan, layouts, tmp_path / "cache", tmp_path / "runs")
    text = made.describe()
    assert "matrix-product peak" in text
    assert ("images per second" in text) == (task == "imagenet2012")
    assert re.search(r"about [\d,]+ (days|years) on this machine", text)
    assert said == []
    assert not (tmp_path / "cache").exists()


def test_assumed_seconds_are_arithmetic_over_speed(layouts, monkeypatch):
    """Against the published counts: BiT-R152x2 and R50x1 need 15.0 and 1.34 GMAC at 128 pixels."""
    monkeypatch.setattr(assumed, "_matmul_peak", lambda task, layouts: 1e12)
    task = dataclasses.replace(catalogue.get("flowers102"), batch_size=100)
    made, rule, _ = assumed.assume(task, layouts)
    assert rule.step == pytest.approx(
        layouts[0].lanes * 6 * 1.34e9 * 100 / STUDENT_FRACTION / 1e12, rel=0.05
    )
    assert made.stream == pytest.approx(2 * 14.96e9 * 100 / 0.65 / 1e12, rel=0.05)
