"""Leaderboard entries: one study with all of its trials, as a committed file.

    leaderboard/digits/shampoo.json

An entry holds runs, not conclusions: rows, speed-ups and ranks are computed from its runs, as from
a store. Entries are other people's files. Each is checked against leaderboard/entry.schema.json
before it is used, and reading one never executes its code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_bench.tasks import catalogue
from sweeps.board import completeness, identity, untrusted
from sweeps.board.folder import BASELINE as BASELINE
from sweeps.board.folder import FOLDER as FOLDER
from sweeps.board.untrusted import BadFile, printable
from sweeps.planning.study import TUNING_SEED, Result, Study, Trial
from sweeps.results.store import Loaded

SCHEMA = 5
MAX_NOTICE = 4000  # characters
METRICS = ("probe_loss", "heldout_kl", "test_kl", "agreement", "accuracy")
"""The metrics at the end of a final run, which entry.schema.json names."""


class BadEntry(BadFile):
    """The file is not a valid entry; the message says why, in one line of printable text."""


@dataclass(frozen=True)
class Cost:
    """Cost of a step on the task, measured in turn with the baseline's, see step_cost.py.

    Attributes:
      step_ms: milliseconds of a student's step: its gradient and the rule's update.
      baseline_step_ms: the same with the baseline.
      teacher_ms: milliseconds of the teacher's forward pass on one batch.
      state_bytes_per_parameter: size of the rule's state in bytes per parameter.
    """

    step_ms: float
    baseline_step_ms: float
    teacher_ms: float
    state_bytes_per_parameter: float

    @property
    def relative(self) -> float:
        """The time of a whole step, with its teacher, over that of one with the baseline."""
        return (self.teacher_ms + self.step_ms) / (self.teacher_ms + self.baseline_step_ms)


@dataclass(frozen=True)
class Entry:
    """A study on the leaderboard.

    Attributes:
      study: the optimizer, its search space and the task.
      results: all runs; tuning trials have their final metrics only, final runs their curves.
      curves: (horizon, seed) -> training losses of a final run, as (steps, mean loss up to each).
      spec: the optimizer as given to --opt.
      sources: name -> text of the optimizer's file and of the files in optimizers/ that it imports.
      environment: machine and versions.
      cost: cost of the update rule; None if it was not measured.
      path: the entry's file.
      sha256: digest of the file's bytes.
      provisional: whether these are one's own runs, see provisional.py.
    """

    study: Study
    results: tuple[Result, ...]
    curves: Mapping[tuple[int, int], tuple[tuple[int, ...], tuple[float, ...]]]
    spec: str
    sources: Mapping[str, str]
    environment: Mapping[str, Any]
    cost: Cost | None
    path: Path
    sha256: str
    provisional: bool = False

    @property
    def horizons(self) -> list[int]:
        return sorted({result.trial.horizon for result in self.results})

    @property
    def declared(self) -> str:
        """The name of the function that declares the optimizer; on the page, one's own runs may
        have another name."""
        return re.split(r"[@#]| \(own\)", self.study.optimizer)[0]

    def loaded(self) -> Loaded:
        """The entry as if it came from a store."""
        sources, environment = dict(self.sources), dict(self.environment)
        return Loaded(
            self.study,
            self.path.parent,
            self.spec,
            sources,
            list(self.results),
            environment=environment,
        )


def validate(content: Any) -> None:
    """Checks an entry's content: its schema, and whether it holds what every entry must.

    Raises:
      BadEntry: names an error.
    """
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise BadEntry(f"it has schema {str(found)[:40]!r}, but this version reads {SCHEMA}")
    try:
        untrusted.check(content, "entry.schema.json")
        completeness.check(Study(**content["study"]), content["rungs"])
        completeness.check_sources(content["sources"])
    except BadFile as error:
        raise BadEntry(str(error)) from None


def read(path: Path) -> Entry:
    """Reads and checks an entry.

    Raises:
      BadEntry: if it cannot be parsed (see `untrusted.parse`), is not valid, or has another name
        than its file.
    """
    try:
        content, raw = untrusted.parse(path)
    except BadFile as error:
        raise BadEntry(str(error)) from None
    validate(content)
    study = Study(**content["study"])
    if (path.parent.name, path.name) != (study.task, f"{study.optimizer}.json"):
        raise BadEntry(f"its content is that of {study.task}/{study.optimizer}.json")
    results, curves = _results(study, content["rungs"])
    cost = Cost(**content["cost"]) if content["cost"] else None
    return Entry(
        study,
        results,
        curves,
        content["spec"],
        content["sources"],
        content["environment"],
        cost,
        path,
        hashlib.sha256(raw).hexdigest(),
    )


def _results(
    study: Study, rungs: Sequence[Mapping[str, Any]]
) -> tuple[tuple[Result, ...], dict[tuple[int, int], Any]]:
    found, curves = [], {}
    study_id = study.id
    for rung in rungs:
        horizon = rung["horizon"]
        for run in rung["tuning"]:
            points = ((run["step"], run["final"]),) if run["final"] else ()
            found.append(
                Result(
                    Trial(study_id, run["hparams"], horizon, TUNING_SEED),
                    run["status"],
                    run["step"],
                    points=points,
                )
            )
        for run in rung["finals"]:
            points = tuple(
                (point["step"], {k: v for k, v in point.items() if k != "step"})
                for point in run["points"]
            )
            found.append(
                Result(
                    Trial(study_id, rung["winner"], horizon, run["seed"]),
                    run["status"],
                    run["step"],
                    points=points,
                )
            )
            curves[horizon, run["seed"]] = (
                tuple(run["curve"]["step"]),
                tuple(run["curve"]["loss"]),
            )
    for result in found:
        needed = METRICS[:1] if result.trial.seed == TUNING_SEED else METRICS
        if result.status == "ok" and not (result.points and {*needed} <= {*result.points[-1][1]}):
            raise BadEntry(f"a run at horizon {result.trial.horizon} has status ok but no metrics")
    return tuple(found), curves


def notice(folder: Path = FOLDER) -> str:
    """What every reader of the leaderboard in `folder` should know first; "" for nothing."""
    path = folder / "notice.txt"
    if not path.is_file():
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        return printable(" ".join(file.read(MAX_NOTICE).split()))


def load(
    folder: Path = FOLDER, names: Sequence[str] | None = None, only: str | None = None
) -> tuple[list[Entry], list[str]]:
    """Loads the entries of some tasks, and a warning for each file that is not counted.

    Args:
      folder: the leaderboard's folder.
      names: names of tasks; None for all tasks.
      only: load only this optimizer; None for all optimizers.
    """
    found, warnings = [], []
    for name in sorted(catalogue.names()) if names is None else names:
        for path in sorted((folder / name).glob(f"{only or '*'}.json")):
            try:
                entry = read(path)
                study = entry.study
                if study.fingerprint != catalogue.get(name).fingerprint():
                    raise BadEntry(f"it ran on another version of the task ({study.fingerprint})")
                if reason := identity.objection(study, entry.spec, entry.sources):
                    raise BadEntry(reason)
                found.append(entry)
            except BadEntry as error:
                warnings.append(untrusted.not_counted(path, error))
    return found, warnings
