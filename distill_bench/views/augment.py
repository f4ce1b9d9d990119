"""FunMatch views: what teacher and student see, made on the device inside jit.

Beyer et al. 2021, arXiv:2106.05237, section 3.1 and its released configuration: an inception crop, a
left-right flip where the task has one, then mixup with one coefficient a batch. Both networks see the
same bits, and every view is a pure function of (seed, step).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from distill_bench.tasks.view_config import MILD, Crop, ViewConfig

CROP_ATTEMPTS = 10


Length = Any  # height or width of all images, or of each [n]
Numbers = (
    Any  # an array of numpy or of jax: the geometry of crops is the same on the host and in jit
)


def crop_boxes(
    key: jax.Array, n: int, height: Length, width: Length, config: ViewConfig
) -> jax.Array:
    """Inception crop boxes [n, 4]: top, left, height, width, in pixels, not rounded.

    Area uniform in [min_area, 1] of the image and aspect ratio uniform in `aspect`; the first of ten
    draws that fits the image, else the whole image; the place uniform (Szegedy et al. 2015).
    """
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    shape = (n, CROP_ATTEMPTS)
    area = jax.random.uniform(area_key, shape, minval=config.min_area, maxval=1.0)
    aspect = jax.random.uniform(aspect_key, shape, minval=config.aspect[0], maxval=config.aspect[1])
    return first_that_fits(area, aspect, jax.random.uniform(place_key, (2, n)), height, width)


def first_that_fits(
    area: Numbers, aspect: Numbers, place: Numbers, height: Length, width: Length
) -> Numbers:
    """Boxes [n, 4] of the first attempt that fits each image, else of the whole image.

    area, aspect: of each attempt [n, attempts], the area as a fraction of the image. place [2, n]: in [0, 1], of the room that a box leaves.
    """
    xp = area.__array_namespace__()
    tall, wide = (
        length if isinstance(length, int) else length[:, None] for length in (height, width)
    )
    area = area * (tall * wide)
    heights, widths = xp.sqrt(area / aspect), xp.sqrt(area * aspect)
    fits = (heights <= tall) & (widths <= wide)
    first = xp.argmax(fits, axis=1)[:, None]
    any_fits = fits.any(axis=1)
    h = xp.where(any_fits, xp.take_along_axis(heights, first, 1)[:, 0], height)
    w = xp.where(any_fits, xp.take_along_axis(widths, first, 1)[:, 0], width)
    return xp.stack([place[0] * (height - h), place[1] * (width - w), h, w], axis=1)


def boxes_of(
    crop: Crop, key: jax.Array, n: int, height: Length, width: Length, config: ViewConfig
) -> jax.Array:
    """Boxes [n, 4] of a kind of crop: top, left, height, width, in pixels, not rounded.

    A mild crop of 128 pixels from the image resized to 160 is a box of 0.8 of its height and width, resized once.
    """
    if crop == "inception":
        return crop_boxes(key, n, height, width, config)
    whole = jnp.stack(
        [jnp.broadcast_to(jnp.asarray(length, jnp.float32), n) for length in (height, width)],
        axis=1,
    )
    return part_of(
        crop, jax.random.uniform(key, (n, 2)) if crop == "mild" else jnp.full((n, 2), 0.5), whole
    )


def part_of(crop: Crop, place_N2: Numbers, whole_N2: Numbers) -> Numbers:
    """Boxes [n, 4] of a fixed share of images of these heights and widths, at a place in [0, 1] of the room that is left."""
    side = 1.0 if crop == "whole" else MILD
    return whole_N2.__array_namespace__().concatenate(
        [place_N2 * whole_N2 * (1 - side), whole_N2 * side], axis=1
    )


def crop_and_resize(images_NHWC: jax.Array, boxes_N4: jax.Array, size: int) -> jax.Array:
    """Each image's box, resized to [size, size] bilinearly without antialiasing."""

    def one(image_HWC: jax.Array, box_4: jax.Array) -> jax.Array:
        scale = size / box_4[2:]
        return jax.image.scale_and_translate(
            image_HWC,
            (size, size, image_HWC.shape[2]),
            (0, 1),
            scale,
            -box_4[:2] * scale,
            "linear",
            antialias=False,
        )

    return jax.vmap(one)(images_NHWC, boxes_N4)


