"""The tasks by name, and their variations."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

from distill_bench.data import datasets
from distill_bench.data.dataset import Dataset, TfdsDataset
from distill_bench.errors import UserError, suggestion
from distill_bench.networks.bit import BiTConfig
from distill_bench.networks.mobilenet import MobileNetConfig
from distill_bench.networks.network import NetworkConfig
from distill_bench.tasks.task import ProbeConfig, Task, Teacher
from distill_bench.tasks.view_config import MIX, MODES, ViewConfig
from distill_bench.weights import lookup

DIGITS = Task(
    name="digits",
    dataset=Dataset(
        name="digits",
        train_size=1000,
        split_seed=0,
        sha256="fe61bc84cd6a594d5ed1b937b7d8f8f791d4091d2a9df91fe5d6066156a4db6e",
    ),
    teacher=BiTConfig(depths=(2, 2), width=64, classes=10, channels=1, groups=8, root="small"),
    teacher_file="digits_teacher.npz",
    teacher_sha256="6815a8e0a5f038403b101a2d89d0195a0243926f47a34f62d54beb3885077218",
    student=BiTConfig(depths=(2, 2), width=16, classes=10, channels=1, groups=8, root="small"),
    views=ViewConfig(size=8, flip=False),
    batch_size=128,
    temperature=1.0,
    probe=ProbeConfig(batches=64, batch_size=64),
    seed=0,
    horizons=(250, 500, 1000, 2000, 4000),
)


def _r50x1(classes: int) -> BiTConfig:
    return BiTConfig(depths=(3, 4, 6, 3), width=64, classes=classes, pool_padding="inf")


def _steps(epochs: Sequence[int], images: int, batch_size: int) -> tuple[int, ...]:
    return tuple(round(n * images / batch_size) for n in epochs)


def _r152x2(classes: int) -> BiTConfig:
    # big_vision, which trained and measured the published teachers, pads the root's pool with minus infinity.
    return BiTConfig(depths=(3, 8, 36, 3), width=128, classes=classes, pool_padding="inf")


def _funmatch(
    name: str,
    published: str,
    classes: int,
    temperature: float,
    epochs: Sequence[int],
    size: int = 128,
    batch_size: int = 512,
) -> Task:
    """One of the paper's tasks: BiT-R152x2 to R50x1 (Beyer et al. 2021, section 2); its horizons are the paper's numbers of epochs."""
    dataset = datasets.CATALOGUE[name]
    return Task(
        name=name,
        dataset=dataset,
        teacher=_r152x2(classes),
        teacher_file=f"R152x2_T_{published}",
        teacher_sha256="",
        student=_r50x1(classes),
        views=ViewConfig(size=size),
        batch_size=batch_size,
        temperature=temperature,
        probe=ProbeConfig(batches=16, batch_size=64),
        seed=0,
        horizons=_steps(epochs, dataset.train_size, batch_size),
        precision="bfloat16",
    )


FLOWERS = _funmatch("flowers102", "flowers128", 102, 10.0, (1_000, 10_000, 100_000, 1_000_000))
PETS = _funmatch("pet37", "pet128", 37, 2.0, (300, 1_000, 3_000, 10_000, 30_000))
FOOD = _funmatch("food101", "food128", 101, 10.0, (100, 1_000, 3_000))
SUN = _funmatch("sun397", "sun128", 397, 10.0, (100, 1_000, 3_000))
_IMAGENET = functools.partial(
    _funmatch, classes=1000, temperature=1.0, epochs=(300, 1_200, 9_600), batch_size=4096
)
IMAGENET = _IMAGENET("imagenet2012", "224", size=224)
IMAGENET_160 = dataclasses.replace(_IMAGENET("imagenet2012-160", "224", size=160), teacher_size=224)
IMAGENET_384 = dataclasses.replace(_IMAGENET("imagenet2012-384", "384", size=224), teacher_size=384)
IMAGENET_TWO = dataclasses.replace(  # the mean of the logits of both
    _IMAGENET("imagenet2012-two", "384", size=224),
    teacher_size=384,
    more_teachers=(Teacher(_r152x2(1000), "R152x2_T_224"),),
)

CATALOGUE = {
    task.name: task
    for task in (
        DIGITS,
        FLOWERS,
        PETS,
        FOOD,
        SUN,
        IMAGENET,
        IMAGENET_160,
        IMAGENET_384,
        IMAGENET_TWO,
    )
}

PHOTOGRAPHS = Dataset(
    name="photographs",
    train_size=400,
    split_seed=0,
    sha256="aa4ff312b6ef23bcdc4e6e2eeb0a5175de77a2d1b92704d7cfc86dc35ae5ca16",
)

_AT = "@"
_SYNTHETIC, _TEACHER, _START, _IMAGES = "synthetic", "teacher-", "start-", "images-"

STUDENTS: dict[str, Callable[[int], NetworkConfig]] = {
    "R50x1": _r50x1,
    "mobilenetv3": MobileNetConfig,
}
"""What a task of the paper may be taught to, by name: functions of the number of classes."""


def image_sources() -> dict[str, Dataset | TfdsDataset]:
    """The data sets that training views may be made of, by name: those of the tasks, and one that no task examines a student on."""
    return {task.name: task.dataset for task in CATALOGUE.values()} | {
        PHOTOGRAPHS.name: PHOTOGRAPHS
    }


def _source(task: Task, name: str) -> Dataset | TfdsDataset:
    """The images called `name`, for a variation of the task.

    Raises:
      UserError: where there are none, or the task's networks cannot see them.
    """
    sources = image_sources()
    if name not in sources:
        raise UserError(
            f"There are no images {name!r}.{suggestion(name, sources)}\nImages: {', '.join(sources)}"
        )
    if (found := sources[name].channels) != (wanted := task.dataset.channels):
        colours = {1: "grey", 3: "in colour"}
        fitting = [
            other
            for other, source in sources.items()
            if source.channels == wanted and source.name != task.dataset.name
        ]
        raise UserError(
            f"--images={name} are {colours[found]}, and the networks of {task.name} see images that are {colours[wanted]}.\n"
            f"Images that fit: {', '.join(fitting)}"
        )
    return sources[name]


def vary(
    task: Task,
    mode: str = MIX,
    synthetic: bool = False,
    resolution: int | None = None,
    batch_size: int | None = None,
    student: str | None = None,
    teacher: str | None = None,
    start: str | None = None,
    images: str | None = None,
) -> Task:
    """The task with something changed, under a name that says what, such as "digits@same-ic" or "flowers102@synthetic@r32@b8".

    Its losses compare with none but its own, and it has no leaderboard. mode: another of views.MODES is taught. synthetic: random images and
    teacher. resolution: of views, in pixels; squeezed images are kept at twice that. student: another of STUDENTS. teacher, start: names of weights
    (see pretrained). images: a name among `image_sources`, of whose training images views are made. Without any change it is the task itself.

    Raises:
      UserError: where something cannot be so.
    """
    changed, parts = task, [task.name]

    def change(part: str, **fields: Any) -> None:
        nonlocal changed
        changed = dataclasses.replace(changed, **fields)
        parts.append(part)

    for flag, value in (("resolution", resolution), ("batch_size", batch_size)):
        if value is not None and value < 2:
            raise UserError(f"--{flag}={value} is too small: use 2 or more.")
    if mode not in MODES:
        raise UserError(
            f"There is no teaching mode {mode!r}.{suggestion(mode, MODES)}\nModes: {', '.join(MODES)}"
        )
    if MODES[mode].ensemble and any(it.size not in (None, task.views.size) for it in task.teachers):
        raise UserError(
            f"--mode={mode} averages answers to crops of the student's size; a teacher of {task.name} sees another size: name a task whose teachers do not."
        )
    if mode != MIX:
        change(mode.replace("/", "-"), mode=mode)
    if synthetic:
        if not isinstance(task.dataset, TfdsDataset):
            raise UserError(
                f"--synthetic stands in for images that have to be downloaded; those of {task.name} are built in: leave it out."
            )
        change(_SYNTHETIC, synthetic=True)
    if student is not None:
        if student not in STUDENTS:
            raise UserError(
                f"There is no student {student!r}.{suggestion(student, STUDENTS)}\nStudents: {', '.join(STUDENTS)}"
            )
        if task.student.channels != 3:
            raise UserError(
                f"--student={student} sees colours, which the images of {task.name} have not: leave it out."
            )
        if (network := STUDENTS[student](task.student.classes)) != task.student:
            change(student, student=network)
    if teacher and (teacher != task.teacher_file or task.more_teachers):
        change(_TEACHER + teacher, **lookup.as_teacher(teacher, task.teacher))
    if start:
        change(_START + start, **lookup.as_start(start, changed.student))
    if images and (source := _source(task, images)).name != task.dataset.name:
        change(_IMAGES + images, images=source)
    if resolution is not None and resolution != task.views.size:
        change(f"r{resolution}", **_resized(changed, resolution))
    if batch_size is not None and batch_size != task.batch_size:
        change(f"b{batch_size}", batch_size=batch_size)
    if changed.batch_size > (there := (changed.images or changed.dataset).train_size):
        raise UserError(
            f"A batch of {changed.batch_size} cannot be drawn from {there} images without repeating one: use --batch_size={there} or less."
        )
    return dataclasses.replace(changed, name=_AT.join(parts))


def _resized(task: Task, size: int) -> dict[str, Any]:
    """The fields that differ where views are `size` pixels wide: a teacher's own size goes with them, and so do kept images."""

    def scaled(pixels: int | None) -> int | None:
        return None if pixels is None else round(pixels * size / task.views.size)

    def kept(data: Dataset | TfdsDataset | None) -> Dataset | TfdsDataset | None:
        if not isinstance(data, TfdsDataset):
            return data
        return dataclasses.replace(
            data,
            side=None if data.side is None else 2 * size,
            clean=(round(size * data.clean[0] / data.clean[1]), size),
        )

    return {
        "dataset": kept(task.dataset),
        "images": kept(task.images),
        "views": dataclasses.replace(task.views, size=size),
        "teacher_size": scaled(task.teacher_size),
        "more_teachers": tuple(
            dataclasses.replace(it, size=scaled(it.size)) for it in task.more_teachers
        ),
    }


def get(name: str) -> Task:
    """The task called `name`: one of the catalogue, or a variation of one, by the name that `vary` gave it.

    Raises:
      UserError: where there is none, with the nearest name.
    """
    base, *parts = name.split(_AT)
    if base not in CATALOGUE:
        raise UserError(
            f"There is no task {base!r}.{suggestion(base, CATALOGUE)}\nTasks: {', '.join(CATALOGUE)}"
        )
    changes: dict[str, Any] = {}
    for part in parts:
        if part == _SYNTHETIC:
            changes["synthetic"] = True
        elif match := re.fullmatch(r"([rb])(\d{1,6})", part):
            changes["resolution" if match[1] == "r" else "batch_size"] = int(match[2])
        elif part in STUDENTS:
            changes["student"] = part
        elif part.startswith(_TEACHER):
            changes["teacher"] = part.removeprefix(_TEACHER)
        elif part.startswith(_START):
            changes["start"] = part.removeprefix(_START)
        elif part.startswith(_IMAGES):
            changes["images"] = part.removeprefix(_IMAGES)
        else:
            changes["mode"] = next((mode for mode in MODES if mode.replace("/", "-") == part), part)
    return vary(CATALOGUE[base], **changes)
