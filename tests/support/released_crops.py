"""Records how TensorFlow makes inception crops: boxes and pixels. Recording needs TensorFlow.

Its functions are called as the paper's code calls them (google-research/big_vision,
`inception_crop`).

python tests/support/released_crops.py >tests/support/released_crops.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

RECORDED = Path(__file__).with_suffix(".json")
SHAPES = ((500, 375), (256, 256), (500, 667), (28, 28))  # height and width of images, in pixels
PERCENTS = tuple(range(1, 100))
DRAWS = 100_000
IMAGE = np.random.RandomState(0).randint(0, 256, (23, 31, 3), np.uint8)
CROPS = (  # box (top, left, height, width) in IMAGE, and side of the crop
    ((0, 0, 23, 31), 16),
    ((2, 3, 20, 27), 7),
    ((5, 1, 16, 16), 16),
    ((20, 28, 3, 3), 8),
    ((7, 9, 6, 8), 12),
    ((3, 4, 1, 1), 4),
)


def measures(boxes_N4: np.ndarray, height: int, width: int) -> dict[str, np.ndarray]:
    """The quantities [N] that are compared: area, aspect ratio and centre of each box.

    Area and centre are relative to the image. boxes_N4: top, left, height, width, in pixels.
    """
    top, left, tall, wide = np.asarray(boxes_N4, np.float64).T
    return {
        "area": tall * wide / (height * width),
        "aspect": wide / tall,
        "row": (top + tall / 2) / height,
        "column": (left + wide / 2) / width,
    }


def distance(values_N: np.ndarray, percentiles: list[float]) -> float:
    """Kolmogorov-Smirnov distance between a sample and a distribution known by its percentiles."""
    below = np.searchsorted(np.sort(values_N), percentiles, side="right") / len(values_N)
    return float(np.abs(below - np.array(PERCENTS) / 100).max())


def percentiles(height: int, width: int) -> dict[str, list[float]]:
    """The recorded percentiles of each quantity in `measures`, for images of this shape."""
    return json.loads(RECORDED.read_text())["percentiles"][f"{height}x{width}"]


def crops() -> list[np.ndarray]:
    """The recorded pixels [size, size, 3], uint8, of each of CROPS."""
    return [np.array(crop, np.uint8) for crop in json.loads(RECORDED.read_text())["crops"]]


def _draw(height: int, width: int) -> np.ndarray:
    import tensorflow as tf

    def box(i):
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            [height, width, 3],
            tf.zeros([0, 0, 4]),
            seed=tf.stack([i, 0]),
            area_range=(0.05, 1.0),
            aspect_ratio_range=(0.75, 1.33),
            min_object_covered=0.0,
            use_image_if_no_bounding_boxes=True,
        )
        return tf.concat([begin[:2], size[:2]], 0)

    return tf.function(lambda: tf.map_fn(box, tf.range(DRAWS), tf.int32))().numpy()


def _cut(box: tuple[int, ...], size: int) -> list[Any]:
    import tensorflow as tf

    top, left, height, width = box
    pixels = IMAGE[top : top + height, left : left + width]
    resized = tf.image.resize(pixels, [size, size], "bilinear", antialias=False)
    return tf.cast(tf.clip_by_value(resized, 0, 255), tf.uint8).numpy().tolist()


def main() -> None:
    import tensorflow as tf

    drawn = {
        f"{height}x{width}": {
            name: [round(float(x), 5) for x in np.percentile(values, PERCENTS)]
            for name, values in measures(_draw(height, width), height, width).items()
        }
        for height, width in SHAPES
    }
    record = {
        "tensorflow": tf.__version__,
        "draws": DRAWS,
        "percentiles": drawn,
        "crops": [_cut(box, size) for box, size in CROPS],
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
