"""Fashion-MNIST from each place that can have it; files that are not the published ones."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays_of
from PIL import Image

from distill_bench.data import fashion_mnist, idx
from distill_bench.data.__main__ import main as data_command
from distill_bench.data.fashion_mnist import DEBIAN_FOLDER, FILES
from distill_bench.errors import UserError
from distill_bench.tasks.choices import FASHION
from support import small_tfds
from support.servers import serve
from support.tfrecord_files import example, framed

SIZES = {"train": ("train", 40), "test": ("t10k", 20)}
with_images = pytest.mark.skipif(
    not fashion_mnist.is_here(DEBIAN_FOLDER), reason="needs Debian's dataset-fashion-mnist"
)


def as_idx(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def small(monkeypatch):
    """Forty and twenty random images in place of the published ones: the content of each file."""
    rng = np.random.default_rng(0)
    content = {}
    for begin, size in SIZES.values():
        content[f"{begin}-images-idx3-ubyte"] = as_idx(
            rng.integers(0, 256, (size, 28, 28), np.uint8)
        )
        content[f"{begin}-labels-idx1-ubyte"] = as_idx(rng.integers(0, 10, size).astype(np.uint8))
    monkeypatch.setattr(fashion_mnist, "SPLITS", SIZES)
    for name, data in content.items():
        monkeypatch.setitem(fashion_mnist.FILES, name, hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", fashion_mnist.DEBIAN_FOLDER / "absent")
    return content


def put(folder, content, compress=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)


def same(one, other):
    assert one.keys() == other.keys() == {"train", "test"}
    for split in one:
        np.testing.assert_array_equal(one[split].images, other[split].images)
        np.testing.assert_array_equal(one[split].labels, other[split].labels)


@given(arrays_of.arrays(np.uint8, arrays_of.array_shapes(min_dims=1, max_dims=4)), st.data())
def test_an_idx_file_is_read_whole_or_refused(array, data):
    content = as_idx(array)
    np.testing.assert_array_equal(idx.parse(content), array)
    end = data.draw(st.integers(0, len(content) - 1))
    for damaged in (content[:end], content + b"\0"):
        with pytest.raises(idx.Damaged):
            idx.parse(damaged)


@with_images
def test_it_is_the_published_data_set():
    """Against the figures that everybody normalises with, 0.2860 and 0.3530, and the balance of
    classes in the paper's section 2."""
    parts = fashion_mnist.load(DEBIAN_FOLDER)
    pixels = parts["train"].images / 255
    assert (round(pixels.mean(), 4), round(pixels.std(), 4)) == (0.2860, 0.3530)
    for split, size in (("train", 60_000), ("test", 10_000)):
        assert parts[split].images.shape == (size, 28, 28, 1)
        np.testing.assert_array_equal(np.bincount(parts[split].labels), [size // 10] * 10)


@with_images
def test_the_tasks_splits_are_permutations_with_labels_on_their_images():
    train, test = fashion_mnist.splits(FASHION, DEBIAN_FOLDER)
    parts = fashion_mnist.load(DEBIAN_FOLDER)
    rows = {
        image.tobytes(): label
        for part in parts.values()
        for image, label in zip(part.images, part.labels, strict=True)
    }
    for split, size in ((train, 60_000), (test, 10_000)):
        assert (split.images.dtype, len(split.images)) == (np.uint8, size)
        wrong = sum(
            rows[np.asarray(image).tobytes()] != label
            for image, label in zip(split.images, split.labels, strict=True)
        )
        assert wrong <= 10  # a few images occur twice, with different labels
    # The first images are as mixed as the whole.
    assert np.bincount(train.labels[:2000], minlength=10).min() > 140


def test_every_place_gives_the_same_images(small, tmp_path):
    put(tmp_path / "flat", small)
    put(tmp_path / "plain" / "fashion_mnist", small, compress=False)
    expected = fashion_mnist.load(tmp_path / "flat")
    same(fashion_mnist.load(tmp_path / "plain"), expected)
    put(tmp_path / "debian", small)
    same(fashion_mnist._load(tmp_path / "empty", tmp_path / "debian"), expected)


@pytest.fixture
def shuffled(small):
    """Each split as TFDS keeps it: PNG images, in another order."""
    rng = np.random.default_rng(1)
    made = {}
    for split, (begin, size) in SIZES.items():
        images = idx.parse(small[f"{begin}-images-idx3-ubyte"])
        labels = idx.parse(small[f"{begin}-labels-idx1-ubyte"])
        made[split] = [
            (small_tfds.encode(Image.fromarray(images[i])), int(labels[i]))
            for i in rng.permutation(size)
        ]
    return made


def test_what_tfds_prepared_gives_the_same_images(small, shuffled, tmp_path):
    put(tmp_path / "files", small)
    expected = fashion_mnist.load(tmp_path / "files")
    small_tfds.write(tmp_path / "arrays", shuffled, name="fashion_mnist", version="3.0.1")
    same(fashion_mnist.load(tmp_path / "arrays"), expected)
    # TFDS's default format.
    folder = tmp_path / "records" / "fashion_mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    for split, examples in shuffled.items():
        for shard in (0, 1):
            (folder / f"fashion_mnist-{split}.tfrecord-0000{shard}-of-00002").write_bytes(
                b"".join(
                    framed(example(image, label, b"label"))
                    for image, label in examples[shard * 10 : [10, None][shard]]
                )
            )
    same(fashion_mnist.load(tmp_path / "records"), expected)


def test_a_prepared_folder_that_lacks_images_is_refused(shuffled, tmp_path):
    shuffled["test"].pop()
    folder = small_tfds.write(tmp_path, shuffled, name="fashion_mnist", version="3.0.1")
    with pytest.raises(UserError, match=rf"test of {folder} has 19 images; the task's has 20"):
        fashion_mnist.load(tmp_path)


def truncate(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    return path, "it cannot be decompressed"


def change(folder):
    path = folder / "t10k-labels-idx1-ubyte"
    content = bytearray(gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes()))
    content[-1] ^= 1
    path.write_bytes(content)
    return path, r"its content \(20 bytes\) has sha256"


def swap(folder):
    one, other = (folder / f"{begin}-labels-idx1-ubyte.gz" for begin in ("train", "t10k"))
    shutil.move(one, folder / "aside")
    shutil.move(other, one)
    shutil.move(folder / "aside", other)
    return one, "it holds the content of t10k-labels-idx1-ubyte"


def replace(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    other = np.random.default_rng(9).integers(0, 256, (40, 28, 28), np.uint8)
    path.write_bytes(gzip.compress(as_idx(other)))
    return path, r"its content \(40x28x28 bytes\) has sha256"


@pytest.mark.parametrize("harm", [truncate, change, swap, replace])
def test_a_file_that_is_not_the_published_one_is_named(harm, small, tmp_path):
    put(tmp_path, small)
    path, reason = harm(tmp_path)
    with pytest.raises(UserError, match=f"^{path} is not the file .*: {reason}"):
        fashion_mnist.load(tmp_path)


def test_a_download_goes_on_where_it_stopped(small, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    name = "t10k-images-idx3-ubyte"
    put(tmp_path, {other: data for other, data in small.items() if other != name})
    content = gzip.compress(small[name])
    with serve(content, faults=[404]) as served:
        monkeypatch.setattr(fashion_mnist, "URL", served.url)
        folder = tmp_path / "fashion_mnist"
        folder.mkdir()
        (folder / f"{name}.gz.part").write_bytes(content[:1000])
        (folder / f"{name}.gz.part.json").write_text(
            f'{{"version": "\\"1\\"", "length": {len(content)}}}'
        )
        with pytest.raises(UserError, match=rf"missing +{name}.gz\n"):
            fashion_mnist.load(tmp_path)
        parts = fashion_mnist.load(tmp_path)
    assert served.asked == ["bytes=1000-"] * 2
    assert {path.name for path in folder.iterdir()} == {f"{name}.gz", ".lock"}
    assert len(parts["test"].labels) == 20


def test_nothing_anywhere_is_one_message_with_three_ways_out(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fashion_mnist, "URL", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "*")
    assert data_command(["data", "prepare", "--task=fashion", f"--data_dir={tmp_path}"]) == 2
    message = capsys.readouterr().err
    for part in (*FILES, str(tmp_path / "fashion_mnist"), "apt-get install", "--data_dir"):
        assert part in message
    assert "Traceback" not in message
