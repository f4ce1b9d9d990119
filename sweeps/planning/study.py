"""The data model of a sweep: frozen, plain, and named by the hash of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "diverged", "crashed", "timeout"]
TUNING_SEED = 0
Hparams = Mapping[str, Any]


def content_id(content: Any) -> str:
    """12 hex digits of the content's canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Study:
    """One optimizer on one task, over one space, with one version of everything that shapes a number.

    Attributes:
      task, fingerprint: the task's name and `Task.fingerprint()`.
      optimizer: the candidate's name.
      source_sha256: digest of the candidate's source.
      space: the domain of each searched hyperparameter, as plain data.
      fixed: hyperparameters set by the user.
      versions: of the packages that compute, and the platform.
    """

    task: str
    fingerprint: str
    optimizer: str
    source_sha256: str
    space: dict[str, dict[str, Any]]
    fixed: dict[str, Any]
    versions: dict[str, str]

    @property
    def id(self) -> str:
        return content_id(asdict(self))


@dataclass(frozen=True)
class Trial:
    """One training run of a study. Trials on TUNING_SEED tune; those on other seeds are finals."""

    study: str
    hparams: dict[str, Any]
    horizon: int
    seed: int

    @property
    def id(self) -> str:
        return content_id(asdict(self))

    @property
    def name(self) -> str:
        """A directory's name: horizon, hyperparameters, seed, and the start of the id."""
        values = [
            f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.hparams.items()
        ]
        text = "_".join([f"h{self.horizon}", *values, f"seed{self.seed}", self.id[:6]])
        return "".join(c if c.isalnum() or c in "._=-+" else "-" for c in text)


@dataclass(frozen=True)
class Result:
    """How a trial ended.

    Attributes:
      trial: which.
      status: "ok", "diverged" (a loss that is not finite), "crashed" (an exception of the optimizer's, or the end
        of its process) or "timeout" (no progress).
      step: where it ended.
      detail: what happened, where it did not end well.
      losses: training loss of each step.
      points: (step, metrics) along the curve; the last is the final one where `status` is "ok".
    """

    trial: Trial
    status: Status
    step: int
    detail: str | None = None
    losses: tuple[float, ...] = ()
    points: tuple[tuple[int, dict[str, float]], ...] = field(default=())

    @property
    def final(self) -> dict[str, float] | None:
        return self.points[-1][1] if self.status == "ok" else None
