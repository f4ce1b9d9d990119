"""Crops, flips and mixup on the device, and the probe views."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_bench.tasks.view_config import ViewConfig
from distill_bench.views import augment, host_crops
from distill_bench.views.originals import Flat, Stacked
from distill_bench.views.step_views import probe_views
from support import released_crops

CONFIG = ViewConfig(size=8, flip=False)


def drawn_boxes(seed: int, n: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Inception crop boxes [n, 4] of the device's and of the host's sampler."""
    sizes = np.tile(np.array([[height, width]], np.float32), (n, 1))
    device = augment.crop_boxes("inception", jax.random.key(seed), jnp.asarray(sizes), CONFIG)
    host = host_crops.draw_boxes(np.random.RandomState(seed), "inception", sizes, CONFIG)
    return {"device": np.asarray(device, np.float64), "host": host}


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31 - 1),
    height=st.sampled_from([8, 13]),
    width=st.sampled_from([8, 21, 400]),
)
def test_crops_lie_inside_the_image_and_have_the_declared_shape(seed, height, width):
    eps = 1e-4
    for boxes in drawn_boxes(seed, 256, height, width).values():
        top, left, h, w = boxes.T
        assert (top >= -eps).all()
        assert (left >= -eps).all()
        assert (top + h <= height + eps).all()
        assert (left + w <= width + eps).all()
        area, aspect = h * w / (height * width), w / h
        assert ((area >= CONFIG.min_area - eps) | (abs(h - height) < eps)).all()
        assert ((aspect >= CONFIG.aspect[0] - eps) & (aspect <= CONFIG.aspect[1] + eps)).all()


@pytest.mark.parametrize("shape", released_crops.SHAPES)
def test_crops_are_distributed_as_those_of_tensorflows_sampler(shape):
    """Compares with percentiles that TensorFlow's sampler gave, see support/released_crops.py.

    TensorFlow rounds boxes to whole pixels, which shows in small images.
    """
    recorded, bound = released_crops.percentiles(*shape), 0.12 if shape == (28, 28) else 0.02
    for boxes in drawn_boxes(0, 50_000, *shape).values():
        for name, values in released_crops.measures(boxes, *shape).items():
            assert released_crops.distance(values, recorded[name]) < bound
    # A uniform area, which the sampler does not have, is far away.
    uniform_area = np.random.default_rng(0).uniform(0.05, 1, 50_000)
    assert released_crops.distance(uniform_area, recorded["area"]) > 0.2


def test_a_crop_of_the_whole_image_is_the_image():
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 1)), jnp.float32)
    whole = jnp.tile(jnp.array([0.0, 0.0, 8.0, 8.0]), (3, 1))
    np.testing.assert_allclose(Stacked(images).cut(whole, 8), images, atol=1e-6)


def test_a_crop_is_sampled_bilinearly_at_the_right_place():
    ramp = jnp.broadcast_to(jnp.arange(16.0)[None, :, None, None], (1, 16, 16, 1))
    crop = Stacked(ramp).cut(jnp.array([[4.0, 2.0, 8.0, 8.0]]), 4)
    # The centres of four 2-pixel bins, starting at row 4.
    np.testing.assert_allclose(crop[0, :, 0, 0], [4.5, 6.5, 8.5, 10.5], atol=1e-5)


def test_full_resolution_crops_have_the_pixels_of_the_papers_code():
    """Compares with pixels that TensorFlow gave, see support/released_crops.py."""
    image = released_crops.IMAGE
    other = np.full((4, 5, 3), 7, np.uint8)  # lies before the image, and is never read
    pixels = np.concatenate([other.ravel(), image.ravel(), np.zeros(3, np.uint8)])
    originals = Flat(
        pixels,
        np.array([0, other.size], np.uint32),
        np.array([other.shape[:2], image.shape[:2]], np.float32),
    ).take(np.array([1]))
    for (box, size), expected in zip(released_crops.CROPS, released_crops.crops(), strict=True):
        crop = originals.cut(jnp.array([box], jnp.float32), size)[0]
        differ = abs(np.rint((np.asarray(crop) + 1) * 127.5) - expected)
        assert differ.max() <= 1  # where the level is a whole number before it is rounded down
        assert (differ > 0).mean() < 0.01


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (6, 5)])
def test_a_whole_image_of_any_shape_can_be_cut(shape):
    image = np.random.RandomState(1).randint(0, 256, (*shape, 3), np.uint8)
    pixels = np.concatenate([image.ravel(), np.zeros(3, np.uint8)])
    originals = Flat(pixels, np.zeros(1, np.uint32), np.array([shape], np.float32))
    crop = originals.cut(jnp.array([[0, 0, *shape]], jnp.float32), 90)[0]
    levels = np.rint((np.asarray(crop) + 1) * 127.5)
    np.testing.assert_array_equal(levels[[0, -1]][:, [0, -1]], image[[0, -1]][:, [0, -1]])


