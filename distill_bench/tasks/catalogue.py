"""The tasks by name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from distill_bench.data import datasets
from distill_bench.errors import UserError, suggestion
from distill_bench.networks.bit import BiTConfig
from distill_bench.tasks import choices, plug_ins
from distill_bench.tasks.task import ProbeConfig, Task, Teacher
from distill_bench.tasks.variation import AT, Variation, vary
from distill_bench.tasks.view_config import ViewConfig

DIGITS = Task(
    name="digits",
    dataset=choices.DIGITS,
    teacher=BiTConfig(depths=(2, 2), width=64, classes=10, channels=1, groups=8, root="small"),
    teacher_file="digits_teacher.npz",
    teacher_sha256="6815a8e0a5f038403b101a2d89d0195a0243926f47a34f62d54beb3885077218",
    student=BiTConfig(depths=(2, 2), width=16, classes=10, channels=1, groups=8, root="small"),
    views=ViewConfig(size=8, flip=False),
    batch_size=128,
    temperature=1.0,
    probe=ProbeConfig(batches=64, batch_size=64),
    seed=0,
    horizons=(125, 250, 500, 1000, 2000, 4000),
)

# The student's root divides the sides by four, as the published networks' does: 7x7 features.
FASHION = Task(
    name="fashion",
    dataset=choices.FASHION,
    teacher=BiTConfig(depths=(2, 2, 2), width=32, classes=10, channels=1, groups=8, root="small"),
    teacher_file="fashion_teacher.npz",
    teacher_sha256="adefcb8c0aa428571165469afaf0c2eb57b2968010917c2df5dfdb3d3772baa3",
    student=BiTConfig(
        depths=(2, 2), width=16, classes=10, channels=1, groups=8, pool_padding="inf"
    ),
    views=ViewConfig(size=28),
    batch_size=128,
    temperature=1.0,
    probe=ProbeConfig(batches=64, batch_size=64),
    seed=0,
    horizons=(125, 250, 500, 1000, 2000, 4000),
)


def _steps(epochs: Sequence[int], images: int, batch_size: int) -> tuple[int, ...]:
    return tuple(round(n * images / batch_size) for n in epochs)


def _r152x2(classes: int) -> BiTConfig:
    # big_vision trained and measured the published teachers. It pads the root's pool with -inf.
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
    """One of the paper's tasks, BiT-R152x2 to R50x1 (Beyer et al. 2021, section 2).

    Args:
      name: the task's name, and its data set's key in datasets.CATALOGUE.
      published: suffix of the teacher's published weights.
      epochs: the paper's training lengths, which become the horizons.
      size: height and width of a view, in pixels.
    """
    dataset = datasets.CATALOGUE[name]
    return Task(
        name=name,
        dataset=dataset,
        teacher=_r152x2(classes),
        teacher_file=f"R152x2_T_{published}",
        teacher_sha256="",
        student=choices.r50x1(classes),
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
PETS_TFRECORDS = _funmatch(
    "pet37-tfrecords", "pet128", 37, 2.0, (300, 1_000, 3_000, 10_000, 30_000)
)
FOOD = _funmatch("food101", "food128", 101, 10.0, (100, 1_000, 3_000))
SUN = _funmatch("sun397", "sun128", 397, 10.0, (100, 1_000, 3_000))
_IMAGENET = functools.partial(
    _funmatch, classes=1000, temperature=1.0, epochs=(300, 1_200, 9_600), batch_size=4096
)
IMAGENET = _IMAGENET("imagenet2012", "224", size=224)
IMAGENET_160 = dataclasses.replace(_IMAGENET("imagenet2012-160", "224", size=160), teacher_size=224)
IMAGENET_384 = dataclasses.replace(_IMAGENET("imagenet2012-384", "384", size=224), teacher_size=384)
IMAGENET_TWO = dataclasses.replace(  # averages the logits of both teachers
    _IMAGENET("imagenet2012-two", "384", size=224),
    teacher_size=384,
    more_teachers=(Teacher(_r152x2(1000), "R152x2_T_224"),),
)

CATALOGUE = {
    task.name: task
    for task in (
        DIGITS,
        FASHION,
        FLOWERS,
        PETS,
        PETS_TFRECORDS,
        FOOD,
        SUN,
        IMAGENET,
        IMAGENET_160,
        IMAGENET_384,
        IMAGENET_TWO,
    )
}

_TAKES = {
    DIGITS.name: "minutes on a laptop",
    FASHION.name: "an hour on a laptop, minutes on a GPU",
}


def takes(name: str) -> str:
    """How long a comparison on this task takes, and on what machine; "" for a plug-in's task."""
    return _TAKES.get(name, "days on an accelerator" if name in CATALOGUE else "")


def names() -> list[str]:
    """Names of the leaderboard's tasks: the built-in ones, then those of installed packages."""
    return list(dict.fromkeys([*CATALOGUE, *plug_ins.offered()]))


def get(name: str) -> Task:
    """The task called `name`, or a variation of it, such as "digits@same-ic".

    `name` is in CATALOGUE, is an entry point of an installed package, or is "module:NAME" (see
    `plug_ins`).

    Raises:
      UserError: if there is no such task or variation; suggests the nearest name.
    """
    base, at, variation = name.partition(AT)
    if (at and not variation) or not _exists(base):
        known = names()
        raise UserError(
            f"Unknown task {name!r}.{suggestion(base, known)}\nTasks: {', '.join(known)}. "
            "Your own: --task=my_module:MY_TASK"
        )
    return vary(_load(base), Variation.parse(variation))


def _exists(name: str) -> bool:
    return name in CATALOGUE or ":" in name or name in plug_ins.offered()


def _load(name: str) -> Task:
    if name in CATALOGUE:
        return CATALOGUE[name]
    return plug_ins.load_from_module(name) if ":" in name else plug_ins.load(name)
