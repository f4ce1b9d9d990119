"""The tasks, their data and teachers."""

from __future__ import annotations

import dataclasses
import hashlib

import jax
import numpy as np
import pytest

from distill_bench.data import dataset as data
from distill_bench.data import synthetic
from distill_bench.errors import UserError
from distill_bench.networks import bit
from distill_bench.tasks import catalogue, task
from distill_bench.tasks.catalogue import DIGITS
from distill_bench.tasks.parameters import load_teachers
from distill_bench.teacher.accuracy import accuracy
from distill_bench.weights import files


def test_digits_split_is_frozen():
    train, test = data.load_embedded(DIGITS.dataset)
    assert train.images.shape == (1000, 8, 8, 1)
    assert test.images.shape == (797, 8, 8, 1)
    assert train.images.min() == -1
    assert train.images.max() == 1
    assert np.bincount(test.labels, minlength=10).min() > 50
    assert train.labels[:8].tolist() == [2, 8, 2, 6, 6, 7, 1, 9]


def test_data_with_another_digest_is_refused():
    with pytest.raises(UserError, match="not those of the task"):
        data.load_embedded(dataclasses.replace(DIGITS.dataset, sha256="0" * 64))


@pytest.mark.parametrize(
    "field", [f.name for f in dataclasses.fields(task.Task) if f.name != "horizons"]
)
def test_every_field_changes_the_fingerprint(field):
    value = getattr(DIGITS, field)
    if dataclasses.is_dataclass(value):
        inner = dataclasses.fields(value)[-1].name
        changed = dataclasses.replace(value, **{inner: "changed"})
    else:
        changed = (
            f"{value} changed"
            if isinstance(value, str)
            else (value or 0) + 1
            if not isinstance(value, tuple)
            else (*value, 1)
        )
    assert dataclasses.replace(DIGITS, **{field: changed}).fingerprint() != DIGITS.fingerprint()


def test_horizons_do_not_change_the_fingerprint():
    assert dataclasses.replace(DIGITS, horizons=(1,)).fingerprint() == DIGITS.fingerprint()


@pytest.mark.parametrize("name", ["digit", "digit@same-ic", "digits@"])
def test_an_unknown_task_is_refused_with_the_nearest_name(name):
    with pytest.raises(UserError, match=f"Unknown task '{name}'. Did you mean 'digits'"):
        catalogue.get(name)


def test_the_embedded_teacher_classifies_99_percent_of_the_test_images_correctly():
    _, test = data.load_embedded(DIGITS.dataset)
    (params,) = load_teachers(DIGITS)
    assert accuracy(DIGITS.teacher, params, test) >= 0.99
    assert (files.EMBEDDED / DIGITS.teacher_file).stat().st_size <= 4 * 2**20


def test_a_damaged_teacher_file_is_refused(tmp_path):
    content = bytearray((files.EMBEDDED / DIGITS.teacher_file).read_bytes())
    content[1000] ^= 1
    path = tmp_path / "teacher.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="have changed: sha256"):
        load_teachers(dataclasses.replace(DIGITS, teacher_file=str(path)))
    with pytest.raises(UserError, match="Cannot read"):
        load_teachers(dataclasses.replace(DIGITS, teacher_file=str(tmp_path / "missing.npz")))


def test_parameters_round_trip_in_the_published_format(tmp_path):
    config = dataclasses.replace(DIGITS.student, depths=(1,))
    params = bit.init(config, jax.random.key(0))
    content = files.dumps(params)
    assert content == files.dumps(params)
    path = tmp_path / "student.npz"
    path.write_bytes(content)
    with np.load(path) as archive:
        assert archive["resnet/block1/unit01/a/proj/standardized_conv2d/kernel"].shape == (
            1,
            1,
            16,
            64,
        )
        assert archive["resnet/block1/unit01/b/group_norm/gamma"].shape == (1, 1, 1, 16)
        assert archive["resnet/head/conv2d/kernel"].shape == (1, 1, 64, 10)
        assert archive["resnet/root_block/standardized_conv2d/kernel"].shape == (3, 3, 1, 16)
    digest = hashlib.sha256(content).hexdigest()
    loaded = files.load_verified(path, config, digest)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    for wrong, message in [
        (dataclasses.replace(config, depths=(2,)), "another architecture: depths"),
        (dataclasses.replace(config, classes=7), "has 10 classes; expected 7"),
    ]:
        with pytest.raises(UserError, match=message):
            files.load_verified(path, wrong, digest)
    bigger = dataclasses.replace(config, depths=(2,))
    path.write_bytes(content := files.dumps(bit.init(bigger, jax.random.key(0))))
    with pytest.raises(UserError, match="another architecture: depths"):
        files.load_verified(path, config, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("name", ["flowers102", "pet37", "pet37-tfrecords", "food101"])
def test_the_papers_tasks_have_the_published_settings(name):
    """R152x2 to R50x1, batches of 512, views of 128 pixels; rungs are the paper's epochs."""
    task = catalogue.get(name)
    assert (task.teacher.depths, task.teacher.width, task.student.depths, task.student.width) == (
        (3, 8, 36, 3),
        128,
        (3, 4, 6, 3),
        64,
    )
    assert (task.batch_size, task.views.size, task.precision, task.mode) == (
        512,
        128,
        "bfloat16",
        "mix",
    )
    epochs = {
        "flowers102": (1e3, 1e4, 1e5, 1e6),
        "pet37": (300, 1e3, 3e3, 1e4, 3e4),
        "pet37-tfrecords": (300, 1e3, 3e3, 1e4, 3e4),
        "food101": (100, 1e3, 3e3),
    }[name]
    assert task.horizons == tuple(round(e * task.dataset.train_size / 512) for e in epochs)


def test_synthetic_images_have_the_published_shapes_and_are_the_same_each_time():
    dataset = catalogue.get("flowers102@synthetic@r8@squeezed16").dataset
    train, test = synthetic.load(dataset)
    assert (train.images.shape, train.sizes.shape, train.images.dtype) == (
        (1020, 16, 16, 3),
        (1020, 2),
        np.uint8,
    )
    assert (test.images.shape, test.clean.shape) == ((256, 16, 16, 3), (256, 8, 8, 3))
    np.testing.assert_array_equal(train.images, synthetic.load(dataset)[0].images)


def test_streamed_synthetic_test_images_are_not_among_the_train_images(monkeypatch):
    monkeypatch.setattr(synthetic, "FILES", 3)
    dataset = catalogue.get("sun397@synthetic@r8").dataset
    train, test = synthetic.load(dataset)
    assert (len(train.images), len(test.images)) == (76128, 256)
    seen_train, seen_test = ([split.images[i] for i in range(5)] for split in (train, test))
    assert (len({*seen_train}), len({*seen_test})) == (3, 3)
    assert not {*seen_train} & {*seen_test}
    assert seen_train == [synthetic.load(dataset)[0].images[i] for i in range(5)]
