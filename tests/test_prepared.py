"""Packing and reading data sets of TFDS, on small ones in TFDS's own format."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import small_tfds
from conftest import ROOT
from PIL import Image
from small_tfds import encode, picture

from distill_bench import data_command, datasets, prepared
from distill_bench.data import TfdsDataset
from distill_bench.errors import UserError

SIDE, SHORTER, CROP = 32, 20, 16
NO_NETWORK = """
import socket
def refuse(*_): raise AssertionError("the network was used")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def ramp(height, width):
    """Grey levels: red grows by 0.5 a column, green by 0.25 a row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns * 0.5, rows * 0.25, np.zeros_like(rows)], -1).round().astype(np.uint8)


PALETTE = Image.fromarray(picture(40, 50, 4)).quantize(16)
STRIPES = np.tile(np.array([0, 255], np.uint8), 150)[None, :, None].repeat(200, 0).repeat(3, 2)
WHOLE = {  # a file, and the RGB pixels that are in it
    "jpeg": (encode(Image.fromarray(picture(70, 90, 0)), "JPEG", quality=98), picture(70, 90, 0)),
    "grayscale jpeg": (encode(Image.fromarray(picture(64, 48, 1, 1)[..., 0]), "JPEG", quality=98), picture(64, 48, 1, 1).repeat(3, -1)),
    "cmyk jpeg": (encode(Image.fromarray(picture(50, 60, 2)).convert("CMYK"), "JPEG", quality=98), picture(50, 60, 2)),
    "png with alpha": (encode(Image.fromarray(picture(33, 47, 3, 4))), picture(33, 47, 3, 4)[..., :3]),
    "palette with transparency": (encode(PALETTE, transparency=bytes(range(16))), np.asarray(PALETTE.convert("RGB"))),
    "one pixel wide": (encode(Image.fromarray(picture(80, 1, 5))), picture(80, 1, 5)),
    "one pixel": (encode(Image.new("RGB", (1, 1), (9, 8, 7)), "JPEG"), np.full((1, 1, 3), [9, 8, 7], np.uint8)),
    "stripes": (encode(Image.fromarray(STRIPES)), STRIPES),
    "ramp": (encode(Image.fromarray(ramp(400, 300))), ramp(400, 300)),
}
FILES = [content for content, _ in WHOLE.values()]
DAMAGED = [FILES[0][: len(FILES[0]) // 2], b"", b"<html>not found</html>", FILES[3][:40]]
TRAIN = [*FILES[:2], *DAMAGED, *FILES[2:]]
KEPT = [i for i, image in enumerate(TRAIN) if image not in DAMAGED]
DATASET = TfdsDataset("oxford_flowers102", "train", "validation", "test", len(TRAIN), len(FILES), SIDE, (SHORTER, CROP))


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A data_dir as TFDS leaves it."""
    data_dir = tmp_path_factory.mktemp("published")
    small_tfds.write(data_dir, {"train": [(image, i) for i, image in enumerate(TRAIN)], "test": [(image, 90 + i) for i, image in enumerate(FILES)]})
    return data_dir


