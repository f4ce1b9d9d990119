"""Packing a small data set in TFDS's own format: what the arrays hold, and how packing can fail."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from distill_bench.data import prepared
from distill_bench.errors import UserError
from support import small_tfds
from support.small_flowers import CROP, DATASET, FILES, KEPT, SHORTER, SIDE, WHOLE, damage, python

NO_NETWORK = """
import socket
def refuse(*_): raise AssertionError("the network was used")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def area_average(pixels, height, width):
    """Repeats every pixel until each output pixel is the mean of a whole number of them."""
    rows = (
        pixels.astype(np.float64)
        .repeat(height, 0)
        .reshape(height, len(pixels), *pixels.shape[1:])
        .mean(1)
    )
    return rows.repeat(width, 1).reshape(height, width, pixels.shape[1], 3).mean(2)


def test_splits_hold_the_intact_images_in_order_with_labels_and_sizes(once_packed):
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
    packed_dir = prepared.folder(DATASET, once_packed)
    lines = [line.split("\t") for line in (packed_dir / "damaged.txt").read_text().splitlines()]
    assert [line[:3] for line in lines[1:]] == [
        ["train", str(i), f"train_{i}.jpg"] for i in (2, 3, 4, 5)
    ]
    assert "truncated" in lines[1][3]
    manifest = json.loads((packed_dir / "manifest.json").read_text())
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


def test_a_ramp_stays_a_ramp_along_both_axes(once_packed):
    _, test = prepared.load(DATASET, once_packed)
    squeezed = test.images[list(WHOLE).index("ramp")]
    columns, rows = ((np.arange(SIDE) + 0.5) * n / SIDE - 0.5 for n in (300, 400))
    inside = slice(1, -1)  # at the border, the filter is cut off
    np.testing.assert_allclose(
        squeezed[..., 0][inside, inside], np.tile(columns * 0.5, (SIDE, 1))[inside, inside], atol=1
    )
    np.testing.assert_allclose(
        squeezed[..., 1][inside, inside], np.tile(rows * 0.25, (SIDE, 1)).T[inside, inside], atol=1
    )


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


@pytest.mark.process
def test_loading_packs_tfds_files_without_network_or_tensorflow(fresh):
    code = f"""{NO_NETWORK}
import sys
from pathlib import Path
from distill_bench.data import prepared
from distill_bench.data.dataset import TfdsDataset
from distill_bench.log import listen, to_stderr
listen(to_stderr)
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


@pytest.mark.process
def test_a_killed_preparation_counts_as_incomplete_and_starts_over(fresh, once_packed):
    code = f"""
import os, signal, sys
from pathlib import Path
from distill_bench.data import prepared
from distill_bench.data.dataset import TfdsDataset
def report(text):
    if "test: 50 %" in text:
        os.kill(os.getpid(), signal.SIGKILL)
prepared.prepare({DATASET}, Path(sys.argv[1]), report)
"""
    assert python(code, fresh).returncode == -signal.SIGKILL
    assert list(prepared.folder(DATASET, fresh).glob("test_*.npy"))
    assert not prepared.is_packed(DATASET, fresh)
    reported: list[str] = []
    repeated, complete = (
        prepared.load(DATASET, fresh, reported.append),
        prepared.load(DATASET, once_packed, pytest.fail),
    )
    assert "packing" in reported[0]
    for a, b in zip(repeated, complete, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_only_one_of_several_packs_and_the_others_wait(fresh):
    reported: list[str] = []
    with ThreadPoolExecutor(3) as pool:
        loaded = list(pool.map(lambda _: prepared.load(DATASET, fresh, reported.append), range(3)))
    assert sum(": packing" in text for text in reported) == 1
    assert all(train.labels.tolist() == loaded[0][0].labels.tolist() for train, _ in loaded)


@pytest.mark.parametrize("keep", [0, 100, 1 << 16, -10])
def test_a_truncated_or_missing_shard_is_refused(fresh, keep):
    shard = (
        fresh / "oxford_flowers102" / "2.1.1" / "oxford_flowers102-test.array_record-00001-of-00002"
    )
    content = shard.read_bytes()[:keep]
    shard.write_bytes(content) if keep else shard.unlink()
    if keep == 1 << 16:
        damage(shard, lambda c: c.__setitem__(slice(200, 400), bytes(200)))
    with pytest.raises(UserError, match=r"test of .* cannot be read"):
        prepared.load(DATASET, fresh, lambda text: None)
    assert not list(prepared.folder(DATASET, fresh).glob("*.npy"))


def test_a_split_without_an_intact_image_is_refused(tmp_path):
    small_tfds.write(tmp_path, {"train": [(b"", 0)] * 4, "test": [(FILES[0], 0)] * 4})
    with pytest.raises(
        UserError, match=r"None of the 4 images of train .* not a JPEG, PNG, GIF or BMP file"
    ):
        prepared.load(
            dataclasses.replace(DATASET, train_size=4, test_size=4), tmp_path, lambda text: None
        )
