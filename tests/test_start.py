"""Weights by name, as the start of every student and as another teacher."""

from __future__ import annotations

import dataclasses
import zipfile

import jax
import numpy as np
import pytest

from distill_bench.errors import UserError
from distill_bench.networks import bit
from distill_bench.networks.bit import BiTConfig
from distill_bench.tasks import catalogue
from distill_bench.tasks.catalogue import FLOWERS
from distill_bench.tasks.parameters import load_start, load_teachers
from distill_bench.tasks.variation import Variation, vary
from distill_bench.training import lanes, stream
from distill_bench.training.lane_layout import LayoutOptions, make_layout
from distill_bench.training.source import open_source
from distill_bench.training.teacher_logits import make_forward
from distill_bench.weights import files, lookup

# It has as many groups as the task's networks, since files do not store the number.
NETWORK = BiTConfig((1,), 8, 7, channels=1, groups=4, root="small")


@pytest.fixture
def task(tiny_task):
    return dataclasses.replace(
        tiny_task, student=dataclasses.replace(NETWORK, classes=10, pool_padding="inf")
    )


def write(path, network, layout="published", seed=0):
    """Writes non-zero parameters of the network to the path and returns them."""
    leaves, tree = jax.tree.flatten(bit.init(network, jax.random.key(0)))
    rng = np.random.default_rng(seed)
    params = jax.tree.unflatten(
        tree,
        [np.asarray(leaf + 0.1 * rng.standard_normal(leaf.shape), np.float32) for leaf in leaves],
    )
    path.write_bytes(files.dumps(params, layout))
    return params


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("mapping", ["dispatch", "loop", "vmap"])
def test_every_student_starts_from_the_weights_with_a_fresh_head_whatever_its_seed(
    task, folder, mapping
):
    params = write(folder / "mine.npz", NETWORK)
    width = 1 if mapping == "dispatch" else 2
    layout = make_layout(jax.devices()[:2], LayoutOptions(mapping=mapping, lanes_per_device=width))
    source = open_source(vary(task, Variation(start="mine")), layout)
    found = jax.device_get(
        lanes.make_students(source)(
            layout.spread([np.int32(seed) for seed in range(layout.lanes)]), source.start
        )
    )
    expected = params | {
        "head": {
            "conv2d": {"kernel": np.zeros((32, 10), np.float32), "bias": np.zeros(10, np.float32)}
        }
    }
    for lane in range(layout.lanes):
        same(jax.tree.map(lambda leaf, lane=lane: leaf[lane], found), expected)


def test_weights_with_the_tasks_classes_keep_their_head_and_seeds_still_differ_in_data(
    task, folder
):
    params = write(folder / "mine.npz", dataclasses.replace(NETWORK, classes=10))
    source = open_source(vary(task, Variation(start="mine")), make_layout(jax.devices()[:1]))
    same(jax.device_get(source.start), params)
    chunk = stream.make_chunks(source, 1, make_forward(source))
    assert not np.allclose(chunk(1, 0).views, chunk(2, 0).views, atol=0.1)


@pytest.mark.parametrize(("layout", "padding"), [("published", "zero"), ("flax", "inf")])
def test_the_files_format_decides_a_teachers_padding(task, folder, layout, padding):
    network = dataclasses.replace(NETWORK, classes=10)
    params = write(folder / "mine.npz", network, layout)
    assert lookup.find("mine").network == dataclasses.replace(
        network, groups=32, pool_padding=padding
    )
    # A student keeps its own padding, as in the paper's code.
    assert vary(task, Variation(start="mine")).student == task.student
    varied = vary(task, Variation(teacher="mine"))
    assert varied.teacher == dataclasses.replace(network, pool_padding=padding)
    same(load_teachers(varied), (params,))


def test_published_weights_are_known_by_name_without_the_file(folder):
    for name in ("BiT-M-R50x1", "R50x1_224"):
        assert vary(FLOWERS, Variation(start=name)).student == FLOWERS.student
    varied = vary(
        catalogue.get("imagenet2012-two"),
        Variation(teacher="BiT-M-R101x3-ILSVRC2012", resolution=32),
    )
    assert [teacher.file for teacher in varied.teachers] == ["BiT-M-R101x3-ILSVRC2012"]
    assert (varied.teacher.depths, varied.teacher.width, varied.teacher.pool_padding) == (
        (3, 4, 23, 3),
        192,
        "zero",
    )
    for changes in (
        {"start": "BiT-M-R50x1"},
        {"start": "R50x1_224", "synthetic": True},
        {"teacher": "R152x2_T_flowers128", "start": "BiT-M-R50x1"},
    ):
        varied = vary(FLOWERS, Variation(**changes))
        assert catalogue.get(varied.name) == varied
        assert varied.fingerprint() != FLOWERS.fingerprint()


