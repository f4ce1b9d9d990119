"""Rows of a table, and comparisons of rows with the baseline."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sweeps.planning.study import Result, Study, Trial
from sweeps.results.comparison import Comparison, edge_warning
from sweeps.results.summary import chosen, edges, row_of, rows, winner

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
    assert winner(STUDY, results, 250).trial.hparams == {"lr": 0.2}
    assert (row.status, row.seeds, row.trials, row.diverged) == ("ok", 2, 3, 1)
    assert row.mean["probe_loss"] == pytest.approx(0.22)
    assert row.std["probe_loss"] == pytest.approx(np.std([0.21, 0.23], ddof=1))


def test_the_winner_is_the_one_that_its_finals_have():
    """Trials that came later must not give a row another winner than its final runs have."""
    tuned = [result(0.1, 250, 0, 0.3), result(0.2, 250, 0, 0.2), result(0.2, 500, 0, 0.2)]
    ran = [result(0.1, 250, seed, 0.31) for seed in (1, 2)]
    assert winner(STUDY, tuned, 250) is tuned[1]
    assert chosen(tuned + ran, 250) is tuned[0]
    assert row_of(STUDY, tuned + ran, 250).hparams == {"lr": 0.1}
    assert chosen(tuned, 250) is None
    assert chosen(tuned + ran, 500) is None
    assert chosen([*tuned, *ran, result(0.2, 250, 3, 0.2)], 250) is None
    # The finals alone tell it where the store has no such trial, and nothing if they failed.
    alone = result(0.7, 250, 1, 0.2)
    assert chosen([*tuned, alone], 250) is alone
    assert chosen([result(0.7, 250, 1, 0, "diverged")], 250) is None


def test_the_winner_is_the_choice_of_the_search():
    """A lucky run at the far end does not win against a valley of good ones."""
    rates = np.geomspace(0.01, 1.0, 21)
    valley = 0.1 * np.exp(0.5 * (np.linspace(0, 1, 21) - 0.3) ** 2)
    losses = np.where(np.arange(21) == 14, 0.098, valley)
    tuned = [result(lr, 250, 0, loss) for lr, loss in zip(rates, losses, strict=True)]
    best = winner(STUDY, tuned, 250)
    assert best in tuned
    assert abs(np.interp(best.trial.hparams["lr"], rates, np.linspace(0, 1, 21)) - 0.3) <= 0.15
    assert min(tuned, key=lambda one: one.final["probe_loss"]) is tuned[14]
    failed = [result(lr, 250, 0, 0, "diverged") for lr in rates]
    assert winner(STUDY, failed, 250) is None


def test_any_run_wins_where_nothing_is_tuned():
    plain = dataclasses.replace(STUDY, space={})
    ran = [result(0.1, 250, 1, 0.3), result(0.1, 250, 2, 0.2)]
    assert winner(plain, ran, 250) is ran[1]
    assert winner(plain, ran, 500) is None
    assert winner(plain, [*ran, result(0.2, 250, 3, 0.1)], 250) is None
    assert winner(plain, [result(0.1, 250, 1, 0, "diverged")], 250) is None


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


DOMAINS = {
    "lr": LOG,
    "decay": {"kind": "Decay", "low": 0.9, "high": 0.999},
    "warmup": {"kind": "Uniform", "low": 0.0, "high": 1.0},
    "frequency": {"kind": "Choice", "values": [1, 2, 5, 10]},
    "b1": {"kind": "Choice", "values": [0.8, 0.9, 0.95]},
    "kind": {"kind": "Choice", "values": ["a", "b", "c", "d"]},
    "flag": {"kind": "Choice", "values": [True, False]},
    "depth": {"kind": "Uniform", "low": 0, "high": 9},
}
POINTS = [
    (0.02, 0.97, 0.4, 2, 0.9, "b", True, 4),
    (0.05, 0.98, 0.2, 1, 0.8, "a", False, 3),
    (0.08, 0.95, 0.6, 10, 0.95, "d", True, 1),
    (0.03, 0.91, 0.8, 5, 0.8, "c", False, 2),
]


def searched(points, horizon=250, losses=None, status="ok"):
    """Results of tuning trials at these points of DOMAINS; the first point is the best one."""
    losses = losses or [0.1 * (i + 1) for i in range(len(points))]
    return [
        dataclasses.replace(
            (one := result(0, horizon, 0, loss, status)),
            trial=dataclasses.replace(one.trial, hparams=dict(zip(DOMAINS, point, strict=True))),
        )
        for point, loss in zip(points, losses, strict=True)
    ]


WIDE = dataclasses.replace(STUDY, space=DOMAINS)


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        (0, ("lr", "depth")),
        (1, ("decay", "warmup", "frequency")),
        (2, ("lr", "frequency", "depth")),
        (3, ("decay", "warmup")),
    ],
)
def test_a_winner_at_the_edge_of_what_was_tried(best, expected):
    losses = [0.1 if i == best else 0.5 for i in range(4)]
    assert row_of(WIDE, searched(POINTS, losses=losses), 250).edges == expected


def test_few_tried_values_have_no_edge():
    for n in (1, 2, 3):
        assert row_of(WIDE, searched(POINTS[:n]), 250).edges == ()
    assert row_of(WIDE, searched([POINTS[0]] * 5), 250).edges == ()


def test_a_value_beyond_the_best_counts_though_it_diverged():
    beyond = (0.01, 0.97, 0.4, 2, 0.9, "b", True, 5)
    results = searched(POINTS) + searched([beyond], status="diverged")
    assert row_of(WIDE, results, 250).edges == ()


def test_a_rung_with_few_trials_is_judged_by_those_of_the_shorter_rungs():
    promoted = searched(POINTS[:2], horizon=500, losses=[0.5, 0.1])
    assert row_of(WIDE, searched(POINTS) + promoted, 500).edges == (
        "decay",
        "warmup",
        "frequency",
    )
    assert row_of(WIDE, promoted, 500).edges == ()
    longer = searched(POINTS, horizon=1000)
    assert row_of(WIDE, promoted + longer, 500).edges == ()


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("b2",), "the best b2 is the lowest or highest that was tried"),
        (("lr", "b2"), "the best values of lr and b2 are the lowest or highest that were tried"),
        (("lr", "b2", "warmup"), "the best values of lr, b2 and warmup are"),
    ],
)
def test_the_warning_names_all_values_at_an_edge(names, text):
    row = dataclasses.replace(row_of(WIDE, searched(POINTS), 250), edges=names)
    warning = edge_warning(row)
    assert warning
    assert warning.startswith(text)


@pytest.mark.parametrize(
    ("values", "best", "expected"),
    [
        ([0.1, 0.2, 0.3], 0.3, ("lr",)),
        ([0.1, 0.2, 0.3], 0.2, ()),
        ([0.1, 0.2], 0.2, ()),
        (["a", "b", "c"], "c", ()),
    ],
)
def test_a_winner_at_the_edge_of_listed_values(values, best, expected):
    listed = dataclasses.replace(STUDY, space={}, fixed={"lr": values})
    one = result(best, 250, 0, 0.1)
    assert edges(listed, [one], one) == expected


def test_the_reference_fills_in_where_the_rows_lack_the_baseline():
    mine = row_of(
        dataclasses.replace(STUDY, optimizer="base"),
        [result(0.1, 250, 0, 0.5), result(0.1, 250, 1, 0.4)],
        250,
    )
    reference = [
        dataclasses.replace(mine, horizon=h, status="reference", by_seed={1: 0.2})
        for h in (250, 500)
    ]
    curve = Comparison("base", [mine], reference).curve
    np.testing.assert_allclose(np.exp(curve.steps), [250, 500])
    np.testing.assert_allclose(np.exp(curve.losses), [0.4, 0.2])


def test_a_failed_seed_leaves_the_row_without_a_mean():
    results = [
        result(0.1, 250, 0, 0.3),
        result(0.1, 250, 1, 0.1),
        result(0.1, 250, 2, 0, "diverged"),
    ]
    row = row_of(STUDY, results, 250)
    assert (row.status, row.mean, row.by_seed) == ("diverged", None, {})


def failing(status, seed, detail, horizon=250):
    return dataclasses.replace(result(0.1, horizon, seed, 0, status), detail=detail)


def test_a_failure_says_how_many_runs_failed_and_how():
    tuned = result(0.1, 250, 0, 0.3)
    diverged = [failing("diverged", s, f"the loss of step {s} is nan") for s in (1, 2, 3)]
    row = row_of(STUDY, [tuned, *diverged], 250)
    assert row.failure == "diverged 3 of 3 seeds: the loss of step 1 is nan"
    row = row_of(STUDY, [tuned, result(0.1, 250, 1, 0.2), failing("timeout", 2, "")], 250)
    assert (row.status, row.failure) == ("timeout", "timed out 1 of 2 seeds")
    trace = (
        'Traceback (most recent call last):\n  File "mine.py", line 3, in up\n    raise It\n'
        "mine.It: first line\nsecond line"
    )
    tuning = [failing("crashed", 0, trace), dataclasses.replace(diverged[0], trial=tuned.trial)]
    row = row_of(STUDY, tuning, 250)
    assert row.status == "diverged"
    assert row.failure == ("diverged 1 and crashed 1 of 2 tuning trials: the loss of step 1 is nan")
    row = row_of(STUDY, [failing("crashed", 0, trace)], 250)
    assert row.failure == "crashed 1 of 1 tuning trial: mine.It: first line"
    assert row_of(STUDY, [tuned], 250).failure is None


def test_a_tuning_trial_that_failed_does_not_say_how_the_seeds_failed():
    results = [
        result(0.1, 250, 0, 0.3),
        result(0.5, 250, 0, 0, "diverged"),
        failing("crashed", 1, "killed"),
    ]
    row = row_of(STUDY, results, 250)
    assert (row.status, row.failure) == ("crashed", "crashed 1 of 1 seed: killed")
