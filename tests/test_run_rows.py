"""Which rows a table of one's own runs has: names of versions, the baseline, and warnings."""

from __future__ import annotations

import os

import pytest

from distill_bench.errors import UserError
from distill_bench.tasks.catalogue import DIGITS
from support.committed import few
from support.run_results import HPARAMS, NOWHERE, loaded, run, study
from sweeps.board import build, entries, run_rows, run_table, versions
from sweeps.board.entries import BASELINE
from sweeps.results import store
from sweeps.results.store import Loaded

BASE = loaded(study(BASELINE), {125: 0.9, 250: 0.5, 500: 0.3, 1000: 0.2})


def lines(found, width):
    return [line for line, _ in run_table.render(found, width)]


def test_only_the_rungs_asked_for_are_shown_but_all_of_the_baselines_count():
    both = [BASE, loaded(study("mine"), {250: 0.4, 500: 0.25})]
    found = run_rows.collect(both, {250})
    assert {line.row.horizon for line in found.lines} == {250}
    everywhere = run_rows.collect(both)
    gains = {(x.name, x.row.horizon): x.gain for x in everywhere.lines}
    for line in found.lines:
        gain = gains[line.name, 250]
        assert (line.gain.value, line.gain.bound) == (gain.value, gain.bound)
    # Rows that are not shown say nothing about noise.
    assert gains["mine", 250].bound == "="
    assert found.lines[0].gain.interval == pytest.approx(gains["mine", 250].interval, rel=0.01)


def test_versions_of_a_file_are_told_apart_and_the_newest_is_marked(tmp_path):
    old, new = study(source="25cb84" + "0" * 58), study(source="9ab001" + "0" * 58)
    made = []
    for when, one in ((2000, new), (1000, old)):
        folder = store.save_study(tmp_path, one, "./mine.py", {}, print)
        os.utime(folder / "study.json", (when, when))
        made.append(loaded(one, {250: 0.4 if one is new else 0.5}, folder))
    found = run_rows.collect([*made, loaded(study("other"), {250: 0.6})])
    assert [(x.name, x.newest) for x in found.lines] == [
        ("mine@9ab001", True),
        ("mine@25cb84", False),
        ("other", False),
    ]
    shown = lines(found, 80)
    assert any("mine@9ab001 (newest)" in line for line in shown)
    assert sum("versions of its source" in line for line in shown) == 1
    # A trial written later makes the older study the newest.
    trial = made[1].folder / "h250"
    trial.mkdir()
    (trial / "result.json").write_text("{}")
    os.utime(trial / "result.json", (3000, 3000))
    assert versions.newest_of(made) == {old.id}


def test_studies_of_one_source_are_told_apart_by_what_differs():
    other = study(fixed={"lr": [0.1, 0.2]}, space={}, versions={"jax": "2"})
    found = run_rows.collect([loaded(study(), {250: 0.4}), loaded(other, {250: 0.5})])
    first, second = (f"mine#{one.id[:6]}" for one in (study(), other))
    assert [line.name for line in found.lines] == [first, second]
    assert found.notes[1:] == (
        f"  {first}: lr in Log(0.01, 1), jax 1",
        f"  {second}: lr one of 0.1, 0.2, jax 2",
    )


def test_results_of_different_versions_of_a_task_are_not_compared():
    other = study(BASELINE, fingerprint="e" * 16)
    found = run_rows.collect([loaded(study("mine"), {250: 0.4}), loaded(other, {250: 0.5})])
    assert {line.name: line.gain is None for line in found.lines} == {
        "mine": True,
        BASELINE: False,
    }
    assert sum("of the task): tuned on probe loss" in line for line in lines(found, 120)) == 2


@pytest.fixture
def committed(monkeypatch):
    """The baseline's committed entry, of a task of its own."""
    one = loaded(study(BASELINE, task="dots"), {125: 0.9, 250: 0.5, 500: 0.3})
    entry = entries.Entry(one.study, tuple(one.results), {}, BASELINE, {}, {}, None, NOWHERE, "")
    monkeypatch.setattr(entries, "load", lambda names, only: ([entry] * (only == BASELINE), []))
    return entry


def test_the_committed_baseline_fills_in_where_the_store_has_none(committed):
    entry = committed
    h, other = entry.horizons[:2]
    same = {"task": entry.study.task, "fingerprint": entry.study.fingerprint}
    mine = loaded(study("mine", **same), {h: 0.1, other: 0.1})
    found = run_rows.collect([mine])
    assert {(x.name, x.row.horizon, x.origin) for x in found.lines} == {
        (name, horizon, origin)
        for horizon in (h, other)
        for name, origin in (("mine", ""), (BASELINE, "reference"))
    }
    shown = "\n".join(lines(found, 80))
    assert f"{BASELINE} (reference)" in shown
    assert "(reference): an entry of the leaderboard; add adamw" in " ".join(shown.split())
    own = loaded(study(BASELINE, **same), {h: 0.2})
    origins = {
        (x.row.horizon, x.origin)
        for x in run_rows.collect([mine, own]).lines
        if x.row.opt == BASELINE
    }
    assert origins == {(h, ""), (other, "reference")}


