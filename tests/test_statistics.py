from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps import entries, statistics
from sweeps.statistics import Speedup, row_of, rows, speedup, winner
from sweeps.store import Loaded
from sweeps.study import Result, Study, Trial

LOG = {"kind": "Log", "low": 0.01, "high": 1.0}
STUDY = Study("digits", "f" * 16, "mine", "s" * 64, {"lr": LOG}, {}, {"jax": "1"})


def result(lr, horizon, seed, loss, status="ok"):
    trial = Trial(STUDY.id, {"lr": lr}, horizon, seed)
    final = {"probe_loss": loss, "heldout_kl": loss + 0.01, "test_kl": loss, "agreement": 0.9, "accuracy": 0.8}
    return Result(trial, status, horizon, None, (), ((horizon, final),) if status == "ok" else ())


# A baseline that halves its loss with each doubling: loss = 100 / horizon.
BASELINE = {h: 100 / h for h in (250, 500, 1000, 2000)}


@pytest.mark.parametrize(
    ("loss", "horizon", "expected"),
    [
        (100 / 500, 250, Speedup(2.0)),
        (100 / 500, 500, Speedup(1.0)),
        (100 / 500, 1000, Speedup(0.5)),
        (100 / 250, 250, Speedup(1.0)),
        (100 / 2000, 1000, Speedup(2.0)),
        (100 / 2001, 1000, Speedup(2.0, ">")),
        (100 / 249, 1000, Speedup(0.25, "<")),
    ],
)
def test_speedups_by_hand(loss, horizon, expected):
    found = speedup(loss, horizon, BASELINE)
    assert found.bound == expected.bound
    assert found.value == pytest.approx(expected.value)


@given(loss=st.floats(100 / 2000, 100 / 250), horizon=st.integers(1, 4000))
def test_a_power_law_is_interpolated_exactly(loss, horizon):
    assert speedup(loss, horizon, BASELINE).value == pytest.approx(100 / loss / horizon, rel=1e-6)


@given(a=st.floats(0.01, 1.0), b=st.floats(0.01, 1.0), seed=st.integers(0, 100))
def test_a_lower_loss_is_never_slower_even_on_a_bumpy_baseline(a, b, seed):
    bumpy = dict(zip((250, 500, 1000, 2000), np.random.default_rng(seed).uniform(0.02, 0.9, 4), strict=True))
    low, high = sorted((a, b))
    assert speedup(low, 500, bumpy).value >= speedup(high, 500, bumpy).value - 1e-12


def test_without_a_baseline_or_a_loss_there_is_no_speedup():
    assert speedup(0.1, 250, {}) is None
    assert speedup(float("nan"), 250, BASELINE) is None


def test_a_row_holds_the_winner_over_its_final_seeds():
    results = [result(0.1, 250, 0, 0.3), result(0.2, 250, 0, 0.2), result(0.5, 250, 0, 0.1, "diverged")]
    results += [result(0.2, 250, seed, loss) for seed, loss in ((1, 0.21), (2, 0.23))]
    results += [result(0.1, 250, 1, 0.05)]  # a final of what is no winner
    row = row_of(STUDY, results, 250)
    assert winner(results, 250).trial.hparams == {"lr": 0.2}
    assert (row.status, row.seeds, row.trials, row.diverged) == ("ok", 2, 3, 1)
    assert row.mean["probe_loss"] == pytest.approx(0.22)
    assert row.std["probe_loss"] == pytest.approx(np.std([0.21, 0.23], ddof=1))


def test_rows_say_how_they_ended():
    assert row_of(STUDY, [result(0.1, 250, 0, 0.3)], 250).status == "tuning"
    assert row_of(STUDY, [result(0.1, 250, 0, 0, "diverged")], 250).status == "diverged"
    assert row_of(STUDY, [result(0.1, 250, 0, 0, "crashed")], 250).status == "crashed"
    assert row_of(STUDY, [result(0.1, 250, 0, 0.3), result(0.1, 250, 1, 0, "diverged")], 250).status == "diverged"


def test_rows_are_sorted_by_horizon_and_loss_with_failures_last():
    other = dataclasses.replace(STUDY, optimizer="other")
    bad = dataclasses.replace(STUDY, optimizer="bad")
    made = rows(
        [
            (STUDY, [result(0.1, 500, 0, 0.2), result(0.1, 250, 0, 0.3)]),
            (other, [result(0.1, 250, 0, 0.1)]),
            (bad, [result(0.1, 250, 0, 0.1, "diverged")]),
        ]
    )
    assert [(row.horizon, row.opt) for row in made] == [(250, "other"), (250, "mine"), (250, "bad"), (500, "mine")]