def test_another_file_with_the_same_name_makes_another_task(task, folder):
    fingerprints = {}
    for seed in (0, 1):
        write(folder / "mine.npz", dataclasses.replace(NETWORK, classes=10), seed=seed)
        for field in ("start", "teacher"):
            varied = vary(task, Variation(**{field: "mine"}))
            fingerprints[field, seed] = varied.fingerprint()
            assert varied.name == f"tiny@{field}-mine"
    assert len(set(fingerprints.values())) == 4
    before = vary(task, Variation(start="mine", teacher="mine"))
    write(folder / "mine.npz", dataclasses.replace(NETWORK, classes=10), seed=2)
    for load in (load_start, load_teachers):
        with pytest.raises(
            UserError, match=r"mine.npz is not the file that the task names: sha256"
        ):
            load(before)


def test_students_of_a_synthetic_task_start_from_random_weights_of_the_same_shapes(task, folder):
    written = write(folder / "mine.npz", NETWORK)
    random = load_start(dataclasses.replace(vary(task, Variation(start="mine")), synthetic=True))
    expected = jax.eval_shape(lambda: bit.init(task.student, jax.random.key(0)))
    assert jax.tree.map(np.shape, random) == jax.tree.map(np.shape, expected)
    assert not np.any(random["head"]["conv2d"]["kernel"])
    assert not np.allclose(
        random["root_block"]["standardized_conv2d"]["kernel"],
        written["root_block"]["standardized_conv2d"]["kernel"],
        atol=0.1,
    )


def test_synthetic_teachers_differ_and_are_the_same_each_time(task):
    task = dataclasses.replace(task, synthetic=True, more_teachers=task.teachers)
    first, second = load_teachers(task)
    same(load_teachers(task), (first, second))
    jax.tree.map(
        lambda a, b: np.testing.assert_equal(np.array_equal(a, b), a.ndim < 2), first, second
    )
    shapes = jax.eval_shape(lambda: bit.init(task.teacher, jax.random.key(0)))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), first) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), shapes
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda task: vary(task, Variation(start="minr")),
            r"no weights 'minr'.*Did you mean 'mine'(.|\n)*distill_bench\.weights",
        ),
        (lambda task: vary(task, Variation(teacher="BiT-M-R50x2")), "Did you mean 'BiT-M-R50x"),
        (
            lambda task: vary(task, Variation(start="../mine")),
            r"'\.\./mine' is not a name of weights: put the file into",
        ),
        (
            lambda task: vary(task, Variation(start="deep")),
            r"depths \(2,\), width 8.*the student is a BiT of depths \(1,\), width 8",
        ),
        (
            lambda task: vary(FLOWERS, Variation(start="BiT-M-R101x1")),
            r"depths \(3, 4, 23, 3\), width 64.*"
            r"the student is a BiT of depths \(3, 4, 6, 3\), width 64",
        ),
        (
            lambda task: vary(FLOWERS, Variation(student="mobilenetv3", start="BiT-M-R50x1")),
            "the student is a MobileNet: name weights of the student's network",
        ),
        (
            lambda task: vary(task, Variation(teacher="mine")),
            r"--teacher=mine has 7 classes; the task has 10"
            r"(.|\n)*distill_bench.teacher --task=TASK --from=mine",
        ),
        (
            lambda task: vary(task, Variation(teacher="BiT-S-R50x1")),
            "takes images of 3 channels; the task's images have 1",
        ),
        (
            lambda task: vary(task, Variation(teacher="narrow")),
            "narrow is 6 channels wide, which the task's 4 groups do not divide",
        ),
        (
            lambda task: vary(task, Variation(start="none")),
            r"none.npz has array names of neither format",
        ),
        (lambda task: vary(task, Variation(start="torn")), "torn.npz"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_reason(task, folder, change, message):
    write(folder / "mine.npz", NETWORK)
    write(folder / "deep.npz", dataclasses.replace(NETWORK, depths=(2,)))
    write(folder / "narrow.npz", dataclasses.replace(NETWORK, width=6, groups=2))
    np.savez(folder / "none.npz", weights=np.zeros(3, np.float32))
    (folder / "torn.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=message):
        change(task)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,",
        "{[]:1}",
        "{'descr': '<f4'}\n  x\n y",
        "{'descr': (), 'fortran_order': False, 'shape': (2,)}",
    ],
)
def test_weights_with_an_unreadable_array_header_are_refused(folder, header):
    write(folder / "whole.npz", NETWORK)
    with (
        zipfile.ZipFile(folder / "whole.npz") as whole,
        zipfile.ZipFile(folder / "mine.npz", "w") as archive,
    ):
        for name in whole.namelist():
            magic = np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little")
            archive.writestr(
                name,
                magic + header.encode()
                if name.endswith("head/conv2d/bias.npy")
                else whole.read(name),
            )
    with pytest.raises(
        UserError, match=r"mine.npz holds .*head/conv2d/bias with a header that cannot be read"
    ):
        lookup.find("mine")
