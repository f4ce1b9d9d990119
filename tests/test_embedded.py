"""Tiles of photographs, against a reference computed from RGB. test_task.py checks the digits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn
from PIL import Image

from distill_bench.data import dataset, embedded
from distill_bench.errors import UserError
from distill_bench.tasks.catalogue import DIGITS
from distill_bench.tasks.choices import PHOTOGRAPHS
from distill_bench.training.engine import open_engine
from distill_bench.training.events import Point
from distill_bench.training.lane_layout import make_layout
from distill_bench.training.rules import Lane
from distill_bench.training.train import train
from distill_bench.views.originals import Stacked
from distill_bench.views.step_views import step_views


def test_tiles_are_the_photographs_luminance_averaged_by_area():
    images, labels = embedded.arrays("photographs")
    assert (images.shape, labels.tolist()) == ((520, 8, 8, 1), [0] * 520)
    for p, name in enumerate(("china.jpg", "flower.jpg")):
        colours = np.asarray(
            Image.open(Path(sklearn.__file__).parent / "datasets" / "images" / name).convert("RGB"),
            np.float64,
        )
        luminance = colours @ [0.299, 0.587, 0.114]
        for tile, row, column in ((0, 0, 0), (19, 0, 19), (20, 1, 0), (147, 7, 7), (259, 12, 19)):
            square = luminance[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            expected = [
                [square[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean() for j in range(8)]
                for i in range(8)
            ]
            # RGB is clipped to 0 and 255, so that luminance computed from it differs a little.
            np.testing.assert_allclose(images[260 * p + tile, :, :, 0] / 16, expected, atol=4)


def test_the_split_of_the_photographs_is_frozen_and_scaled_like_the_digits():
    (train, test), (digits, _) = (
        dataset.load_embedded(PHOTOGRAPHS),
        dataset.load_embedded(DIGITS.dataset),
    )
    assert (train.images.shape, test.images.shape) == ((400, 8, 8, 1), (120, 8, 8, 1))
    assert train.images.dtype == digits.images.dtype == np.float32
    together = np.concatenate([train.images, test.images])
    assert -1 <= together.min() < -0.95
    assert 0.95 < together.max() <= 1
    # No image occurs twice, neither within a split nor in both.
    assert len(np.unique(together.reshape(520, -1), axis=0)) == 520
    np.testing.assert_allclose((train.images[:3, 0, 0, 0] + 1) * 2040, [936, 1151, 243], rtol=1e-6)


def test_other_photographs_are_refused():
    with pytest.raises(UserError, match="photographs images on this machine are not those"):
        dataset.load_embedded(dataclasses.replace(PHOTOGRAPHS, sha256="0" * 64))


@pytest.mark.long
def test_a_student_learns_from_views_of_photographs_and_is_evaluated_on_digits(tiny_task):
    """Only the teacher's logits can teach it: photographs have no labels."""
    task = dataclasses.replace(tiny_task, images=PHOTOGRAPHS)
    engine = open_engine(task, make_layout(jax.devices()[:1]))
    tiles, digits = dataset.load_embedded(PHOTOGRAPHS)[0], dataset.load_embedded(task.dataset)[1]
    np.testing.assert_array_equal(engine.source.train_images.originals.images, tiles.images)
    np.testing.assert_array_equal(engine.islands[0].eval_set.labels, digits.labels)
    views = step_views(task, Stacked(jnp.asarray(tiles.images)), 0, 0)
    np.testing.assert_allclose(
        engine.chunk(0, 0).on(engine.layout).views[0, 0], views.student, atol=1e-6
    )
    points = [
        event.metrics
        for event in train(engine, [Lane(lambda hparams, horizon: optax.sgd(0.3), {}, 100, 0)])
        if isinstance(event, Point)
    ]
    assert points[-1]["curve_loss"] < points[0]["curve_loss"]
