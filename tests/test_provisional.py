"""One's own runs over the leaderboard: the names, rungs and marks that they get."""

from __future__ import annotations

import dataclasses

import pytest

from distill_bench.tasks.catalogue import DIGITS
from support.browsers import column, names, script
from support.committed import few
from support.run_results import loaded, study
from sweeps.board import build, provisional
from sweeps.board.entries import BASELINE

SAME = {"task": DIGITS.name, "fingerprint": DIGITS.fingerprint()}


@pytest.fixture(scope="module")
def committed():
    return few(DIGITS.name)


def test_own_runs_have_names_of_their_own(committed):
    own = [
        loaded(study("mine", **SAME), {125: 0.2, 250: 0.15}),
        loaded(study(BASELINE, **SAME), {125: 0.24}),
        loaded(study("mine", **SAME, source="b" * 64), {125: 0.3}),
    ]
    found, warnings = provisional.beside(committed, own)
    assert warnings == []
    shown = {entry.study.optimizer: entry.horizons for entry in found}
    assert shown == {"mine@aaaaaa": [125, 250], f"{BASELINE} (own)": [125], "mine@bbbbbb": [125]}
    board = build.make([*committed, *found])
    before = build.make(committed)
    for entry in before["entries"]:
        now = next(e for e in board["entries"] if e["optimizer"] == entry["optimizer"])
        assert not now["provisional"]
        assert now["overall"]["value"] == entry["overall"]["value"]
    mine = next(e for e in board["entries"] if e["optimizer"] == "mine@aaaaaa")
    assert mine["provisional"]
    assert mine["overall"]["rank"] is not None
    assert [line for line in mine["reproduce"] if "verify" in line] == []


def test_what_cannot_be_shown_is_said(committed):
    old = dataclasses.replace(study("old", **SAME), fingerprint="f" * 16)
    tuning = loaded(study("tuning", **SAME), {125: 0.2}, seeds=())
    own = [
        loaded(old, {125: 0.2}),
        tuning,
        loaded(study("odd", **SAME), {125: 0.2, 130: 0.2}),
        loaded(study("unknown", task="no-such-task"), {125: 0.2}),
    ]
    found, warnings = provisional.beside(committed, own)
    assert [(entry.study.optimizer, entry.horizons) for entry in found] == [("odd", [125])]
    for words in (
        "another version of the task",
        "no final runs yet",
        "not shown at 130 steps",
        "no-such-task",
    ):
        assert sum(words in warning for warning in warnings) == 1, words
    assert len(warnings) == 4


def test_without_a_board_own_runs_stand_alone_and_the_baseline_is_ones_own():
    own = [
        loaded(study("mine", **SAME), {125: 0.2, 130: 0.19}),
        loaded(study(BASELINE, **SAME), {125: 0.24, 130: 0.2}),
    ]
    found, warnings = provisional.beside([], own, {125})
    assert warnings == []
    assert [(entry.study.optimizer, entry.horizons) for entry in found] == [
        ("mine", [125]),
        (BASELINE, [125]),
    ]


def test_an_upper_bound_has_no_rank(committed):
    slow = loaded(study("slow", **SAME), {125: 1.2})
    board = build.make([*committed, *provisional.beside(committed, [slow])[0]])
    mine = next(e for e in board["entries"] if e["optimizer"] == "slow")
    assert (mine["overall"]["bound"], mine["overall"]["rank"]) == ("<", None)
    assert board["entries"][-1] is mine


def test_the_page_marks_them_and_draws_them(show, committed):
    own = [loaded(study("mine", **SAME), {125: 0.2, 250: 0.15})]
    browser = show(build.make([*committed, *provisional.beside(committed, own)[0]]))
    assert "mine" in names(browser)
    notes = script(browser, "return all('tr.is-own .note').map((note) => note.textContent)")
    assert notes == ["provisional, 2 of 6 rungs"]
    index = names(browser).index("mine")
    assert column(browser, "speedup")[index].endswith("]")
    drawn = script(browser, "return all('#patience .plot .series title').map(t => t.textContent)")
    assert "mine" in drawn
