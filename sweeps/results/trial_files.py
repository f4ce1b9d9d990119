"""The files of one trial.

    h250_lr=0.05_seed0_1a2b3c/{records.jsonl,result.json}

`records.jsonl` grows while the trial runs. `result.json` is written at once when the trial ends,
with a digest of both files. A trial without a result is not counted and runs again. A finished
trial whose files cannot be read, or were changed, is reported, never skipped silently.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill_bench.files import remove_abandoned, write_atomically
from sweeps.planning.study import Result, Trial
from sweeps.results import sealed
from sweeps.results.sealed import Damaged

_RECORDS, _RESULT, CHECKPOINT = "records.jsonl", "result.json", "state.npz"
_NAMES = frozenset({"trial", "status", "step", "detail", "environment"})  # of what a result says


@dataclass(frozen=True)
class TrialWriter:
    """Writes one trial's files while it runs.

    It keeps no file open, because a sweep may have a thousand lanes.
    """

    folder: Path
    trial: Trial

    @property
    def _records(self) -> Path:
        return self.folder / _RECORDS

    def start(self, kept: Sequence[dict[str, Any]] = ()) -> None:
        """Starts the records with those `kept` from an interrupted run.

        What that run wrote after them is written again, bit for bit the same. An earlier result,
        of a crash, goes first: it does not belong to the records that follow.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / _RESULT).unlink(missing_ok=True)
        self._rewrite(kept)

    def _rewrite(self, records: Sequence[dict[str, Any]]) -> str:
        lines = [{"trial": asdict(self.trial)}, *records]
        content = "".join(json.dumps(line) + "\n" for line in lines)
        write_atomically(self._records, content)
        return content

    def kept(self, step: int) -> list[dict[str, Any]]:
        """The records of the first `step` steps of an interrupted run, in the order of the steps.

        Its last line may be cut short; that line is never among them.

        Raises:
          Damaged: if records of these steps are missing or unreadable.
        """
        try:
            header, *records = map(json.loads, self._records.read_text().split("\n")[:-1])
            if header != {"trial": asdict(self.trial)}:
                raise Damaged(f"{self._records} belongs to another trial")
            losses, points = _losses(records), [record for record in records if "step" in record]
            if len(losses) < step:
                raise Damaged(
                    f"{self._records} holds {len(losses)} of the {step} steps that were "
                    "checkpointed"
                )
            return _in_order(losses[:step], [point for point in points if point["step"] <= step])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{self._records} cannot be read: {error}") from None

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
        """Writes the result. If the process is killed before, `kept` can read the records still."""
        records = [json.loads(line) for line in self._records.read_text().splitlines()[1:]]
        # The same bytes, wherever the run was interrupted and whatever ran beside it.
        content = self._rewrite(_in_blocks(records))
        end = {
            "trial": asdict(self.trial),
            "status": status,
            "step": step,
            "detail": detail,
            "environment": environment,
        }
        sealed.write(self.folder / _RESULT, end, content.encode())
        tidy(self.folder)


def _losses(records: Sequence[dict[str, Any]]) -> list[float]:
    return [value for record in records for value in record.get("losses", ())]


def _in_order(losses: Sequence[float], points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records in the order in which a run writes them: each point after its step's loss."""
    ends = [0, *sorted({point["step"] for point in points} | {len(losses)})]
    records: list[dict[str, Any]] = []
    for start, end in itertools.pairwise(ends):
        if start < end:
            records.append({"first": start + 1, "losses": list(losses[start:end])})
        records += [point for point in points if point["step"] == end]
    return records


def _in_blocks(records: Sequence[dict[str, Any]], size: int = 100) -> list[dict[str, Any]]:
    """The same records with `size` losses a line; each point follows the line with its step."""
    losses = _losses(records)
    blocks = [{"first": i + 1, "losses": losses[i : i + size]} for i in range(0, len(losses), size)]
    points = [record for record in records if "metrics" in record]
    return sorted(
        [*blocks, *points],
        key=lambda record: record["step"] if "step" in record else record["first"] - 0.5,
    )


def misplaced(folder: Path) -> str | None:
    """What in a trial's folder is not a file; None if nothing is."""
    odd = next((path for path in sorted(folder.iterdir()) if not path.is_file()), None)
    return f"{odd} is not a file" if odd else None


def tidy(folder: Path) -> None:
    """Removes what killed processes left in a trial's folder, and the checkpoint of a trial that
    has finished."""
    remove_abandoned(folder, {_RECORDS, _RESULT, CHECKPOINT})
    refused = folder.glob("refused-*.npz")  # checkpoints that earlier versions set aside
    ended = [folder / CHECKPOINT] if (folder / _RESULT).exists() else []
    for path in (*refused, *ended):
        if not path.is_dir():
            path.unlink(missing_ok=True)


def _parse(path: Path, content: bytes) -> list[Any]:
    lines = content.decode().split("\n")
    if lines[-1]:
        raise Damaged(f"{path}: line {len(lines)} is cut short")
    records = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise Damaged(f"{path}: line {number} is not JSON") from None
    return records


def load_trial(folder: Path) -> tuple[Result, dict[str, Any]] | None:
    """A finished trial and its environment; None for an unfinished trial.

    Raises:
      Damaged: if the trial has finished and its files cannot be read, or were changed since.
    """
    if not os.path.lexists(folder / _RESULT):
        return None
    path = folder / _RECORDS
    try:
        content = path.read_bytes()
        header, *records = _parse(path, content)
        end = sealed.read(folder / _RESULT, _NAMES, content)
        trial = Trial(**end["trial"])
        if header["trial"] != end["trial"]:
            raise Damaged(f"{path} belongs to another trial than result.json")
        losses = tuple(_losses(records))
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
            raise Damaged(f"{path} lacks records: it has {len(losses)} of {end['step']} losses")
        return Result(trial, end["status"], end["step"], end["detail"], losses, points), end[
            "environment"
        ]
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise Damaged(f"{folder}: {type(error).__name__}: {error}") from None


def load_trials(
    folder: Path,
) -> tuple[list[Result], list[tuple[Path, str]], dict[str, Any]]:
    """The finished trials of a study, ordered by name; the folders that cannot be read, each with
    the reason; and the environment of the last trial."""
    results: list[Result] = []
    problems: list[tuple[Path, str]] = []
    environment: dict[str, Any] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            if found := load_trial(path):
                results.append(found[0])
                environment = found[1]
        except Damaged as error:
            problems.append((path, str(error)))
    return results, problems, environment
