"""Measures an exported student again and compares the figures with its card's."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import jax

from distill_bench.errors import UserError
from distill_bench.export import card as cards
from distill_bench.export.card import BadCard, Card
from distill_bench.tasks import catalogue
from distill_bench.tasks.task import Task
from distill_bench.tasks.variation import AT
from distill_bench.training.engine import open_engine
from distill_bench.training.lane_layout import make_layouts
from distill_bench.weights import files

_PACKAGES = ("distill-bench", "jax", "jaxlib", "numpy")  # what the last digits depend on


@dataclass(frozen=True)
class Student:
    """An exported student: the bytes of its .npz, and its card, whose digest they have."""

    path: Path
    content: bytes
    card: Card


def load(path: Path) -> Student:
    """The student at `path`, an .npz with its card beside it. Computes nothing.

    Raises:
      UserError: if a file is missing or damaged, or the .npz is not the one that the card names.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"--check={path} cannot be read: {error.strerror}.\n"
            "Name a student that sweeps/run.py --export=DIR has written."
        ) from None
    card_path = cards.path_of(path)
    if not card_path.exists():
        raise UserError(
            f"{path} has no card: {card_path} does not exist.\n"
            "--check compares a student with the figures on the card that sweeps/run.py "
            "--export=DIR writes beside it. Copy both files; other weights have no card."
        )
    try:
        card = cards.read(card_path)
    except BadCard as error:
        raise UserError(f"{card_path} {error}.\nCopy the card again, or export again.") from None
    if (found := hashlib.sha256(content).hexdigest()) != card.sha256:
        raise UserError(
            f"{path} is not the file that its card describes: sha256 {found[:16]}…, on the card "
            f"{card.sha256[:16]}….\nCopy both files again, or export again."
        )
    return Student(path, content, card)


def task_of(card: Card, name: str | None) -> Task:
    """The task on which the student is measured: the one called `name`, else the card's.

    From a card, only built-in tasks and their variations are taken: any other name would run code
    that the card's author chose.

    Raises:
      UserError: if there is no such task, or it is not the one that the student was trained on.
    """
    if name is None and card.task.partition(AT)[0] not in catalogue.CATALOGUE:
        raise UserError(
            f"The student's task, {card.task!r}, is not built in. If you trust its code, name the "
            f"task yourself: --task={card.task}"
        )
    task = catalogue.get(name or card.task)
    if task.fingerprint() != card.fingerprint:
        raise UserError(
            f"The student was trained on {card.task} with fingerprint {card.fingerprint}; here, "
            f"{task.name} has {task.fingerprint()}: it is another task, whose figures do not "
            "compare.\nCheck it with the files that its task names and with the version of "
            f"distill-bench that exported it: {card.environment.get('distill-bench', 'unknown')}."
        )
    if task.student != card.network:
        raise UserError(
            f"The card's network is not the student of {task.name}: {card.network}; expected "
            f"{task.student}.\nCopy the card again, or export again."
        )
    return task


def measure(student: Student, task: Task) -> dict[str, float]:
    """The student's metrics, by the program that measures it in a sweep of the card's layout.

    If this machine lacks the devices that shared a batch there, one device measures.

    Raises:
      UserError: if the .npz does not hold the task's network, or the task cannot be opened.
    """
    params = files.read(student.path, student.card.network, student.content)[0]
    options = student.card.layout
    if jax.default_backend() != "cpu" and len(jax.devices()) < (options.devices or 1):
        options = dataclasses.replace(options, devices=1, batch_shards=1)
    return open_engine(task, *make_layouts(options)).measure(params)


def describe(student: Student, metrics: dict[str, float]) -> str:
    """What the card says about the run, and its figures beside those of `measure`."""
    card = student.card
    hparams = ", ".join(f"{name}={value}" for name, value in card.hparams.items())
    rows = [
        ("file", str(student.path)),
        ("task", f"{card.task} ({card.fingerprint})"),
        ("optimizer", f"{card.optimizer}({hparams})"),
        ("run", f"{card.horizon:,} gradient evaluations, seed {card.seed}"),
        ("", f"{'card':22}here"),
        *((name, f"{card.metrics.get(name, '-')!s:22}{metrics[name]}") for name in metrics),
    ]
    return "\n".join(f"{key:13} {value}".rstrip() for key, value in rows)


def differences(card: Card, metrics: dict[str, float]) -> str | None:
    """Which figures differ from the card's, and what may be the cause; None if all are equal."""
    differing = sorted(
        name
        for name in metrics.keys() | card.metrics.keys()
        if metrics.get(name) != card.metrics.get(name)
    )
    if not differing:
        return None
    here = _environment()
    causes = [
        f"{name} {card.environment.get(name, 'unknown')} there, {value} here"
        for name, value in here.items()
        if card.environment.get(name) != value
    ]
    why = "; ".join(causes) or (
        "versions are the same, so the processor, the number of devices or XLA_FLAGS is not"
    )
    return (
        f"{', '.join(differing)}: not the card's figures. The parameters are those of the card.\n"
        f"Another machine or other versions compute other last digits: {why}."
    )


def _environment() -> dict[str, str]:
    """The present versions and device, by their names on a card."""
    versions = {name: metadata.version(name) for name in _PACKAGES}
    return versions | {
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
    }
