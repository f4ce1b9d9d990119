"""A task like the paper's from end to end, on small networks: images in TFDS files, squeezed and
stored as bytes, flips, bfloat16."""

from __future__ import annotations

import dataclasses
import hashlib
import socket

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from distill_bench.data import datasets, prepared
from distill_bench.data.dataset import TfdsDataset
from distill_bench.errors import UserError
from distill_bench.networks import bit
from distill_bench.tasks.catalogue import FLOWERS
from distill_bench.tasks.parameters import load_teachers
from distill_bench.tasks.task import ProbeConfig
from distill_bench.tasks.variation import Variation, vary
from distill_bench.training.engine import open_engine
from distill_bench.training.events import Losses, Point
from distill_bench.training.exams import CURVE, HELDOUT_CURVE, METRICS
from distill_bench.training.lane_layout import make_layout
from distill_bench.training.losses import kl_divergence
from distill_bench.training.rules import Lane
from distill_bench.training.source import init_student, open_source, splits
from distill_bench.training.train import train
from distill_bench.views.originals import Flat, Stacked
from distill_bench.views.step_views import step_views
from distill_bench.weights import files as checkpoints
from support import small_tfds

COUNTS = {"train": 20, "test": 9}


def pictures():
    """The train images."""
    shapes = [(40 + 3 * i, 64 - 2 * i) for i in range(COUNTS["train"])]
    return [small_tfds.picture(*shape, seed=i) for i, shape in enumerate(shapes)]


def one_after_another(images):
    """The images as they lie in memory at full resolution."""
    starts = np.cumsum([0, *(image.size for image in images[:-1])]).astype(np.uint32)
    pixels = np.concatenate([*(image.ravel() for image in images), np.zeros(3, np.uint8)])
    return Flat(pixels, starts, np.array([image.shape[:2] for image in images], np.float32))


@pytest.fixture(
    scope="module", params=["full resolution", pytest.param("squeezed", marks=pytest.mark.long)]
)
def small_flowers(request, tmp_path_factory):
    """Flowers102 with 29 small pictures and small networks, prepared in TFDS_DATA_DIR."""
    root = tmp_path_factory.mktemp("tfds")
    files = {
        split: [
            (small_tfds.encode(Image.fromarray(picture)), i)
            for i, picture in enumerate(pictures()[:n])
        ]
        for split, n in COUNTS.items()
    }
    small_tfds.write(root, files | {"validation": files["train"][-COUNTS["test"] :]})
    network = dataclasses.replace(FLOWERS.teacher, depths=(1, 1), width=8, groups=4)
    params = bit.init(network, jax.random.key(1))
    params["head"]["conv2d"]["kernel"] = jax.random.normal(
        jax.random.key(2), params["head"]["conv2d"]["kernel"].shape
    )
    content = checkpoints.dumps(params)
    (root / "teacher.npz").write_bytes(content)
    task = dataclasses.replace(
        FLOWERS,
        dataset=TfdsDataset(
            "oxford_flowers102",
            "train",
            "validation",
            "test",
            COUNTS["train"],
            COUNTS["test"],
            COUNTS["test"],
            side=None,
            clean=(20, 16),
            in_memory=True,
        ),
        teacher=network,
        teacher_file=str(root / "teacher.npz"),
        teacher_sha256=hashlib.sha256(content).hexdigest(),
        student=dataclasses.replace(FLOWERS.student, depths=(1,), width=8, groups=4),
        views=dataclasses.replace(FLOWERS.views, size=16),
        batch_size=8,
        probe=ProbeConfig(batches=2, batch_size=4),
    )
    if request.param == "squeezed":
        task = vary(task, Variation(squeeze=32))
    prepared.prepare(task.dataset, root, lambda text: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(root))
        yield task


def losses_of(engine, lanes):
    found, points = [[] for _ in lanes], []
    for event in train(engine, lanes):
        if isinstance(event, Losses):
            found[event.lane] += event.values.tolist()
        elif isinstance(event, Point):
            points.append(event.metrics)
    return np.array(found), points