def scaled(images: jax.Array, stored: jnp.dtype) -> jax.Array:
    """Pixels as networks see them: bytes, now as float32 in [0, 255], to [-1, 1]; what was stored as float32 is so already."""
    return images / 127.5 - 1 if stored == jnp.uint8 else images


def mix(images_NHWC: jax.Array, coefficient: jax.Array) -> jax.Array:
    """Mixup of each image with its neighbour: a * x + (1 - a) * roll(x, 1), where a = max(c, 1 - c).

    The partner is a roll over the whole batch: reversing an even batch would make every pair twice.
    """
    a = jnp.maximum(coefficient, 1 - coefficient)
    return a * images_NHWC + (1 - a) * jnp.roll(images_NHWC, 1, axis=0)


def draw_boxes(
    key: jax.Array,
    shape: tuple[int, int, int],
    config: ViewConfig,
    crop: Crop,
    sizes_N2: jax.Array | None = None,
) -> jax.Array:
    """The boxes [N, 4] of the views of `make_views`: top, left, height, width, in pixels of what `sizes_N2` measures.

    shape: (N, height, width), the last two of all images where there are no `sizes_N2`, the height and width of each.
    """
    n, height, width = shape
    crop_key, _, _ = jax.random.split(key, 3)
    if sizes_N2 is None:
        return boxes_of(crop, crop_key, n, height, width, config)
    return boxes_of(crop, crop_key, n, sizes_N2[:, 0], sizes_N2[:, 1], config)


def finish(
    key: jax.Array,
    crops_NHWC: jax.Array,
    config: ViewConfig,
    crop: Crop,
    mixup: bool = True,
    coefficient: jax.Array | None = None,
) -> jax.Array:
    """Views of crops, float32 in [-1, 1]: flipped where the crop moves and the task flips, then mixed; arguments as of `make_views`."""
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
    images_NHWC: jax.Array,
    config: ViewConfig,
    coefficient: jax.Array | None = None,
    *,
    sizes_N2: jax.Array | None = None,
    crop: Crop = "inception",
    mixup: bool = True,
    size: int | None = None,
) -> jax.Array:
    """Views [N, size, size, C], float32 in [-1, 1], of a batch of images: cropped, flipped where the crop moves and the task flips, mixed.

    `images_NHWC` are float32 in [-1, 1] or uint8. `sizes_N2` holds the height and width that each had before it was squeezed to [H, W]: crops
    are drawn in these. `coefficient` in [0, 1] is the batch's mixup coefficient; without it, it is drawn uniformly from `key`. `size` is the
    config's where it is not given: views of one key and two sizes show the same.
    """
    n, height, width, _ = images_NHWC.shape
    boxes = draw_boxes(key, (n, height, width), config, crop, sizes_N2)
    if sizes_N2 is not None:
        squeeze = jnp.array([height, width], jnp.float32)[None] / sizes_N2
        boxes = boxes * jnp.tile(squeeze, 2)
    crops = crop_and_resize(images_NHWC.astype(jnp.float32), boxes, size or config.size)
    return finish(key, scaled(crops, images_NHWC.dtype), config, crop, mixup, coefficient)


def check_batch(n: int, batch_size: int) -> None:
    if batch_size > n:
        raise ValueError(
            f"A batch of {batch_size} cannot be drawn from {n} images without repeating one: choose a smaller batch."
        )


def batch_indices(key: jax.Array, step: jax.Array, n: int, batch_size: int) -> jax.Array:
    """Which of `n` images make the batch of `step`: epochs of fresh permutations, cut without remainder.

    Raises:
      ValueError: where a batch is larger than the data set.
    """
    check_batch(n, batch_size)
    position = step * batch_size + jnp.arange(batch_size)
    epoch = position // n
    orders = jax.vmap(lambda e: jax.random.permutation(jax.random.fold_in(key, e), n))(
        epoch[0] + jnp.arange(2)
    )
    return orders[epoch - epoch[0], position % n]
