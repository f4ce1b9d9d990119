"""Data sets that do not fit on a device: images are cropped on the host and streamed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from distill_bench.data import datasets, decoding, prepared
from distill_bench.errors import UserError
from distill_bench.networks import bit
from distill_bench.tasks import catalogue
from distill_bench.tasks.catalogue import SUN
from distill_bench.tasks.parameters import load_teachers
from distill_bench.tasks.variation import Variation, vary
from distill_bench.tasks.view_config import MODES
from distill_bench.training.engine import open_engine
from distill_bench.training.events import Finished, Losses, Snapshot
from distill_bench.training.lane_layout import LayoutOptions, make_layout
from distill_bench.training.losses import kl_divergence
from distill_bench.training.rules import Lane
from distill_bench.training.source import init_student, open_feed, open_source
from distill_bench.training.train import train
from distill_bench.views import augment, host_crops, step_views
from distill_bench.views.host_crops import HostCrops
from distill_bench.views.originals import Stacked
from support import small_tfds
from support.paths import ROOT
from support.small_sun import COUNT


def sgd(hparams, horizon):
    return optax.sgd(hparams["lr"])


def host_crops_of(task, rows=None):
    train_split, _ = prepared.load(task.dataset, datasets.data_dir(None))
    return HostCrops(
        task, train_split.images, np.asarray(train_split.sizes), rows or range(task.batch_size)
    )


def losses_of(events, lane=0):
    return np.concatenate(
        [event.values for event in events if isinstance(event, Losses) and event.lane == lane]
    )


def test_host_and_device_draw_boxes_from_the_same_distribution():
    sizes = np.tile(np.array([[20.0, 30.0]], np.float32), (50_000, 1))
    grid = np.linspace(0.05, 0.95, 19)
    for crop in ("inception", "mild", "central", "whole"):
        host = host_crops.draw_boxes(np.random.RandomState(0), crop, sizes, SUN.views)
        device = np.asarray(
            augment.crop_boxes(crop, jax.random.key(0), jnp.asarray(sizes), SUN.views)
        )
        for side in range(4):
            np.testing.assert_allclose(
                np.quantile(host[:, side], grid),
                np.quantile(device[:, side], grid),
                rtol=0.03,
                atol=0.15,
            )


@pytest.mark.parametrize("size", [5, 16, 40])
def test_host_and_device_crops_differ_by_at_most_one_level(size):
    pixels = small_tfds.picture(37, 52, seed=3)
    boxes = host_crops.draw_boxes(
        np.random.RandomState(1), "inception", np.tile(np.array([[37.0, 52.0]]), (12, 1)), SUN.views
    )
    boxes = np.concatenate([boxes, [[0, 0, 37, 52]]])
    images = Stacked(jnp.tile(jnp.asarray(pixels, jnp.float32), (len(boxes), 1, 1, 1)))
    exact = images.cut(jnp.asarray(boxes, jnp.float32), size)
    for box, expected in zip(boxes, np.asarray(exact), strict=True):
        np.testing.assert_allclose(
            decoding.cut(Image.fromarray(pixels), box, size).astype(float), expected, atol=1.01
        )


def test_a_stream_depends_only_on_seed_and_step_wherever_it_is_opened(small_sun):
    whole = host_crops_of(small_sun)
    crops, index = whole.read(0, 0, 6), whole.index(0, 0, 6)
    assert [x.shape for x in crops] == [(6, 8, 16, 16, 3), (6, 8, 24, 24, 3)]
    for start in (2, 0, 5):  # as after a kill, in any order
        for a, b in zip(whole.read(0, start, 1), crops, strict=True):
            np.testing.assert_array_equal(a[0], b[start])
    # One of several hosts reads only its own rows.
    part = host_crops_of(small_sun, range(2, 5)).read(0, 1, 2)[0]
    np.testing.assert_array_equal(part, crops[0][1:3, 2:5])
    # Each epoch shows every image once, except the damaged one.
    assert sorted(index.reshape(-1)[:COUNT].tolist()) == list(range(COUNT))
    assert sorted(index.reshape(-1)[COUNT : 2 * COUNT].tolist()) == list(range(COUNT))
    assert (whole.index(1, 0, 6) != index).any()
    assert not np.array_equal(whole.read(1, 0, 1)[0], crops[0][:1])


def expected_losses(task, steps, seed):
    """Losses by the definition: a plain loop over steps that averages the teachers' logits."""
    train_split, _ = prepared.load(task.dataset, datasets.data_dir(None))
    teachers, params = load_teachers(task), init_student(task, seed)

    @jax.jit
    def step_of(params, crops, step):
        views = step_views.step_views_from_crops(task, crops, seed, step)
        teacher_views = [
            next(x for x in views if x.shape[1] == (teacher.size or task.views.size))
            for teacher in task.teachers
        ]
        logits = sum(
            bit.apply(teacher.network, own, x)
            for teacher, own, x in zip(task.teachers, teachers, teacher_views, strict=True)
        ) / len(teachers)
        loss, gradients = jax.value_and_grad(
            lambda p: kl_divergence(logits, bit.apply(task.student, p, views[0]), task.temperature)
        )(params)
        return loss, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)

    losses = []
    for step in range(steps):
        index, boxes = host_crops.step_boxes(task, np.asarray(train_split.sizes), seed, step)
        pictures = [decoding.decode(train_split.images[i]) for i in index]
        sizes = [spec.size for spec in step_views.view_specs(task)[0]]
        crops = tuple(
            np.stack([decoding.cut(*pair, size) for pair in zip(pictures, boxes_N4, strict=True)])
            for boxes_N4, size in zip(boxes, sizes, strict=True)
        )
        loss, params = step_of(params, crops, step)
        losses.append(float(loss))
    return losses


