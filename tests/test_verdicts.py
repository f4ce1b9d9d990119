"""Verdicts collect reruns, from several draws and machines.

The reruns are made up from an entry's numbers: nothing is trained here but the entry itself.
"""

from __future__ import annotations

import dataclasses
import json

import pytest

from sweeps.board import build, entries, tables, verdicts
from sweeps.board.draw import finals_of, trials_of
from sweeps.board.entries import BASELINE


@pytest.fixture
def entry(board_folder):
    return entries.read(board_folder / "tiny" / f"{BASELINE}.json")


HERE, THERE = {"device": "here"}, {"device": "there"}


def reruns(entry, seeds, machine, factor=1.0):
    """A verdict on these seeds at each horizon, whose losses are `factor` times the recorded."""
    runs = [
        {"kind": "final", "horizon": h, "seed": r.trial.seed, "trial": None}
        | {"recorded": loss, "rerun": factor and loss * factor, "environment": 0}
        for h in entry.horizons
        for r in finals_of(entry, h)
        for loss in [r.final["probe_loss"]]
        if r.trial.seed in seeds
    ]
    return verdicts.Verdict("reproduced", "made up", entry.sha256, machine, runs)


def test_verdicts_add_up_and_a_smaller_one_takes_nothing_away(entry):
    verdicts.record(entry, reruns(entry, range(1, 6), HERE))
    verdicts.record(entry, reruns(entry, [2], HERE))
    kept = verdicts.record(entry, reruns(entry, [1], THERE, 1.001))
    assert kept == verdicts.of(entry)
    assert (kept.verdict, len(kept.runs), kept.environments) == ("reproduced", 18, [HERE, THERE])
    assert kept.detail.startswith("15 runs at horizons 4, 8, 16 gave the recorded numbers")
    assert [run["environment"] for run in kept.runs].count(1) == 3
    # Without its entry's content, all of it counts no more.
    entry.path.write_text(entry.path.read_text() + " ")
    now = entries.read(entry.path)
    assert len(verdicts.record(now, reruns(now, [3], HERE)).runs) == 3


def test_the_board_shows_how_many_final_runs_were_reproduced(entry):
    def shown():
        return tables.cells(build.make([entry]), "tiny", intervals=False)[1][0][-1]

    assert shown() == "-"
    verdicts.record(entry, reruns(entry, [1, 2], HERE))
    verdicts.record(entry, reruns(entry, [2, 3], THERE))  # seed 2 twice, counted once
    assert shown() == "9/15"
    verdicts.record(entry, reruns(entry, [4], HERE, 1.5))
    assert shown() == "failed"


def test_a_cost_fails_an_entry_only_where_no_machine_explains_it(entry):
    """A whole step of the fixture's entry takes 12/11 of the baseline's."""

    def judged(**measured):
        cost = dataclasses.asdict(dataclasses.replace(entry.cost, **measured))
        return verdicts.record(entry, dataclasses.replace(reruns(entry, [1], HERE), cost=cost))

    assert judged(step_ms=4.0).verdict == "reproduced"
    failed = judged(step_ms=8.0)
    assert failed.verdict == "failed"
    assert "a step takes 1.64 times as long as the baseline's, not 1.09 times" in failed.detail
    assert "9.00 bytes a parameter, not 8.00" in judged(state_bytes_per_parameter=9.0).detail


def test_a_failure_stays_until_the_runs_that_disagree_are_rerun(entry):
    verdicts.record(entry, reruns(entry, [1, 2, 3], HERE, 3.0))
    assert verdicts.record(entry, reruns(entry, [4], HERE, 1.0001)).verdict == "failed"
    assert verdicts.record(entry, reruns(entry, [1], THERE, 1.0001)).verdict == "failed"
    kept = verdicts.record(entry, reruns(entry, [1, 2, 3], HERE, 1.0001))
    assert (kept.verdict, len(kept.runs)) == ("reproduced", 15)

    # A machine that repeats others to the last digit shows an altered run; so does no other one.
    verdicts.record(entry, reruns(entry, [1, 2, 3, 4], HERE))
    failed = verdicts.record(entry, reruns(entry, [5], HERE, 1.0001))
    assert "altered: 4 (seed 5), 8 (seed 5), 16 (seed 5)" in failed.detail
    assert verdicts.record(entry, reruns(entry, [5], THERE, 1.0001)).verdict == "failed"
    assert verdicts.record(entry, reruns(entry, [5], THERE)).verdict == "reproduced"


def test_a_final_run_that_fails_when_rerun_fails_the_entry(entry):
    verdict = verdicts.record(entry, reruns(entry, [2], HERE, None))
    assert verdict.detail.endswith("some did not end well: 4 (seed 2), 8 (seed 2), 16 (seed 2)")
    assert verdicts.record(entry, reruns(entry, [2], THERE)).verdict == "reproduced"