ROW = row_of(STUDY, [result(0.1, 250, seed, 0.3) for seed in range(4)], 250)


@pytest.mark.parametrize(("lr", "edges"), [(0.0101, ("lr",)), (0.1, ()), (0.99, ("lr",))])
def test_a_winner_at_an_edge_of_its_space_is_told(lr, edges):
    assert row_of(STUDY, [result(lr, 250, 0, 0.3)], 250).edges == edges


def test_listed_values_have_edges_too():
    listed = dataclasses.replace(STUDY, space={}, fixed={"lr": [0.1, 0.2, 0.3]})
    assert statistics.edges(listed, {"lr": 0.3}) == ("lr",)
    assert statistics.edges(listed, {"lr": 0.2}) == ()


def test_the_baseline_is_taken_from_the_store_where_it_has_it():
    mine = row_of(dataclasses.replace(STUDY, optimizer="base"), [result(0.1, 250, 0, 0.5), result(0.1, 250, 1, 0.4)], 250)
    reference = [dataclasses.replace(mine, horizon=h, status="reference", mean={"probe_loss": 0.9}) for h in (250, 500)]
    assert statistics.baseline_curve([mine], reference, "digits", "base") == {250: pytest.approx(0.4), 500: 0.9}


def test_entries_round_trip_and_strangers_are_told(tmp_path):
    from distill_bench.task import DIGITS

    study = dataclasses.replace(STUDY, fingerprint=DIGITS.fingerprint())
    folder = tmp_path / "study"
    folder.mkdir()
    loaded = Loaded(study, folder, "mine", {"mine.py": "the source"}, [result(0.1, 250, 0, 0.3), result(0.1, 250, 1, 0.31)])
    path = entries.write_entry(loaded, tmp_path)
    found, warnings = entries.load_entries(["digits"], tmp_path)
    assert warnings == []
    assert [(row.opt, row.horizon, row.status, row.mean["probe_loss"]) for row in found] == [("mine", 250, "reference", pytest.approx(0.31))]
    assert json.loads(path.read_text())["sources"] == {"mine.py": "the source"}

    path.with_name("other.json").write_text(path.read_text().replace(DIGITS.fingerprint(), "0" * 16))
    path.with_name("torn.json").write_text(path.read_text()[:-40])
    found, warnings = entries.load_entries(["digits"], tmp_path)
    assert len(found) == 1
    assert len(warnings) == 2


def test_an_entry_without_finals_is_refused(tmp_path):
    from distill_bench.errors import UserError

    with pytest.raises(UserError, match=r"no final runs at horizons \[250\]"):
        entries.write_entry(Loaded(STUDY, tmp_path, "mine", {}, [result(0.1, 250, 0, 0.3)]), tmp_path)


def test_the_paired_interval_covers_the_truth_95_times_in_100():
    """Five seeds; a baseline of loss 100 / horizon, an entrant 1.4 times as fast, noise that both share and noise of their own."""
    hits = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        shared = rng.normal(0, 0.03, 5)
        curves = {k: {h: 100 / h * np.exp(shared[k] + rng.normal(0, 0.02)) for h in (250, 500, 1000, 2000)} for k in range(5)}
        losses = {k: 100 / (500 * 1.4) * np.exp(shared[k] + rng.normal(0, 0.02)) for k in range(5)}
        low, high = statistics.paired_interval(dataclasses.replace(ROW, horizon=500, by_seed=losses), curves)
        hits += low <= 1.4 <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_there_is_no_interval_without_three_seeds_or_beyond_the_ladder():
    curves = dict.fromkeys(range(5), BASELINE)
    assert statistics.paired_interval(dataclasses.replace(ROW, horizon=500, by_seed={0: 0.15, 1: 0.14}), curves) is None
    assert statistics.paired_interval(dataclasses.replace(ROW, horizon=500, by_seed={0: 0.15, 1: 0.14, 2: 0.01}), curves) is None
    low, high = statistics.paired_interval(dataclasses.replace(ROW, horizon=500, by_seed={0: 0.1, 1: 0.1, 2: 0.1}), curves)
    assert (low, high) == (pytest.approx(2.0), pytest.approx(2.0))
