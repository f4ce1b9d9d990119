"""The frozen task and the catalogue of tasks."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from distill_bench.bit import BiTConfig
from distill_bench.data import Dataset
from distill_bench.errors import UserError
from distill_bench.views import MIX, MODES, Mode, ViewConfig

# Raised whenever code changes what a task computes without changing a field below.
REVISION = 1

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class ProbeConfig:
    """The fixed views on which losses are reported: `batches` of `batch_size`, each with its own mixup coefficient."""

    batches: int
    batch_size: int


@dataclass(frozen=True)
class Task:
    """Everything that a comparison of optimizers holds fixed.

    Attributes:
      name: the key in the catalogue.
      dataset: images and split.
      teacher: the teacher's network.
      teacher_file: its weights, in `distill_bench/weights`.
      teacher_sha256: digest of that file.
      student: the student's network.
      views: how views are made.
      batch_size: views of one training step.
      temperature: of the distillation loss; losses at different temperatures are not comparable.
      probe: the views on which probe and held-out loss are measured.
      seed: root of every random stream of the task, apart from a trial's own seed.
      horizons: the ladder of steps at which optimizers are compared; not part of the fingerprint.
      mode: which of views.MODES is taught; losses are reported on views of "mix" whatever it is.
    """

    name: str
    dataset: Dataset
    teacher: BiTConfig
    teacher_file: str
    teacher_sha256: str
    student: BiTConfig
    views: ViewConfig
    batch_size: int
    temperature: float
    probe: ProbeConfig
    seed: int
    horizons: tuple[int, ...]
    mode: str = MIX

    @property
    def teaching(self) -> Mode:
        return MODES[self.mode]

    def fingerprint(self) -> str:
        """16 hex digits that change with anything that changes a loss; a different fingerprint is a different leaderboard."""
        fields = dataclasses.asdict(self) | {"revision": REVISION}
        del fields["horizons"]
        if self.mode == MIX:
            del fields["mode"]  # losses of the task itself do not depend on what else could be taught
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def teacher_path(self) -> Path:
        return WEIGHTS / self.teacher_file


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

CATALOGUE = {task.name: task for task in (DIGITS,)}


_AT = "@"


def _plain(mode: str) -> str:
    """The mode in a task's name, which is also a folder's."""
    return mode.replace("/", "-")


def in_mode(task: Task, mode: str) -> Task:
    """The task with another of views.MODES taught, under a name of its own such as "digits@same-ic"; in "mix" it is the task itself.

    Raises:
      UserError: where there is no such mode.
    """
    if mode not in MODES:
        near = difflib.get_close_matches(mode, MODES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"There is no teaching mode {mode!r}.{hint}\nModes: {', '.join(MODES)}")
    return task if mode == task.mode else dataclasses.replace(task, name=f"{task.name}{_AT}{_plain(mode)}", mode=mode)


def get(name: str) -> Task:
    """The task called `name`: one of the catalogue, or one in another teaching mode, as `in_mode` names it.

    Raises:
      UserError: where there is none, with the nearest name.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    base, at, mode = name.partition(_AT)
    if at and base in CATALOGUE:
        return in_mode(CATALOGUE[base], next((known for known in MODES if _plain(known) == mode), mode))
    near = difflib.get_close_matches(name, CATALOGUE, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(f"There is no task {name!r}.{hint}\nTasks: {', '.join(CATALOGUE)}")
