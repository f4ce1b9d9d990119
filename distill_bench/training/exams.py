"""What is reported of a student, and when how much of it."""

from __future__ import annotations

from typing import Literal

METRICS = (
    "probe_loss",
    "heldout_kl",
    "test_kl",
    "agreement",
    "accuracy",
    "agreement5",
    "label_xent",
    "euclidean",
)
CURVE = "curve_loss"  # the probe loss of a few views, for points along a curve
CURVE_VIEWS = 256  # a point then costs less than a training step

Exam = Literal["curve", "probe", "all"]

# What each exam reports. Tuning ends in "probe", a final run in "all".
EXAMS: dict[Exam, tuple[str, ...]] = {
    "curve": (CURVE,),
    "probe": (CURVE, "probe_loss"),
    "all": (CURVE, *METRICS),
}
