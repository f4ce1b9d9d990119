"""Variations of a task, such as another student, other images or a smaller batch."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from distill_bench.data.dataset import TfdsDataset
from distill_bench.networks.bit import BiTConfig
from distill_bench.tasks.choices import IMAGES, STUDENTS
from distill_bench.tasks.task import Task
from distill_bench.tasks.variation_checks import COMBINING, check_variation, check_varied, shortest
from distill_bench.tasks.view_config import MIX, MODES
from distill_bench.weights import lookup

AT = "@"  # separates the parts of a name
_SYNTHETIC = "synthetic"
_PREFIXES = {"teacher": "teacher-", "start": "start-", "images": "images-"}  # by field
# Fields with a number, by what precedes it.
_NUMBERS = {"r": "resolution", "squeezed": "squeeze", "b": "batch_size", "w": "width"}


@dataclass(frozen=True)
class Variation:
    """Changes to a task. The default changes nothing.

    Attributes:
      mode: the teaching mode, a key of MODES.
      synthetic: use random images and a random teacher of the real shapes.
      resolution: height and width of a view, in pixels.
      squeeze: side in pixels of the squares to which all images are squeezed, to save memory.
      batch_size: views in a training step.
      width: channels of the first block's units of a student that is a BiT, see BiTConfig.width.
      student: the student's network, a key of STUDENTS.
      teacher: name of the weights of a single teacher, see weights.lookup.
      start: name of the weights that every student starts from.
      images: make the training views from these images, a key of IMAGES.
      temperature: temperature of the distillation loss.
      teachers: how several teachers teach, "mean" or "sum", see Task.combining.
    """

    mode: str = MIX
    synthetic: bool = False
    resolution: int | None = None
    squeeze: int | None = None
    batch_size: int | None = None
    width: int | None = None
    student: str | None = None
    teacher: str | None = None
    start: str | None = None
    images: str | None = None
    temperature: float | None = None
    teachers: str | None = None

    def name(self) -> str:
        """What a task's name says about its changes: "synthetic@r32@b8"; "" for no change."""
        parts = [
            None if self.mode == MIX else _mode_part(self.mode),
            _SYNTHETIC if self.synthetic else None,
            self.student,
            *(
                prefix + value
                for field, prefix in _PREFIXES.items()
                if (value := getattr(self, field))
            ),
            None if self.teachers is None else COMBINING[self.teachers],
            None if self.temperature is None else f"t{shortest(self.temperature)}",
            None if self.resolution is None else f"r{self.resolution}",
            None if self.squeeze is None else f"squeezed{self.squeeze}",
            None if self.batch_size is None else f"b{self.batch_size}",
            None if self.width is None else f"w{self.width}",
        ]
        return AT.join(part for part in parts if part)

    @classmethod
    def parse(cls, name: str) -> Variation:
        """The inverse of `name`. An unknown part becomes the mode, which `vary` then refuses."""
        fields: dict[str, Any] = {}
        for part in name.split(AT) if name else ():
            fields |= _parse_part(part)
        return cls(**fields)


def _mode_part(mode: str) -> str:
    return mode.replace("/", "-")


def _parse_part(part: str) -> dict[str, Any]:
    if part == _SYNTHETIC:
        return {"synthetic": True}
    if (match := re.fullmatch(r"([a-z]+)(\d{1,6})", part)) and match[1] in _NUMBERS:
        return {_NUMBERS[match[1]]: int(match[2])}
    if match := re.fullmatch(r"t(\d+(?:\.\d+)?)", part):
        return {"temperature": float(match[1])}
    for value, named in COMBINING.items():
        if part == named:
            return {"teachers": value}
    if part in STUDENTS:
        return {"student": part}
    for field, prefix in _PREFIXES.items():
        if part.startswith(prefix):
            return {field: part.removeprefix(prefix)}
    return {"mode": next((mode for mode in MODES if _mode_part(mode) == part), part)}


