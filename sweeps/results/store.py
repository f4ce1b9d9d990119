"""Append-only results on disk, from which every table is made.

    runs/digits/shampoo-3f2a1b9c4d5e/study.json
    runs/digits/shampoo-3f2a1b9c4d5e/h250_lr=0.05_seed0_1a2b3c/{records.jsonl,result.json}

`records.jsonl` grows while the trial runs. `result.json` is written at once when the trial ends.
A trial without a result is not counted and runs again. A finished trial with unreadable files is
reported, never skipped silently.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distill_bench.errors import UserError
from distill_bench.files import FileInUse, locked_file, replace_atomically
from sweeps.planning.study import Result, Study, Trial


class DamagedTrial(Exception):
    """The files of a finished trial cannot be read; the message names them and the reason."""


def write_atomically(path: Path, content: str) -> None:
    """Replaces a file in one step: a crash leaves either the old or the new content."""
    replace_atomically(path, lambda file: file.write(content.encode()))


@contextmanager
def locked(root: Path, shard: str = "", patience: float = 5.0) -> Iterator[None]:
    """Holds the output folder for one sweep, or for one shard of it; other shards may hold it too.

    patience: seconds to wait for another process: one that was just killed may not be gone yet.

    Raises:
      UserError: if another process holds the folder; says which one.
    """
    with ExitStack() as stack:
        try:
            own = stack.enter_context(
                locked_file(root / ".lock", shared=bool(shard), patience=patience)
            )
            if shard:
                path = root / f".lock-{shard.replace('/', '-of-')}"
                own = stack.enter_context(locked_file(path, patience=patience))
        except FileInUse as owner:
            raise UserError(
                f"{root} is in use by {owner}.\n"
                "Wait for it to end, stop it, or name another --outdir."
            ) from None
        own.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        own.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        own.flush()
        yield


def open_folder(path: str, flag: str = "outdir") -> Path:
    """Returns the folder given as --flag and creates it if missing.

    Raises:
      UserError: if it is a file or cannot be written.
    """
    root = Path(path)
    if root.exists() and not root.is_dir():
        raise UserError(f"--{flag}={path} is a file. Name a folder; it is created if missing.")
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"--{flag}={path} cannot be written: {error.strerror}.\nName another folder."
        ) from None
    return root


@dataclass(frozen=True)
class TrialWriter:
    """Writes one trial's files while it runs.

    It keeps no file open, because a sweep may have a thousand lanes.
    """

    folder: Path
    trial: Trial

    @property
    def _records(self) -> Path:
        return self.folder / "records.jsonl"

    def start(self, kept: Sequence[dict[str, Any]] = ()) -> None:
        """Starts the records with those `kept` from an interrupted run.

        What that run wrote after them is written again, bit for bit the same.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        records = [{"trial": asdict(self.trial)}, *kept]
        write_atomically(self._records, "".join(json.dumps(record) + "\n" for record in records))

    def kept(self, step: int) -> list[dict[str, Any]]:
        """The records of the first `step` steps of an interrupted run.

        Its last line may be cut short; that line is never among them.

        Raises:
          DamagedTrial: if records of these steps are missing or unreadable.
        """
        records: list[dict[str, Any]] = []
        try:
            for line in self._records.read_text().split("\n")[1:-1]:
                record = json.loads(line)
                losses = record.get("losses", ())
                if (
                    record.get("first", 0) + len(losses) - 1 <= step
                    and record.get("step", 0) <= step
                ):
                    records.append(record)
        except (OSError, ValueError) as error:
            raise DamagedTrial(f"{self._records} cannot be read: {error}") from None
        if (found := sum(len(record.get("losses", ())) for record in records)) != step:
            raise DamagedTrial(
                f"{self._records} holds {found} steps, but {step} steps were checkpointed."
            )
        return records

    def sync(self) -> None:
        """Waits until the records are on disk."""
        with open(self._records, "a") as file:
            os.fsync(file.fileno())

    def _append(self, record: dict[str, Any]) -> None:
        with open(self._records, "a") as file:
            file.write(json.dumps(record) + "\n")

    def losses(self, first: int, values: np.ndarray) -> None:
        self._append({"first": first, "losses": values.tolist()})

    def point(
        self, step: int, metrics: dict[str, float], diagnostics: dict[str, float] | None = None
    ) -> None:
        self._append(
            {
                "step": step,
                "metrics": metrics,
                **({"diagnostics": diagnostics} if diagnostics else {}),
            }
        )

    def finish(
        self, status: str, step: int, detail: str | None, environment: dict[str, Any]
    ) -> None:
        records = [json.loads(line) for line in self._records.read_text().splitlines()[1:]]
        # The same bytes, wherever the run was interrupted and whatever ran beside it.
        self.start(_in_blocks(records))
        end = {
            "trial": asdict(self.trial),
            "status": status,
            "step": step,
            "detail": detail,
            "environment": environment,
        }
        write_atomically(self.folder / "result.json", json.dumps(end, indent=1))


