"""How views are made: the teaching modes, kinds of crop, and the shape of a view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MILD = 128 / 160  # side of a mild crop, as a fraction of the image's


Crop = Literal["whole", "central", "mild", "inception"]


@dataclass(frozen=True)
class Mode:
    """What teacher and student see of an image (Beyer et al. 2021, section 3.1.1).

    Attributes:
      teacher, student: how each one's view is cropped.
      same: the student sees the teacher's very view; else each has a view of its own.
      mixup: mix each view with its neighbour in the batch.
      ensemble: the teacher's answer is its mean prediction over so many of its crops, computed once for each image.
      labels: the answer is the image's label, and there is no teacher.
      alpha: of the Beta distribution of mixup's coefficients; 1 is uniform.
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
                f"one view cannot be cropped in two ways, {self.teacher} and {self.student}"
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
}
"""The paper's teaching modes. "mix" is FunMatch, and the only one whose losses a leaderboard compares."""


LABEL_MODES = {
    "labels": Mode("mild", "mild", same=True, labels=True),
    "labels/mixup": Mode("mild", "mild", same=True, mixup=True, labels=True, alpha=0.1),
}
"""How teachers are fine-tuned (Kolesnikov et al. 2020, arXiv:1912.11370, section 3.3); no student of a comparison is taught so."""


@dataclass(frozen=True)
class ViewConfig:
    """How a view is made.

    Attributes:
      size: height and width of a view, in pixels.
      min_area: smallest area of an inception crop, as a fraction of the image; the largest is 1.
      aspect: smallest and largest width over height of a crop.
      flip: mirror each image left to right with probability one half (a mirrored 2 is no digit).
      mixup: mix each image with its neighbour in the batch.
    """

    size: int
    min_area: float = 0.05
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    mixup: bool = True
