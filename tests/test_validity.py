"""The validity certificate, on orders with a known Kendall's tau."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.results.validity import certify


def runs(losses, heldout):
    return [
        (10, {"probe_loss": a, "heldout_kl": b, "agreement": 1 - b, "accuracy": 0.5})
        for a, b in zip(losses, heldout, strict=True)
    ]


def test_tau_of_a_perfect_order_of_one_swap_and_of_noise():
    losses = np.arange(1.0, 13.0)
    perfect = {c.metric: c for c in certify(runs(losses, losses**2))}
    assert (
        perfect["heldout_kl"].tau,
        perfect["heldout_kl"].disagree,
        perfect["heldout_kl"].runs,
    ) == (pytest.approx(1.0), 0.0, 12)
    assert perfect["agreement"].tau == pytest.approx(1.0)
    swapped = losses.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    one = certify(runs(losses, swapped))[0]
    assert one.disagree == pytest.approx(1 / 66)
    assert one.tau == pytest.approx(1 - 2 / 66)
    assert one.low < one.tau <= one.high
    rng = np.random.default_rng(0)
    noise = certify(runs(rng.random(60), rng.random(60)))[0]
    assert noise.low < 0 < noise.high


def test_the_interval_covers_the_true_tau():
    """Two normals with correlation r have tau = 2 / pi * arcsin(r); 20 samples of 60 runs."""
    r, hits = 0.9, 0
    truth = 2 / np.pi * np.arcsin(r)
    for seed in range(20):
        a, b = np.random.default_rng(seed).multivariate_normal([0, 0], [[1, r], [r, 1]], 60).T
        found = certify(runs(a, b), seed)[0]
        hits += found.low <= truth <= found.high
    assert hits >= 17


def test_an_order_due_to_the_horizon_does_not_count_within_rungs():
    rng = np.random.default_rng(0)
    made = [
        (
            h,
            {
                "probe_loss": 1000 / h + rng.random(),
                "heldout_kl": 1000 / h + rng.random(),
                "agreement": 0.5,
                "accuracy": 0.5,
            },
        )
        for h in (250, 500, 1000) * 20
    ]
    found = certify(made)[0]
    assert found.tau > 0.6
    assert abs(found.within) < 0.25
    losses = np.arange(12.0)
    same = certify(
        [
            (h, {"probe_loss": v, "heldout_kl": v, "agreement": 0.5, "accuracy": 0.5})
            for h, v in zip([1, 2] * 6, losses, strict=True)
        ]
    )[0]
    assert same.within == pytest.approx(1.0)
    alone = certify(
        [
            (i, {"probe_loss": v, "heldout_kl": v, "agreement": 0.5, "accuracy": 0.5})
            for i, v in enumerate(losses)
        ]
    )[0]
    assert alone.within is None


def test_too_few_runs_give_no_certificate():
    assert certify(runs([1.0, 2.0], [1.0, 2.0])) == []
