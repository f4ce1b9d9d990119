"""--mode=labels: a student that learns labels, measured against the teacher."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distill_bench.data import dataset
from distill_bench.networks import bit
from distill_bench.tasks import catalogue
from distill_bench.tasks.variation import Variation, vary
from distill_bench.training.engine import open_engine
from distill_bench.training.evaluate import make_eval_set
from distill_bench.training.events import Finished, Losses
from distill_bench.training.lane_layout import LayoutOptions, make_layout
from distill_bench.training.rules import Lane
from distill_bench.training.source import init_student, open_source
from distill_bench.training.stream import make_chunks
from distill_bench.training.teacher_logits import make_forward
from distill_bench.training.train import train
from distill_bench.views.originals import Stacked
from distill_bench.views.step_views import step_views

LABELS = Variation(mode="labels")


def sgd(hparams, horizon):
    return optax.sgd(0.1)


def training_losses(events):
    return np.concatenate([event.values for event in events if isinstance(event, Losses)])


def test_labels_are_mixed_as_the_pixels_are(tiny_task, monkeypatch):
    """Every image shows one grey value, that of its label; so a mixed view shows the mean value of
    its mixed label. The views are those of mode "mix"."""
    train_split, test_split = dataset.load_embedded(tiny_task.dataset)
    values_K = np.linspace(-1, 1, 10).astype(np.float32)
    grey = np.broadcast_to(
        values_K[train_split.labels][:, None, None, None], train_split.images.shape
    ).copy()
    split = dataclasses.replace(train_split, images=grey)
    monkeypatch.setattr(
        "distill_bench.training.source.load_embedded", lambda data: (split, test_split)
    )
    chunks = [
        make_chunks(source, 4, make_forward(source))(3, 0)
        for task in (vary(tiny_task, LABELS), tiny_task)
        for source in [open_source(task, make_layout(jax.devices()[:1]))]
    ]
    np.testing.assert_array_equal(chunks[0].views, chunks[1].views)
    probabilities = np.exp(np.asarray(chunks[0].logits[0], np.float64))
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    assert ((probabilities > 1e-6).sum(-1) == 2).any()
    shown = np.asarray(chunks[0].views[0])
    np.testing.assert_allclose(shown.min((2, 3, 4)), shown.max((2, 3, 4)), atol=1e-5)
    np.testing.assert_allclose(shown.mean((2, 3, 4)), probabilities @ values_K, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("temperature", [None, 10.0])
def test_training_is_on_cross_entropy_at_temperature_1(tiny_task, temperature):
    """Compares with a plain loop. The reported loss is cross-entropy minus the labels' entropy."""
    task = vary(tiny_task, dataclasses.replace(LABELS, temperature=temperature))
    engine = open_engine(task, make_layout(jax.devices()[:1]))
    split, _ = dataset.load_embedded(task.dataset)
    images = jnp.asarray(split.images)
    chunk = make_chunks(engine.source, 4, None)(3, 0)
    params = init_student(task, 3)
    expected = []
    for step in range(4):
        views = step_views(task, Stacked(images), 3, step)
        target = jnp.exp(chunk.logits[0, step])

        def cross_entropy(p, x=views.student, target=target):
            return -(target * jax.nn.log_softmax(bit.apply(task.student, p, x))).sum(-1).mean()

        loss, gradients = jax.value_and_grad(cross_entropy)(params)
        entropy = -(target * jnp.log(jnp.maximum(target, 1e-30))).sum(-1).mean()
        expected.append(float(loss - entropy))
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)
    losses = training_losses(train(engine, [Lane(sgd, {}, 4, 3)]))
    np.testing.assert_allclose(losses, expected, rtol=5e-4)


def test_the_student_is_measured_against_the_teacher_as_in_mix(tiny_task):
    """Both tasks have the same evaluation set, and the teacher's logits in it."""
    sets = []
    for task in (tiny_task, vary(tiny_task, LABELS)):
        source = open_source(task, make_layout(jax.devices()[:1]))
        sets.append(make_eval_set([source], [make_forward(source)], 2)[0])
    jax.tree.map(np.testing.assert_array_equal, *sets)


@pytest.mark.long
def test_teachers_of_another_view_size_are_asked_for_evaluation_only(small_sun):
    """A streamed task with a second teacher at 24 pixels, its batches divided over two devices."""
    task = vary(small_sun, LABELS)
    engine = open_engine(task, make_layout(jax.devices()[:2], LayoutOptions(batch_shards=2)))
    events = list(train(engine, [Lane(sgd, {}, 3, 1)]))
    assert [event.status for event in events if isinstance(event, Finished)] == ["ok"]
    assert len(training_losses(events)) == 3
    reference = open_engine(small_sun, make_layout(jax.devices()[:2]))
    found, expected = (np.asarray(one.islands[0].eval_set.logits) for one in (engine, reference))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_training_on_labels_costs_no_teacher():
    assert catalogue.get("pet37@labels").teacher_macs == 0
    assert catalogue.get("pet37@same-ic").teacher_macs == catalogue.get("pet37").teacher_macs > 0