def tuning_reruns(entry, index, rerun, recorded="entry", horizon=8):
    trial = trials_of(entry, horizon)[index]
    loss = trial.final["probe_loss"] if trial.final else None
    assert recorded in ("entry", loss)
    run = {"kind": "tuning", "horizon": horizon, "seed": 0, "trial": index, "recorded": loss}
    finals = reruns(entry, [1], THERE, 1.0001)
    return dataclasses.replace(finals, runs=[*finals.runs, run | {"rerun": rerun}])


def test_a_tuning_trial_that_ends_otherwise_is_named(board_folder, entry):
    verdict = verdicts.merge(entry, None, tuning_reruns(entry, 3, None))
    assert (verdict.verdict, "other endings: 8 (trial 3)" in verdict.detail) == ("reproduced", True)

    def hidden(content):  # a good trial, recorded as one that diverged
        trial = content["rungs"][1]["tuning"][3]
        trial |= {"status": "diverged", "final": None}

    content = json.loads(entry.path.read_text())
    hidden(content)
    entry.path.write_text(json.dumps(content))
    now = entries.read(entry.path)
    best = min(r.final["probe_loss"] for r in trials_of(now, 8) if r.final)
    for loss, expected in ((best * 1.2, "reproduced"), (best * 0.2, "failed")):
        verdict = verdicts.merge(now, None, tuning_reruns(now, 3, loss, None))
        assert (verdict.verdict, "8 (trial 3)" in verdict.detail) == (expected, True)


def test_a_contradiction_fails_an_entry_and_keeps_its_runs(entry):
    verdicts.record(entry, reruns(entry, [1, 2], HERE))
    said = verdicts.Verdict("failed", "it contradicts itself", entry.sha256, HERE, [])
    kept = verdicts.record(entry, said)
    assert (kept.verdict, kept.detail, len(kept.runs)) == ("failed", "it contradicts itself", 6)
    assert verdicts.record(entry, reruns(entry, [1], HERE)).verdict == "reproduced"


def stamped(content):
    return dataclasses.asdict(verdicts.Verdict(**content).stamped())


def test_runs_that_the_entry_lacks_are_left_out(entry):
    verdict = dataclasses.asdict(reruns(entry, [1], HERE))
    verdict["runs"].append(verdict["runs"][0] | {"recorded": 1e-3, "rerun": 1e-3})
    verdict["runs"].append(verdict["runs"][0] | {"seed": 99})
    path = verdicts.path_of(entry)
    path.parent.mkdir()
    path.write_text(json.dumps(stamped(verdict)))
    assert len(verdicts.of(entry).runs) == 5
    kept = verdicts.record(entry, reruns(entry, [2], THERE))
    assert (kept.verdict, len(kept.runs)) == ("reproduced", 6)
    assert kept.environments == [HERE, THERE]


def test_a_verdict_edited_by_hand_does_not_count(entry):
    verdicts.record(entry, reruns(entry, [1, 2], HERE, 3.0))
    path = verdicts.path_of(entry)
    text = path.read_text()
    assert verdicts.of(entry).verdict == "failed"
    for old, new in (
        ('"failed"', '"reproduced"'),
        ('"intervals"', '"exact"'),
        ('"cost"', '"curves"'),
    ):
        assert old in text
        path.write_text(text.replace(old, new, 1))
        assert verdicts.of(entry) is None


def test_an_unreadable_verdict_does_not_count_and_is_set_aside(entry):
    path = verdicts.path_of(entry)
    path.parent.mkdir()
    good = dataclasses.asdict(reruns(entry, [1], HERE))
    run = good["runs"][0]
    hostile = [
        good | {"runs": [run | change]}
        for change in ({"kind": "<b>"}, {"recorded": "1"}, {"rerun": 10**400}, {"trial": -1})
    ]
    hostile += [good | {"runs": [{}]}, good | {"detail": "a\nb"}, good | {"environments": [[]]}]
    hostile += [good | {"environment": {"a": ["b"]}}, good | {"draws": [{"seed": "1"}]}]
    good, hostile = stamped(good), map(stamped, hostile)
    nan = json.dumps(good).replace(f'"rerun": {run["rerun"]}', '"rerun": NaN', 1)
    assert nan != json.dumps(good)
    bad = ["", "[]", '{"verdict": "reproduced"}', "[" * 100_000, nan, *map(json.dumps, hostile)]
    for content in bad:
        path.write_text(content)
        assert verdicts.of(entry) is None, content
    verdicts.record(entry, reruns(entry, [1], HERE))
    assert verdicts.of(entry).verdict == "reproduced"
    assert path.with_name(f"{path.name}.unreadable").read_text() == bad[-1]