@pytest.mark.long
def test_a_streamed_task_with_two_teachers_trains_by_the_definition_and_resumes(small_sun):
    engine = open_engine(small_sun, make_layout(jax.devices()[:2], LayoutOptions(batch_shards=2)))
    lanes = [Lane(sgd, {"lr": 0.1}, 30, 1)]
    events = list(train(engine, lanes, snapshot_due=lambda: True))
    losses = losses_of(events)
    np.testing.assert_allclose(losses[:4], expected_losses(small_sun, 4, 1), rtol=2e-4)
    saved = [event.saved for event in events if isinstance(event, Snapshot)]
    assert saved
    resumed = losses_of(train(engine, lanes, resume={0: saved[0]}))
    np.testing.assert_array_equal(resumed, losses[saved[0].step :])


def test_an_ensemble_crop_depends_only_on_its_number(small_sun):
    task = vary(dataclasses.replace(small_sun, more_teachers=()), Variation(mode="fix/ic_ens"))
    crops = host_crops_of(small_sun)
    index = np.array([3, 0, 7])
    together, alone = (
        [
            host_crops.ensemble_crops(task, crops.files, crops.sizes, index, first, count)
            for first in range(0, 4, count)
        ]
        for count in (4, 1)
    )
    np.testing.assert_array_equal(together[0], np.concatenate(alone))


@pytest.mark.slow
def test_a_streamed_task_can_average_predictions_over_crops(small_sun, monkeypatch):
    monkeypatch.setitem(MODES, "fix/ic_ens", dataclasses.replace(MODES["fix/ic_ens"], ensemble=3))
    one = vary(dataclasses.replace(small_sun, more_teachers=()), Variation(mode="fix/ic_ens"))
    events = list(
        train(open_engine(one, make_layout(jax.devices()[:1])), [Lane(sgd, {"lr": 0.1}, 2, 0)])
    )
    assert [event.status for event in events if isinstance(event, Finished)] == ["ok"]


def test_a_file_that_was_damaged_after_packing_is_named(small_sun):
    class Damaged:
        def __len__(self):
            return COUNT

        def __getitem__(self, index):
            return b"damaged"

    with pytest.raises(UserError, match=r"Image \d+ of the train split was damaged after it was"):
        HostCrops(small_sun, Damaged(), np.full((COUNT, 2), 40.0, np.float32), range(8)).read(
            0, 0, 1
        )


@pytest.fixture
def nothing_prepared(tmp_path, monkeypatch):
    """No data set exists, and loading one fails the test."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(
        prepared, "load", lambda *arguments, **options: pytest.fail("images were loaded")
    )


@pytest.mark.parametrize("name", ["sun397", "pet37@images-food101", "sun397@synthetic@r32@b8"])
def test_without_grain_a_message_says_what_to_install_before_anything_is_fetched(
    name, nothing_prepared, monkeypatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for open_task in (open_feed, lambda task: open_source(task, make_layout(jax.devices()[:1]))):
        with pytest.raises(
            UserError,
            match=rf"{name} streams its images with grain.*pip install 'distill-bench\[stream\]'",
        ):
            open_task(catalogue.get(name))


@pytest.mark.parametrize("name", ["flowers102", "food101@images-pet37"])
def test_a_task_that_is_not_streamed_is_refused_before_anything_is_prepared(name, nothing_prepared):
    with pytest.raises(UserError, match=f"The images of {name} lie on the device"):
        open_feed(catalogue.get(name))


def test_images_packed_from_another_version_of_the_data_set_are_refused(small_sun, tmp_path):
    import shutil

    root = tmp_path / "data"
    shutil.copytree(datasets.data_dir(None), root)
    files = [
        (small_tfds.encode(Image.fromarray(small_tfds.picture(40, 40, seed=i))), i)
        for i in range(COUNT + 1)
    ]
    small_tfds.write(
        root,
        {"train": files, "validation": files[:5], "test": files[:9]},
        name="sun397/tfds",
        version="3.0.0",
    )
    with pytest.raises(UserError, match=r"refers to version 2\.1\.1 of the files, but 3\.0\.0"):
        prepared.load(small_sun.dataset, root)


@pytest.mark.process
@pytest.mark.long
def test_the_benchmark_measures_how_fast_this_host_reads():
    def measure(task):
        command = [
            sys.executable,
            str(ROOT / "sweeps" / "benchmark.py"),
            "--input",
            f"--task={task}",
            "--format=json",
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    done = measure("sun397@synthetic@r32@b8")
    assert json.loads(done.stdout)["input_images_per_second"] > 0
    done = measure("digits")
    assert (
        done.returncode,
        done.stderr.count("\n"),
        "The images of digits lie on the device" in done.stderr,
    ) == (2, 1, True), done.stderr


def test_the_imagenet_tasks_have_the_published_view_sizes_and_horizons():
    for name, sizes, teacher_index in (
        ("imagenet2012", [224], (0,)),
        ("imagenet2012-160", [160, 224], (1,)),
        ("imagenet2012-384", [224, 384], (1,)),
        ("imagenet2012-two", [224, 384], (1, 0)),
    ):
        specs, found = step_views.view_specs(catalogue.get(name))
        assert ([spec.size for spec in specs], found) == (sizes, teacher_index)
        assert catalogue.get(name).horizons == (91959, 367835, 2942681)
    smaller = catalogue.get("imagenet2012-two@synthetic@r32@b8")
    assert [spec.size for spec in step_views.view_specs(smaller)[0]] == [32, 55]
