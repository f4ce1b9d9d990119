from __future__ import annotations

import dataclasses
import hashlib

import jax
import numpy as np
import pytest

from distill_bench import bit, checkpoints, data, task, teacher
from distill_bench.errors import UserError
from distill_bench.task import DIGITS


def test_digits_split_is_frozen():
    train, test = data.load(DIGITS.dataset)
    assert train.images.shape == (1000, 8, 8, 1)
    assert test.images.shape == (797, 8, 8, 1)
    assert train.images.min() == -1
    assert train.images.max() == 1
    assert np.bincount(test.labels, minlength=10).min() > 50
    assert train.labels[:8].tolist() == [2, 8, 2, 6, 6, 7, 1, 9]


def test_other_data_is_refused():
    with pytest.raises(UserError, match="not those of the task"):
        data.load(dataclasses.replace(DIGITS.dataset, sha256="0" * 64))


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(task.Task) if f.name != "horizons"])
def test_the_fingerprint_covers_every_field(field):
    value = getattr(DIGITS, field)
    if dataclasses.is_dataclass(value):
        inner = dataclasses.fields(value)[-1].name
        changed = dataclasses.replace(value, **{inner: "changed"})
    else:
        changed = f"{value} changed" if isinstance(value, str) else value + 1
    assert dataclasses.replace(DIGITS, **{field: changed}).fingerprint() != DIGITS.fingerprint()


def test_the_ladder_is_not_part_of_the_fingerprint():
    assert dataclasses.replace(DIGITS, horizons=(1,)).fingerprint() == DIGITS.fingerprint()


def test_an_unknown_task_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'digits'"):
        task.get("digit")


def test_the_embedded_teacher_is_right_on_99_percent_of_the_test_images():
    _, test = data.load(DIGITS.dataset)
    params = teacher.load(DIGITS)
    assert teacher.accuracy(DIGITS, params, test) >= 0.99
    assert DIGITS.teacher_path.stat().st_size <= 4 * 2**20


def test_a_changed_byte_in_the_teacher_is_refused(tmp_path):
    content = bytearray(DIGITS.teacher_path.read_bytes())
    content[1000] ^= 1
    path = tmp_path / "teacher.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="were changed: sha256"):
        teacher.load(dataclasses.replace(DIGITS, teacher_file=str(path)))
    with pytest.raises(UserError, match="Cannot read"):
        teacher.load(dataclasses.replace(DIGITS, teacher_file=str(tmp_path / "missing.npz")))


def test_checkpoints_round_trip_in_the_published_layout(tmp_path):
    config = dataclasses.replace(DIGITS.student, depths=(1,))
    params = bit.init(config, jax.random.key(0))
    content = checkpoints.dumps(params)
    assert content == checkpoints.dumps(params)
    path = tmp_path / "student.npz"
    path.write_bytes(content)
    with np.load(path) as archive:
        assert archive["resnet/block1/unit01/a/proj/standardized_conv2d/kernel"].shape == (1, 1, 16, 64)
        assert archive["resnet/block1/unit01/b/group_norm/gamma"].shape == (1, 1, 1, 16)
        assert archive["resnet/head/conv2d/kernel"].shape == (1, 1, 64, 10)
        assert archive["resnet/root_block/standardized_conv2d/kernel"].shape == (3, 3, 1, 16)
    digest = hashlib.sha256(content).hexdigest()
    loaded = checkpoints.load(path, config, digest)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    for wrong, message in [
        (dataclasses.replace(config, depths=(2,)), "lacks"),
        (dataclasses.replace(config, classes=7), "with shape"),
    ]:
        with pytest.raises(UserError, match=message):
            checkpoints.load(path, wrong, digest)
    bigger = dataclasses.replace(config, depths=(2,))
    path.write_bytes(content := checkpoints.dumps(bit.init(bigger, jax.random.key(0))))
    with pytest.raises(UserError, match="that the network lacks"):
        checkpoints.load(path, config, hashlib.sha256(content).hexdigest())
