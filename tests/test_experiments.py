"""Claims that need runs: verdicts on made-up ones."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from distill_bench.tasks.variation import Variation
from support import committed, run_results
from sweeps.board.entries import BASELINE
from sweeps.claims import measures, repetition, scales, teaching
from sweeps.claims.experiments import Runs, Size


def law(horizon):
    return 0.025 + 0.063 * (horizon / 1000) ** -0.69


def stand_in(kl):
    """A `compare` that makes up runs: kl(variation, horizon, optimizer) is their loss."""

    def compare(optimizers, task, horizons, *, variation, seeds, **others):
        studies = [
            run_results.loaded(
                run_results.study(name, task=task),
                {h: kl(variation, h, name) for h in horizons},
                seeds=range(1, seeds + 1),
            )
            for name in optimizers
        ]
        return SimpleNamespace(studies=studies)

    return compare


SHORT = teaching.MODES_SIZE.horizons[0]


def test_modes_are_set_against_mix(tmp_path):
    def kl(variation, horizon, name):
        early = 0.5 if variation.mode == "fix/rs" and horizon == SHORT else 1.0
        return early * law(horizon) * (1.0 if variation.mode == "mix" else 1.2)

    found = teaching.modes(Runs(stand_in(kl), tmp_path, tmp_path))
    assert found.verdict == "holds"
    assert "`fix/rs` is better at 500 steps and worse at 2,000: short runs mislead." in found.found
    assert len(found.table) == 9
    assert found.table[1][0] == "`mix`"


@pytest.mark.parametrize(("saving", "verdict"), [(4.5, "holds"), (1.5, "does not hold here")])
def test_mixup_saves_steps_or_not(tmp_path, saving, verdict):
    def kl(variation, horizon, name):
        return law(horizon * (saving if variation.mode == "mix" else 1.0))

    assert teaching.mixup(Runs(stand_in(kl), tmp_path, tmp_path)).verdict == verdict


def test_other_images_teach_less(tmp_path):
    def kl(variation, horizon, name):
        return law(horizon) * (3.0 if variation.images else 1.0)

    found = teaching.images(Runs(stand_in(kl), tmp_path, tmp_path))
    assert found.verdict == "holds"
    assert "a student that reads 80.0% of the digits" in found.found


@pytest.mark.parametrize(
    ("early", "end", "verdict"),
    [(0.6, 1.3, "holds"), (0.6, 0.8, "holds in part"), (1.0, 1.3, "does not hold here")],
)
def test_a_fresh_student_passes_one_that_was_trained_before_or_not(tmp_path, early, end, verdict):
    (tmp_path / "digits-adamw-h1000-seed1-0.npz").touch()

    def kl(variation, horizon, name):
        lead = early if horizon == SHORT else end
        return law(horizon) * (lead if variation.start else 1.0)

    found = teaching.start(Runs(stand_in(kl), tmp_path, tmp_path))
    assert found.verdict == verdict


def test_overfitting_is_seen_on_unseen_images(tmp_path):
    def kl(variation, horizon, name):
        return law(horizon) if variation.mode == "mix" else 0.1 * horizon**0.1

    assert teaching.overfitting(Runs(stand_in(kl), tmp_path, tmp_path)).verdict == "holds"

    def rising(variation, horizon, name):
        return 0.1 * horizon**0.1

    found = teaching.overfitting(Runs(stand_in(rising), tmp_path, tmp_path))
    assert found.verdict == "does not hold here"


def test_a_speed_up_is_predicted_for_the_widest_student(tmp_path):
    def kl(variation, horizon, name):
        speedup = dict(zip(scales.RIVALS, (1.0, 1.6, 1.4, 1.2), strict=True))[name]
        return law(horizon * speedup ** ((variation.width or 16) / 16) ** 0.1)

    found = scales.width(Runs(stand_in(kl), tmp_path, tmp_path))
    assert found.verdict in ("holds", "not known yet")
    row = next(row for row in found.table if row[0] == scales.RIVALS[1])
    assert float(row[-1].rstrip("x")) == pytest.approx(float(row[3].split("x")[0]), rel=0.03)


@pytest.mark.parametrize(
    ("factor", "verdict", "inside"),
    [(1.003, "holds", "4 of 4"), (1.2, "does not hold here", "0 of 4")],
)
def test_repetitions_spread_as_intervals_assume_or_more(tmp_path, factor, verdict, inside):
    board = [e for e in committed.leaderboard()[0] if e.study.task == "digits"]
    first = {one.study.optimizer: {row.horizon: row for row in measures.rows(one)} for one in board}

    def kl(variation, horizon, name):
        return first[name][horizon // 126 * 125].mean["probe_loss"] * factor

    found = repetition.repetition(Runs(stand_in(kl), tmp_path, tmp_path))
    assert found.verdict == verdict
    assert f"{inside} new speed-ups lie in the first interval" in found.found
    assert len(found.table) == 1 + len(repetition.REPEATED)


def test_the_spread_of_repetitions_and_its_interval_are_true():
    rng = np.random.default_rng(0)
    holds, measured = [], []
    for _ in range(2000):
        speedups = np.exp(rng.normal(0, 1, (4, 1)) + rng.normal(0, 0.02, (4, 3)))
        one = repetition.spread(speedups.tolist(), [0.01, 0.03, 0.03, 0.01])
        holds.append(one.interval[0] <= 0.02 <= one.interval[1])
        measured.append(one.measured**2)
    assert 0.94 < np.mean(holds) < 0.96
    assert np.sqrt(np.mean(measured)) == pytest.approx(0.02, rel=0.02)
    assert one.assumed == pytest.approx(math.sqrt((0.01**2 + 0.03**2) / 2))


def test_time_is_summed_over_calls(tmp_path):
    runs = Runs(stand_in(lambda *_: 1.0), tmp_path, tmp_path)
    assert runs.seconds("modes") == 0
    (tmp_path / "modes").mkdir()
    (tmp_path / "modes" / "seconds.txt").write_text("90")
    runs("modes", [BASELINE], Size((250,), 3), Variation())
    assert runs.seconds("modes") >= 90
