"""The teaching modes: which views teacher and student see."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distill_bench.data import dataset
from distill_bench.errors import UserError
from distill_bench.networks import bit
from distill_bench.tasks import catalogue
from distill_bench.tasks.catalogue import DIGITS
from distill_bench.tasks.parameters import load_teachers
from distill_bench.tasks.variation import Variation, vary
from distill_bench.tasks.view_config import MODES, Mode, ViewConfig
from distill_bench.training.engine import open_engine
from distill_bench.training.events import Losses
from distill_bench.training.lane_layout import make_layout
from distill_bench.training.losses import kl_divergence
from distill_bench.training.rules import Lane
from distill_bench.training.source import init_student
from distill_bench.training.train import train
from distill_bench.views import augment
from distill_bench.views.originals import Stacked
from distill_bench.views.step_views import ENSEMBLE, step_views, stream_key

CROPS = 6


@pytest.fixture(autouse=True)
def small_ensemble(monkeypatch):
    monkeypatch.setitem(
        MODES, "fix/ic_ens", dataclasses.replace(MODES["fix/ic_ens"], ensemble=CROPS)
    )


def views_of(task, mode, step=0, seed=0):
    images = jnp.asarray(dataset.load_embedded(task.dataset)[0].images)
    return step_views(vary(task, Variation(mode=mode)), Stacked(images), seed, step), images


@pytest.mark.parametrize("mode", ["same/rc", "same/ic", "mix", "fix/rs"])
def test_in_consistent_modes_teacher_and_student_see_the_same_view(tiny_task, mode):
    assert views_of(tiny_task, mode)[0].views[1:] == ()


@pytest.mark.parametrize("mode", ["ind/rc", "ind/ic", "fix/cc"])
def test_in_the_other_modes_each_sees_its_own_view(tiny_task, mode):
    found, _ = views_of(tiny_task, mode)
    assert found.views[1].shape == found.student.shape
    assert not np.allclose(found.views[1], found.student, atol=0.1)


def test_fixed_teachers_see_the_same_view_of_an_image_at_every_step(tiny_task):
    whole, images = views_of(tiny_task, "fix/rs")
    np.testing.assert_allclose(whole.student, images[whole.index], atol=1e-5)
    # The second epoch begins in step 62.
    first, second = (views_of(tiny_task, "fix/cc", step)[0] for step in (0, 63))
    shared = sorted(set(np.asarray(first.index)) & set(np.asarray(second.index)))
    assert shared
    for image in shared:
        a, b = (
            np.asarray(s.views[1])[list(np.asarray(s.index)).index(image)] for s in (first, second)
        )
        np.testing.assert_array_equal(a, b)


def test_mild_crops_are_four_fifths_wide_and_uniformly_placed():
    size = jnp.array([[10.0, 20.0]])
    boxes = np.asarray(
        augment.crop_boxes(
            "mild", jax.random.key(0), jnp.tile(size, (20_000, 1)), ViewConfig(size=8)
        )
    )
    np.testing.assert_allclose(boxes[:, 2:], np.broadcast_to([8, 16], (20_000, 2)), rtol=1e-6)
    grid = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(np.quantile(boxes[:, 0], grid), 2 * grid, atol=0.05)
    np.testing.assert_allclose(np.quantile(boxes[:, 1], grid), 4 * grid, atol=0.1)
    assert abs(np.corrcoef(boxes[:, 0], boxes[:, 1])[0, 1]) < 0.03
    central = np.asarray(
        augment.crop_boxes("central", jax.random.key(0), jnp.tile(size, (2, 1)), ViewConfig(size=8))
    )
    np.testing.assert_allclose(central, [[1, 2, 8, 16]] * 2, rtol=1e-6)


def test_only_mild_and_inception_crops_are_flipped():
    image = jnp.broadcast_to(jnp.arange(8.0)[None, None, :, None], (64, 8, 8, 1))
    for crop, flips in (("whole", 0), ("central", 0), ("mild", 1), ("inception", 1)):
        made = np.asarray(
            augment.make_views(
                jax.random.key(0),
                Stacked(image),
                ViewConfig(size=8, flip=True),
                crop=crop,
                mixup=False,
            )
        )
        falling = (made[:, 4, -1, 0] < made[:, 4, 0, 0]).sum()
        assert (16 < falling < 48) if flips else falling == 0


def test_a_shared_view_needs_one_kind_of_crop():
    with pytest.raises(ValueError, match="one kind of crop, got mild and inception"):
        Mode("mild", "inception", same=True)


@pytest.mark.long
def test_training_on_averaged_predictions_equals_the_definition(tiny_task):
    """Compares with a plain loop that averages the teacher's predictions crop by crop."""
    task = vary(tiny_task, Variation(mode="fix/ic_ens"))
    engine = open_engine(task, make_layout(jax.devices()[:2]))
    images = jnp.asarray(dataset.load_embedded(task.dataset)[0].images)
    teacher = load_teachers(task)[0]
    params, rule = init_student(task, 3), optax.sgd(0.1)
    state = rule.init(params)

    batches = np.resize(
        np.arange(len(images)), (-(-len(images) // task.batch_size), task.batch_size)
    )

    @jax.jit
    def prediction(batch, row, crop):
        key = jax.random.fold_in(jax.random.fold_in(stream_key(task, ENSEMBLE, 0), batch), crop)
        crops = augment.make_views(
            key, Stacked(images[jnp.asarray(batches)[batch]]), task.views, mixup=False
        )
        return jax.nn.softmax(bit.apply(task.teacher, teacher, crops[row][None])[0])

    def mean_prediction(index):
        return np.mean(
            [prediction(*divmod(index, task.batch_size), crop) for crop in range(CROPS)], axis=0
        )

    @jax.jit
    def gradient(params, views, logits):
        return jax.value_and_grad(
            lambda p: kl_divergence(logits, bit.apply(task.student, p, views), task.temperature)
        )(params)

    expected = []
    for step in range(4):
        found = step_views(task, Stacked(images), 3, step)
        logits = jnp.log(
            jnp.asarray(np.stack([mean_prediction(i) for i in np.asarray(found.index)]))
        )
        loss, gradients = gradient(params, found.student, logits)
        updates, state = rule.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        expected.append(float(loss))
    losses = np.concatenate(
        [
            event.values
            for event in train(engine, [Lane(lambda hparams, horizon: optax.sgd(0.1), {}, 4, 3)])
            if isinstance(event, Losses)
        ]
    )
    np.testing.assert_allclose(losses, expected, rtol=5e-4)


def test_each_mode_is_a_separate_task_and_mix_is_the_task_itself():
    assert vary(DIGITS, Variation(mode="mix")) == DIGITS
    other = vary(DIGITS, Variation(mode="same/ic"))
    assert (other.name, catalogue.get(other.name)) == ("digits@same-ic", other)
    fingerprints = {vary(DIGITS, Variation(mode=mode)).fingerprint() for mode in MODES}
    assert len(fingerprints) == len(MODES)
    for wrong in (
        lambda: vary(DIGITS, Variation(mode="same/ci")),
        lambda: catalogue.get("digits@same-ci"),
    ):
        with pytest.raises(
            UserError, match=r"Unknown teaching mode .same.ci.\. Did you mean .same"
        ):
            wrong()


def test_averaged_predictions_need_teachers_with_the_students_view_size():
    for name in ("imagenet2012-160", "imagenet2012-384", "imagenet2012-two"):
        with pytest.raises(UserError, match=f"a teacher of {name} sees another size"):
            vary(catalogue.get(name), Variation(mode="fix/ic_ens"))
    assert vary(catalogue.get("imagenet2012"), Variation(mode="fix/ic_ens")).teaching.ensemble


@pytest.mark.parametrize("name", ["digits@same-ic", "digits@labels", "digits@t2"])
def test_a_variation_has_no_leaderboard(tmp_path, name):
    from sweeps.board import write_entry
    from sweeps.planning.study import Study
    from sweeps.results.store import Loaded

    study = Study(name, catalogue.get(name).fingerprint(), "mine", "0" * 64, {}, {}, {})
    with pytest.raises(UserError, match=f"{name} is not a task of the leaderboard"):
        write_entry.check(Loaded(study, tmp_path, "mine", {}))
