"""Refuses variations of a task that are unknown or do not fit it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_bench.data.dataset import TfdsDataset
from distill_bench.errors import UserError, suggestion
from distill_bench.networks.bit import BiTConfig
from distill_bench.tasks.choices import IMAGES, STUDENTS
from distill_bench.tasks.task import Task
from distill_bench.tasks.view_config import MODES

if TYPE_CHECKING:
    from distill_bench.tasks.variation import Variation

COMBINING = {"mean": "mean-logits", "sum": "sum-kl"}
"""Parts of names, by value of --teachers."""
_COLOURS = {1: "grey", 3: "colour"}  # by number of channels
_TEMPERATURES = (0.01, 1000.0)  # squares and quotients stay far from the limits of float32


def shortest(value: float) -> str:
    """The shortest text that `float` reads as the value: "5", "0.5"."""
    return str(float(value)).removesuffix(".0")


def check_variation(task: Task, variation: Variation) -> None:
    """Whether each value is known and suits the task.

    Raises:
      UserError: otherwise.
    """
    _check_numbers(variation)
    _check_mode(task, variation.mode)
    if variation.synthetic and not isinstance(task.dataset, TfdsDataset):
        raise UserError(
            "--synthetic replaces images that must be downloaded, but the images of "
            f"{task.name} are small and real: leave it out."
        )
    if variation.squeeze is not None and not isinstance(task.dataset, TfdsDataset):
        raise UserError(
            f"--squeeze is for photographs of different sizes, but all images of {task.name} have "
            "one size: leave it out."
        )
    if variation.student is not None:
        _check_student(task, variation.student)
    if variation.width is not None:
        _check_width(task, variation.student, variation.width)
    if variation.images:
        _check_images(task, variation.images)
    if variation.teachers not in (None, *COMBINING):
        raise UserError(f"--teachers={variation.teachers} is unknown: use mean or sum.")


def check_varied(task: Task) -> None:
    """Whether the values of a varied task fit each other.

    Raises:
      UserError: otherwise.
    """
    _check_labels(task)
    _check_teachers(task)
    available = (task.images or task.dataset).train_size
    if task.batch_size > available:
        raise UserError(
            f"A batch of {task.batch_size} cannot be drawn from {available} images without "
            f"repeating one: use --batch_size={available} or less."
        )


def _check_numbers(variation: Variation) -> None:
    for flag in ("resolution", "squeeze", "batch_size", "width"):
        value = getattr(variation, flag)
        if value is not None and value < 2:
            raise UserError(f"--{flag}={value} is too small: use 2 or more.")
    low, high = _TEMPERATURES
    # The comparison is false for NaN.
    if variation.temperature is not None and not low <= variation.temperature <= high:
        raise UserError(
            f"--temperature={shortest(variation.temperature)} is not a temperature: use a number "
            f"from {low:g} to {high:g}, such as 1."
        )


def _check_mode(task: Task, mode: str) -> None:
    if mode not in MODES:
        raise UserError(
            f"Unknown teaching mode {mode!r}.{suggestion(mode, MODES)}\nModes: {', '.join(MODES)}"
        )
    sizes = {teacher.size for teacher in task.teachers} - {None, task.views.size}
    if MODES[mode].ensemble and sizes:
        raise UserError(
            f"--mode={mode} averages the teacher's predictions over crops of the student's size, "
            f"but a teacher of {task.name} sees another size: choose a task without such a teacher."
        )


def _check_labels(task: Task) -> None:
    if not task.teaching.labels:
        return
    if task.images is not None:
        raise UserError(
            f"--mode={task.mode} learns the labels of {task.name}, but the views would come from "
            f"{task.images.name}: leave out --images."
        )
    if task.combining != "mean":
        raise UserError(
            f"--mode={task.mode} learns from labels, not from teachers: "
            f"leave out --teachers={task.combining}."
        )


def _check_teachers(task: Task) -> None:
    if task.combining == "sum" and len(task.teachers) < 2:
        raise UserError(
            "--teachers=sum adds up the losses of several teachers, but there is only one: leave "
            "it out. The task imagenet2012-two has two teachers."
        )


def _check_student(task: Task, name: str) -> None:
    if name not in STUDENTS:
        raise UserError(
            f"Unknown student {name!r}.{suggestion(name, STUDENTS)}\n"
            f"Students: {', '.join(STUDENTS)}"
        )
    if task.student.channels != 3:
        raise UserError(
            f"--student={name} needs colour images, but the images of {task.name} are grey: "
            "leave it out."
        )


def _check_images(task: Task, name: str) -> None:
    if name not in IMAGES:
        raise UserError(
            f"Unknown images {name!r}.{suggestion(name, IMAGES)}\nImages: {', '.join(IMAGES)}"
        )
    channels = task.dataset.channels
    if IMAGES[name].channels != channels:
        fitting = [
            other
            for other, dataset in IMAGES.items()
            if dataset.channels == channels and dataset.name != task.dataset.name
        ]
        raise UserError(
            f"--images={name} is a set of {_COLOURS[IMAGES[name].channels]} images, but the "
            f"networks of {task.name} need {_COLOURS[channels]} images.\n"
            f"Images that fit: {', '.join(fitting)}"
        )


def _check_width(task: Task, name: str | None, width: int) -> None:
    student = STUDENTS[name](task.student.classes) if name else task.student
    if not isinstance(student, BiTConfig):
        raise UserError(f"--width is for BiT students, but the student is {name}: leave it out.")
    if width % student.groups:
        raise UserError(
            f"--width={width} cannot be divided into the {student.groups} groups of the student's "
            f"GroupNorm: use a multiple of {student.groups}."
        )