def test_entries_stand_beside_the_runs_that_have_their_names():
    board = build.make(few(DIGITS.name))
    first, second, *_ = (e["optimizer"] for e in board["entries"] if e["optimizer"] != BASELINE)
    same = {"task": DIGITS.name, "fingerprint": DIGITS.fingerprint()}
    mine = loaded(study(first, **same), {125: 0.2, 130: 0.19})
    found = run_rows.collect([mine], reference=[second, first, first, BASELINE])
    shown = [(x.name, x.row.horizon, x.origin) for x in found.lines if x.row.horizon == 125]
    assert sorted(shown) == sorted(
        [
            (BASELINE, 125, "reference"),
            (first, 125, ""),
            (first, 125, "reference"),
            (second, 125, "reference"),
        ]
    )
    assert [x.label for x in found.lines if x.row.horizon == 130] == [first]
    odd = run_rows.collect([loaded(study(first, **same), {130: 0.19})], reference=[second])
    assert f"{second} (reference): without a rung of 130 steps." in odd.notes
    # The same speed-up as on the board.
    for name in (first, second):
        on_board = next(e for e in board["entries"] if e["optimizer"] == name)["rungs"][0]
        here = next(x for x in found.lines if x.row.opt == f"{name} (reference)")
        assert here.gain
        assert here.gain.value == pytest.approx(on_board["speedup"]["value"])
    for wrong in (first[:-1], f"../{DIGITS.name}/{first}"):
        with pytest.raises(UserError, match="no such entry"):
            run_rows.collect([mine], reference=[wrong])


def test_the_stores_own_baseline_goes_before_the_committed_one(committed):
    entry = committed
    h = entry.horizons[0]
    same = {"task": entry.study.task, "fingerprint": entry.study.fingerprint}
    mine = loaded(study("mine", **same), {h: 0.1})
    earlier = loaded(study(BASELINE, **same), {h: 0.2, 2 * h: 0.1})
    found = run_rows.collect([mine], {h}, [earlier])
    assert [(x.name, x.row.horizon, x.origin) for x in found.lines] == [
        ("mine", h, ""),
        (BASELINE, h, "earlier run"),
    ]
    # Its other rungs count: there it needs twice the steps.
    assert found.lines[0].gain
    assert found.lines[0].gain.value == pytest.approx(2)
    assert f"{BASELINE} (earlier run)" in "\n".join(lines(found, 80))
    # One that has nothing at these rungs is not used.
    far = loaded(study(BASELINE, **same), {h + 1: 0.2})
    assert [x.origin for x in run_rows.collect([mine], None, [far]).lines] == ["", "reference"]


def test_earlier_baselines_are_found_in_the_same_store(tmp_path):
    searched = study(BASELINE)
    guessed = study(BASELINE, fixed={"lr": 0.1})
    for one in (searched, guessed, study("mine")):
        store.save_study(tmp_path, one, one.optimizer, {}, print)
    broken = tmp_path / "dots" / f"{BASELINE}-broken"
    broken.mkdir()
    (broken / "study.json").write_text("{")
    mine = store.study_folder(tmp_path, study("mine"))
    own = store.study_folder(tmp_path, searched)
    assert [x.study for x in run_rows.earlier_baselines([mine])] == [searched]
    assert run_rows.earlier_baselines([mine, own]) == []


def test_more_trials_than_the_baseline_had_are_a_warning():
    mine = loaded(study("mine"), {250: 0.4})
    more = [run(mine.study, 250, 0, 0.6, hparams=HPARAMS | {"lr": lr}) for lr in (0.2, 0.3)]
    mine.results.extend(more)
    found = run_rows.collect([mine, BASE])
    assert f"mine at 250: it had 3 tuning trials, {BASELINE} only 1." in found.warnings


def test_one_warning_names_all_rungs_at_which_it_holds():
    mine = study("mine")
    results = [
        run(mine, h, seed, 0.1 * lr + 0.001 * seed, hparams={"lr": lr})
        for h in (250, 500)
        for lr, seeds in ((1.0, (0, 1)), (2.0, (0,)), (3.0, (0,)), (4.0, (0,)))
        for seed in seeds
    ]
    found = run_rows.collect([Loaded(mine, NOWHERE, "./mine.py", {}, results)])
    assert (
        sum(warning.startswith("mine at 250, 500: the best lr") for warning in found.warnings) == 1
    )
