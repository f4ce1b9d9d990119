"""The engine on a task whose images are bytes: 512 images of Fashion-MNIST and small networks."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import optax
import pytest

from distill_bench.data import fashion_mnist
from distill_bench.data.fashion_mnist import DEBIAN_FOLDER
from distill_bench.networks import bit
from distill_bench.tasks.catalogue import FASHION
from distill_bench.tasks.parameters import load_teachers
from distill_bench.tasks.variation import Variation, vary
from distill_bench.tasks.view_config import MODES
from distill_bench.teacher.accuracy import accuracy
from distill_bench.training import lane_state
from distill_bench.training.engine import open_engine
from distill_bench.training.events import Finished, Losses, Snapshot
from distill_bench.training.lane_layout import LayoutOptions, make_layout
from distill_bench.training.losses import kl_divergence
from distill_bench.training.rules import Lane
from distill_bench.training.source import init_student, splits
from distill_bench.training.train import train
from distill_bench.views.originals import Stacked
from distill_bench.views.step_views import step_views
from support import tiny

pytestmark = pytest.mark.skipif(
    not fashion_mnist.is_here(DEBIAN_FOLDER), reason="needs Debian's dataset-fashion-mnist"
)
STEPS = 40


def sgd(hparams, horizon):
    return optax.sgd(lambda count: hparams["lr"] * (1 - count / horizon), momentum=0.9)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny.make_fashion(tmp_path_factory.mktemp("weights") / "teacher.npz")


def losses_of(engine, lanes, resume=None):
    losses = [[] for _ in lanes]
    for event in train(engine, lanes, resume or {}):
        match event:
            case Losses(lane, _, values):
                losses[lane] += values.tolist()
            case Finished():
                assert event.status == "ok"
    return losses


def test_it_is_a_cut_of_the_task(task):
    whole, cut = splits(FASHION, FASHION.dataset)[0], splits(task, task.dataset)[0]
    assert (len(cut.images), cut.images.dtype) == (tiny.FASHION_IMAGES, np.uint8)
    np.testing.assert_array_equal(cut.images, np.asarray(whole.images)[: tiny.FASHION_IMAGES])


@pytest.mark.parametrize(
    ("images", "error"), [(1000, 0.02), pytest.param(10_000, 5e-4, marks=pytest.mark.long)]
)
def test_the_teacher_is_as_accurate_as_the_docs_say(images, error):
    whole = splits(FASHION, FASHION.dataset)[1]
    part = dataclasses.replace(whole, images=whole.images[:images], labels=whole.labels[:images])
    found = accuracy(FASHION.teacher, load_teachers(FASHION)[0], part)
    assert found == pytest.approx(0.9437, abs=error)


@pytest.fixture
def small_ensemble(monkeypatch):
    few = dataclasses.replace(MODES["fix/ic_ens"], ensemble=3)
    monkeypatch.setitem(MODES, "fix/ic_ens", few)


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(mode, marks=() if mode == "fix/ic_ens" else pytest.mark.long)
        for mode in MODES
        if mode != "labels"
    ],
)
def test_every_teaching_mode_trains(task, mode, small_ensemble):
    """The first loss is that of a fresh student; in the modes without an ensemble, against the
    teacher on its own views. Training lowers it."""
    varied = vary(task, Variation(mode=mode))
    engine = open_engine(varied, make_layout(jax.devices()[:2]))
    (losses,) = losses_of(engine, [Lane(sgd, {"lr": 0.1}, STEPS, 3)])
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    if varied.teaching.ensemble:
        return
    train_split, _ = splits(varied, varied.dataset)
    views = step_views(varied, Stacked(jax.numpy.asarray(train_split.images)), 3, 0).views
    student = bit.apply(varied.student, init_student(varied, 3), views[0])
    teacher = bit.apply(varied.teacher, load_teachers(varied)[0], views[-1])
    np.testing.assert_allclose(losses[0], kl_divergence(teacher, student), rtol=1e-4)


def test_a_resumed_lane_ends_with_the_same_bits(task, tmp_path):
    engine = open_engine(task, make_layout(jax.devices()[:2]))
    lanes = [Lane(sgd, {"lr": 0.1}, 130, 0), Lane(sgd, {"lr": 0.2}, 70, 1)]
    whole = losses_of(engine, lanes)
    chunk = iter(range(100))
    for event in train(engine, lanes, snapshot_due=lambda: next(chunk) == 1):
        if isinstance(event, Snapshot):
            lane_state.save(tmp_path / f"{event.lane}.npz", event.saved, {"lane": event.lane})
    resume = {
        int(path.stem): lane_state.load(path, {"lane": int(path.stem)})
        for path in tmp_path.iterdir()
    }
    assert resume
    again = losses_of(engine, lanes, resume)
    for i, saved in resume.items():
        assert again[i] == whole[i][saved.step :]


@pytest.mark.long
def test_devices_that_share_a_batch_give_the_losses_of_one(task):
    lanes = [Lane(sgd, {"lr": 0.1}, 10, 0)]
    one = losses_of(open_engine(task, make_layout(jax.devices()[:1])), lanes)
    for devices in (2, 8):
        layout = make_layout(jax.devices()[:devices], LayoutOptions(batch_shards=devices))
        np.testing.assert_allclose(losses_of(open_engine(task, layout), lanes), one, rtol=1e-5)


@pytest.mark.parametrize("width", [8, 32])
def test_students_of_half_and_twice_the_width_are_tasks_of_their_own(width):
    varied = vary(FASHION, Variation(width=width))
    assert (varied.name, varied.student.width) == (f"fashion@w{width}", width)
    assert varied.fingerprint() != FASHION.fingerprint()
    assert varied.teacher == FASHION.teacher
