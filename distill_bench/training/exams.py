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
HELDOUT_CURVE = "curve_heldout_kl"  # the held-out KL of as many views
CURVE_VIEWS = 256  # of each kind; a point then costs less than two training steps

Exam = Literal["curve", "probe", "all"]

# What each exam reports. Tuning ends in "probe", a final run in "all".
EXAMS: dict[Exam, tuple[str, ...]] = {
    "curve": (CURVE, HELDOUT_CURVE),
    "probe": (CURVE, "probe_loss"),
    "all": (CURVE, HELDOUT_CURVE, *METRICS),
}
