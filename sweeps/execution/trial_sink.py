"""Stores a trial: its records and result, its TensorBoard curves, and checkpoints of its state."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from distill_bench.training import lane_state
from distill_bench.training.lane_state import Saved
from sweeps.execution.tensorboard import TrialCurves
from sweeps.planning.plan import Candidate
from sweeps.planning.study import Trial
from sweeps.results import store


class TrialSink:
    """Everything that is stored of a trial: its records, its curves, and its state while it runs.

    Attributes:
      saved: the state to continue from; None to start from the beginning.
    """

    def __init__(
        self,
        root: Path,
        candidate: Candidate,
        trial: Trial,
        environment: dict[str, Any],
        say: Callable[[str], None],
        resumes: bool,
    ):
        """
        Args:
          root: folder of the results.
          candidate: the optimizer.
          trial: the trial.
          environment: versions and machine, stored with the result.
          say: shows the reason if a checkpoint is refused.
          resumes: whether to continue from the checkpoint that an earlier run left.
        """
        folder = store.study_folder(root, candidate.study) / trial.name
        study = candidate.study
        self._owner = {
            "trial": trial.id,
            "fingerprint": study.fingerprint,
            "source": study.source_sha256,
            "versions": study.versions,
        }
        self._checkpoint = folder / "state.npz"
        self._environment = environment
        self._writer = store.TrialWriter(folder, trial)
        self.saved, kept = self._resume(say) if resumes else (None, [])
        self._writer.start(kept)
        opt = candidate.optimizer

        def learning_rate(steps: np.ndarray) -> Any:
            return opt.learning_rate(trial.hparams, opt.steps(trial.horizon), steps)

        self._curves = TrialCurves(folder, study, trial, learning_rate)
        self._curves.replay(kept)

    def _resume(self, say: Callable[[str], None]) -> tuple[Saved | None, list[dict[str, Any]]]:
        """The checkpoint and the records up to it; (None, []) if none can be used."""
        if not self._checkpoint.exists():
            return None, []
        try:
            saved = lane_state.load(self._checkpoint, self._owner)
            return saved, self._writer.kept(saved.step)
        except (lane_state.BadCheckpoint, store.DamagedTrial) as error:
            refused = self._checkpoint.with_name(f"refused-{time.time_ns()}.npz")
            self._checkpoint.rename(refused)
            say(
                f"Checkpoint refused: {error}.\n"
                f"  set aside as {refused}; the trial starts from its beginning."
            )
            return None, []

    def losses(self, first: int, values: Any) -> None:
        self._writer.losses(first, values)
        self._curves.losses(first, values)

    def point(self, step: int, metrics: dict[str, float], diagnostics: dict[str, float]) -> None:
        self._writer.point(step, metrics, diagnostics)
        self._curves.point(step, metrics, diagnostics)

    def save(self, saved: Saved) -> None:
        self._writer.sync()
        lane_state.save(self._checkpoint, saved, self._owner)

    def finish(self, status: str, step: int, detail: str | None) -> None:
        self._curves.finish(status == "ok")
        self._writer.finish(status, step, detail, self._environment)
        self._checkpoint.unlink(missing_ok=True)
