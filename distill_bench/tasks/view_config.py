"""Settings of the views: teaching modes, kinds of crop, sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MILD = 128 / 160  # height and width of a mild crop, as a fraction of the image's

Crop = Literal["whole", "central", "mild", "inception"]


@dataclass(frozen=True)
class Mode:
    """What teacher and student see of an image (Beyer et al. 2021, section 3.1.1).

    Attributes:
      teacher, student: kind of crop that each one sees.
      same: teacher and student see the same view; otherwise each sees its own.
      mixup: mix each view with its neighbour in the batch.
      ensemble: number of crops over which the teacher's predictions are averaged, once per image;
        0 to ask the teacher at every step.
      labels: train on the images' labels instead of a teacher's predictions.
      alpha: parameter of the Beta(alpha, alpha) distribution of mixup coefficients; 1 is uniform.
    """

    teacher: Crop
    student: Crop
    same: bool = False
    mixup: bool = False
    ensemble: int = 0
    labels: bool = False
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.same and self.teacher != self.student:
            raise ValueError(
                f"same=True needs one kind of crop, got {self.teacher} and {self.student}"
            )


MIX = "mix"

MODES = {
    "fix/rs": Mode("whole", "whole", same=True),
    "fix/cc": Mode("central", "mild"),
    "fix/ic_ens": Mode("inception", "inception", ensemble=1000),
    "ind/rc": Mode("mild", "mild"),
    "ind/ic": Mode("inception", "inception"),
    "same/rc": Mode("mild", "mild", same=True),
    "same/ic": Mode("inception", "inception", same=True),
    MIX: Mode("inception", "inception", same=True, mixup=True),
    "labels": Mode("inception", "inception", same=True, mixup=True, labels=True),
}
"""The paper's teaching modes. "mix" is FunMatch, the only mode that has a leaderboard. "labels" is
the reference without distillation: the views of "mix", and their mixed labels instead of the
teacher's predictions. Its student is still measured against the teacher."""

FINE_TUNING_MODES = {
    "fine-tuning": Mode("mild", "mild", same=True, labels=True),
    "fine-tuning/mixup": Mode("mild", "mild", same=True, mixup=True, labels=True, alpha=0.1),
}
"""Modes for fine-tuning a teacher (Kolesnikov et al. 2020, arXiv:1912.11370, section 3.3). They are
not for comparing optimizers."""


@dataclass(frozen=True)
class ViewConfig:
    """How a view is made.

    Attributes:
      size: height and width of a view, in pixels.
      min_area: smallest area of an inception crop, as a fraction of the image; the largest is 1.
      aspect: smallest and largest ratio of an inception crop's width to its height, the released
        code's.
      flip: mirror each image left to right with probability 1/2 (not for digits: a mirrored 2 is
        not a digit).
      mixup: mix each image with its neighbour in the batch.
    """

    size: int
    min_area: float = 0.05
    aspect: tuple[float, float] = (0.75, 1.33)
    flip: bool = True
    mixup: bool = True