def test_mixup_mixes_each_image_with_its_neighbour():
    images = jnp.arange(4.0).reshape(4, 1, 1, 1)
    np.testing.assert_allclose(
        augment.mix(images, jnp.float32(0.25)).ravel(), [0.75 * 0 + 0.25 * 3, 0.75, 1.75, 2.75]
    )
    np.testing.assert_array_equal(
        augment.mix(images, jnp.float32(0.25)), augment.mix(images, jnp.float32(0.75))
    )
    np.testing.assert_array_equal(augment.mix(images, jnp.float32(0.0)), images)


def test_about_half_of_the_images_are_flipped():
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1000, 4, 4, 1)), jnp.float32)
    config = ViewConfig(size=4, min_area=0.9999999, aspect=(1.0, 1.0000001), flip=True, mixup=False)
    views = np.asarray(augment.make_views(jax.random.key(0), Stacked(images), config))
    mirrored = np.isclose(views, np.asarray(images)[:, :, ::-1], atol=1e-4).all((1, 2, 3))
    kept = np.isclose(views, np.asarray(images), atol=1e-4).all((1, 2, 3))
    assert (mirrored | kept).all()
    assert 450 < mirrored.sum() < 550


@settings(max_examples=10)
@given(n=st.integers(1, 40), share=st.floats(0.05, 1.0), seed=st.integers(0, 1000))
def test_each_epoch_shows_every_image_once(n, share, seed):
    batch = max(1, int(n * share))
    steps = n  # then batch * n images are drawn, a whole number of epochs
    key = jax.random.key(seed)
    index = jax.jit(jax.vmap(lambda step: augment.batch_indices(key, step, n, batch)))(
        jnp.arange(steps)
    )
    epochs = np.asarray(index).reshape(-1, n)
    assert (np.sort(epochs, axis=1) == np.arange(n)).all()


@pytest.mark.parametrize(("n", "batch"), [(40, 3), (10, 10), (9, 7)])
def test_batches_of_many_steps_are_those_of_each_step(n, batch):
    key, first = jax.random.key(3), 12
    together = augment.batches_indices(key, jnp.int32(first), 7, n, batch)
    alone = jax.jit(lambda step: augment.batch_indices(key, step, n, batch))
    for i, found in enumerate(together):
        np.testing.assert_array_equal(found, alone(first + i))


def test_a_batch_larger_than_the_data_set_is_refused():
    with pytest.raises(ValueError, match="batch of 9 cannot be drawn from 8"):
        augment.batch_indices(jax.random.key(0), jnp.int32(0), 8, 9)


def test_a_squeezed_image_gives_the_same_crops():
    """The image is a linear ramp, for which bilinear sampling is exact: 16 x 32 pixels squeezed to
    16 x 16."""
    rows, columns = np.mgrid[0:16, 0:32] + 0.5
    image = (3 * rows + 4 * columns)[..., None]
    squeezed = image.reshape(16, 16, 2, 1).mean(2)
    config = ViewConfig(size=8)
    tall = jnp.asarray(np.broadcast_to(image, (200, 16, 32, 1)), jnp.float32)
    kept = jnp.asarray(np.broadcast_to(squeezed, (200, 16, 16, 1)), jnp.float32)
    sizes = jnp.broadcast_to(jnp.array([16.0, 32.0]), (200, 2))
    for crop in ("whole", "central", "mild", "inception"):
        expected = np.asarray(
            augment.make_views(jax.random.key(1), Stacked(tall), config, crop=crop, mixup=False)
        )
        found = np.asarray(
            augment.make_views(
                jax.random.key(1), Stacked(kept, sizes), config, crop=crop, mixup=False
            )
        )
        # The margins differ: sampling beyond the centres of the outermost pixels repeats these, and
        # the centres move when the image is squeezed.
        inner = slice(2, -2)
        np.testing.assert_allclose(found[:, inner, inner], expected[:, inner, inner], atol=0.1)


def test_bytes_are_scaled_to_between_minus_one_and_one():
    image = jnp.asarray([[[[0], [255]], [[255], [0]]]], jnp.uint8)
    view = np.asarray(
        augment.make_views(
            jax.random.key(0), Stacked(image), ViewConfig(size=2), crop="whole", mixup=False
        )
    )
    np.testing.assert_allclose(view[0, :, :, 0], [[-1, 1], [1, -1]], atol=1e-6)


def test_each_probe_batch_has_its_own_mixup_coefficient_and_they_spread_evenly(tiny_task):
    """White images have black neighbours, so the brightest pixel shows the coefficient."""
    n, size = tiny_task.probe.batches, tiny_task.probe.batch_size
    stripes = jnp.tile(jnp.array([1.0, -1.0]), n * size // 2).reshape(-1, 1, 1, 1) * jnp.ones(
        (n * size, 8, 8, 1)
    )
    made = np.asarray(probe_views(tiny_task, Stacked(stripes)))
    a = (made.max((1, 2, 3, 4)) + 1) / 2
    assert len(set(a.round(6))) == n
    coefficients = np.sort(np.where(np.arange(n) / n < 0.5, 1 - a, a))
    assert (np.floor(coefficients * n) == np.arange(n)).all()
