"""A task on published TFRecord files, from the files to its images; and files that are refused.

The files are written here byte by byte, in the schema of FunMatch-Distillation's Pets.
"""

from __future__ import annotations

import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow as tensorboard_crc

from distill_bench.data import __main__ as data_command
from distill_bench.data import datasets, prepared, tfrecords
from distill_bench.data.crc32c import crc32c
from distill_bench.data.dataset import TfdsDataset
from distill_bench.errors import UserError
from distill_bench.networks import bit
from distill_bench.tasks.catalogue import PETS_TFRECORDS
from distill_bench.tasks.task import ProbeConfig
from distill_bench.training.lane_layout import make_layout
from distill_bench.training.source import open_source
from distill_bench.weights import files as checkpoints
from support import small_tfds
from support.tfrecord_files import example, field, framed

SIDE, SHARD = 24, 2
COUNTS = {"train": 21, "validation": 3, "test": 9}  # eleven shards: 10 must not come before 2
PETS = TfdsDataset(
    "pets",
    *COUNTS,
    *COUNTS.values(),
    side=None,
    clean=(20, 16),
    in_memory=True,
    tfrecords="gs://published",
)


def jpeg(split, index):
    seed = sum(map(ord, split)) + index
    picture = Image.fromarray(small_tfds.picture(SIDE, SIDE, seed))
    return small_tfds.encode(picture, "JPEG", quality=95, subsampling=0)


def write(folder):
    """Writes the data set in shards of two records; the last one of each split has one."""
    for split, count in COUNTS.items():
        (folder / split).mkdir(parents=True)
        for shard, first in enumerate(range(0, count, SHARD)):
            rows = [example(jpeg(split, i), i) for i in range(first, min(first + SHARD, count))]
            path = folder / split / f"{split}_pets37-{shard}-{len(rows)}.tfrec"
            path.write_bytes(b"".join(map(framed, rows)))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / PETS.name)


@pytest.fixture(params=[0, 10], ids=["the first shard", "the last shard"])
def shard(request, folder):
    (path,) = (folder / "train").glob(f"*-{request.param}-*")
    return path


def records(folder, split="train"):
    return tfrecords.Records(folder, split, COUNTS[split])


def test_the_checksum_has_the_values_of_rfc_3720_and_of_tensorboard():
    for content, expected in (
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
    ):
        assert crc32c(content) == expected
    for length in (0, 1, 3, 4, 251, 252, 253, 256, 257, 508, 509, 2000):
        content = np.random.RandomState(length).bytes(length)
        assert crc32c(content) == tensorboard_crc.crc32c(content)


def test_the_files_written_here_have_the_bytes_of_tensorflows_writer():
    """Recorded with TensorFlow 2.21: tf.io.TFRecordWriter, serialized deterministically."""
    assert framed(example(b"a picture", 36)).hex() == (
        "2a00000000000000ae8d91f50a280a0e0a05636c61737312051a030a01240a160a05696d616765120d0a0b0a09"
        "6120706963747572653767ef7e"
    )


def test_records_come_in_the_order_of_shards_and_from_several_threads(folder):
    found = records(folder)
    order = np.random.RandomState(0).permutation(np.arange(len(found)).repeat(5))
    with ThreadPoolExecutor(8) as pool:
        for index, read in zip(order, pool.map(found.__getitem__, order), strict=True):
            assert (read.image, read.label) == (jpeg("train", index), index)
    assert (found[20].key, found[5].key) == (
        "train_pets37-10-1.tfrec, record 0",
        "train_pets37-2-2.tfrec, record 1",
    )


def small_task(root):
    network = dataclasses.replace(PETS_TFRECORDS.teacher, depths=(1, 1), width=8, groups=4)
    content = checkpoints.dumps(bit.init(network, jax.random.key(1)))
    (root / "teacher.npz").write_bytes(content)
    return dataclasses.replace(
        PETS_TFRECORDS,
        dataset=PETS,
        teacher=network,
        teacher_file=str(root / "teacher.npz"),
        teacher_sha256=hashlib.sha256(content).hexdigest(),
        student=dataclasses.replace(PETS_TFRECORDS.student, depths=(1,), width=8, groups=4),
        views=dataclasses.replace(PETS_TFRECORDS.views, size=16),
        batch_size=8,
        probe=ProbeConfig(batches=2, batch_size=4),
    )


