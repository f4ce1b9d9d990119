"""Crops, flips and mixup: how an image becomes a view, on the device and inside jit.

A view is made as in Beyer et al. 2021, arXiv:2106.05237, section 3.1 and its released
configuration: crop, flip left to right if the task flips, then mixup with one coefficient for the
whole batch. Every view is a pure function of (seed, step).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from distill_bench.tasks.view_config import MILD, Crop, ViewConfig
from distill_bench.views.originals import Originals

Numbers = Any  # a numpy or jax array: host and device share the geometry of crops


def crop_boxes(crop: Crop, key: jax.Array, sizes_N2: Numbers, config: ViewConfig) -> jax.Array:
    """Boxes [N, 4] of one kind of crop: top, left, height, width, in pixels, not rounded.

    A mild crop takes a box of 0.8 of the height and width and resizes once. That equals a crop of
    128 pixels from the image resized to 160.

    sizes_N2: height and width of each image, in pixels.
    """
    n = len(sizes_N2)
    if crop == "inception":
        return inception_boxes(jax.random.uniform(key, (4, n)), sizes_N2, config)
    place_N2 = jax.random.uniform(key, (n, 2)) if crop == "mild" else jnp.full((n, 2), 0.5)
    return fixed_share_boxes(crop, place_N2, sizes_N2)


def inception_boxes(draw_4N: Numbers, sizes_N2: Numbers, config: ViewConfig) -> Numbers:
    """Inception crop boxes [N, 4]: top, left, height, width, in pixels, not rounded.

    The distribution is that of TensorFlow's `sample_distorted_bounding_box`, with which the paper's
    code crops: the aspect ratio is uniform, then the height is uniform between the smallest and the
    largest that it allows, then the position is uniform. (TensorFlow rounds boxes to whole pixels.)
    An image so long that no box has the smallest area gets the largest box of that aspect ratio.

    Args:
      draw_4N: uniform numbers in [0, 1), for the aspect ratio, the height, the top and left edge.
      sizes_N2: height and width of each image, in pixels.
    """
    xp = draw_4N.__array_namespace__()
    height, width = sizes_N2[:, 0], sizes_N2[:, 1]
    low, high = config.aspect
    aspect = low + (high - low) * draw_4N[0]
    area = height * width
    largest = xp.minimum(xp.minimum(xp.sqrt(area / aspect), width / aspect), height)
    smallest = xp.minimum(xp.sqrt(config.min_area * area / aspect), largest)
    h = smallest + (largest - smallest) * draw_4N[1]
    w = h * aspect
    return xp.stack([draw_4N[2] * (height - h), draw_4N[3] * (width - w), h, w], axis=1)


def fixed_share_boxes(crop: Crop, place_N2: Numbers, sizes_N2: Numbers) -> Numbers:
    """Boxes [N, 4] that cover a fixed share of each image: all crops but inception crops.

    Args:
      place_N2: position of the box in the room that it leaves, from 0 (top, left) to 1.
      sizes_N2: height and width of each image, in pixels.
    """
    side = 1.0 if crop == "whole" else MILD
    return sizes_N2.__array_namespace__().concatenate(
        [place_N2 * sizes_N2 * (1 - side), sizes_N2 * side], axis=1
    )


def mix(images_NHWC: jax.Array, coefficient: jax.Array) -> jax.Array:
    """Mixup of each image with its neighbour: a * x + (1 - a) * roll(x, 1), a = max(c, 1 - c).

    Partners come from rolling the batch. Reversing it would make every pair of an even batch twice.
    """
    a = jnp.maximum(coefficient, 1 - coefficient)
    return a * images_NHWC + (1 - a) * jnp.roll(images_NHWC, 1, axis=0)


def flip_and_mix(
    key: jax.Array,
    crops_NHWC: jax.Array,
    config: ViewConfig,
    crop: Crop,
    mixup: bool = True,
    coefficient: jax.Array | None = None,
) -> jax.Array:
    """Views, float32 in [-1, 1], of crops that `make_views` would make: flipped, then mixed.

    The arguments are those of `make_views`. Whole and central crops are never flipped.
    """
    _, flip_key, mix_key = jax.random.split(key, 3)
    views = crops_NHWC
    if config.flip and crop in ("mild", "inception"):
        flips = jax.random.bernoulli(flip_key, shape=(len(views), 1, 1, 1))
        views = jnp.where(flips, views[:, :, ::-1], views)
    if not (mixup and config.mixup):
        return views
    return mix(views, jax.random.uniform(mix_key) if coefficient is None else coefficient)


def make_views(
    key: jax.Array,
    originals: Originals,
    config: ViewConfig,
    coefficient: jax.Array | None = None,
    *,
    crop: Crop = "inception",
    mixup: bool = True,
    size: int | None = None,
) -> jax.Array:
    """Views [N, size, size, C], float32 in [-1, 1], of a batch of images.

    Args:
      coefficient: the batch's mixup coefficient, in [0, 1]; None to draw it uniformly.
      crop: kind of crop.
      mixup: mix the views, if the config does too.
      size: height and width of a view, in pixels; None for the config's. Views of one key show the
        same crops at every size.
    """
    crop_key, _, _ = jax.random.split(key, 3)
    boxes = crop_boxes(crop, crop_key, jnp.asarray(originals.sizes), config)
    crops = originals.cut(boxes, size or config.size)
    return flip_and_mix(key, crops, config, crop, mixup, coefficient)


def check_batch(n: int, batch_size: int) -> None:
    """Raises ValueError if a batch is larger than the data set of `n` images."""
    if batch_size > n:
        raise ValueError(
            f"A batch of {batch_size} cannot be drawn from {n} images without repeating one: "
            "choose a smaller batch."
        )


def batch_indices(key: jax.Array, step: jax.Array, n: int, batch_size: int) -> jax.Array:
    """Indices of the images in the batch of `step`, out of `n` images.

    Every epoch is a fresh permutation. Batches run across the ends of epochs, so no image is left
    out.

    Raises:
      ValueError: if a batch is larger than the data set.
    """
    return batches_indices(key, step, 1, n, batch_size)[0]


def batches_indices(
    key: jax.Array, first: jax.Array, steps: int, n: int, batch_size: int
) -> jax.Array:
    """`batch_indices` of `steps` steps from `first` on, [steps, N].

    Each epoch is permuted once for all of them: for a large data set, sorting takes long.
    """
    check_batch(n, batch_size)
    position_CN = first * batch_size + jnp.arange(steps * batch_size).reshape(steps, batch_size)
    epoch_CN = position_CN // n
    touched = (steps * batch_size - 1) // n + 2  # epochs, at most
    orders = lax.map(
        lambda epoch: jax.random.permutation(jax.random.fold_in(key, epoch), n),
        epoch_CN[0, 0] + jnp.arange(touched),
    )
    return orders[epoch_CN - epoch_CN[0, 0], position_CN % n]
