"""The images of which views are made, and boxes cut out of them, on the device and inside jit."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array | np.ndarray


class Stacked(NamedTuple):
    """Images of one height and width.

    Attributes:
      images: [N, H, W, C], uint8, or float32 in [-1, 1].
      squeezed_from: height and width [N, 2] in pixels of each image before it was squeezed to
        [H, W]; None if none was. Boxes are given at these sizes.
    """

    images: Array
    squeezed_from: Array | None = None

    @property
    def number(self) -> int:
        return len(self.images)

    @property
    def sizes(self) -> Array:
        """Height and width [N, 2] of each image, in pixels, float32."""
        if self.squeezed_from is not None:
            return self.squeezed_from
        return jnp.broadcast_to(
            jnp.array(self.images.shape[1:3], jnp.float32)[None], (self.number, 2)
        )

    def take(self, index: Array) -> Stacked:
        """The images with these numbers."""
        sizes = self.squeezed_from
        return Stacked(
            jnp.asarray(self.images)[index], None if sizes is None else jnp.asarray(sizes)[index]
        )

    def cut(self, boxes_N4: jax.Array, size: int) -> jax.Array:
        """Each image's box as float32 [N, size, size, C] in [-1, 1]; bilinear, not antialiased."""
        images_NHWC = jnp.asarray(self.images)
        if self.squeezed_from is not None:
            shape = jnp.array(images_NHWC.shape[1:3], jnp.float32)
            boxes_N4 = boxes_N4 * jnp.tile(shape[None] / self.squeezed_from, 2)

        def resized(image_HWC: jax.Array, box_4: jax.Array) -> jax.Array:
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

        return scaled(
            jax.vmap(resized)(images_NHWC.astype(jnp.float32), boxes_N4), images_NHWC.dtype
        )


class Flat(NamedTuple):
    """Colour images of different sizes, in one array of bytes.

    Attributes:
      pixels: uint8, image after image, row after row, three bytes a pixel; at the end, three bytes
        of padding.
      starts: [N], uint32, where each image begins in `pixels`.
      sizes: height and width [N, 2] of each image, in pixels, float32.
    """

    pixels: Array
    starts: Array
    sizes: Array

    @property
    def number(self) -> int:
        return len(self.starts)

    def take(self, index: Array) -> Flat:
        """The images with these numbers; no pixel is copied."""
        return Flat(self.pixels, jnp.asarray(self.starts)[index], jnp.asarray(self.sizes)[index])

    def cut(self, boxes_N4: jax.Array, size: int) -> jax.Array:
        """Each image's box as float32 [N, size, size, 3] in [-1, 1]; bilinear, not antialiased.

        Like the paper's code, which cuts the box out before it resizes with `tf.image.resize`,
        this samples no pixel outside the box, and rounds grey levels down.
        """
        rows, columns = (
            _neighbours(boxes_N4[:, axis], boxes_N4[:, 2 + axis], self.sizes[:, axis, None], size)
            for axis in (0, 1)
        )
        width = jnp.asarray(self.sizes)[:, 1, None, None].astype(jnp.uint32)
        first = jnp.asarray(self.starts)[:, None, None] + 3 * (
            rows.first[:, :, None] * width + columns.first[:, None, :]
        )
        next_row = jnp.where(self.sizes[:, 0, None, None] > 1, 3 * width, 0).astype(jnp.uint32)
        share = columns.share[:, None, :, None]
        above, below = (
            left + (right - left) * share
            for left, right in (
                jnp.split(_read(self.pixels, place, 6), 2, axis=-1)
                for place in (first, first + next_row)
            )
        )
        levels = above + (below - above) * rows.share[:, :, None, None]
        return scaled(jnp.floor(levels), jnp.dtype(jnp.uint8))


Originals = Stacked | Flat


class _Neighbours(NamedTuple):
    """The two pixels between which each output pixel lies along one axis, both [N, size].

    Attributes:
      first: the first of the two, uint32.
      share: weight of the second, in [0, 1].
    """

    first: jax.Array
    share: jax.Array


def _neighbours(start_N: jax.Array, length_N: jax.Array, image_N1: Array, size: int) -> _Neighbours:
    """For a box along one axis: image_N1 is the image's length, in pixels."""
    start_N1, length_N1 = start_N[:, None], length_N[:, None]
    in_box = (jnp.arange(size) + 0.5)[None] * (length_N1 / size) - 0.5
    inside = jnp.clip(in_box, 0, jnp.maximum(length_N1 - 1, 0))
    place = jnp.minimum(start_N1 + inside, image_N1 - 1)
    first = jnp.clip(jnp.floor(place), 0, jnp.maximum(image_N1 - 2, 0))
    return _Neighbours(first.astype(jnp.uint32), place - first)


def _read(pixels: Array, starts: jax.Array, count: int) -> jax.Array:
    """`count` bytes from each start, as float32 [..., count]."""
    read = lax.gather(
        jnp.asarray(pixels),
        starts[..., None],
        lax.GatherDimensionNumbers((starts.ndim,), (), (0,)),
        (count,),
        mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )
    return read.astype(jnp.float32)


def scaled(images: jax.Array, stored: jnp.dtype) -> jax.Array:
    """Pixels in [-1, 1] as networks see them.

    Args:
      images: float32. In [0, 255] if stored as uint8, else already in [-1, 1].
      stored: data type in which the images are stored.
    """
    return images / 127.5 - 1 if stored == jnp.uint8 else images
