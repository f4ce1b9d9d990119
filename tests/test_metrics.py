"""How students are measured, and the sum of several teachers' losses, against float64 and
scikit-learn."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss, top_k_accuracy_score

from distill_bench.data import dataset
from distill_bench.networks import bit
from distill_bench.tasks.parameters import load_teachers
from distill_bench.tasks.variation import Variation, vary
from distill_bench.training.engine import open_engine
from distill_bench.training.evaluate import exam_batches, make_eval_set, make_evaluate
from distill_bench.training.events import Losses
from distill_bench.training.exams import EXAMS, METRICS
from distill_bench.training.lane_layout import LayoutOptions, make_layout
from distill_bench.training.losses import cross_entropy, euclidean, in_top, kl_divergence
from distill_bench.training.rules import Lane
from distill_bench.training.source import init_student, open_source
from distill_bench.training.teacher_logits import make_forward
from distill_bench.training.train import train


def draw(seed, *shape, scale=3.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def kl64(teacher, student, temperature):
    p, q = (log_softmax(x.astype(np.float64) / temperature, -1) for x in (teacher, student))
    return temperature**2 * (np.exp(p) * (p - q)).sum(-1).mean()


@pytest.mark.parametrize("classes", [3, 10, 101])
def test_cross_entropy_and_top_5_are_those_of_scikit_learn(classes):
    logits = draw(0, 200, classes)
    labels = np.random.default_rng(1).integers(0, classes, 200)
    known = np.arange(classes)
    assert float(cross_entropy(labels, logits)) == pytest.approx(
        log_loss(labels, softmax(logits.astype(np.float64), -1), labels=known), rel=1e-5
    )
    for k in {1, min(5, classes - 1)}:  # scikit-learn warns if k is the number of classes
        expected = top_k_accuracy_score(labels, logits, k=k, labels=known)
        assert float(in_top(k, jnp.asarray(labels), jnp.asarray(logits))) == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 5, 9])
def test_of_equal_logits_the_lower_class_comes_first_as_in_top_k(classes):
    logits = np.random.default_rng(2).integers(0, 3, (300, classes)).astype(np.float32)
    target = np.random.default_rng(3).integers(0, classes, 300)
    _, first = jax.lax.top_k(logits, min(5, classes))
    expected = (np.asarray(first) == target[:, None]).any(-1).mean()
    assert float(in_top(5, jnp.asarray(target), jnp.asarray(logits))) == pytest.approx(expected)


def test_a_label_that_is_no_class_gives_a_finite_cross_entropy():
    assert np.isfinite(cross_entropy(np.array([7, -1, 100]), draw(0, 3, 5)))


def test_the_euclidean_distance_is_the_mean_over_images_and_does_not_overflow():
    teacher, student = draw(4, 50, 7), draw(5, 50, 7)
    difference = teacher.astype(np.float64) - student
    expected = np.sqrt((difference**2).sum(-1) + 1e-12).mean()
    assert float(euclidean(teacher, student)) == pytest.approx(expected, rel=1e-6)
    assert float(euclidean(student, student)) == pytest.approx(1e-6)
    assert float(euclidean(1e25 * teacher, 1e25 * student)) == pytest.approx(1e25 * expected)


@pytest.mark.long
def test_metrics_agree_with_their_definitions(tiny_task):
    source = open_source(tiny_task, make_layout(jax.devices()[:1]))
    eval_set = make_eval_set([source], [make_forward(source)], 2)[0]
    params = init_student(tiny_task, 0)
    head = params["head"]["conv2d"]
    head["kernel"] = jnp.asarray(draw(6, *head["kernel"].shape))
    found = make_evaluate(source)(len(eval_set.images), params, eval_set)
    assert tuple(found) == EXAMS["all"]
    _, test = dataset.load_embedded(tiny_task.dataset)
    (teacher_params,) = load_teachers(tiny_task)
    teacher, student = (
        np.asarray(bit.apply(network, own, jnp.asarray(test.images)))
        for network, own in ((tiny_task.teacher, teacher_params), (tiny_task.student, params))
    )
    classes = np.arange(10)
    expected = {
        "test_kl": kl64(teacher, student, 1.0),
        "agreement": (teacher.argmax(-1) == student.argmax(-1)).mean(),
        "accuracy": (test.labels == student.argmax(-1)).mean(),
        "agreement5": top_k_accuracy_score(teacher.argmax(-1), student, k=5, labels=classes),
        "label_xent": log_loss(test.labels, softmax(student.astype(float), -1), labels=classes),
        "euclidean": np.sqrt(((teacher.astype(float) - student) ** 2).sum(-1) + 1e-12).mean(),
    }
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-3, abs=2e-3), name
    # Each exam's metrics are the same however little else it looks at.
    for exam, names in EXAMS.items():
        batches = exam_batches(source, exam)
        seen = make_evaluate(source)(batches, params, eval_set)
        assert {name: float(seen[name]) for name in names} == {
            name: float(found[name]) for name in names
        }
    views = len(eval_set.images) * len(eval_set.images[0])
    assert exam_batches(source, "curve") < exam_batches(source, "all") <= views


@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
def test_the_loss_of_several_teachers_is_the_sum_of_their_divergences(temperature):
    """Also its gradient, which is T times the sum of the differences of probabilities."""
    teachers, student = draw(7, 6, 3, 5), draw(8, 6, 5)
    loss, gradient = jax.value_and_grad(lambda s: kl_divergence(teachers, s, temperature))(
        jnp.asarray(student)
    )
    expected = sum(kl64(teachers[:, t], student, temperature) for t in range(3))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    own = softmax(student.astype(np.float64) / temperature, -1)
    others = softmax(teachers.astype(np.float64) / temperature, -1)
    np.testing.assert_allclose(
        gradient, temperature * (3 * own - others.sum(1)) / 6, rtol=1e-4, atol=1e-6
    )


@pytest.mark.long
def test_a_task_can_add_up_its_teachers_losses(small_sun):
    """Whole runs: two streamed teachers of different view sizes, on one device and on two, in one
    part and in two, against the losses from each teacher alone at the first step."""
    task = vary(small_sun, Variation(teachers="sum"))
    lanes = [Lane(lambda hparams, horizon: optax.sgd(0.1), {}, 3, 1)]

    def losses(task, *layout):
        return np.concatenate(
            [
                event.values
                for event in train(open_engine(task, make_layout(*layout)), lanes)
                if isinstance(event, Losses)
            ]
        )

    one = losses(task, jax.devices()[:1])
    two = losses(task, jax.devices()[:2], LayoutOptions(batch_shards=2, microbatches=2))
    np.testing.assert_allclose(two, one, rtol=1e-4)
    second = task.more_teachers[0]
    alone = [
        losses(dataclasses.replace(small_sun, more_teachers=()), jax.devices()[:1]),
        losses(
            dataclasses.replace(
                small_sun,
                teacher_file=second.file,
                teacher_sha256=second.sha256,
                teacher_size=second.size,
                more_teachers=(),
            ),
            jax.devices()[:1],
        ),
    ]
    # All three students begin alike.
    assert one[0] == pytest.approx(alone[0][0] + alone[1][0], rel=1e-4)


@pytest.mark.long
def test_clean_images_are_measured_against_the_mean_logits_when_losses_are_added_up(small_sun):
    found = {}
    for combining in ("mean", "sum"):
        task = dataclasses.replace(small_sun, combining=combining)
        source = open_source(task, make_layout(jax.devices()[:1]))
        eval_set = make_eval_set([source], [make_forward(source)], 2)[0]
        params = init_student(task, 0)
        head = params["head"]["conv2d"]
        head["kernel"] = jnp.asarray(draw(9, *head["kernel"].shape))
        found[combining] = make_evaluate(source)(len(eval_set.images), params, eval_set), eval_set
    mean, added = found["mean"][0], found["sum"][0]
    for name in METRICS[2:]:
        assert float(added[name]) == pytest.approx(float(mean[name]), rel=1e-5), name
    n = task.probe.batches * task.probe.batch_size
    logits = np.asarray(found["sum"][1].logits).reshape(-1, 2, 5)[:n]
    images = np.asarray(found["sum"][1].images, np.float32)
    student = np.asarray(
        bit.apply(task.student, params, jnp.asarray(images.reshape(-1, *images.shape[2:])[:n]))
    )
    expected = sum(kl64(logits[:, t], student, task.temperature) for t in range(2))
    assert float(added["probe_loss"]) == pytest.approx(expected, rel=1e-3)