def vary(task: Task, variation: Variation) -> Task:
    """The task with these changes and a name that lists them, such as "digits@same-ic".

    Values that the task already has are not changes: they do not appear in the name. A varied task
    has no leaderboard, and its losses compare only with its own.

    Raises:
      UserError: if a value is unknown or does not fit the task.
    """
    check_variation(task, variation)
    changes = _without_own_values(task, variation)
    varied = _apply(task, changes)
    check_varied(varied)
    name = changes.name()
    return dataclasses.replace(varied, name=f"{task.name}{AT}{name}" if name else task.name)


def _without_own_values(task: Task, variation: Variation) -> Variation:
    """The variation without the values that the task already has."""
    repeated = {
        "resolution": variation.resolution == task.views.size,
        "squeeze": isinstance(task.dataset, TfdsDataset) and variation.squeeze == task.dataset.side,
        "batch_size": variation.batch_size == task.batch_size,
        "width": isinstance(task.student, BiTConfig) and variation.width == task.student.width,
        "student": variation.student is not None
        and STUDENTS[variation.student](task.student.classes) == task.student,
        "teacher": variation.teacher == task.teacher_file and not task.more_teachers,
        "images": bool(variation.images)
        and IMAGES[str(variation.images)].name == task.dataset.name,
        "temperature": variation.temperature == task.temperature,
        "teachers": variation.teachers == task.combining,
    }
    return dataclasses.replace(variation, **{field: None for field in repeated if repeated[field]})


def _apply(task: Task, changes: Variation) -> Task:
    """The task with the changes but under its old name. The order matters: later changes build on
    earlier ones."""
    fields: dict[str, Any] = {}
    if changes.mode != MIX:
        fields["mode"] = changes.mode
    if changes.synthetic:
        fields["synthetic"] = True
    if changes.student:
        fields["student"] = STUDENTS[changes.student](task.student.classes)
    if changes.width is not None:
        fields["student"] = dataclasses.replace(
            fields.get("student", task.student), width=changes.width
        )
    if changes.teacher:
        fields |= lookup.as_teacher(changes.teacher, task.teacher)
    if changes.start:
        fields |= lookup.as_start(changes.start, fields.get("student", task.student))
    if changes.images:
        fields["images"] = IMAGES[changes.images]
    if changes.batch_size is not None:
        fields["batch_size"] = changes.batch_size
    if changes.temperature is not None:
        fields["temperature"] = float(changes.temperature)
    if changes.teachers:
        fields["combining"] = changes.teachers
    varied = dataclasses.replace(task, **fields)
    if changes.squeeze is not None:
        varied = _change_datasets(varied, side=changes.squeeze, in_memory=False)
    if varied.synthetic:  # as small as the step that it tries
        probe_size = min(varied.probe.batch_size, varied.batch_size)
        varied = dataclasses.replace(
            varied, probe=dataclasses.replace(varied.probe, batch_size=probe_size)
        )
    return varied if changes.resolution is None else _resize(varied, changes.resolution)


def _change_datasets(task: Task, **fields: Any) -> Task:
    """The task with these fields in each of its TFDS data sets."""

    def changed(dataset: Any) -> Any:
        is_tfds = isinstance(dataset, TfdsDataset)
        return dataclasses.replace(dataset, **fields) if is_tfds else dataset

    return dataclasses.replace(task, dataset=changed(task.dataset), images=changed(task.images))


def _resize(task: Task, size: int) -> Task:
    """The task with views `size` pixels wide; the teachers' own sizes and clean images follow."""

    def scaled(pixels: int | None) -> int | None:
        return None if pixels is None else round(pixels * size / task.views.size)

    if isinstance(task.dataset, TfdsDataset):
        shorter, crop = task.dataset.clean
        task = _change_datasets(task, clean=(round(size * shorter / crop), size))
    return dataclasses.replace(
        task,
        views=dataclasses.replace(task.views, size=size),
        teacher_size=scaled(task.teacher_size),
        more_teachers=tuple(
            dataclasses.replace(teacher, size=scaled(teacher.size))
            for teacher in task.more_teachers
        ),
    )
