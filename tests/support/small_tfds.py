"""Writes small data sets in TFDS's own format, without TensorFlow.

The files are array_record shards, dataset_info.json and features.json.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.core import dataset_info
from tensorflow_datasets.core.example_serializer import ExampleSerializer


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(height: int, width: int, seed: int, channels: int = 3) -> np.ndarray:
    """Smooth noise, which JPEG preserves well."""
    coarse = np.random.RandomState(seed).randint(0, 256, (4, 4, channels), np.uint8)
    return np.stack(
        [
            np.asarray(
                Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC)
            )
            for c in range(channels)
        ],
        axis=-1,
    )


def write(
    data_dir: Path,
    splits: dict[str, list[tuple[bytes, int]]],
    name: str = "oxford_flowers102",
    version: str = "2.1.1",
    shards: int = 2,
) -> Path:
    """Writes a data set with the features of oxford_flowers102; returns its folder.

    splits: (encoded image, label) of each example, by split.
    """
    folder = data_dir / name / version
    folder.mkdir(parents=True)
    base, _, config = name.partition("/")
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(num_classes=102),
            "file_name": tfds.features.Text(),
        }
    )
    serializer = ExampleSerializer(features.get_serialized_info())
    infos = []
    for split, examples in splits.items():
        template = tfds.core.ShardedFileTemplate(
            dataset_name=base, data_dir=folder, split=split, filetype_suffix="array_record"
        )
        rows = [
            serializer.serialize_example(
                features.encode_example(
                    {"image": io.BytesIO(image), "label": label, "file_name": f"{split}_{i}.jpg"}
                )
            )
            for i, (image, label) in enumerate(examples)
        ]
        parts = np.array_split(np.arange(len(rows)), shards)
        for shard, part in enumerate(parts):
            writer = array_record_module.ArrayRecordWriter(
                str(template.sharded_filepath(shard_index=shard, num_shards=shards)), "group_size:1"
            )
            for i in part:
                writer.write(rows[i])
            writer.close()
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(part) for part in parts],
                num_bytes=0,
                filename_template=template,
            )
        )
    identity = dataset_info.DatasetIdentity(
        name=base,
        config_name=config or None,
        version=tfds.core.Version(version),
        data_dir=str(folder),
        module_name="",
    )
    info = dataset_info.DatasetInfo(builder=identity, features=features)
    info.set_file_format("array_record")
    info.set_splits(tfds.core.splits.SplitDict(infos))
    info.write_to_directory(folder)
    return folder