def test_a_task_opens_with_all_images_decoded(folder, monkeypatch):
    root = folder.parent
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    reported = []
    prepared.prepare(PETS, root, reported.append)
    assert (reported[0], reported[-1]) == (
        f"{prepared.folder(PETS, root)}: packing pets, 33 images",
        f"{prepared.folder(PETS, root)}: packed",
    )
    layout = make_layout(jax.devices()[:1])
    source = open_source(small_task(root), layout)
    originals = source.train_images.originals
    pixels = originals.pixels[:-3].reshape(COUNTS["train"], SIDE, SIDE, 3)
    for index, picture in enumerate(pixels):
        smooth = small_tfds.picture(SIDE, SIDE, sum(map(ord, "train")) + index)
        assert np.abs(picture.astype(int) - smooth).mean() < 2  # what JPEG loses
    assert source.train.labels.tolist() == [*range(COUNTS["train"])]
    assert source.test.clean.shape == (COUNTS["test"], 16, 16, 3)
    views = source.train_images.make_step_views()(1, np.arange(2, dtype=np.int32))
    assert views.views[0].shape == (2, 8, 16, 16, 3)
    reported.clear()
    prepared.prepare(PETS, root, reported.append)
    assert reported == [f"{prepared.folder(PETS, root)}: every byte is as it was packed."]


def test_other_files_than_the_packed_ones_are_refused_until_they_are_packed(folder):
    root = folder.parent
    prepared.prepare(PETS, root, lambda text: None)
    path = folder / "train" / "train_pets37-10-1.tfrec"
    path.write_bytes(framed(example(jpeg("train", 20) + b"more", 20)))
    with pytest.raises(UserError, match=r"refers to version .* of the files, but .* was found"):
        prepared.load(PETS, root)
    prepared.prepare(PETS, root, lambda text: None)
    assert prepared.load(PETS, root, pytest.fail)[0].images[20] == jpeg("train", 20) + b"more"


def test_a_picture_that_cannot_be_decoded_is_listed_with_its_place(folder):
    path = folder / "test" / "test_pets37-4-1.tfrec"
    path.write_bytes(framed(example(b"no picture", 8)))
    reported = []
    prepared.prepare(PETS, folder.parent, reported.append)
    damaged = prepared.folder(PETS, folder.parent) / "damaged.txt"
    assert f"1 images are damaged and left out: see {damaged}" in reported
    assert "test\t8\ttest_pets37-4-1.tfrec, record 0\tValueError: not a JPEG" in damaged.read_text()


def refused(path, reason):
    """Expects that the split or its records are refused, with the file and the reason."""
    return pytest.raises(UserError, match=rf"{path} cannot be read: {reason}")


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        (0, "it has 0 records, but its name says"),
        (1, "it ends within the header of record 0"),
        (11, "it ends within the header of record 0"),
        (12, "it ends within record 0"),
        (100, "it ends within record 0"),
    ],
)
def test_a_torn_file_is_refused(shard, left, reason):
    shard.write_bytes(shard.read_bytes()[:left])
    with refused(shard, reason):
        records(shard.parent.parent)


def test_every_place_at_which_a_file_can_be_torn_is_noticed(folder):
    path = folder / "train" / "train_pets37-10-1.tfrec"
    content = path.read_bytes()
    for left in range(0, len(content), 7):
        path.write_bytes(content[:left])
        with pytest.raises(UserError):
            records(folder)


@pytest.mark.parametrize("place", [0, 7, 8, 11])
def test_a_wrong_length_is_refused_when_the_split_is_opened(shard, place):
    content = bytearray(shard.read_bytes())
    content[place] ^= 1
    shard.write_bytes(content)
    with refused(shard, "the length of record 0 does not have its checksum"):
        records(shard.parent.parent)


@pytest.mark.parametrize("place", [12, 300, -5, -4, -1])
def test_wrong_data_are_refused_when_they_are_read(shard, place):
    content = bytearray(shard.read_bytes())
    content[place] ^= 0x80
    shard.write_bytes(content)
    with refused(shard, r"the data of record [01] do not have its checksum"):
        list(records(shard.parent.parent))


def test_data_that_are_damaged_stop_preparing_with_one_message(folder, monkeypatch, capsys):
    monkeypatch.setitem(datasets.CATALOGUE, "pet37-tfrecords", PETS)
    path = folder / "validation" / "validation_pets37-0-2.tfrec"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    arguments = ["data", "prepare", "--task=pet37-tfrecords", f"--data_dir={folder.parent}"]
    assert data_command.main(arguments) == 2
    assert f"error: {path} cannot be read: the data of record 0" in capsys.readouterr().err
    assert not prepared.is_packed(PETS, folder.parent)


@pytest.mark.parametrize(
    "content",
    [
        example(None, 3),
        example(b"a picture", None),
        example(b"", None) + example(None, None),
        field(1, field(1, field(1, b"image") + field(2, field(3, field(1, b"\x01"))))),
        b"\xff\xff\xff",
        b"",
        b"a text",
    ],
)
def test_a_record_that_is_not_an_image_with_a_class_is_refused(folder, content):
    path = folder / "train" / "train_pets37-10-1.tfrec"
    path.write_bytes(framed(content))
    with refused(
        path, r"record 0 is not a tf\.train\.Example with one \"image\" and one \"class\""
    ):
        records(folder)[20]


