"""Rows of a table, and comparisons of rows with the baseline."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sweeps.planning.study import Result, Study, Trial
from sweeps.results.comparison import Comparison
from sweeps.results.summary import edges, row_of, rows, winner

LOG = {"kind": "Log", "low": 0.01, "high": 1.0}
STUDY = Study("digits", "f" * 16, "mine", "s" * 64, {"lr": LOG}, {}, {"jax": "1"})


def result(lr, horizon, seed, loss, status="ok"):
    trial = Trial(STUDY.id, {"lr": lr}, horizon, seed)
    final = {
        "probe_loss": loss,
        "heldout_kl": loss + 0.01,
        "test_kl": loss,
        "agreement": 0.9,
        "accuracy": 0.8,
    }
    return Result(trial, status, horizon, None, (), ((horizon, final),) if status == "ok" else ())


def test_a_row_holds_the_winner_over_its_final_seeds():
    results = [
        result(0.1, 250, 0, 0.3),
        result(0.2, 250, 0, 0.2),
        result(0.5, 250, 0, 0.1, "diverged"),
    ]
    results += [result(0.2, 250, seed, loss) for seed, loss in ((1, 0.21), (2, 0.23))]
    results += [result(0.1, 250, 1, 0.05)]  # not a final run of the winner
    row = row_of(STUDY, results, 250)
    assert winner(results, 250).trial.hparams == {"lr": 0.2}
    assert (row.status, row.seeds, row.trials, row.diverged) == ("ok", 2, 3, 1)
    assert row.mean["probe_loss"] == pytest.approx(0.22)
    assert row.std["probe_loss"] == pytest.approx(np.std([0.21, 0.23], ddof=1))


def test_the_status_of_a_row():
    assert row_of(STUDY, [result(0.1, 250, 0, 0.3)], 250).status == "tuning"
    assert row_of(STUDY, [result(0.1, 250, 0, 0, "diverged")], 250).status == "diverged"
    assert row_of(STUDY, [result(0.1, 250, 0, 0, "crashed")], 250).status == "crashed"
    assert (
        row_of(STUDY, [result(0.1, 250, 0, 0.3), result(0.1, 250, 1, 0, "diverged")], 250).status
        == "diverged"
    )


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
    assert [(row.horizon, row.opt) for row in made] == [
        (250, "other"),
        (250, "mine"),
        (250, "bad"),
        (500, "mine"),
    ]


@pytest.mark.parametrize(("lr", "expected"), [(0.0101, ("lr",)), (0.1, ()), (0.99, ("lr",))])
def test_a_winner_at_the_edge_of_its_range(lr, expected):
    assert row_of(STUDY, [result(lr, 250, 0, 0.3)], 250).edges == expected


def test_a_winner_at_the_edge_of_listed_values():
    listed = dataclasses.replace(STUDY, space={}, fixed={"lr": [0.1, 0.2, 0.3]})
    assert edges(listed, {"lr": 0.3}) == ("lr",)
    assert edges(listed, {"lr": 0.2}) == ()


def test_the_reference_fills_in_where_the_rows_lack_the_baseline():
    mine = row_of(
        dataclasses.replace(STUDY, optimizer="base"),
        [result(0.1, 250, 0, 0.5), result(0.1, 250, 1, 0.4)],
        250,
    )
    reference = [
        dataclasses.replace(mine, horizon=h, status="reference", mean={"probe_loss": 0.9})
        for h in (250, 500)
    ]
    comparison = Comparison("base", [mine], reference)
    assert comparison.baseline_curve == {250: pytest.approx(0.4), 500: 0.9}
    assert comparison.baseline_seeds == {1: {250: 0.4, 500: 0.4}}


def test_a_failed_seed_leaves_the_row_without_a_mean():
    results = [
        result(0.1, 250, 0, 0.3),
        result(0.1, 250, 1, 0.1),
        result(0.1, 250, 2, 0, "diverged"),
    ]
    row = row_of(STUDY, results, 250)
    assert (row.status, row.mean, row.by_seed) == ("diverged", None, {})
