"""The protocol of the board: the same ladder and the same search for every entry but the
baseline's, and nothing beyond them."""

from __future__ import annotations

import dataclasses
import json

import pytest

from distill_bench.tasks import catalogue
from sweeps.board import entries, protocol, write_entry
from sweeps.board.consistency import inconsistencies
from sweeps.board.entries import BASELINE, BadEntry
from sweeps.planning.study import TUNING_SEED, Result
from sweeps.results import store
from sweeps.results.summary import row_of

TRIALS = {4: 8, 8: 4, 16: 3}  # of the search of board_folder's entries, by horizon


def test_trials_beyond_the_search_do_not_enter(finished, board_folder, tmp_path):
    """Whoever searched longer in the same store has no more trials than others."""
    one = next(one for one in store.load(finished) if one.study.optimizer == "calm")
    lucky = [
        Result(
            dataclasses.replace(r.trial, hparams=r.trial.hparams | {"lr": 0.2 + 0.01 * i}),
            "ok",
            r.step,
            losses=r.losses,
            points=((r.step, r.points[-1][1] | {"probe_loss": 1e-3}),),
        )
        for i, r in enumerate(r for r in one.results if r.trial.seed == TUNING_SEED)
    ]
    more = dataclasses.replace(one, results=[*lucky, *one.results])
    lured = row_of(more.study, lucky, 4).mean
    assert lured
    assert lured["probe_loss"] == 1e-3
    path = write_entry.write(more, entries.Cost(2.0, 1.0, 10.0, 8.0), tmp_path / "other")
    assert path.read_bytes() == (board_folder / "tiny" / "calm.json").read_bytes()
    assert inconsistencies(entries.read(path)) == []
    tuned = [r for r in entries.read(path).results if r.trial.seed == TUNING_SEED]
    assert {h: sum(r.trial.horizon == h for r in tuned) for h in TRIALS} == TRIALS


def test_the_baseline_searches_more_and_runs_longer_than_others():
    horizons = catalogue.get("digits").horizons
    assert protocol.ladder("digits", "calm") == horizons == (125, 250, 500, 1000, 2000, 4000)
    assert protocol.ladder("digits", BASELINE) == (*horizons, 8000, 16000)
    assert (protocol.trials("calm"), protocol.trials(BASELINE)) == (96, 384)


def test_the_baselines_entry_must_have_its_longer_search(board_folder, monkeypatch):
    monkeypatch.setattr(protocol, "BASELINE_OCTAVES", 1)
    for name in ("calm", BASELINE):
        path = board_folder / "tiny" / f"{name}.json"
        content = json.loads(path.read_text())
        content["rungs"].append(content["rungs"][2] | {"horizon": 32})
        path.write_text(json.dumps(content))
    assert entries.read(board_folder / "tiny" / f"{BASELINE}.json").horizons == [4, 8, 16, 32]
    with pytest.raises(BadEntry, match=r"its horizons \[4, 8, 16, 32\] are not the first 3"):
        entries.read(board_folder / "tiny" / "calm.json")
    monkeypatch.setattr(protocol, "BASELINE_FACTOR", 2)
    with pytest.raises(BadEntry, match="it has 8 tuning trials, but every entry has 16"):
        entries.read(board_folder / "tiny" / f"{BASELINE}.json")
