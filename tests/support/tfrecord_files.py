"""Writes tf.train.Examples and TFRecord files byte by byte, without TensorFlow."""

from __future__ import annotations

import struct

from tensorboard.compat.tensorflow_stub import pywrap_tensorflow as tensorboard_crc


def field(number, content):
    """A protobuf field that holds bytes: a tag, a length and the content."""
    length, size = len(content), b""
    while length > 0x7F:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def example(image, label, label_name=b"class"):
    """A tf.train.Example with the features that are not None."""
    features = {
        label_name: None if label is None else field(3, field(1, bytes([label]))),
        b"image": None if image is None else field(1, field(1, image)),
    }
    return field(
        1,
        b"".join(
            field(1, field(1, name) + field(2, feature))
            for name, feature in features.items()
            if feature is not None
        ),
    )


def framed(data):
    """A record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    checksums = (struct.pack("<I", tensorboard_crc.masked_crc32c(part)) for part in (length, data))
    return length + next(checksums) + data + next(checksums)