def test_a_negative_class_is_refused(folder):
    path = folder / "train" / "train_pets37-10-1.tfrec"
    minus_one = field(1, b"\xff" * 9 + b"\x01")
    label = field(1, field(1, b"class") + field(2, field(3, minus_one)))
    image = field(1, field(1, b"image") + field(2, field(1, field(1, b"a picture"))))
    path.write_bytes(framed(field(1, image + label)))
    with refused(path, "record 0 has the class -1"):
        records(folder)[20]


@pytest.mark.parametrize("content", [b"not records\n" * 20, b"\x1f\x8b\x08" + bytes(40)])
def test_a_text_or_a_compressed_file_is_refused(shard, content):
    shard.write_bytes(content)
    with refused(shard, r"the length of record 0 .* damaged or not a TFRecord file"):
        records(shard.parent.parent)


def test_a_missing_shard_is_refused(folder):
    (folder / "train" / "train_pets37-10-1.tfrec").unlink()
    with pytest.raises(
        UserError, match=rf"{folder}/train has 20 images in 10 files.*; the task's has 21"
    ):
        records(folder)
    (folder / "train" / "train_pets37-3-2.tfrec").unlink()
    with pytest.raises(UserError, match=rf"{folder}/train lacks shard 3, train_\.\.\.-3-<number"):
        records(folder)


def test_a_shard_under_a_wrong_name_is_refused(folder):
    path = folder / "train" / "train_pets37-10-1.tfrec"
    other = path.with_name("train_pets37-10-2.tfrec")
    path.rename(other)
    with pytest.raises(UserError, match="has 22 images"):
        records(folder)
    with refused(other, "it has 1 records, but its name says 2"):
        tfrecords.Records(folder, "train", 22)


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "test_pets37-11-2.tfrec", "train_pets37-2-1.tfrec", "train_pets37-x-2.tfrec"],
)
def test_a_foreign_file_is_refused(folder, name):
    (folder / "train" / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"does not belong to the data set.*\nMove it away"):
        records(folder)


def test_folders_that_are_missing_are_named_with_the_place_to_copy_them_from(
    tmp_path, capsys, folder
):
    empty = tmp_path / "empty"
    command = ["data", "prepare", "--task=pet37-tfrecords", f"--data_dir={empty}"]
    assert data_command.main(command) == 2
    output = capsys.readouterr()
    place = empty / "pet37-tfrecords"
    assert (output.out, output.err) == (
        "",
        f"error: pet37-tfrecords is read from TFRecord files, and {place} has no .tfrec file in "
        "train/, validation/, test/.\n"
        "Copy gs://funmatch-tf/train, gs://funmatch-tf/validation, gs://funmatch-tf/test to "
        f"{place}.\n",
    )
    for path in (folder / "validation").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"no \.tfrec file in validation/.*\nCopy gs://published/v"):
        prepared.load(PETS, folder.parent)


def test_the_command_lists_where_the_files_are(folder, monkeypatch, capsys):
    monkeypatch.setitem(datasets.CATALOGUE, "pet37-tfrecords", PETS)
    assert data_command.main(["data", f"--data_dir={folder.parent}"]) == 0
    assert f"pet37-tfrecords  not packed, but it is in {folder}" in capsys.readouterr().out


def test_packed_folders_of_other_data_sets_keep_their_names():
    """Recorded before there were TFRecord files: another name would pack everything again."""
    names = {
        "flowers102": "oxford_flowers102-files-7b20c99b",
        "pet37": "oxford_iiit_pet-files-82aa5906",
        "food101": "food101-files-a7160b55",
        "sun397": "sun397-tfds-files-1cd5a5cc",
        "imagenet2012": "imagenet2012-files-d19949b4",
        "imagenet2012-160": "imagenet2012-files-46f6d8de",
    }
    assert names == {task: prepared.folder(datasets.CATALOGUE[task], Path()).name for task in names}


def test_files_written_by_tensorflow_are_read(tmp_path):
    tf = pytest.importorskip("tensorflow")
    (tmp_path / "train").mkdir()
    expected = [(jpeg("train", index), index) for index in range(3)]
    with tf.io.TFRecordWriter(str(tmp_path / "train" / "train_pets37-0-3.tfrec")) as file:
        for image, label in expected:
            features = {
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                "class": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            message = tf.train.Example(features=tf.train.Features(feature=features))
            file.write(message.SerializeToString())
    found = tfrecords.Records(tmp_path, "train", 3)
    assert [(read.image, read.label) for read in found] == expected
