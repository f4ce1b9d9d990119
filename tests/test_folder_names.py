"""Names of trials' folders: readable, short enough for any file system, and never read back."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_bench.tasks import catalogue
from distill_bench.training.lane_layout import LayoutOptions
from support.stores import Silent, contents
from sweeps.execution.execute import execute
from sweeps.execution.request import Faults
from sweeps.execution.resources import Resources
from sweeps.planning.plan import make_plan
from sweeps.planning.request import PlanRequest
from sweeps.planning.study import Trial
from sweeps.results import store

WORDS = [
    "learning_rate_of_the_vectors",
    "momentum_of_the_first_moment",
    "decay_of_the_second_moment",
    "damping_of_the_preconditioner",
    "exponent_of_the_preconditioner",
    "weight_decay_of_the_matrices",
    "threshold_of_the_gradient_clip",
    "interpolation_of_the_averages",
    "correction_of_the_bias_terms",
]
DESCRIPTIVE = f"""
from typing import Annotated
import optax
from optimizers import Log, Schedule, optimizer

@optimizer
def {"long_" * 60}name(
    lr: Annotated[Schedule, Log(1e-2, 1e-1)] = 0.03, *,
    {" ".join(f"{word}: Annotated[float, Log(0.1, 1.0)] = 0.5," for word in WORDS)}
):
    return optax.sgd(lr)
"""

values = st.one_of(st.floats(allow_nan=False), st.integers(), st.booleans(), st.text())
trials = st.builds(
    Trial,
    st.just("0123456789ab"),
    st.dictionaries(st.text(min_size=1), values, max_size=60),
    st.integers(1, 10**9),
    st.integers(0, 10**6),
)


@given(trials)
def test_a_name_is_one_part_of_a_path_and_fits(trial):
    name = trial.name
    assert len(name.encode()) <= 240
    assert "/" not in name
    assert name == dataclasses.replace(trial).name


def test_a_name_that_fits_says_everything():
    trial = Trial("0123456789ab", {"lr": 0.05, "b2": 0.95, "centred": True}, 250, 3)
    assert trial.name == f"h250_lr=0.05_b2=0.95_centred=True_seed3_{trial.id[:6]}"


def test_long_names_that_begin_alike_differ():
    hparams = dict.fromkeys(WORDS, 0.123)
    names = {
        Trial("0123456789ab", hparams | {WORDS[-1]: last}, 250, seed).name
        for last in (0.1, 0.2)
        for seed in (1, 2)
    }
    assert len(names) == 4
    assert all(name.startswith("h250_learning_rate_of_the_vectors=0.123_") for name in names)


@pytest.mark.slow
def test_many_descriptive_hyperparameters_are_stored_and_any_folder_is_read(
    tiny_task, monkeypatch, tmp_path
):
    monkeypatch.setitem(catalogue.CATALOGUE, "tiny", tiny_task)
    (tmp_path / "mine.py").write_text(DESCRIPTIVE)

    def sweep():
        display = Silent()
        plan = make_plan(PlanRequest((str(tmp_path / "mine.py"),), "tiny", ("5",), 3, 1))
        resources = Resources(layout=LayoutOptions(devices=1))
        execute(plan, tmp_path / "runs", display, resources, Faults())
        return display.said

    sweep()
    (loaded,) = store.load(tmp_path / "runs")
    assert [result.status for result in loaded.results] == ["ok"] * 4
    assert all(len(result.trial.hparams) == 11 for result in loaded.results)  # also the warm-up
    # As earlier versions named them, and as no version does.
    folders = sorted(path.parent for path in loaded.folder.glob("*/result.json"))
    folders[0].rename(folders[0].with_name("x" * 255))
    folders[1].rename(folders[1].with_name("renamed by hand"))
    before = contents(tmp_path / "runs")
    (again,) = store.load(tmp_path / "runs")
    assert {r.trial.id: r for r in again.results} == {r.trial.id: r for r in loaded.results}
    assert sweep() == []  # nothing is left to run
    assert contents(tmp_path / "runs") == before
    # A damaged folder of a long name can be set aside.
    (loaded.folder / ("x" * 255) / "records.jsonl").write_text("")
    (line,) = [text for text in sweep() if text.startswith("Damaged")]
    assert f"{'x' * 240}.0" in line
    shutil.rmtree(loaded.folder / "damaged")
    assert len(contents(tmp_path / "runs")) == len(before)
