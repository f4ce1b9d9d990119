"""Records how TensorFlow's sampler distributes the boxes of inception crops; needs TensorFlow.

The sampler is the one that the paper's code calls, with the same arguments
(google-research/big_vision, `inception_crop`).

python tests/support/released_boxes.py >tests/support/released_boxes.json
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

RECORDED = Path(__file__).with_suffix(".json")
SHAPES = ((500, 375), (256, 256), (500, 667), (28, 28))  # height and width of images, in pixels
PERCENTS = tuple(range(1, 100))
DRAWS = 100_000


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


def load() -> dict[tuple[int, int], dict[str, list[float]]]:
    """The recorded percentiles: image shape -> quantity -> one value for each of PERCENTS."""
    recorded = json.loads(RECORDED.read_text())["percentiles"]
    return {shape: recorded["x".join(map(str, shape))] for shape in SHAPES}


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


def main() -> None:
    import tensorflow as tf

    percentiles = {
        f"{height}x{width}": {
            name: [round(float(x), 5) for x in np.percentile(values, PERCENTS)]
            for name, values in measures(_draw(height, width), height, width).items()
        }
        for height, width in SHAPES
    }
    print(json.dumps({"tensorflow": tf.__version__, "draws": DRAWS, "percentiles": percentiles}))


if __name__ == "__main__":
    main()
