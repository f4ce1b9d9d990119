"""Costs that a dry run rests on: measured from events, kept in a file, shown as durations."""

from __future__ import annotations

import re
from collections import Counter

import jax
import numpy as np
import pytest

from distill_bench.training.engine import open_engine
from distill_bench.training.events import Compiled, Finished, Losses, Point, Waiting
from distill_bench.training.lane_layout import make_layout
from distill_bench.training.train import train
from sweeps.planning import costs, workload
from sweeps.planning.costs import Costs, RuleCost, Seconds
from sweeps.planning.duration import duration
from sweeps.planning.plan import make_plan
from sweeps.planning.stopwatch import Stopwatch, fit
from sweeps.planning.workload import STEP, STREAM, VIEW
from sweeps.results.pending import pending

SECONDS = {"s": 1, "min": 60, "h": 3600, "day": 86400, "days": 86400, "years": 365 * 86400}


def parsed(text):
    """Seconds of a duration."""
    parts = [(int(n.replace(",", "")), unit) for n, unit in re.findall(r"([\d,]+) (\w+)", text)]
    return sum(count * SECONDS[unit] for count, unit in parts)


# Units that a person reads


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (45.2, "45 s"),
        (59.7, "1 min"),
        (160, "2 min 40 s"),
        (3599.6, "1 h"),
        (12_010, "3 h 20 min"),
        (86_399, "1 day"),
        (2 * 86400 + 5 * 3600, "2 days 5 h"),
        (41.2 * 86400, "41 days"),
        (3 * 365 * 86400, "3 years"),
        (2e4 * 365 * 86400, "20,000 years"),
    ],
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_durations_grow_with_time_and_are_rounded_to_what_they_show():
    times = np.sort(np.concatenate([np.geomspace(0.01, 1e9, 5000), np.arange(0, 90_000, 29.5)]))
    shown = [parsed(duration(time)) for time in times]
    assert shown == sorted(shown)
    for time, value in zip(times, shown, strict=True):
        unit = 1 if time < 3599 else 60 if time < 86_000 else 3600 if time < 860_000 else 86400
        unit = unit if time < 3 * 365 * 86400 - 43_200 else 365 * 86400
        assert abs(time - value) <= unit / 2 + 1e-6


# The file of costs

ANY = Costs(0.25, 1e-6, Seconds(20.0, 6.5), {"brisk 12": RuleCost(0.01, Seconds(None, 3.0))})


def test_costs_survive_the_file_and_belong_to_one_setting(tmp_path, tiny_task, layouts):
    here = costs.setting(tiny_task, layouts)
    there = costs.setting(tiny_task, [make_layout(jax.devices()[:1])])
    assert costs.read(str(tmp_path), here) is None
    costs.write(str(tmp_path), here, ANY)
    assert costs.read(str(tmp_path), here) == ANY
    assert costs.read(str(tmp_path), there) is None
    assert costs.read(None, here) is None
    costs.write(None, here, ANY)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[1, 2]",
        lambda text: text.replace("0.25", "-0.25"),
        lambda text: text.replace("0.25", "NaN"),
        lambda text: text.replace("0.25", '"0.25"'),
        lambda text: text.replace('"rules"', '"rule"'),
        lambda text: text.replace('"mapping"', '"map"'),
        lambda text: text.replace('"step"', '"pace"'),
    ],
)
def test_a_damaged_or_foreign_file_is_ignored_and_replaced(tmp_path, tiny_task, layouts, damage):
    here = costs.setting(tiny_task, layouts)
    costs.write(str(tmp_path), here, ANY)
    (path,) = (tmp_path / "costs").iterdir()
    path.write_text(damage(path.read_text()))
    assert costs.read(str(tmp_path), here) is None
    path.write_bytes(b"\xff\xfe")
    assert costs.read(str(tmp_path), here) is None
    costs.write(str(tmp_path), here, ANY)
    assert costs.read(str(tmp_path), here) == ANY
    assert list((tmp_path / "costs").iterdir()) == [path]


def test_a_cache_that_cannot_be_written_costs_nothing(tmp_path, tiny_task, layouts):
    (tmp_path / "costs").write_text("a file, not a folder")
    here = costs.setting(tiny_task, layouts)
    costs.write(str(tmp_path), here, ANY)
    assert costs.read(str(tmp_path), here) is None


