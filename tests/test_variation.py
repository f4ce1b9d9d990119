"""Variations of a task: their names, what they change, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from distill_bench.tasks.catalogue import CATALOGUE, DIGITS, FLOWERS, FOOD, IMAGENET_TWO, PETS
from distill_bench.tasks.choices import IMAGES, PHOTOGRAPHS, STUDENTS
from distill_bench.tasks.variation import Variation, vary
from distill_bench.tasks.view_config import MODES

WEIGHTS = st.none() | st.from_regex(r"[A-Za-z0-9_.+-]+", fullmatch=True)
NUMBERS = st.none() | st.integers(0, 999_999)
VARIATIONS = st.builds(
    Variation,
    mode=st.sampled_from(list(MODES)),
    synthetic=st.booleans(),
    resolution=NUMBERS,
    batch_size=NUMBERS,
    student=st.none() | st.sampled_from(list(STUDENTS)),
    teacher=WEIGHTS,
    start=WEIGHTS,
    images=st.none() | st.sampled_from(list(IMAGES)),
    temperature=st.none() | st.floats(0.01, 1000),
    teachers=st.sampled_from([None, "mean", "sum"]),
)


@given(VARIATIONS)
def test_parse_is_the_inverse_of_name(variation):
    assert Variation.parse(variation.name()) == variation


@given(VARIATIONS, st.randoms(use_true_random=False))
def test_the_parts_of_a_name_may_come_in_any_order(variation, random):
    parts = variation.name().split("@")
    random.shuffle(parts)
    assert Variation.parse("@".join(parts)).name() == variation.name()


@pytest.mark.parametrize(
    ("variation", "name"),
    [
        (Variation(), "flowers102"),
        (Variation(mode="fix/ic_ens"), "flowers102@fix-ic_ens"),
        (
            Variation(synthetic=True, resolution=32, batch_size=8),
            "flowers102@synthetic@r32@b8",
        ),
        (Variation(mode="same/rc", synthetic=True), "flowers102@same-rc@synthetic"),
        (
            Variation(student="mobilenetv3", images="food101"),
            "flowers102@mobilenetv3@images-food101",
        ),
        (Variation(temperature=5.0), "flowers102@t5"),
        (Variation(temperature=0.5, batch_size=8), "flowers102@t0.5@b8"),
        (Variation(temperature=10), "flowers102"),
        (Variation(width=32, batch_size=8), "flowers102@b8@w32"),
        (Variation(width=64), "flowers102"),
        (Variation(mode="labels"), "flowers102@labels"),
    ],
)
def test_a_varied_task_is_found_by_its_name(variation, name):
    varied = vary(FLOWERS, variation)
    assert varied.name == name
    assert catalogue.get(name) == varied
    assert (varied.fingerprint() == FLOWERS.fingerprint()) == (name == "flowers102")


@pytest.mark.parametrize("task", list(CATALOGUE.values()), ids=list(CATALOGUE))
def test_values_that_the_task_already_has_change_nothing(task):
    same = Variation(
        resolution=task.views.size,
        batch_size=task.batch_size,
        student=None if task.dataset.channels == 1 else "R50x1",
        teacher=None if task.more_teachers else task.teacher_file,
        images=task.name,
        temperature=task.temperature,
        teachers="mean",
    )
    assert vary(task, same) == task


@pytest.mark.parametrize(
    ("task", "variation", "message"),
    [
        (FLOWERS, Variation(resolution=1), "--resolution=1 is too small"),
        (DIGITS, Variation(batch_size=0), "--batch_size=0 is too small"),
        (FLOWERS, Variation.parse("nonsense"), "Unknown teaching mode 'nonsense'"),
        (DIGITS, Variation(synthetic=True), "the images of digits are small and real"),
        (
            DIGITS,
            Variation(batch_size=1001),
            "cannot be drawn from 1000 images .* use --batch_size=1000 or less",
        ),
        (
            DIGITS,
            Variation(images="photographs", batch_size=401),
            "cannot be drawn from 400 images",
        ),
        (DIGITS, Variation(student="mobilenetv3"), "the images of digits are grey"),
        (DIGITS, Variation(width=12), "--width=12 cannot be divided into the 8 groups"),
        (DIGITS, Variation(width=0), "--width=0 is too small"),
        (PETS, Variation(student="mobilenetv3", width=16), "--width is for BiT students"),
        (PETS, Variation(student="mobilenet"), "Did you mean 'mobilenetv3'"),
        (
            DIGITS,
            Variation(images="photograph"),
            "Unknown images 'photograph'. Did you mean 'photographs'",
        ),
        (
            DIGITS,
            Variation(images="food101"),
            "colour images, but the networks of digits need grey images.\n"
            "Images that fit: fashion, photographs$",
        ),
        (
            PETS,
            Variation(images="photographs"),
            "grey images, but the networks of pet37 need colour images.\n"
            "Images that fit: flowers102",
        ),
        *[
            (DIGITS, Variation(temperature=wrong), f"^--temperature={wrong:g} is not a temperature")
            for wrong in (0.0, -1.0, 1e-3, 2000.0, float("inf"), float("nan"))
        ],
        (DIGITS, Variation(mode="label"), "Unknown teaching mode 'label'. Did you mean 'labels'"),
        (DIGITS, Variation(teachers="sum"), "^--teachers=sum adds up .* there is only one"),
        (DIGITS, Variation(teachers="all"), "^--teachers=all is unknown: use mean or sum"),
        (
            IMAGENET_TWO,
            Variation(teachers="sum", teacher="R152x2_T_224"),
            "--teachers=sum adds up .* there is only one",
        ),
        (
            IMAGENET_TWO,
            Variation(teachers="sum", mode="labels"),
            "--mode=labels learns from labels, not from teachers: leave out --teachers=sum",
        ),
        (
            PETS,
            Variation(images="food101", mode="labels"),
            "--mode=labels learns the labels of pet37, .* leave out --images",
        ),
    ],
)
def test_an_impossible_variation_is_refused_with_the_reason(task, variation, message):
    with pytest.raises(UserError, match=message):
        vary(task, variation)


def test_a_dry_run_of_a_small_batch_has_small_probe_batches():
    real, synthetic, large = (
        catalogue.get(f"flowers102@{name}").probe for name in ("b8", "synthetic@b8", "synthetic")
    )
    assert (real, synthetic.batch_size, synthetic.batches) == (FLOWERS.probe, 8, real.batches)
    assert large == FLOWERS.probe


def test_a_temperature_of_the_variation_changes_nothing_else():
    warm = vary(FLOWERS, Variation(temperature=2))
    assert dataclasses.replace(warm, temperature=10.0, name="flowers102") == FLOWERS
    # An int would be another fingerprint than the flag's float.
    assert warm.fingerprint() == catalogue.get("flowers102@t2").fingerprint()


def test_the_losses_of_several_teachers_can_be_added_up():
    task = vary(IMAGENET_TWO, Variation(teachers="sum"))
    assert (task.name, task.combining) == ("imagenet2012-two@sum-kl", "sum")
    assert (catalogue.get(task.name), task.teachers) == (task, IMAGENET_TWO.teachers)
    assert task.fingerprint() != IMAGENET_TWO.fingerprint()


def test_training_images_can_come_from_another_data_set():
    digits = catalogue.get("digits@images-photographs")
    assert (digits.dataset, digits.images) == (DIGITS.dataset, PHOTOGRAPHS)
    assert digits.fingerprint() != DIGITS.fingerprint()
    assert vary(PETS, Variation(images="food101")).images == FOOD.dataset


def test_every_task_offers_its_images_under_its_own_name():
    for task in CATALOGUE.values():
        assert IMAGES[task.name] == task.dataset


def test_another_student_has_the_tasks_classes_and_leaves_the_teacher():
    mobile = catalogue.get("flowers102@mobilenetv3")
    assert (mobile.student.classes, mobile.student.channels) == (102, 3)
    assert mobile.teacher == FLOWERS.teacher
