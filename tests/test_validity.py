"""The validity certificate: known orders, simulated clusters, scipy, and the archived board."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from support.paths import ROOT
from sweeps.board.certificate import sentences
from sweeps.results import halves
from sweeps.results.rank_correlation import signs, tau_b
from sweeps.results.validity import MIN_OPTIMIZERS, Run, certify

ARCHIVE = ROOT / "leaderboard" / "archive" / "revision1" / "digits"


def run(optimizer, horizon, seed, loss, clean=None, heldout=None, accuracy=0.5):
    clean, heldout = loss if clean is None else clean, loss if heldout is None else heldout
    final = {"probe_loss": loss, "test_kl": clean, "heldout_kl": heldout}
    return Run(
        f"o{optimizer}", horizon, seed, final | {"agreement": 1 - loss, "accuracy": accuracy}
    )


def board(loss_OHS, clean_OHS):
    """Runs of O optimizers, H horizons and S seeds; values near 0 become losses near 1."""
    return [
        run(o, h, s, math.exp(0.01 * loss_OHS[o, h, s]), math.exp(0.01 * clean_OHS[o, h, s]))
        for o, h, s in np.ndindex(loss_OHS.shape)
    ]


def clustered(rng, optimizers=12, horizons=4, seeds=5):
    """Probe losses and clean-image KLs of one level, to which each optimizer and seed adds its own.

    Sources of variance: the optimizers' levels 1, their habits 1, seeds, and noise.
    """
    shape = optimizers, horizons, seeds
    level = rng.normal(0, 1, (optimizers, 1, 1)) + rng.normal(0, 0.3, (optimizers, horizons, 1))
    common = rng.normal(0, 0.2, (1, 1, seeds))
    loss = level + common + rng.normal(0, 0.5, shape)
    habit = rng.normal(0, 1, (optimizers, 1, 1)) + rng.normal(0, 0.3, (1, 1, seeds))
    return loss, level + common + habit + rng.normal(0, 0.7, shape)


def by_metric(found):
    return {c.metric: c for c in found.metrics}


@pytest.mark.parametrize("ties", [False, True])
def test_tau_is_that_of_scipy(ties):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 40)) + rng.normal(size=40)
    if ties:
        a, b = np.round(a), np.round(b)
    counted = ~np.eye(40, dtype=bool)
    assert tau_b(signs(a), signs(b), counted) == pytest.approx(kendalltau(a, b)[0])
    assert tau_b(signs(a), signs(np.zeros(40)), counted) is None


def test_one_run_of_each_optimizer_at_one_horizon_gives_the_tau_of_scipy():
    rng = np.random.default_rng(1)
    losses = 1 + 0.2 * rng.random(12)
    clean, accuracy = losses + 0.1 * rng.random(12), rng.random(12)
    made = [run(i, 10, 1, losses[i], clean[i], accuracy=accuracy[i]) for i in range(12)]
    found = certify(made)
    assert (found.runs, found.optimizers, found.pairs, found.lacking) == (12, 12, 66, "")
    metrics = by_metric(found)
    assert metrics["test_kl"].tau == pytest.approx(kendalltau(losses, clean)[0])
    assert metrics["accuracy"].tau == pytest.approx(-kendalltau(losses, accuracy)[0])
    assert (metrics["agreement"].tau, metrics["agreement"].alike) == (pytest.approx(1), 1)
    ordered = np.sign(np.subtract.outer(losses, losses)) * np.sign(np.subtract.outer(clean, clean))
    assert metrics["test_kl"].alike == pytest.approx((ordered > 0).sum() / (ordered != 0).sum())
    assert metrics["test_kl"].between_halves is None  # one seed has no halves
    assert [c.role for c in found.metrics] == ["test", "replicate", "reported", "reported"]


def test_pairs_are_of_different_optimizers_at_one_horizon():
    rng = np.random.default_rng(2)
    # The metric follows the horizon and, within an optimizer, the loss; between them it is noise.
    made = []
    for h in (1, 2, 3):
        for o in range(8):
            offset = rng.normal()
            made += [run(o, h, s, h + 0.01 * s, 100 * h + offset + 0.01 * s) for s in range(4)]
    loss, clean = ([r.final[name] for r in made] for name in ("probe_loss", "test_kl"))
    assert kendalltau(loss, clean)[0] > 0.6
    found = certify(made)
    assert found.pairs == 3 * (8 * 7 // 2) * 16
    assert abs(by_metric(found)["test_kl"].tau) < 0.3


def test_runs_far_from_the_best_or_without_a_number_do_not_count():
    rng = np.random.default_rng(3)
    made = board(*clustered(rng))
    found = certify(made)
    blown_up = [run(99, h, s, 1e14 * (1 + s), 1e3) for h in range(4) for s in range(5)]
    lost = [run(98, h, 0, math.nan) for h in range(4)]
    tuned = [Run("o1", 1, 0, {"probe_loss": 0.5})]
    assert certify(made + blown_up + lost + tuned) == found


def test_the_interval_covers_where_resampling_runs_does_not():
    """Runs of an optimizer share its habits, so 240 runs say less than 240 independent ones."""
    rng = np.random.default_rng(4)
    worlds = 60
    loss, clean = clustered(rng, optimizers=400, horizons=4, seeds=1)
    counted = ~np.eye(400, dtype=bool)
    truth = np.mean([tau_b(signs(loss[:, h, 0]), signs(clean[:, h, 0]), counted) for h in range(4)])
    ours = naive = 0
    for _ in range(worlds):
        made = board(*clustered(rng))
        found = by_metric(certify(made))["test_kl"]
        ours += found.low <= truth <= found.high
        low, high = resample_runs(made, rng)
        naive += low <= truth <= high
    assert ours / worlds >= 0.88  # 0.935 to 0.97 in 200 worlds
    assert naive / worlds <= 0.7  # about 0.5


def resample_runs(made, rng, resamples=200):
    """The percentile interval that takes runs for independent."""
    loss, clean = (
        np.array([r.final[name] for r in made]).astype(float) for name in ("probe_loss", "test_kl")
    )
    horizon = np.array([r.horizon for r in made])
    optimizer = np.array([r.optimizer for r in made])
    counted = (horizon[:, None] == horizon) & (optimizer[:, None] != optimizer)
    a, b = signs(loss), signs(clean)
    weights_RN = rng.multinomial(len(made), np.full(len(made), 1 / len(made)), size=resamples)
    both, first, second = (
        np.einsum("ri,ri->r", weights_RN @ (x * counted), weights_RN) for x in (a * b, a * a, b * b)
    )
    return np.percentile(both / np.sqrt(first * second), [2.5, 97.5])


def test_too_few_optimizers_or_pairs_give_a_reason_and_no_number():
    made = board(*clustered(np.random.default_rng(5), optimizers=MIN_OPTIMIZERS - 1))
    few = certify(made)
    assert (few.metrics, few.optimizers) == ((), MIN_OPTIMIZERS - 1)
    assert sentences(few) == [
        "No certificate: 3 optimizers and 300 pairs of runs near the best; "
        "a certificate needs 4 optimizers and 10 pairs."
    ]
    pairs = certify([run(o, 1, 1, 1 + o / 100) for o in range(4)])
    assert (pairs.metrics, pairs.pairs) == ((), 6)
    assert certify([]).lacking
    constant = certify([run(o, 1, s, 1 + o / 100, clean=1.0) for o in range(5) for s in range(3)])
    assert "same in all runs" in constant.lacking


def test_all_splits_of_few_seeds_and_some_of_many():
    rng = np.random.default_rng(0)
    five = halves.splits([3, 4, 5, 6, 7], rng)
    assert len(five) == len({tuple(one) for one, _ in five}) == 10
    many = halves.splits(range(40), rng)
    assert 50 <= len(many) <= 200
    for one, other in five + many:
        assert abs(len(one) - len(other)) <= 1
        assert not set(one) & set(other)
    assert halves.splits([1], rng) == []


@pytest.mark.parametrize(("noise", "other"), [(0.3, 0.3), (0.3, 1.0), (0.7, 1.0)])
def test_halves_show_how_an_order_repeats_and_the_ceiling_of_a_perfect_metric(noise, other):
    """Two metrics of one level with different noise. With means of two seeds, all is known."""
    rng = np.random.default_rng(6)
    level = rng.normal(0, 1, (100, 1, 1))
    loss, clean = (level + rng.normal(0, x, (100, 1, 4)) for x in (noise, other))
    found = certify(board(loss, clean))
    metric = by_metric(found)["test_kl"]

    def tau(a, b):  # of two means of two, with correlation r (Greiner)
        return 2 / np.pi * np.arcsin(1 / np.sqrt((1 + a * a / 2) * (1 + b * b / 2)))

    assert (found.entries, found.entry_pairs) == (100, 100 * 99 // 2)
    assert found.reliability == pytest.approx(tau(noise, noise), abs=0.05)
    assert metric.reliability == pytest.approx(tau(other, other), abs=0.05)
    assert metric.between_halves == pytest.approx(tau(noise, other), abs=0.05)
    assert metric.ceiling == pytest.approx(metric.between_halves, abs=0.03)
    loss, clean = level + rng.normal(0, noise, (100, 1, 4)), rng.normal(0, 1, (100, 1, 4))
    unrelated = by_metric(certify(board(loss, clean)))["test_kl"]
    assert abs(unrelated.between_halves) < 0.1


def test_an_entry_with_fewer_seeds_counts_where_both_halves_have_some():
    rng = np.random.default_rng(7)
    made = board(*clustered(rng, horizons=2))
    whole, fewer = certify(made), certify([r for r in made if r.optimizer != "o3" or r.seed < 3])
    assert fewer.runs == whole.runs - 4
    assert fewer.entry_pairs == whole.entry_pairs
    assert fewer.metrics[0].between_halves == pytest.approx(
        whole.metrics[0].between_halves, abs=0.1
    )


def test_noise_has_no_ceiling_and_says_that_nothing_is_shown():
    rng = np.random.default_rng(8)
    found = certify(board(*rng.normal(0, 1, (2, 6, 2, 5))))
    assert found.metrics[0].low < 0 < found.metrics[0].high
    assert "nothing is shown yet" in sentences(found)[0]
    assert halves.ceiling(0.5, -0.1) is halves.ceiling(None, 0.5) is None
    assert halves.ceiling(0.5, 0.5) == pytest.approx(0.5)


def archived():
    """(whether it is a final, its run) of every run that ended well on the first board."""
    for path in sorted(ARCHIVE.glob("*.json")):
        content = json.loads(path.read_text())
        optimizer = content["study"]["optimizer"]
        for rung in content["rungs"]:
            for tried in rung["tuning"]:
                if tried["final"]:
                    yield False, Run(optimizer, rung["horizon"], 0, tried["final"])
            for final in rung["finals"]:
                if final["status"] == "ok":
                    metrics = final["points"][-1]
                    yield True, Run(optimizer, rung["horizon"], final["seed"], metrics)


def test_the_first_board():
    """All pairs at one horizon, as the audit of the first board counted them; then the certificate
    of its finals."""
    runs = list(archived())
    made = [run for _, run in runs]
    horizon = np.array([r.horizon for r in made])
    loss = np.array([r.final["probe_loss"] for r in made])
    best = np.array([loss[horizon == h].min() for h in horizon])
    near = loss <= 1.25 * best
    same = (horizon[:, None] == horizon) & ~np.eye(len(made), dtype=bool)
    audit = {"heldout_kl": (0.916, 0.805), "test_kl": (0.778, 0.569), "accuracy": (0.390, 0.148)}
    for metric, expected in audit.items():
        sign = -1 if metric == "accuracy" else 1
        values = signs(sign * np.array([r.final[metric] for r in made]))
        taus = [tau_b(signs(loss), values, x) for x in (same, same & near[:, None] & near)]
        assert taus == pytest.approx(expected, abs=5e-4)
    found = certify([run for final, run in runs if final])
    metrics = by_metric(found)
    assert (found.runs, found.optimizers, found.entry_pairs) == (193, 9, 150)
    assert found.reliability == pytest.approx(0.811, abs=0.005)  # of the audit
    assert metrics["heldout_kl"].between_halves == pytest.approx(0.832, abs=0.02)
    assert metrics["test_kl"].between_halves == pytest.approx(0.721, abs=0.025)
    assert metrics["test_kl"].ceiling == pytest.approx(0.743, abs=0.01)
    assert 0.3 < metrics["test_kl"].low < metrics["test_kl"].tau < metrics["test_kl"].high < 0.9
    text = " ".join(sentences(found))
    assert "193 runs of 9 optimizers" in text
    assert "0.70; this noise allows about 0.74" in text
    assert "Held-out KL is a replicate" in text