# Costs from events


def test_unit_costs_are_recovered_from_the_time_of_phases():
    true = {STREAM: 0.02, VIEW: 5e-5, "fast": 0.008, "slow": 0.03}
    rng = np.random.default_rng(0)
    laps = []
    for i in range(60):
        name = ("fast", "slow")[i % 2]
        units = Counter({STEP: 250 if i % 3 else 1000, STREAM: 25 * (i % 4), VIEW: 2000 * (i % 5)})
        seconds = true[name] * units[STEP] + sum(true[u] * units[u] for u in (STREAM, VIEW))
        laps.append((name, units, seconds * rng.uniform(0.9, 1.1)))
    found = fit(laps, {STREAM: 2.0, VIEW: 0.001, STEP: 1.0})
    assert (found["fast"], found["slow"]) == pytest.approx((0.008, 0.03), rel=0.15)
    total = sum(seconds for _, _, seconds in laps)
    explained = sum(
        found[name] * units[STEP] + found[STREAM] * units[STREAM] + found[VIEW] * units[VIEW]
        for name, units, _ in laps
    )
    assert explained == pytest.approx(total)


def test_what_the_times_leave_open_follows_the_guess():
    laps = [("only", Counter({STREAM: 25, STEP: 25}), 0.75)]
    found = fit(laps, {STREAM: 2.0, VIEW: 0.001, STEP: 1.0})
    assert found == pytest.approx({STREAM: 0.02, VIEW: 1e-5, "only": 0.01}, rel=1e-3)


@pytest.mark.long
def test_planned_work_is_the_work_that_is_done(request_of, layouts, tmp_path):
    """Counted before from the plan, and afterwards from the events of training."""
    plan = make_plan(request_of("10", "120", trials=2))
    engine = open_engine(plan.task, *layouts)
    jobs = [
        *pending(plan, tmp_path / "runs").tuning,
        *((c, c.trial(c.first, 70, seed)) for c in plan.candidates for seed in (1, 2)),
    ]
    planned = workload.work(plan.task, layouts[0], jobs)
    steps, points, rules = Counter(), Counter(), 0
    for event in train(engine, [candidate.lane(trial) for candidate, trial in jobs]):
        if isinstance(event, Compiled):
            rules += event.rules
        elif isinstance(event, Losses):
            steps[workload.name_of(jobs[event.lane])] += len(event.values)
        elif isinstance(event, Point):
            job = jobs[event.lane]
            points[workload.name_of(job)] += workload.views_of_point(
                plan.task, workload.is_final(job), event.step == workload.steps_of(job)
            )
    assert rules == len(planned.programs)
    for name, units in planned.units.items():
        # A run has two lanes, side by side on two devices, of equal lengths here.
        assert (2 * units[STEP], 2 * units[VIEW]) == (steps[name], points[name])


def test_the_stopwatch_gives_each_rule_its_own_time(request_of, layouts, tmp_path):
    plan = make_plan(request_of("50", trials=2))
    tuning = pending(plan, tmp_path / "runs").tuning
    now = 0.0
    setting = costs.setting(plan.task, layouts)

    def events(status="ok"):
        nonlocal now
        now += 7.0
        yield Compiled(2, 6.0, {})
        for lane, pace in ((0, 0.001), (2, 0.004)):
            yield Waiting(lane)
            now += pace * 50
            for own in (lane, lane + 1):
                yield Losses(own, 1, np.zeros(50))
                yield Finished(own, status, 50)

    for again in (False, True):
        stopwatch = Stopwatch(plan.task, layouts, str(tmp_path), 5.0, lambda: now)
        passed = list(stopwatch.watch(tuning, events()))
        assert [type(event) for event in passed] == [type(event) for event in events()]
        found = costs.read(str(tmp_path), setting)
        assert found == stopwatch.costs
        fast, slow = (found.rules[workload.rule_id(c)] for c in plan.candidates)
        assert slow.step > 2 * fast.step
        assert (found.opening.again is not None) == again
        assert (fast.compilation.again is not None) == again
    list(stopwatch.watch(tuning, events("diverged")))
    assert costs.read(str(tmp_path), setting) == found
