"""Writes a finished study as a leaderboard entry, or says why it cannot be one yet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill_bench.errors import UserError
from distill_bench.files import write_atomically
from distill_bench.tasks import catalogue
from sweeps.board import identity, protocol
from sweeps.board.entries import FOLDER, SCHEMA, BadEntry, Cost, validate
from sweeps.board.run_records import final_record, tuning_record
from sweeps.board.untrusted import MAX_BYTES
from sweeps.planning.study import Result, Study
from sweeps.results.store import Loaded
from sweeps.results.summary import finals, winner


def check(loaded: Loaded, folder: Path = FOLDER, replace: bool = False) -> None:
    """Checks that a study may become an entry.

    Args:
      loaded: the study, from a store.
      folder: the leaderboard's folder.
      replace: whether it may replace an entry of another source.

    Raises:
      UserError: lists every reason against it.
    """
    study = loaded.study
    found = _objections(loaded)
    if why := identity.objection(study, loaded.spec, loaded.sources):
        found.insert(0, why)
    if not replace and (other := _of_another_source(folder / study.task, study)):
        found.append(
            f"{other} is the entry of another source. Rename the optimizer, or pass --replace to "
            "put this study in its place."
        )
    if found:
        raise UserError(
            f"{study.optimizer} ({loaded.folder}) cannot be an entry yet:\n"
            + "\n".join(f"- {objection}" for objection in found)
        )


def _of_another_source(folder: Path, study: Study) -> Path | None:
    """The file that the study's entry would replace, unless it holds the same code.

    Names that differ in case only are one file on some systems.
    """
    for path in sorted(folder.glob("*.json")):
        if path.stem.casefold() == study.optimizer.casefold():
            try:
                there = json.loads(path.read_bytes())["study"]
                same = (there["optimizer"], there["source_sha256"])
            except (OSError, ValueError, LookupError, TypeError, RecursionError):
                return path
            if same != (study.optimizer, study.source_sha256):
                return path
    return None


def _objections(loaded: Loaded) -> list[str]:
    study, found = loaded.study, []
    if study.task not in catalogue.names():
        return [
            f"{study.task} is not a task of the leaderboard. "
            f"Run one of these without variations: {', '.join(catalogue.names())}."
        ]
    task = catalogue.get(study.task)
    if task.fingerprint() != study.fingerprint:
        return [f"it ran on another version of {study.task} ({study.fingerprint}). Run it again."]
    if study.fixed:
        found.append(
            f"{', '.join(study.fixed)} was set on the command line. "
            "Declare the value in the optimizer's file instead."
        )
    found += [f"{path} cannot be read: {reason}" for path, reason in loaded.problems]
    rungs, ladder = _rungs(loaded), protocol.ladder(study.task, study.optimizer)
    command = (
        f"--horizons={','.join(map(str, ladder))} --trials={protocol.trials(study.optimizer)} "
        f"--seeds={protocol.SEEDS}"
    )
    if rungs != ladder[: len(rungs)] or len(rungs) < protocol.RUNGS:
        ran = ", ".join(map(str, rungs)) or "none"
        return [
            *found,
            f"its ladder is unfinished: it has {ran} of {', '.join(map(str, ladder))}. "
            f"Run the first {protocol.RUNGS} horizons or more: {command}",
        ]
    search = protocol.search(study, rungs)
    tuned = protocol.searched(study, loaded.results, rungs)
    for horizon, count in search.counts().items():
        ran = sum(result.trial.horizon == horizon for result in tuned)
        if ran < count:
            return [
                *found,
                f"horizon {horizon} has {ran} of the {count} tuning trials that every entry has: "
                f"{command}",
            ]
    for horizon in rungs:
        best = _winner(loaded, tuned, horizon)
        ran = len(finals(loaded.results, best)) if best else 0
        if best is None:
            found.append(f"all trials at horizon {horizon} failed.")
        elif ran < protocol.SEEDS:
            found.append(
                f"horizon {horizon} has {ran} final runs of its best setting; an entry needs "
                f"{protocol.SEEDS} or more: {command}"
            )
    return found


def _winner(loaded: Loaded, tuned: Sequence[Result], horizon: int) -> Result | None:
    """The winner among the trials of the entry's search; any run if nothing is searched."""
    return winner(loaded.study, tuned if loaded.study.space else loaded.results, horizon)


def _rungs(loaded: Loaded) -> tuple[int, ...]:
    """The rungs of the ladder that the study ran; an entry leaves out other horizons."""
    ran = {result.trial.horizon for result in loaded.results}
    ladder = protocol.ladder(loaded.study.task, loaded.study.optimizer)
    return tuple(horizon for horizon in ladder if horizon in ran)


def write(loaded: Loaded, cost: Cost | None, folder: Path = FOLDER, replace: bool = False) -> Path:
    """Writes the study's entry in place of any earlier entry of the same source.

    Args:
      loaded: the study, from a store.
      cost: cost of the update rule; None if it was not measured.
      folder: the leaderboard's folder.
      replace: whether it may replace an entry of another source.

    Returns:
      The entry's file.

    Raises:
      UserError: if the study fails `check` or the entry would not be valid.
    """
    check(loaded, folder, replace)
    study = loaded.study
    tuned = protocol.searched(study, loaded.results, _rungs(loaded)) if study.space else []
    entry = {
        "schema": SCHEMA,
        "study": asdict(study),
        "spec": loaded.spec,
        "sources": loaded.sources,
        "environment": loaded.environment,
        "cost": asdict(cost) if cost else None,
        "rungs": [_rung(loaded, tuned, horizon) for horizon in _rungs(loaded)],
    }
    path = folder / study.task / f"{study.optimizer}.json"
    content = as_text(entry)
    try:
        if (size := len(content)) > MAX_BYTES:
            raise BadEntry(f"it would have {size:,} bytes, but an entry has at most {MAX_BYTES:,}")
        validate(json.loads(content))
    except BadEntry as error:
        raise UserError(
            f"{study.optimizer} ({loaded.folder}) cannot be written as an entry: {error}."
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def as_text(entry: Any) -> str:
    """The text of an entry's file."""
    return _text(entry) + "\n"


def _text(value: Any, indent: str = "\n") -> str:
    """JSON in which short values and lists of numbers take one line each."""
    compact = json.dumps(value, allow_nan=False)
    if (
        not isinstance(value, dict | list)
        or len(compact) < 160
        or not any(isinstance(one, dict | list | str) for one in list(value))
    ):
        return compact
    inner = indent + " "
    if isinstance(value, dict):
        return (
            "{"
            + inner
            + f",{inner}".join(
                f"{json.dumps(name)}: {_text(one, inner)}" for name, one in value.items()
            )
            + indent
            + "}"
        )
    return "[" + inner + f",{inner}".join(_text(one, inner) for one in value) + indent + "]"


def _rung(loaded: Loaded, tuned: Sequence[Result], horizon: int) -> dict[str, Any]:
    best = _winner(loaded, tuned, horizon)
    assert best  # check() has made sure
    tried = sorted((r for r in tuned if r.trial.horizon == horizon), key=lambda r: r.trial.id)
    return {
        "horizon": horizon,
        "winner": best.trial.hparams,
        "tuning": [tuning_record(r) for r in tried],
        "finals": [final_record(r) for r in finals(loaded.results, best)],
    }
