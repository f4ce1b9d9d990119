"""Where TensorBoard finds a trial: folders whose names it shows as the runs' names.

    runs/tensorboard/digits/finals/h250/adamw/seed1        and  .../mean, their mean
    runs/tensorboard/digits/tuning/h250/adamw/lr=0.04,b2=0.99,1a2b3c

Final runs and tuning trials are apart, because TensorBoard shows no curve at first if it finds more
than 40 runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_bench.files import write_atomically
from sweeps.planning.study import TUNING_SEED, Study, Trial, cut

MEAN = "mean"
_NAMES = "names.json"  # study id -> the name of its folders
_LONGEST = 200  # bytes of a folder's name; file systems allow 255


def folder_of(root: Path, task: str) -> Path:
    """The folder of one task's curves, in the folder of the results."""
    return root / "tensorboard" / task


@dataclass(frozen=True)
class Runs:
    """The folders of one study.

    Attributes:
      folder: of the task's curves.
      name: of the study in it: the optimizer's name, alone for the first study that has it.
    """

    folder: Path
    name: str

    def of_trial(self, trial: Trial) -> Path:
        if trial.seed != TUNING_SEED:
            return self.of_finals(trial.horizon) / f"seed{trial.seed}"
        values = [f"{name}={_short(value)}" for name, value in trial.hparams.items()]
        text = ",".join([*values, trial.id[:6]])
        safe = "".join(c if c.isalnum() or c in "._=-+," else "-" for c in text)
        return self.folder / "tuning" / f"h{trial.horizon}" / self.name / cut(safe, _LONGEST)

    def of_finals(self, horizon: int) -> Path:
        """The folder that holds the final runs at one horizon, and their mean."""
        return self.folder / "finals" / f"h{horizon}" / self.name


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def assign(root: Path, studies: Sequence[Study]) -> dict[str, Runs]:
    """Study id -> its folders. A study keeps the name that it once had."""
    found: dict[str, Runs] = {}
    for task in dict.fromkeys(study.task for study in studies):
        folder, own = folder_of(root, task), [study for study in studies if study.task == task]
        names = _known(folder / _NAMES)
        before = dict(names)
        for study in own:
            if names.get(study.id) not in (choices := _choices(study)):
                free = (name for name in choices if name not in names.values())
                names[study.id] = next(free, choices[-1])
        if names != before:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / _NAMES, json.dumps(names, indent=1) + "\n")
        found |= {study.id: Runs(folder, names[study.id]) for study in own}
    return found


def _choices(study: Study) -> list[str]:
    """The names that a study may have; the last one is its own alone."""
    name, source = cut(study.optimizer, _LONGEST), study.source_sha256[:6]
    return [name, f"{name}@{source}", f"{name}@{source}-{study.id}"]


def _known(path: Path) -> dict[str, str]:
    """The names that are given already; none if the file is missing or damaged, because curves are
    for looking at and hold nothing that the store lacks."""
    try:
        content: Mapping[str, Any] = json.loads(path.read_text())
        return {str(id): str(name) for id, name in content.items()}
    except (OSError, ValueError, AttributeError):
        return {}
