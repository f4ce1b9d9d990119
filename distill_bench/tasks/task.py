"""The frozen task."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from distill_bench.data.dataset import Dataset, TfdsDataset
from distill_bench.networks import bit
from distill_bench.networks.bit import BiTConfig
from distill_bench.networks.network import NetworkConfig
from distill_bench.tasks.view_config import LABEL_MODES, MIX, MODES, Mode, ViewConfig

# Raised whenever code changes what a task computes without changing a field below.
REVISION = 1


@dataclass(frozen=True)
class ProbeConfig:
    """The fixed views on which losses are reported: `batches` of `batch_size`, each with its own mixup coefficient."""

    batches: int
    batch_size: int


@dataclass(frozen=True)
class Teacher:
    """A network that answers.

    Attributes:
      network: its architecture.
      file: its weights: an .npz in `distill_bench/weights`, or the name of weights, as pretrained.find has it.
      sha256: digest of that file; empty for a published one, whose digest is recorded when it is first fetched.
      size: height and width of the views that it sees, in pixels; None for the student's. Both are of the same crop, resized apart.
    """

    network: BiTConfig
    file: str
    sha256: str = ""
    size: int | None = None


@dataclass(frozen=True)
class Task:
    """Everything that a comparison of optimizers holds fixed.

    Attributes:
      name: the key in the catalogue, or that of a variation (see `vary`).
      dataset: images and split.
      teacher, teacher_file, teacher_sha256, teacher_size: the first of `teachers`, see Teacher.
      student: the student's network.
      views: how views are made.
      batch_size: views of one training step.
      temperature: of the distillation loss; losses at different temperatures are not comparable.
      probe: the views on which probe and held-out loss are measured.
      seed: root of every random stream of the task, apart from a trial's own seed.
      horizons: the ladder of steps at which optimizers are compared; not part of the fingerprint.
      mode: which of views.MODES is taught; losses are reported on views of "mix" whatever it is.
      precision: of the networks' activations; parameters, statistics and losses are float32.
      synthetic: random images and teacher of the real shapes.
      more_teachers: whose logits are averaged with the first's.
      start, start_sha256: the weights that every student starts from, whatever the seed, as Teacher has them, and their digest; its classifier is fresh
        where theirs is of another number of classes. "" for fresh students.
      images: another data set, of whose images the training views are made; None for `dataset`. Held-out views and test images are always of `dataset`.
      eval_split: the split that stands for the test images; hyperparameters that are to be judged on those are chosen on "validation".
    """

    name: str
    dataset: Dataset | TfdsDataset
    teacher: BiTConfig
    teacher_file: str
    teacher_sha256: str
    student: NetworkConfig
    views: ViewConfig
    batch_size: int
    temperature: float
    probe: ProbeConfig
    seed: int
    horizons: tuple[int, ...]
    mode: str = MIX
    precision: Literal["float32", "bfloat16"] = "float32"
    synthetic: bool = False
    teacher_size: int | None = None
    more_teachers: tuple[Teacher, ...] = ()
    start: str = ""
    start_sha256: str = ""
    images: Dataset | TfdsDataset | None = None
    eval_split: Literal["test", "validation"] = "test"

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """Whose mean logits are the answer; none where that is the label."""
        if self.teaching.labels:
            return ()
        return (
            Teacher(self.teacher, self.teacher_file, self.teacher_sha256, self.teacher_size),
            *self.more_teachers,
        )

    @property
    def teacher_macs(self) -> int:
        """Multiply-accumulates of all teachers' forward passes on one view."""
        return sum(bit.macs(it.network, it.size or self.views.size) for it in self.teachers)

    @property
    def teaching(self) -> Mode:
        return (MODES | LABEL_MODES)[self.mode]

    def fingerprint(self) -> str:
        """16 hex digits that change with everything that the task names; a different fingerprint is a different leaderboard.

        A data set of TFDS is named and counted: its images are taken for those of that name.
        """
        fields = dataclasses.asdict(self) | {"revision": REVISION}
        del fields["horizons"]
        for field in dataclasses.fields(
            self
        ):  # a field that is new and at its default changes no task that was there before
            if getattr(self, field.name) == field.default:
                del fields[field.name]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
