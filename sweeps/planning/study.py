"""The data model of a sweep: frozen, plain data, identified by a hash of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "diverged", "crashed", "timeout"]
TUNING_SEED = 0
_LONGEST_NAME = 240  # bytes of a folder's name; file systems allow 255
Hparams = Mapping[str, Any]


def content_id(content: Any) -> str:
    """12 hex digits: the start of the SHA-256 of the content's canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def cut(text: str, size: int) -> str:
    """The start of the text, of at most `size` bytes."""
    return text.encode()[:size].decode(errors="ignore")


@dataclass(frozen=True)
class Study:
    """One optimizer on one task. Anything that could change a number is part of the study's id.

    Attributes:
      task: the task's name.
      fingerprint: the task's `Task.fingerprint()`.
      optimizer: the optimizer's name.
      source_sha256: digest of the optimizer's source.
      space: the domain of each searched hyperparameter, as plain data.
      fixed: hyperparameters set by the user.
      versions: versions of the packages that compute, and the platform.
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
    """One training run of a study. Runs on TUNING_SEED are tuning trials, the others are finals.

    Attributes:
      study: id of the study.
      hparams: hyperparameters of the run.
      horizon: gradient evaluations of the run.
      seed: random seed of the run.
    """

    study: str
    hparams: dict[str, Any]
    horizon: int
    seed: int

    @property
    def id(self) -> str:
        return content_id(asdict(self))

    @property
    def name(self) -> str:
        """Name of its folder: horizon, hyperparameters, seed, and the start of the id. Of a name
        that is too long for that, the hyperparameters are cut and the id is whole."""
        values = [
            f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.hparams.items()
        ]
        text = "_".join([f"h{self.horizon}", *values, f"seed{self.seed}", self.id[:6]])
        name = "".join(c if c.isalnum() or c in "._=-+" else "-" for c in text)
        if len(name.encode()) <= _LONGEST_NAME:
            return name
        end = f"..._seed{self.seed}_{self.id}"
        return cut(name, _LONGEST_NAME - len(end)) + end


@dataclass(frozen=True)
class Result:
    """How a trial ended.

    Attributes:
      trial: the trial.
      status: "ok", "diverged" (a loss was not finite, or the final probe loss is above that of the
        untrained student), "crashed" (the optimizer raised an exception or ended its process) or
        "timeout" (no progress).
      step: step at which it ended.
      detail: what went wrong; None if the status is "ok".
      losses: training loss of each step.
      points: (step, metrics) along the curve; if the status is "ok", the last is the final result.
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