def _in_blocks(records: Sequence[dict[str, Any]], size: int = 100) -> list[dict[str, Any]]:
    """The same records with `size` losses a line; each point follows the line with its step."""
    losses = [value for record in records for value in record.get("losses", ())]
    blocks = [{"first": i + 1, "losses": losses[i : i + size]} for i in range(0, len(losses), size)]
    points = [record for record in records if "metrics" in record]
    return sorted(
        [*blocks, *points],
        key=lambda record: record["step"] if "step" in record else record["first"] - 0.5,
    )


@dataclass
class Loaded:
    """A study and its finished trials.

    Attributes:
      study: the optimizer, its search space and the task.
      folder: the study's folder.
      spec: the optimizer as given to --opt.
      sources: name -> text of the optimizer's file and of the files in optimizers/ that it imports,
        as they were when it ran.
      results: the finished trials.
      problems: trial folders that cannot be read, each with the reason.
      environment: machine and versions of the last trial.
    """

    study: Study
    folder: Path
    spec: str
    sources: dict[str, str]
    results: list[Result] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)


def study_folder(root: Path, study: Study) -> Path:
    return root / study.task / f"{study.optimizer}-{study.id}"


def save_study(root: Path, study: Study, spec: str, sources: Mapping[str, str]) -> Path:
    """Creates the study's folder with the study, its --opt value and its source files."""
    folder = study_folder(root, study)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "study.json").exists():
        write_atomically(
            folder / "study.json",
            json.dumps(asdict(study) | {"spec": spec, "sources": dict(sources)}, indent=1),
        )
    return folder


def _parse(path: Path) -> list[Any]:
    lines = path.read_text().split("\n")
    if lines[-1]:
        raise DamagedTrial(f"{path}: line {len(lines)} is cut short.")
    records = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise DamagedTrial(f"{path}: line {number} is not JSON.") from None
    return records


def load_trial(folder: Path) -> tuple[Result, dict[str, Any]] | None:
    """A finished trial and its environment; None for an unfinished trial.

    Raises:
      DamagedTrial: if the trial has finished and its files cannot be read.
    """
    if not (folder / "result.json").exists():
        return None
    try:
        end = json.loads((folder / "result.json").read_text())
        trial = Trial(**end["trial"])
        header, *records = _parse(folder / "records.jsonl")
        if header["trial"] != end["trial"]:
            raise DamagedTrial(
                f"{folder / 'records.jsonl'} belongs to another trial than result.json."
            )
        losses = tuple(value for record in records for value in record.get("losses", ()))
        points = tuple(
            (record["step"], record["metrics"]) for record in records if "metrics" in record
        )
        complete = end["status"] != "ok" or (
            0 < end["step"] <= trial.horizon
            and len(losses) == end["step"]
            and points
            and points[-1][0] == end["step"]
        )
        if not complete:
            raise DamagedTrial(
                f"{folder / 'records.jsonl'} lacks records: "
                f"it has {len(losses)} of {end['step']} losses."
            )
        return Result(trial, end["status"], end["step"], end["detail"], losses, points), end[
            "environment"
        ]
    except DamagedTrial:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DamagedTrial(f"{folder}: {type(error).__name__}: {error}") from None


def load_study(folder: Path) -> Loaded:
    """A study with all its finished trials, ordered by name."""
    content = json.loads((folder / "study.json").read_text())
    spec, sources = content.pop("spec"), content.pop("sources")
    loaded = Loaded(Study(**content), folder, spec, sources)
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            if found := load_trial(path):
                loaded.results.append(found[0])
                loaded.environment = found[1]
        except DamagedTrial as error:
            loaded.problems.append((path, str(error)))
    return loaded


def load(root: Path, tasks: Iterable[str] | None = None) -> list[Loaded]:
    """All studies under `root`, ordered by task and optimizer.

    Args:
      root: the folder given as --outdir.
      tasks: load only studies of these tasks; None for all.

    Raises:
      UserError: if `root` is not a folder or holds an unreadable study.json.
    """
    if not root.is_dir():
        raise UserError(
            f"--outdir={root} is not a folder. Run a sweep first, for example "
            f"python sweeps/run.py --opt=shampoo --outdir={root}"
        )
    studies = []
    for path in sorted(root.glob("*/*/study.json")):
        try:
            loaded = load_study(path.parent)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"{path} cannot be read ({type(error).__name__}: {error}).\n"
                "Restore the file, or move its folder away."
            ) from None
        if tasks is None or loaded.study.task in tasks:
            studies.append(loaded)
    return studies


def merge(loaded: Sequence[Loaded]) -> list[Loaded]:
    """Merges studies of the same id from several stores; a trial in several counts once."""
    merged: dict[str, Loaded] = {}
    for one in loaded:
        whole = merged.setdefault(
            one.study.id,
            Loaded(one.study, one.folder, one.spec, one.sources, environment=one.environment),
        )
        known = {result.trial.id for result in whole.results}
        whole.results += [result for result in one.results if result.trial.id not in known]
        whole.problems += one.problems
    return list(merged.values())


def set_aside(folder: Path) -> Path:
    """Moves a damaged trial's folder aside so that the trial can run again; deletes nothing."""
    aside = folder.parent / "damaged"
    aside.mkdir(exist_ok=True)
    number = next(n for n in range(10**6) if not (aside / f"{folder.name}.{n}").exists())
    return folder.rename(aside / f"{folder.name}.{number}")
