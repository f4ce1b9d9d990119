"""Claims that the leaderboards' entries test; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sweeps.claims import gains, reach
from sweeps.claims.finding import Finding
from sweeps.claims.measures import Boards

CLAIMS: Mapping[str, Callable[[Boards], Finding]] = {
    "patience": gains.patience,
    "quarter": gains.quarter,
    "validity": gains.validity,
    "length": reach.length,
    "tasks": reach.tasks,
    "published": reach.published,
}
