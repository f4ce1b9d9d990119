"""The teaching modes: what teacher and student see."""

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
from distill_bench.tasks.view_config import MODES, Mode, ViewConfig
from distill_bench.training.engine import open_engine
from distill_bench.training.events import Losses
from distill_bench.training.lane_layout import make_layout
from distill_bench.training.losses import kl_divergence
from distill_bench.training.rules import Lane
from distill_bench.training.source import init_student
from distill_bench.training.train import train
from distill_bench.views import augment
from distill_bench.views.step_views import ENSEMBLE, step_views, stream_key

CROPS = 6


@pytest.fixture(autouse=True)
def small_ensemble(monkeypatch):
    monkeypatch.setitem(
        MODES, "fix/ic_ens", dataclasses.replace(MODES["fix/ic_ens"], ensemble=CROPS)
    )


def seen(task, mode, step=0, seed=0):
    images = jnp.asarray(dataset.load_embedded(task.dataset)[0].images)
    return step_views(catalogue.vary(task, mode), images, seed, step), images


@pytest.mark.parametrize("mode", ["same/rc", "same/ic", "mix", "fix/rs"])
def test_in_consistent_modes_both_see_the_same_view(tiny_task, mode):
    assert seen(tiny_task, mode)[0].views[1:] == ()


@pytest.mark.parametrize("mode", ["ind/rc", "ind/ic", "fix/cc"])
def test_in_the_others_each_has_a_view_of_its_own(tiny_task, mode):
    found, _ = seen(tiny_task, mode)
    assert found.views[1].shape == found.student.shape
    assert not np.allclose(found.views[1], found.student, atol=0.1)


def test_fixed_teachers_see_the_same_of_an_image_at_every_step(tiny_task):
    whole, images = seen(tiny_task, "fix/rs")
    np.testing.assert_allclose(whole.student, images[whole.index], atol=1e-5)
    first, second = (
        seen(tiny_task, "fix/cc", step)[0] for step in (0, 63)
    )  # the next epoch begins in step 62
    shared = sorted(set(np.asarray(first.index)) & set(np.asarray(second.index)))
    assert shared
    for image in shared:
        a, b = (
            np.asarray(s.views[1])[list(np.asarray(s.index)).index(image)] for s in (first, second)
        )
        np.testing.assert_array_equal(a, b)


def test_mild_crops_are_four_fifths_wide_and_lie_evenly():
    boxes = np.asarray(
        augment.boxes_of("mild", jax.random.key(0), 20_000, 10, 20, ViewConfig(size=8))
    )
    np.testing.assert_allclose(boxes[:, 2:], np.broadcast_to([8, 16], (20_000, 2)), rtol=1e-6)
    grid = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(np.quantile(boxes[:, 0], grid), 2 * grid, atol=0.05)
    np.testing.assert_allclose(np.quantile(boxes[:, 1], grid), 4 * grid, atol=0.1)
    assert abs(np.corrcoef(boxes[:, 0], boxes[:, 1])[0, 1]) < 0.03
    central = np.asarray(
        augment.boxes_of("central", jax.random.key(0), 2, 10, 20, ViewConfig(size=8))
    )
    np.testing.assert_allclose(central, [[1, 2, 8, 16]] * 2, rtol=1e-6)


def test_whole_and_central_crops_are_not_flipped_and_the_others_are():
    image = jnp.broadcast_to(jnp.arange(8.0)[None, None, :, None], (64, 8, 8, 1))
    for crop, flips in (("whole", 0), ("central", 0), ("mild", 1), ("inception", 1)):
        made = np.asarray(
            augment.make_views(
                jax.random.key(0), image, ViewConfig(size=8, flip=True), crop=crop, mixup=False
            )
        )
        falling = (made[:, 4, -1, 0] < made[:, 4, 0, 0]).sum()
        assert (16 < falling < 48) if flips else falling == 0


def test_one_view_cannot_be_cropped_in_two_ways():
    with pytest.raises(ValueError, match="two ways"):
        Mode("mild", "inception", same=True)


@pytest.mark.parametrize(
    "mode", ["fix/ic_ens"]
)  # independent views are the shorter path of the same code
def test_training_in_a_mode_is_what_its_definition_says(tiny_task, mode):
    """Against a plain loop over steps; of the ensemble, against the mean of the teacher's predictions, crop by crop."""
    task = catalogue.vary(tiny_task, mode)
    engine = open_engine(task, make_layout(jax.devices()[:2]))
    images, answers = (
        jnp.asarray(dataset.load_embedded(task.dataset)[0].images),
        load_teachers(task)[0],
    )
    params, rule = init_student(task, 3), optax.sgd(0.1)
    state = rule.init(params)

    members = np.resize(
        np.arange(len(images)), (-(-len(images) // task.batch_size), task.batch_size)
    )

    @jax.jit
    def answer(batch, place, crop):
        key = jax.random.fold_in(jax.random.fold_in(stream_key(task, ENSEMBLE, 0), batch), crop)
        crops = augment.make_views(
            key, images[jnp.asarray(members)[batch]], task.views, mixup=False
        )
        return jax.nn.softmax(bit.apply(task.teacher, answers, crops[place][None])[0])

    def ensemble_answer(index):
        return np.mean(
            [answer(*divmod(index, task.batch_size), crop) for crop in range(CROPS)], axis=0
        )

    @jax.jit
    def gradient(params, seen, logits):
        return jax.value_and_grad(
            lambda p: kl_divergence(logits, bit.apply(task.student, p, seen), task.temperature)
        )(params)

    expected = []
    for step in range(4):
        found = step_views(task, images, 3, step)
        if mode == "fix/ic_ens":
            logits = jnp.log(
                jnp.asarray(np.stack([ensemble_answer(i) for i in np.asarray(found.index)]))
            )
        else:
            logits = bit.apply(task.teacher, answers, found.views[-1])
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


def test_a_mode_is_a_task_of_its_own_and_mix_is_the_task_itself():
    assert catalogue.vary(DIGITS, "mix") == DIGITS
    other = catalogue.vary(DIGITS, "same/ic")
    assert (other.name, catalogue.get(other.name)) == ("digits@same-ic", other)
    prints = {catalogue.vary(DIGITS, mode).fingerprint() for mode in MODES}
    assert len(prints) == len(MODES)
    for wrong in (
        lambda: catalogue.vary(DIGITS, "same/ci"),
        lambda: catalogue.get("digits@same-ci"),
    ):
        with pytest.raises(UserError, match=r"no teaching mode .same.ci.\. Did you mean .same"):
            wrong()


def test_a_mean_of_answers_needs_teachers_that_see_what_the_student_sees():
    for name in ("imagenet2012-160", "imagenet2012-384", "imagenet2012-two"):
        with pytest.raises(UserError, match=f"a teacher of {name} sees another size"):
            catalogue.vary(catalogue.get(name), "fix/ic_ens")
    assert catalogue.vary(catalogue.get("imagenet2012"), "fix/ic_ens").teaching.ensemble


def test_only_the_task_itself_may_stand_on_the_leaderboard(tmp_path):
    from sweeps.board import write_entry
    from sweeps.planning.study import Study
    from sweeps.results.store import Loaded

    study = Study("digits@same-ic", "0" * 16, "mine", "0" * 64, {}, {}, {})
    with pytest.raises(UserError, match="digits@same-ic is no task of the leaderboard"):
        write_entry.check(Loaded(study, tmp_path, "mine", {}))