def sgd(hparams, horizon):
    return optax.sgd(hparams["lr"])


@pytest.mark.slow
def test_training_on_prepared_data_equals_the_definition_and_needs_no_network(
    small_flowers, monkeypatch
):
    def refuse(*_):
        raise AssertionError("something used the network")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    task = dataclasses.replace(small_flowers, precision="float32")
    found, points = losses_of(
        open_engine(task, make_layout(jax.devices()[:1])), [Lane(sgd, {"lr": 0.1}, 4, 1)]
    )
    assert set(points[-1]) == {CURVE, HELDOUT_CURVE, *METRICS}
    assert all(np.isfinite(list(metrics.values())).all() for metrics in points)

    train_split, _ = prepared.load(task.dataset, datasets.data_dir(None))
    originals = (
        Stacked(train_split.images, train_split.sizes)
        if task.dataset.side
        else one_after_another(pictures())
    )
    teacher, params = load_teachers(task)[0], init_student(task, 1)

    @jax.jit
    def step_of(params, step):
        views = step_views(task, originals, 1, step).student

        def loss_of(params):
            return kl_divergence(
                bit.apply(task.teacher, teacher, views),
                bit.apply(task.student, params, views),
                task.temperature,
            )

        loss, gradients = jax.value_and_grad(loss_of)(params)
        return loss, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)

    expected = []
    for step in range(4):
        loss, params = step_of(params, step)
        expected.append(float(loss))
    np.testing.assert_allclose(found[0], expected, rtol=2e-4)


def test_evaluation_can_use_the_validation_split(small_flowers):
    task = dataclasses.replace(small_flowers, eval_split="validation")
    train_split, validation = splits(task, task.dataset)
    _, test = splits(small_flowers, task.dataset)
    assert (test.labels.tolist(), validation.labels.tolist()) == (
        list(range(9)),
        list(range(11, 20)),
    )
    assert len(train_split.labels) == COUNTS["train"]
    assert validation.clean.shape == test.clean.shape
    assert not np.array_equal(validation.clean, test.clean)


def test_bfloat16_logits_are_rounded_but_close(small_flowers):
    params = load_teachers(small_flowers)[0]
    views = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 3)), jnp.float32)
    exact, rounded = (
        jax.jit(lambda p, x: bit.apply(small_flowers.teacher, p, x, frozen=True))(
            bit.freeze(params, dtype), views.astype(dtype)
        )
        for dtype in ("float32", "bfloat16")
    )
    assert exact.dtype == rounded.dtype == jnp.float32
    error = float(jnp.linalg.norm(exact - rounded) / jnp.linalg.norm(exact))
    assert 1e-5 < error < 0.05  # bfloat16 has 8 significant bits


def test_missing_data_is_reported_with_the_command_that_prepares_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"python -m distill_bench\.data prepare --task=flowers102"):
        open_source(FLOWERS, make_layout(jax.devices()[:1]))


@pytest.mark.slow
def test_a_synthetic_task_opens_without_data_and_has_synthetic_in_its_name(monkeypatch):
    small = dataclasses.replace(FLOWERS.teacher, depths=(1,), width=8, groups=4)
    task = dataclasses.replace(
        vary(FLOWERS, Variation(synthetic=True, resolution=8, batch_size=8)),
        teacher=small,
        student=small,
        probe=ProbeConfig(batches=2, batch_size=4),
    )
    assert "synthetic" in task.name
    source = open_source(task, make_layout(jax.devices()[:1]))
    height, width = 23, 31  # 375 x 500 pixels, for views of 8 pixels instead of 128
    assert source.train_images.originals.pixels.shape == (1020 * height * width * 3 + 3,)
    logits = bit.apply(
        small,
        source.teachers[0],
        jnp.asarray(source.test.clean[:8], jnp.float32) / 127.5 - 1,
        frozen=True,
    )
    assert float(jnp.std(logits, axis=0).min()) > 0