@pytest.fixture(scope="session")
def once_packed(published, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("packed") / "data"
    shutil.copytree(published, data_dir)
    prepared.prepare(DATASET, data_dir, lambda text: None)
    return data_dir


@pytest.fixture
def fresh(published, tmp_path):
    return Path(shutil.copytree(published, tmp_path / "data"))


@pytest.fixture
def packed(once_packed, tmp_path):
    return Path(shutil.copytree(once_packed, tmp_path / "data"))


def python(code, *arguments, **options):
    return subprocess.run([sys.executable, "-W", "error", "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120, **options)


def area_average(pixels, height, width):
    """Every pixel repeated so often that equal shares are whole numbers of them."""
    rows = pixels.astype(np.float64).repeat(height, 0).reshape(height, len(pixels), *pixels.shape[1:]).mean(1)
    return rows.repeat(width, 1).reshape(height, width, pixels.shape[1], 3).mean(2)


def test_splits_hold_the_whole_images_in_order_with_their_labels_and_sizes(once_packed):
    train, test = prepared.load(DATASET, once_packed, pytest.fail)
    expected = [pixels.shape[:2] for _, pixels in WHOLE.values()]
    for split, labels in (train, KEPT), (test, list(range(90, 90 + len(FILES)))):
        assert isinstance(split.images, np.memmap)
        assert not split.images.flags.writeable
        assert (split.images.shape, split.images.dtype) == ((len(FILES), SIDE, SIDE, 3), np.uint8)
        assert split.labels.tolist() == labels
        assert split.sizes is not None
        assert split.sizes.tolist() == [[*size] for size in expected]
        assert (split.labels.dtype, split.sizes.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(train.images, test.images)
    assert train.clean is None


def test_damaged_images_are_listed_and_left_out(once_packed):
    place = prepared.folder(DATASET, once_packed)
    lines = [line.split("\t") for line in (place / "damaged.txt").read_text().splitlines()]
    assert [line[:3] for line in lines[1:]] == [["train", str(i), f"train_{i}.jpg"] for i in (2, 3, 4, 5)]
    assert "truncated" in lines[1][3]
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["version"] == "2.1.1"
    assert manifest["splits"]["train"]["damaged"] == 4
    assert manifest["splits"]["test"]["arrays"]["clean"]["shape"] == [len(FILES), CROP, CROP, 3]


@pytest.mark.parametrize("kind", WHOLE)
def test_a_squeezed_image_holds_the_colours_of_the_original(once_packed, kind):
    _, test = prepared.load(DATASET, once_packed)
    pixels = WHOLE[kind][1]
    squeezed = test.images[list(WHOLE).index(kind)]
    np.testing.assert_allclose(squeezed.mean((0, 1)), pixels.mean((0, 1)), atol=3)
    smooth = area_average(pixels, SIDE, SIDE)
    assert np.abs(squeezed - smooth).mean() < 6


def test_a_ramp_keeps_its_ramp_along_both_axes(once_packed):
    _, test = prepared.load(DATASET, once_packed)
    squeezed = test.images[list(WHOLE).index("ramp")]
    columns, rows = ((np.arange(SIDE) + 0.5) * n / SIDE - 0.5 for n in (300, 400))
    inside = slice(1, -1)  # at the border the filter is cut
    np.testing.assert_allclose(squeezed[..., 0][inside, inside], np.tile(columns * 0.5, (SIDE, 1))[inside, inside], atol=1)
    np.testing.assert_allclose(squeezed[..., 1][inside, inside], np.tile(rows * 0.25, (SIDE, 1)).T[inside, inside], atol=1)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_clean_image_is_the_central_crop_of_the_area_average(once_packed, kind):
    _, test = prepared.load(DATASET, once_packed)
    content, pixels = WHOLE[kind]
    if "jpeg" in kind or kind == "one pixel":
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    height, width = (round(side * SHORTER / min(pixels.shape[:2])) for side in pixels.shape[:2])
    top, left = (height - CROP) // 2, (width - CROP) // 2
    expected = area_average(pixels, height, width)[top : top + CROP, left : left + CROP]
    assert test.clean is not None
    np.testing.assert_allclose(test.clean[list(WHOLE).index(kind)], expected, atol=0.5 + 1e-6)


def test_loading_packs_what_tfds_has_made_without_network_and_without_tensorflow(fresh):
    code = f"""{NO_NETWORK}
import sys
from pathlib import Path
from distill_bench import prepared
from distill_bench.data import TfdsDataset
train, test = prepared.load({DATASET}, Path(sys.argv[1]))
assert not [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "keras")]
print(len(train.images), len(test.images))
"""
    done = python(code, fresh)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(FILES))] * 2
    assert "train: 50 %" in done.stderr
    shutil.rmtree(fresh / "oxford_flowers102")  # the packed arrays suffice
    assert prepared.load(DATASET, fresh, pytest.fail)[0].labels.tolist() == KEPT


def test_a_killed_preparation_is_not_taken_for_whole_and_starts_over(fresh, once_packed):
    code = f"""
import os, signal, sys
from pathlib import Path
from distill_bench import prepared
from distill_bench.data import TfdsDataset
def say(text):
    if "test: 50 %" in text:
        os.kill(os.getpid(), signal.SIGKILL)
prepared.prepare({DATASET}, Path(sys.argv[1]), say)
"""
    assert python(code, fresh).returncode == -signal.SIGKILL
    assert list(prepared.folder(DATASET, fresh).glob("test_*.npy"))
    assert not prepared.is_packed(DATASET, fresh)
    said: list[str] = []
    again, whole = prepared.load(DATASET, fresh, said.append), prepared.load(DATASET, once_packed, pytest.fail)
    assert "packing" in said[0]
    for a, b in zip(again, whole, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_one_packs_while_others_wait(fresh):
    said: list[str] = []
    with ThreadPoolExecutor(3) as pool:
        both = list(pool.map(lambda _: prepared.load(DATASET, fresh, said.append), range(3)))
    assert sum(": packing" in text for text in said) == 1
    assert all(train.labels.tolist() == both[0][0].labels.tolist() for train, _ in both)


def damage(path, change):
    content = bytearray(path.read_bytes())
    change(content)
    path.unlink()
    path.write_bytes(content)


def flip(content):
    content[-1] ^= 1


def cut(content):
    del content[-7:]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train_images.npy", cut, "mmap length"),
        ("train_images.npy", lambda content: content.extend(b"x"), "bytes, expected"),
        ("test_clean.npy", lambda content: content.clear(), "is not as it was packed"),
        ("train_labels.npy", flip, "train_labels.npy has changed"),
        ("test_sizes.npy", flip, "test_sizes.npy has changed"),
        ("manifest.json", cut, "is not as it was packed"),
        ("manifest.json", lambda content: content.__setitem__(slice(None), b"[1]"), "is not as it was packed"),
    ],
)
def test_changed_files_are_refused_and_packed_again_by_prepare(packed, name, change, message):
    place = prepared.folder(DATASET, packed)
    whole = (place / name).read_bytes()
    damage(place / name, change)
    with pytest.raises(UserError, match=rf"(?s){message}.*prepare --task=flowers102 --data_dir={packed}"):
        prepared.load(DATASET, packed)
    prepared.prepare(DATASET, packed, lambda text: None)
    assert (place / name).read_bytes() == whole


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((len(FILES), 16, 16, 3), np.uint8), r"uint8\[9, 16, 16, 3\], expected uint8\[9, 32, 32, 3\]"),
        (np.zeros((len(FILES), SIDE, SIDE, 3), np.int8), r"holds int8"),
        (np.zeros((len(FILES) - 1, SIDE, SIDE, 3), np.uint8), r"uint8\[8, 32, 32, 3\], expected uint8\[9, 32, 32, 3\]"),
        (np.array([{}]), "Python objects"),
    ],
)
def test_other_arrays_in_the_place_of_packed_ones_are_refused(packed, array, message):
    np.save(prepared.folder(DATASET, packed) / "test_images.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        prepared.load(DATASET, packed)


def test_prepare_compares_every_pixel(packed):
    damage(prepared.folder(DATASET, packed) / "train_images.npy", flip)
    said: list[str] = []
    prepared.prepare(DATASET, packed, said.append)
    assert "train_images.npy has changed" in said[0]
    said.clear()
    prepared.prepare(DATASET, packed, said.append)
    assert said == [f"{prepared.folder(DATASET, packed)}: every byte is as it was packed."]


def test_another_side_or_split_is_another_folder(packed):
    for other in (dataclasses.replace(DATASET, side=16), dataclasses.replace(DATASET, train="train[:50%]", train_size=len(TRAIN) // 2)):
        train, _ = prepared.load(other, packed, lambda text: None)
        assert train.images.shape[1] == other.side
    assert len(train.images) == len(TRAIN) // 2 - len(DAMAGED)
    assert len(prepared.load(DATASET, packed, pytest.fail)[0].images) == len(FILES)


def test_other_counts_than_the_tasks_are_refused(fresh):
    with pytest.raises(UserError, match=rf"train of .* has {len(TRAIN)} images, the task's 1020"):
        prepared.load(dataclasses.replace(DATASET, train_size=1020), fresh)
    with pytest.raises(UserError, match=r"nowhere of .* cannot be read"):
        prepared.load(dataclasses.replace(DATASET, test="nowhere"), fresh)
    assert not prepared.is_packed(DATASET, fresh)


@pytest.mark.parametrize("keep", [0, 100, 1 << 16, -10])
def test_a_truncated_or_missing_shard_is_refused(fresh, keep):
    shard = fresh / "oxford_flowers102" / "2.1.1" / "oxford_flowers102-test.array_record-00001-of-00002"
    content = shard.read_bytes()[:keep]
    shard.write_bytes(content) if keep else shard.unlink()
    if keep == 1 << 16:
        damage(shard, lambda c: c.__setitem__(slice(200, 400), bytes(200)))
    with pytest.raises(UserError, match=r"test of .* cannot be read"):
        prepared.load(DATASET, fresh, lambda text: None)
    assert not list(prepared.folder(DATASET, fresh).glob("*.npy"))


def test_a_split_without_a_whole_image_is_refused(tmp_path):
    small_tfds.write(tmp_path, {"train": [(b"", 0)] * 4, "test": [(FILES[0], 0)] * 4})
    with pytest.raises(UserError, match=r"None of the 4 images of train .* no JPEG, PNG, GIF or BMP file"):
        prepared.load(dataclasses.replace(DATASET, train_size=4, test_size=4), tmp_path, lambda text: None)


def test_a_folder_that_cannot_be_written_is_told(fresh):
    (fresh / "distill-bench").write_text("a file in its place")
    with pytest.raises(UserError, match=r"cannot be written: .*\n.*choose a --data_dir"):
        prepared.load(DATASET, fresh)


def test_too_small_a_disk_is_told_before(fresh, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(UserError, match=r"takes 0\.0 GB in .* make room"):
        prepared.load(DATASET, fresh)


def test_the_newest_version_is_read(fresh):
    for version, label in ("2.1.9", 4), ("2.1.10", 5):
        small_tfds.write(fresh, {"train": [(FILES[0], label)] * len(TRAIN), "test": [(FILES[0], label)] * len(FILES)}, version=version)
    assert set(prepared.load(DATASET, fresh, lambda text: None)[0].labels) == {5}


def test_without_data_the_error_names_folder_and_command(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=rf"(?s){tmp_path}/oxford_flowers102.*prepare --task=flowers102 --data_dir={tmp_path}"):
        prepared.load(DATASET, tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match=r"pip install 'distill-bench\[prepare\]'"):
        prepared.prepare(DATASET, tmp_path, lambda text: None)
    assert not list(tmp_path.iterdir())


def test_data_dir_is_the_argument_else_the_environment_else_tfdss_own(monkeypatch):
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
    said = capsys.readouterr().out
    assert f"flowers102    packed in {prepared.folder(DATASET, fresh)}" in said
    assert f"pet37         not prepared: python -m distill_bench.data prepare --task=pet37 --data_dir={fresh}" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepair", "--task=flowers102"], "Did you mean 'prepare'?"),
        (["prepare", "--task=flowers"], "Did you mean 'flowers102'?"),
        (["prepare", "flowers102"], "no subcommand 'flowers102'"),
        (["prepare"], "--task=NAME"),
        (["prepare", "--taks=flowers102"], "task"),
    ],
)
def test_a_typo_is_one_message_and_exit_2(arguments, message, capsys):
    assert data_command.main(["data", *arguments]) == 2
    assert message in capsys.readouterr().err


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
