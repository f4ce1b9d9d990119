"""Exports the students of final runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill_bench.errors import UserError
from distill_bench.export import write
from distill_bench.export.card import Card
from distill_bench.networks.bit import BiTConfig
from distill_bench.tasks.task import Task
from distill_bench.training.events import Student
from sweeps.planning.environment import environment
from sweeps.planning.plan import Job
from sweeps.planning.study import TUNING_SEED, Study, Trial
from sweeps.results.outdir import open_folder
from sweeps.results.store import Loaded


@dataclass(frozen=True)
class Exporter:
    """Writes students and their cards into `folder`.

    Attributes:
      folder: where they go.
      network: the network of the task's students.
      say: shows a message.
    """

    folder: Path
    network: BiTConfig
    say: Callable[[str], None]

    @classmethod
    def open(cls, folder: str, task: Task, say: Callable[[str], None]) -> Exporter:
        """Call before any training.

        Raises:
          UserError: if the folder cannot be written, or the student has no file format.
        """
        if not isinstance(task.student, BiTConfig):
            raise UserError(
                f"--export writes BiT networks, but the student of {task.name} is not a BiT: there "
                "is no format that --start and --teacher could read. Leave --export out."
            )
        return cls(open_folder(folder, "export"), task.student, say)

    def lacks(self, job: Job) -> bool:
        """Whether this final is still to be exported.

        Raises:
          UserError: if something else has the name of its file.
        """
        candidate, trial = job
        return not write.is_complete(_path(self.folder, candidate.study, trial), trial.id)

    def export(self, job: Job, student: Student, metrics: Mapping[str, float]) -> None:
        """Writes a student whose final figures are `metrics`.

        Raises:
          UserError: if something else has the name of its file.
        """
        (candidate, trial), study = job, job[0].study
        card = Card(
            task=study.task,
            fingerprint=study.fingerprint,
            optimizer=study.optimizer,
            source_sha256=study.source_sha256,
            hparams=trial.hparams,
            horizon=trial.horizon,
            seed=trial.seed,
            trial=trial.id,
            network=self.network,
            metrics=metrics,
            layout=student.layout,
            environment=environment(),
            sha256="",
        )
        path = _path(self.folder, candidate.study, trial)
        if not write.write(path, student.params, card):
            self.say(
                f"{path} is the same run with other last digits, from another machine or other "
                "devices. It is not replaced; to export this one too, name another --export."
            )


def _path(folder: Path, study: Study, trial: Trial) -> Path:
    return write.path_for(folder, study.task, study.optimizer, trial.horizon, trial.seed, trial.id)


def describe(folder: Path, studies: Sequence[Loaded]) -> str:
    """Where the students of these studies' finals are, and how to check one."""
    paths = [
        path
        for loaded in studies
        for result in loaded.results
        if result.trial.seed != TUNING_SEED and result.status == "ok"
        if (path := _path(folder, loaded.study, result.trial)).exists()
    ]
    if not paths:
        return f"No student was exported to {folder}."
    return (
        f"{len(paths)} student{'s' * (len(paths) > 1)} in {folder}. To measure one again: "
        f"python -m distill_bench.weights --check={paths[0]}"
    )
