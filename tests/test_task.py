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
from distill_bench.teacher import accuracy
from distill_bench.weights import files


def test_digits_split_is_frozen():
    train, test = data.load_embedded(DIGITS.dataset)
    assert train.images.shape == (1000, 8, 8, 1)
    assert test.images.shape == (797, 8, 8, 1)
    assert train.images.min() == -1
    assert train.images.max() == 1
    assert np.bincount(test.labels, minlength=10).min() > 50
    assert train.labels[:8].tolist() == [2, 8, 2, 6, 6, 7, 1, 9]


def test_other_data_is_refused():
    with pytest.raises(UserError, match="not those of the task"):
        data.load_embedded(dataclasses.replace(DIGITS.dataset, sha256="0" * 64))


@pytest.mark.parametrize(
    "field", [f.name for f in dataclasses.fields(task.Task) if f.name != "horizons"]
)
def test_the_fingerprint_covers_every_field(field):
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


def test_the_ladder_is_not_part_of_the_fingerprint():
    assert dataclasses.replace(DIGITS, horizons=(1,)).fingerprint() == DIGITS.fingerprint()


def test_an_unknown_task_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'digits'"):
        catalogue.get("digit")


def test_the_embedded_teacher_is_right_on_99_percent_of_the_test_images():
    _, test = data.load_embedded(DIGITS.dataset)
    (params,) = load_teachers(DIGITS)
    assert accuracy.accuracy(DIGITS.teacher, params, test) >= 0.99
    assert (files.EMBEDDED / DIGITS.teacher_file).stat().st_size <= 4 * 2**20


def test_a_changed_byte_in_the_teacher_is_refused(tmp_path):
    content = bytearray((files.EMBEDDED / DIGITS.teacher_file).read_bytes())
    content[1000] ^= 1
    path = tmp_path / "teacher.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="have changed: sha256"):
        load_teachers(dataclasses.replace(DIGITS, teacher_file=str(path)))
    with pytest.raises(UserError, match="Cannot read"):
        load_teachers(dataclasses.replace(DIGITS, teacher_file=str(tmp_path / "missing.npz")))


def test_checkpoints_round_trip_in_the_published_layout(tmp_path):
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


@pytest.mark.parametrize("name", ["flowers102", "pet37", "food101"])
def test_the_papers_tasks_are_declared_as_published(name):
    """R152x2 to R50x1 in batches of 512 on views of 128 pixels; rungs are whole numbers of the paper's epochs."""
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
        "food101": (100, 1e3, 3e3),
    }[name]
    assert task.horizons == tuple(round(e * task.dataset.train_size / 512) for e in epochs)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "fix/ic_ens"},
        {"synthetic": True, "resolution": 32, "batch_size": 8},
        {"mode": "same/rc", "synthetic": True},
    ],
)
def test_a_variation_is_found_by_its_name(changes):
    flowers = catalogue.get("flowers102")
    varied = catalogue.vary(flowers, **changes)
    assert catalogue.get(varied.name) == varied
    assert (
        (varied.fingerprint() == flowers.fingerprint())
        == (varied.name == "flowers102")
        == (not changes)
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: catalogue.get("flower102"), "Did you mean 'flowers102'"),
        (lambda: catalogue.get("flowers102@r1"), "--resolution=1 is too small"),
        (lambda: catalogue.get("flowers102@nonsense"), "no teaching mode 'nonsense'"),
        (lambda: catalogue.vary(catalogue.DIGITS, synthetic=True), "those of digits are built in"),
        (lambda: catalogue.vary(catalogue.DIGITS, batch_size=0), "--batch_size=0 is too small"),
        (
            lambda: catalogue.vary(catalogue.DIGITS, batch_size=1001),
            "cannot be drawn from 1000 images .* use --batch_size=1000 or less",
        ),
        (lambda: catalogue.vary(catalogue.DIGITS, student="mobilenetv3"), "sees colours"),
        (lambda: catalogue.vary(catalogue.PETS, student="mobilenet"), "Did you mean 'mobilenetv3'"),
        (
            lambda: catalogue.vary(catalogue.DIGITS, images="photograph"),
            "no images 'photograph'. Did you mean 'photographs'",
        ),
        (
            lambda: catalogue.vary(catalogue.DIGITS, images="food101"),
            "in colour, and the networks of digits see images that are grey.\nImages that fit: photographs$",
        ),
        (
            lambda: catalogue.vary(catalogue.PETS, images="photographs"),
            "are grey, and the networks of pet37 see .* in colour.\nImages that fit: flowers102",
        ),
        (
            lambda: catalogue.vary(catalogue.DIGITS, images="photographs", batch_size=401),
            "cannot be drawn from 400 images",
        ),
    ],
)
def test_what_cannot_be_varied_is_said(wrong, message):
    with pytest.raises(UserError, match=message):
        wrong()


def test_training_images_may_be_those_of_another_data_set():
    digits = catalogue.get("digits@images-photographs")
    assert (digits.dataset, digits.images) == (DIGITS.dataset, catalogue.PHOTOGRAPHS)
    assert digits.fingerprint() != DIGITS.fingerprint()
    assert catalogue.vary(catalogue.PETS, images="food101").images == catalogue.FOOD.dataset
    assert catalogue.vary(DIGITS, images="digits") == DIGITS
    for varied in (
        digits,
        catalogue.vary(catalogue.PETS, images="food101"),
        catalogue.vary(catalogue.FLOWERS, synthetic=True, student="mobilenetv3"),
    ):
        assert catalogue.get(varied.name) == varied
    mobile = catalogue.get("flowers102@mobilenetv3")
    assert (mobile.student.classes, mobile.student.channels, mobile.teacher) == (
        102,
        3,
        catalogue.FLOWERS.teacher,
    )


def test_synthetic_arrays_have_the_published_shapes_and_are_the_same_each_time():
    dataset = catalogue.get("flowers102@synthetic@r8").dataset
    train, test = synthetic.load(dataset)
    assert (train.images.shape, train.sizes.shape, train.images.dtype) == (
        (1020, 16, 16, 3),
        (1020, 2),
        np.uint8,
    )
    assert (test.images.shape, test.clean.shape) == ((1024, 16, 16, 3), (1024, 8, 8, 3))
    np.testing.assert_array_equal(train.images, synthetic.load(dataset)[0].images)


def test_streamed_synthetic_images_to_be_examined_on_are_none_that_were_trained_on(monkeypatch):
    monkeypatch.setattr(synthetic, "FILES", 3)
    dataset = catalogue.get("sun397@synthetic@r8").dataset
    train, test = synthetic.load(dataset)
    assert (len(train.images), len(test.images)) == (76128, 1024)
    shown, examined = ([split.images[i] for i in range(5)] for split in (train, test))
    assert (len({*shown}), len({*examined}), {*shown} & {*examined}) == (3, 3, set())
    assert shown == [synthetic.load(dataset)[0].images[i] for i in range(5)]
