"""Reading packed data sets of TFDS: what is refused, what is made first, and the `data` command."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from distill_bench.data import __main__ as data_command
from distill_bench.data import datasets, prepared, tfds_records
from distill_bench.errors import UserError
from support import small_tfds
from support.small_flowers import DAMAGED, DATASET, FILES, KEPT, SIDE, TRAIN, damage, python


def flip(content):
    content[-1] ^= 1


def cut(content):
    del content[-7:]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train_images.npy", cut, "mmap length"),
        ("train_images.npy", lambda content: content.extend(b"x"), "bytes, expected"),
        ("test_clean.npy", lambda content: content.clear(), "has changed since it was packed"),
        ("train_labels.npy", flip, "train_labels.npy does not have the sha256"),
        ("test_sizes.npy", flip, "test_sizes.npy does not have the sha256"),
        ("manifest.json", cut, "has changed since it was packed"),
        (
            "manifest.json",
            lambda content: content.__setitem__(slice(None), b"[1]"),
            "has changed since it was packed",
        ),
    ],
)
def test_changed_files_are_refused_and_packed_again_by_prepare(
    packed, name, change, message, monkeypatch
):
    monkeypatch.setitem(datasets.CATALOGUE, "flowers102", DATASET)
    packed_dir = prepared.folder(DATASET, packed)
    original = (packed_dir / name).read_bytes()
    damage(packed_dir / name, change)
    with pytest.raises(
        UserError, match=rf"(?s){message}.*prepare --task=flowers102 --data_dir={packed}"
    ):
        prepared.load(DATASET, packed)
    prepared.prepare(DATASET, packed, lambda text: None)
    assert (packed_dir / name).read_bytes() == original


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((len(FILES), 16, 16, 3), np.uint8),
            r"uint8\[9, 16, 16, 3\], expected uint8\[9, 32, 32, 3\]",
        ),
        (np.zeros((len(FILES), SIDE, SIDE, 3), np.int8), r"holds int8"),
        (
            np.zeros((len(FILES) - 1, SIDE, SIDE, 3), np.uint8),
            r"uint8\[8, 32, 32, 3\], expected uint8\[9, 32, 32, 3\]",
        ),
        (np.array([{}]), "Python objects"),
    ],
)
def test_other_arrays_in_place_of_packed_ones_are_refused(packed, array, message):
    np.save(prepared.folder(DATASET, packed) / "test_images.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        prepared.load(DATASET, packed)


def test_prepare_verifies_every_pixel(packed):
    damage(prepared.folder(DATASET, packed) / "train_images.npy", flip)
    reported: list[str] = []
    prepared.prepare(DATASET, packed, reported.append)
    assert "train_images.npy does not have the sha256" in reported[0]
    reported.clear()
    prepared.prepare(DATASET, packed, reported.append)
    assert reported == [f"{prepared.folder(DATASET, packed)}: every byte is as it was packed."]


def test_the_advice_for_a_damaged_variation_is_to_remove_its_folder(packed, monkeypatch):
    monkeypatch.setitem(datasets.CATALOGUE, "flowers102", DATASET)
    variation = dataclasses.replace(DATASET, side=16)
    prepared.load(variation, packed, lambda text: None)
    packed_dir = prepared.folder(variation, packed)
    damage(packed_dir / "train_labels.npy", flip)
    with pytest.raises(
        UserError,
        match=rf"{packed_dir} has changed.* does not have the sha256.*\n"
        r"Remove that folder: the next run packs it again\.$",
    ):
        prepared.load(variation, packed)
    shutil.rmtree(packed_dir)
    assert prepared.load(variation, packed, lambda text: None)[0].labels.tolist() == KEPT


def test_another_side_or_split_gets_another_folder(packed):
    for other in (
        dataclasses.replace(DATASET, side=16),
        dataclasses.replace(DATASET, train="train[:50%]", train_size=len(TRAIN) // 2),
    ):
        train, _ = prepared.load(other, packed, lambda text: None)
        assert train.images.shape[1] == other.side
    assert len(train.images) == len(TRAIN) // 2 - len(DAMAGED)
    assert len(prepared.load(DATASET, packed, pytest.fail)[0].images) == len(FILES)


def test_a_wrong_number_of_images_is_refused(fresh):
    with pytest.raises(
        UserError, match=rf"train of .* has {len(TRAIN)} images; the task's has 1020"
    ):
        prepared.load(dataclasses.replace(DATASET, train_size=1020), fresh)
    with pytest.raises(UserError, match=r"nowhere of .* cannot be read"):
        prepared.load(dataclasses.replace(DATASET, test="nowhere"), fresh)
    assert not prepared.is_packed(DATASET, fresh)


def test_a_folder_that_cannot_be_written_is_reported(fresh):
    (fresh / "distill-bench").write_text("a file in its place")
    with pytest.raises(UserError, match=r"cannot be written: .*\n.*choose a --data_dir"):
        prepared.load(DATASET, fresh)


def test_a_disk_that_is_too_small_is_reported_before_packing(fresh, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(UserError, match=r"takes 0\.0 GB in .* make room"):
        prepared.load(DATASET, fresh)


def test_the_newest_version_is_read(fresh):
    for version, label in ("2.1.9", 4), ("2.1.10", 5):
        small_tfds.write(
            fresh,
            {"train": [(FILES[0], label)] * len(TRAIN), "test": [(FILES[0], label)] * len(FILES)},
            version=version,
        )
    assert set(prepared.load(DATASET, fresh, lambda text: None)[0].labels) == {5}


def test_prepare_packs_again_if_tfds_has_a_newer_version_of_streamed_images(fresh):
    streamed = dataclasses.replace(DATASET, side=None)
    prepared.prepare(streamed, fresh, lambda text: None)
    small_tfds.write(
        fresh,
        {"train": [(FILES[0], 5)] * len(TRAIN), "test": [(FILES[0], 5)] * len(FILES)},
        version="2.1.10",
    )
    with pytest.raises(
        UserError, match=r"refers to version 2\.1\.1 of the files, but 2\.1\.10 was found"
    ):
        prepared.load(streamed, fresh)
    reported = []
    prepared.prepare(streamed, fresh, reported.append)
    assert "refers to version 2.1.1 of the files" in reported[0]
    train = prepared.load(streamed, fresh, pytest.fail)[0]
    assert (set(train.labels), train.images[3]) == ({5}, FILES[0])


def test_missing_streamed_images_are_reported_and_made_again_by_prepare(
    published, fresh, monkeypatch
):
    streamed = dataclasses.replace(DATASET, side=None)
    prepared.prepare(streamed, fresh, lambda text: None)
    shutil.rmtree(fresh / DATASET.name)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError) as missed:
        prepared.load(streamed, fresh)
    assert f"there is no version in the format array_record in {fresh / DATASET.name}" in str(
        missed.value
    )
    assert "manifest.json" not in str(missed.value)
    with pytest.raises(UserError, match="needs TensorFlow"):
        prepared.prepare(streamed, fresh, lambda text: None)
    monkeypatch.setattr(
        tfds_records,
        "make",
        lambda dataset, data_dir, _: (
            shutil.copytree(published / dataset.name, data_dir / dataset.name) / "2.1.1"
        ),
    )
    reported = []
    prepared.prepare(streamed, fresh, reported.append)
    assert reported == [
        f"{DATASET.name}: TFDS makes it in {fresh}",
        f"{prepared.folder(streamed, fresh)}: every byte is as it was packed.",
    ]
    assert prepared.load(streamed, fresh, pytest.fail)[0].images[0] == FILES[0]


def test_without_data_the_error_names_folder_and_command(tmp_path, monkeypatch):
    with pytest.raises(
        UserError,
        match=rf"(?s){tmp_path}/oxford_flowers102.*prepare --task=flowers102 --data_dir={tmp_path}",
    ):
        prepared.load(DATASET, tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match=r"pip install 'distill-bench\[prepare\]'"):
        prepared.prepare(DATASET, tmp_path, lambda text: None)
    assert not list(tmp_path.iterdir())


def test_loading_makes_what_is_missing_if_it_can(published, tmp_path, monkeypatch):
    monkeypatch.setattr(
        tfds_records,
        "make",
        lambda dataset, data_dir, _: (
            shutil.copytree(published / dataset.name, data_dir / dataset.name) / "2.1.1"
        ),
    )
    reported = []
    _, validation = prepared.load(DATASET, tmp_path, reported.append, ("train", "validation"))
    assert (
        reported[0]
        == f"oxford_flowers102 is not in {tmp_path}: TFDS makes it, once, from the network"
    )
    test = prepared.load(DATASET, tmp_path, pytest.fail)[1]
    np.testing.assert_array_equal(validation.clean, test.clean[:2])


def test_data_dir_is_the_argument_else_the_environment_else_tfds_default(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/environment")
    assert datasets.data_dir("/given") == Path("/given")
    assert datasets.data_dir(None) == Path("/environment")
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert datasets.data_dir(None) == Path.home() / "tensorflow_datasets"


def test_the_command_prepares_and_lists(fresh, monkeypatch, capsys):
    monkeypatch.setitem(datasets.CATALOGUE, "flowers102", DATASET)
    listing = ["data", f"--data_dir={fresh}"]
    assert data_command.main(listing) == 0
    assert "flowers102    not packed, but TFDS has made it in" in capsys.readouterr().out
    assert data_command.main(["data", "prepare", "--task=flowers102", f"--data_dir={fresh}"]) == 0
    assert "4 images are damaged and left out" in capsys.readouterr().out
    assert data_command.main(listing) == 0
    reported = capsys.readouterr().out
    assert f"flowers102    packed in {prepared.folder(DATASET, fresh)}" in reported
    command = f"python -m distill_bench.data prepare --task=pet37 --data_dir={fresh}"
    assert f"pet37         not prepared: {command}" in reported


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepair", "--task=flowers102"], "Did you mean 'prepare'?"),
        (["prepare", "--task=flowers"], "Did you mean 'flowers102'?"),
        (["prepare", "flowers102"], "Unknown subcommand 'flowers102'"),
        (["prepare"], "--task=NAME"),
        (["prepare", "--taks=flowers102"], "task"),
    ],
)
def test_a_typo_is_one_message_and_exit_2(arguments, message, capsys):
    assert data_command.main(["data", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.process
def test_help_imports_nothing_heavy():
    code = """
import runpy, sys
sys.argv = ["data", "--help"]
try:
    runpy.run_module("distill_bench.data", run_name="__main__")
except SystemExit as exit:
    assert exit.code == 0
assert not {"jax", "numpy", "tensorflow_datasets", "PIL"} & set(sys.modules)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "prepare --task=flowers102" in done.stdout
