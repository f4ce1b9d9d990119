"""Stores a trial: its records and result, its TensorBoard curves, and checkpoints of its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill_bench.tasks.task import Task
from distill_bench.training import lane_state
from distill_bench.training.events import Student
from distill_bench.training.lane_state import Saved
from sweeps.execution.export import Exporter
from sweeps.execution.tensorboard import TrialCurves
from sweeps.planning.plan import Candidate, Job
from sweeps.planning.study import Result, Status, Trial
from sweeps.results import store
from sweeps.results.outdir import make_folder, set_aside
from sweeps.results.sealed import Damaged
from sweeps.results.trial_files import CHECKPOINT, TrialWriter, misplaced

BLOWN_UP = 1.1  # final loss over the untrained one; the latter is measured on one batch only


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
        curves: Path,
        exporter: Exporter | None,
        environment: dict[str, Any],
        say: Callable[[str], None],
        resumes: bool,
        losses_compare: bool = True,
    ):
        """
        Args:
          root: folder of the results.
          candidate: the optimizer.
          trial: the trial.
          curves: folder of its TensorBoard run.
          exporter: exports its student at the end; None for no export.
          environment: versions and machine, stored with the result.
          say: shows the reason if what an interrupted run left cannot be used.
          resumes: whether to continue from the checkpoint that an earlier run left.
          losses_compare: whether training losses and probe losses are the same measure.
        """
        self._say, self._run = say, curves
        self._folder = store.study_folder(root, candidate.study) / trial.name
        study = candidate.study
        self._owner = {
            "trial": trial.id,
            "fingerprint": study.fingerprint,
            "source": study.source_sha256,
            "versions": study.versions,
        }
        self._checkpoint = self._folder / CHECKPOINT
        self._job, self._exporter = (candidate, trial), exporter
        self._environment = environment
        self._writer = TrialWriter(self._folder, trial)
        self._losses_compare = losses_compare
        make_folder(root, self._folder, say)
        try:
            if odd := misplaced(self._folder):
                raise Damaged(odd)
            self._begin(*(self._resume() if resumes else (None, [])))
        except Damaged as error:
            self._start_over(str(error))

    def refuse(self, reason: str) -> None:
        """Starts the trial from its beginning, because its checkpoint cannot be used."""
        self._start_over(f"{self._checkpoint} {reason}")

    def _start_over(self, reason: str) -> None:
        set_aside(self._folder, reason, self._say)
        self._begin(None, [])

    def _begin(self, saved: Saved | None, kept: list[dict[str, Any]]) -> None:
        """Starts the files from the checkpoint and the records up to it."""
        candidate, trial = self._job
        self.saved = saved
        self._metrics: dict[str, float] = {}
        # The first loss is measured before the first update.
        self._untrained = next(
            (record["losses"][0] for record in kept if record.get("first") == 1), None
        )
        self._writer.start(kept)
        opt = candidate.optimizer

        def learning_rate(steps: np.ndarray) -> Any:
            return opt.learning_rate(trial.hparams, opt.steps(trial.horizon), steps)

        self._curves = TrialCurves(
            self._run, candidate.study, trial, learning_rate, opt.evaluations
        )
        self._curves.replay(kept)

    def _resume(self) -> tuple[Saved | None, list[dict[str, Any]]]:
        """The checkpoint and the records up to it; (None, []) if there is none.

        Raises:
          Damaged: if they cannot be used.
        """
        candidate, trial = self._job
        if not self._checkpoint.exists():
            return None, []
        try:
            saved = lane_state.load(self._checkpoint, self._owner)
        except lane_state.BadCheckpoint as error:
            raise Damaged(str(error)) from None
        if saved.step >= (steps := candidate.optimizer.steps(trial.horizon)):
            raise Damaged(f"{self._checkpoint} is of step {saved.step} of {steps}")
        return saved, self._writer.kept(saved.step)

    def losses(self, first: int, values: Any) -> None:
        if first == 1:
            self._untrained = float(values[0])
        self._writer.losses(first, values)
        self._curves.losses(first, values)

    def point(self, step: int, metrics: dict[str, float], diagnostics: dict[str, float]) -> None:
        self._metrics = metrics
        self._writer.point(step, metrics, diagnostics)
        self._curves.point(step, metrics, diagnostics)

    def save(self, saved: Saved) -> None:
        self._writer.sync()
        lane_state.save(self._checkpoint, saved, self._owner)

    def export(self, student: Student) -> None:
        """Comes before `finish`, so that a finished trial never lacks its export. A student that is
        worse than untrained is not exported."""
        if self._exporter and not self._blown_up():
            self._exporter.export(self._job, student, self._metrics)

    def finish(self, status: Status, step: int, detail: str | None) -> tuple[Status, str | None]:
        """Stores the trial's end. Returns the status and detail that it is stored with: a run that
        ends worse than it began has diverged."""
        if status == "ok" and (reason := self._blown_up()):
            status, detail = "diverged", reason
        self._curves.finish(status == "ok")
        self._writer.finish(status, step, detail, self._environment)
        return status, detail

    def _blown_up(self) -> str | None:
        return blown_up(self._untrained, self._metrics) if self._losses_compare else None


def losses_compare(task: Task) -> bool:
    """Whether training losses and probe losses are the same measure, and the first training loss is
    an untrained student's: not with trained weights to start from."""
    return not task.start and (not task.teaching.labels or task.temperature == 1.0)


def blown_up(untrained: float | None, final: Mapping[str, float]) -> str | None:
    """Why a run with these last metrics has failed; None if it has not, or nobody knows.

    untrained: loss of the untrained student.
    """
    loss = final.get("probe_loss")
    if loss is None or untrained is None or loss <= BLOWN_UP * untrained:
        return None
    return (
        f"blown up: its final probe loss of {loss:.4g} is above the {untrained:.4g} of the "
        "untrained student"
    )


class ExportSink:
    """Exports the student of a trial that is in the store, and stores nothing.

    Attributes:
      saved: None, because such a trial has no checkpoints.
    """

    saved: Saved | None = None

    def __init__(self, exporter: Exporter, job: Job, stored: Result, say: Callable[[str], None]):
        """
        Args:
          stored: the trial's result.
          say: says so if the student's figures are not those of the result.
        """
        self._exporter, self._job, self._stored, self._say = exporter, job, stored, say
        self._metrics: dict[str, float] = {}

    def losses(self, first: int, values: Any) -> None:
        pass

    def point(self, step: int, metrics: dict[str, float], diagnostics: dict[str, float]) -> None:
        self._metrics = metrics

    def save(self, saved: Saved) -> None:
        pass

    def refuse(self, reason: str) -> None:
        pass

    def export(self, student: Student) -> None:
        if self._metrics != self._stored.final:
            self._say(
                f"{self._job[1].name}: trained again, it ends with other last digits than the "
                "stored result, which another machine or other devices computed. The card holds "
                "the figures of the exported student."
            )
        self._exporter.export(self._job, student, self._metrics)

    def finish(self, status: Status, step: int, detail: str | None) -> tuple[Status, str | None]:
        return status, detail
