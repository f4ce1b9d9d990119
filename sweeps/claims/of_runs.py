"""Claims that need runs of their own, on digits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sweeps.claims import scales, teaching
from sweeps.claims.experiments import Runs
from sweeps.claims.finding import Finding
from sweeps.claims.repetition import repetition

EXPERIMENTS: Mapping[str, Callable[[Runs], Finding]] = {
    "repetition": repetition,
    "modes": teaching.modes,
    "mixup": teaching.mixup,
    "images": teaching.images,
    "start": teaching.start,
    "overfitting": teaching.overfitting,
    "width": scales.width,
    "batch": scales.batch,
}
