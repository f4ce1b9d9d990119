"""Re-stamping: an entry gets the digest of new code only if that code gives the same losses."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from distill_bench.errors import UserError
from sweeps.board import entries, entry_costs, verdicts, write_entry
from sweeps.board.draw import Request, finals_of
from sweeps.board.entries import BASELINE
from sweeps.board.rerun import verify
from sweeps.board.restamp import restamp
from sweeps.planning.environment import environment


def quiet(event, steps):
    pass


@pytest.fixture
def path(board_folder):
    """The baseline's entry, as if recorded with a differently worded digest."""
    path = board_folder / "tiny" / f"{BASELINE}.json"
    edit(path, lambda content: content["study"].update(source_sha256="0" * 64))
    return path


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(write_entry.as_text(content))


def lowered(content):
    for rung in content["rungs"]:
        for run in rung["finals"]:
            run["points"][-1]["probe_loss"] *= 0.999


@pytest.mark.long
def test_an_entry_with_the_same_losses_gets_the_new_digest_and_nothing_else(path):
    before = json.loads(path.read_text())
    outcome = restamp(path, quiet)
    after = json.loads(path.read_text())
    assert (outcome.written, outcome.failed) == (True, False)
    assert "3 runs at horizons 4, 8, 16 with the code here gave the same" in outcome.detail
    assert after["study"].pop("source_sha256") != before["study"].pop("source_sha256")
    assert after == before
    again = verify(entries.read(path), Request(1, 0, [4]), False, quiet, False)
    assert again.verdict.verdict == "reproduced"
    assert verdicts.of(outcome.entry).verdict == "reproduced"


def reruns_of_seed_2(entry, factor):
    runs = [
        {"kind": "final", "horizon": h, "seed": 2, "trial": None, "environment": 0}
        | {"recorded": loss, "rerun": loss * factor}
        for h in entry.horizons
        for loss in [finals_of(entry, h)[1].final["probe_loss"]]
    ]
    return verdicts.Verdict("reproduced", "made up", entry.sha256, {"a": 1}, runs)


def test_earlier_reruns_count_on_and_the_verdict_says_that_it_was_restamped(path):
    entry = entries.read(path)
    verdicts.record(entry, reruns_of_seed_2(entry, 1))
    now = verdicts.of(restamp(path, quiet).entry)
    assert now.detail.startswith("6 runs at horizons 4, 8, 16 gave the recorded numbers")
    assert "; re-stamped later: 3 runs" in now.detail
    assert (now.verdict, len(now.runs), now.environments[0]) == ("reproduced", 6, {"a": 1})


def test_restamping_does_not_clear_a_failed_verdict(path):
    entry = entries.read(path)
    assert verdicts.record(entry, reruns_of_seed_2(entry, 3)).verdict == "failed"
    assert verdicts.of(restamp(path, quiet).entry).verdict == "failed"


@pytest.mark.long
def test_other_losses_write_nothing_unless_a_witness_has_them(path, tmp_path):
    edit(path, lowered)
    text = path.read_text()
    outcome = restamp(path, quiet)
    assert (outcome.written, outcome.failed) == (False, True)
    assert "other probe losses at horizon 4 (seed 1): " in outcome.detail
    assert path.read_text() == text
    assert not verdicts.path_of(outcome.entry).exists()

    # The old code on this machine: its losses are those of the code here.
    content = json.loads(text)
    there = shutil.copytree(path.parent, tmp_path / "there" / "tiny") / path.name
    assert restamp_unaltered(there)
    losses = verdicts.of(entries.read(there)).runs
    entry = entries.read(path)
    witness = tmp_path / "witness" / path.name
    witness.parent.mkdir()

    def written(**changes):
        verdict = verdicts.Verdict("reproduced", "one", entry.sha256, environment(), losses)
        verdict = dataclasses.replace(verdict, **changes).stamped()
        witness.write_text(json.dumps(dataclasses.asdict(verdict)))
        return witness.parent

    for changes, message in (
        ({"entry_sha256": "0" * 64}, "of another version"),
        ({"environment": {}}, "another machine"),
    ):
        with pytest.raises(UserError, match=message):
            restamp(path, quiet, written(**changes))
    other = [run | {"rerun": run["rerun"] * (1 + 1e-7)} for run in losses]
    assert restamp(path, quiet, written(runs=other)).failed
    outcome = restamp(path, quiet, written())
    assert outcome.written
    assert "the old code on the same machine" in outcome.detail
    assert json.loads(path.read_text())["rungs"] == content["rungs"]


def restamp_unaltered(path):
    def raised(content):
        for rung in content["rungs"]:
            for run in rung["finals"]:
                run["points"][-1]["probe_loss"] /= 0.999

    edit(path, raised)
    return restamp(path, quiet).written


def test_new_words_need_no_rerun(path):
    restamp(path, quiet)
    name = f"{BASELINE}.py"
    name = next(one for one in json.loads(path.read_text())["sources"] if one.endswith(name))
    edit(path, lambda content: content["sources"].update({name: "# Old words.\n"}))

    def fails(event, steps):
        raise AssertionError("nothing must be rerun")

    outcome = restamp(path, fails)
    assert (outcome.written, outcome.failed) == (True, False)
    assert restamp(path, fails).written is False


def test_what_cannot_be_restamped_is_rejected(board_folder, path):
    with pytest.raises(UserError, match="not built in"):
        restamp(board_folder / "tiny" / "calm.json", quiet)
    with pytest.raises(UserError, match="No verdict found"):
        restamp(path, quiet, board_folder)
    edit(path, lambda content: content["study"]["space"]["lr"].update(high=0.9))
    with pytest.raises((UserError, entries.BadEntry), match="search space"):
        restamp(path, quiet)


def test_costs_measured_again_leave_runs_and_verdict(board_folder, capsys):
    path = board_folder / "tiny" / f"{BASELINE}.json"
    before, entry = json.loads(path.read_text()), entries.read(path)
    kept = reruns_of_seed_2(entry, 1.0)
    verdicts.record(entry, dataclasses.replace(kept, cost=dataclasses.asdict(entry.cost)))
    recorded = verdicts.of(entry)
    assert "cost" not in recorded.unverified
    assert entry_costs.measure_again(board_folder, "tiny", [BASELINE])
    assert f"tiny/{BASELINE}: a student's step takes" in capsys.readouterr().out
    after = json.loads(path.read_text())
    assert after.pop("cost") != before.pop("cost")
    assert after == before
    assert entries.read(path).cost.relative == 1.0  # the baseline's, against itself
    now = verdicts.of(entries.read(path))
    assert (now.verdict, now.runs) == ("reproduced", recorded.runs)
    assert (now.cost, now.unverified[-1]) == (None, "cost")


def test_the_cost_of_code_that_is_not_here_is_not_measured(board_folder, capsys):
    path = board_folder / "tiny" / "calm.json"
    before = path.read_text()
    assert not entry_costs.measure_again(board_folder, "tiny", ["calm"])
    assert "calm.py is not built in. Its cost stays as it was." in capsys.readouterr().err
    assert path.read_text() == before
    with pytest.raises(UserError, match=r"--costs=clam has no entry\. Did you mean 'calm'\?"):
        entry_costs.measure_again(board_folder, "tiny", ["clam"])
