"""Where a trial's events go."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill_bench.training import lane_state
from distill_bench.training.lane_state import Saved
from sweeps.execution.tensorboard import TrialCurves
from sweeps.planning.plan import Candidate
from sweeps.planning.study import Trial
from sweeps.results import store


class TrialSink:
    """Everything that is kept of a trial: its records, its curves, and its state while it runs."""

    def __init__(
        self,
        root: Path,
        candidate: Candidate,
        trial: Trial,
        environment: dict[str, Any],
        say: Callable[[str], None],
        resumes: bool,
    ):
        """resumes: from the state that an earlier run left; `say` is told where that cannot be."""
        folder = store.study_folder(root, candidate.study) / trial.name
        study = candidate.study
        self._owner = {
            "trial": trial.id,
            "fingerprint": study.fingerprint,
            "source": study.source_sha256,
            "versions": study.versions,
        }
        self._state = folder / "state.npz"
        self._environment = environment
        self._writer = store.TrialWriter(folder, trial)
        self.saved, kept = self._resume(say) if resumes else (None, [])
        self._writer.start(kept)
        opt = candidate.optimizer
        self._curves = TrialCurves(
            folder,
            study,
            trial,
            lambda steps: opt.learning_rate(trial.hparams, opt.steps(trial.horizon), steps),
        )
        self._curves.replay(kept)

    def _resume(self, say: Callable[[str], None]) -> tuple[Saved | None, list[dict[str, Any]]]:
        if not self._state.exists():
            return None, []
        try:
            saved = lane_state.load(self._state, self._owner)
            return saved, self._writer.kept(saved.step)
        except (lane_state.BadCheckpoint, store.DamagedTrial) as error:
            aside = self._state.rename(self._state.with_name(f"refused-{time.time_ns()}.npz"))
            say(
                f"Checkpoint refused: {error}.\n  set aside as {aside}; the trial starts from its beginning."
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
        lane_state.save(self._state, saved, self._owner)

    def finish(self, status: str, step: int, detail: str | None) -> None:
        self._curves.finish(status == "ok")
        self._writer.finish(status, step, detail, self._environment)
        self._state.unlink(missing_ok=True)
