"""A task: everything that a comparison of optimizers holds fixed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from distill_bench.data.dataset import AnyDataset
from distill_bench.networks import bit
from distill_bench.networks.bit import BiTConfig
from distill_bench.networks.network import NetworkConfig
from distill_bench.tasks.view_config import FINE_TUNING_MODES, MIX, MODES, Mode, ViewConfig

# Increase this when a change of the code changes what a task computes but none of its fields.
REVISION = 3


@dataclass(frozen=True)
class ProbeConfig:
    """The fixed views on which losses are reported. Each batch has its own mixup coefficient."""

    batches: int
    batch_size: int


@dataclass(frozen=True)
class Teacher:
    """A teacher network.

    Attributes:
      network: its architecture.
      file: its weights: an .npz file in distill_bench/weights, or a name for weights.lookup.
      sha256: digest of that file; empty for a published file, whose digest is recorded by the first
        download.
      size: height and width of its views, in pixels; None for the student's size. At another size
        it sees the same crop, resized separately.
    """

    network: BiTConfig
    file: str
    sha256: str = ""
    size: int | None = None


@dataclass(frozen=True)
class Task:
    """Everything that a comparison of optimizers holds fixed.

    Attributes:
      name: the key in the catalogue, or the name of a variation (see variation.py).
      dataset: images and splits.
      teacher, teacher_file, teacher_sha256, teacher_size: the first teacher, see Teacher. Without
        a teacher, for fine-tuning one, the file is "".
      student: the student's network.
      views: how views are made.
      batch_size: views in a training step.
      temperature: temperature of the distillation loss; losses at different temperatures are not
        comparable. Labels are always learned at temperature 1.
      probe: the views on which probe loss and held-out loss are measured.
      seed: seed of all random streams; each also depends on the trial's own seed.
      horizons: the ladder of steps at which optimizers are compared; not part of the fingerprint.
      mode: the teaching mode, a key of MODES or FINE_TUNING_MODES; losses are always reported on
        views of mode "mix".
      precision: data type of the networks' activations; parameters, statistics and losses are
        float32.
      synthetic: use random images and a random teacher of the real shapes.
      more_teachers: the other teachers.
      combining: how several teachers teach: "mean" averages their logits, "sum" adds up their KL
        divergences.
      start, start_sha256: name and digest of the weights that every student starts from, whatever
        its seed; "" to start from fresh weights. The classifier is fresh if the weights have
        another number of classes.
      images: data set whose images make the training views; None for `dataset`. Held-out views and
        test images always come from `dataset`.
      eval_split: split used for evaluation. "validation" for choosing hyperparameters that are
        later judged on "test".
    """

    name: str
    dataset: AnyDataset
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
    images: AnyDataset | None = None
    eval_split: Literal["test", "validation"] = "test"
    combining: Literal["mean", "sum"] = "mean"

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """The teachers that students are measured against, and learn from unless they learn from
        labels; empty when fine-tuning."""
        if not self.teacher_file:
            return ()
        return (
            Teacher(self.teacher, self.teacher_file, self.teacher_sha256, self.teacher_size),
            *self.more_teachers,
        )

    @property
    def teacher_macs(self) -> int:
        """Multiply-accumulates of all teachers' forward passes on one view of training; 0 when
        training on labels."""
        return sum(
            bit.macs(teacher.network, teacher.size or self.views.size)
            for teacher in (() if self.teaching.labels else self.teachers)
        )

    @property
    def teaching(self) -> Mode:
        """The teaching mode called `mode`."""
        return (MODES | FINE_TUNING_MODES)[self.mode]

    def fingerprint(self) -> str:
        """16 hex digits that identify the task: results compare only under the same fingerprint.

        It covers the name and sizes of a TFDS data set, but not its pixels.
        """
        fields = dataclasses.asdict(self) | {"revision": REVISION}
        del fields["horizons"]
        for field in dataclasses.fields(self):
            # Defaults are left out, so that a new field does not change the older tasks.
            if getattr(self, field.name) == field.default:
                del fields[field.name]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
