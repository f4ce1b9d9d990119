"""A finished study as a leaderboard entry, or why it is none yet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from sweeps.board.entries import (
    FOLDER,
    REQUIRED_RUNGS,
    REQUIRED_SEEDS,
    REQUIRED_TRIALS,
    SCHEMA,
    BadEntry,
    Cost,
    validate,
)
from sweeps.planning.study import TUNING_SEED, Result
from sweeps.results.store import Loaded, write_atomically
from sweeps.results.summary import finals, winner


def check(loaded: Loaded) -> None:
    """Whether this study may be an entry.

    Raises:
      UserError: with all that speaks against it.
    """
    if found := _objections(loaded):
        raise UserError(
            f"{loaded.study.optimizer} ({loaded.folder}) is no entry yet:\n"
            + "\n".join(f"- {objection}" for objection in found)
        )


def _objections(loaded: Loaded) -> list[str]:
    study, found = loaded.study, []
    if study.task not in catalogue.names():
        return [
            f"{study.task} is no task of the leaderboard: only {', '.join(catalogue.names())} are, as they are."
        ]
    task = catalogue.get(study.task)
    if task.fingerprint() != study.fingerprint:
        return [
            f"it ran on another version of {study.task} ({study.fingerprint}): run it again here."
        ]
    if study.fixed:
        found.append(
            f"{', '.join(study.fixed)} was set by hand (--lr, --set): declare it in the optimizer's file, so that the file says all."
        )
    found += [f"{path} cannot be read: {reason}" for path, reason in loaded.problems]
    rungs = _rungs(loaded)
    if rungs != task.horizons[: len(rungs)] or len(rungs) < REQUIRED_RUNGS:
        ladder = ",".join(map(str, task.horizons))
        ran = ", ".join(map(str, rungs)) or "none"
        found.append(
            f"its ladder is unfinished: it has {ran} of {ladder}; run them from the first on, {REQUIRED_RUNGS} or more: --horizons={ladder}"
        )
    for horizon in rungs:
        here = [result for result in loaded.results if result.trial.horizon == horizon]
        tuned = sum(result.trial.seed == TUNING_SEED for result in here)
        best = winner(here, horizon)
        ran = len(finals(here, best)) if best else 0
        if study.space and tuned < REQUIRED_TRIALS:
            found.append(
                f"horizon {horizon} has {tuned} tuning trials of the {REQUIRED_TRIALS} or more that an entry needs: --trials={REQUIRED_TRIALS}"
            )
        if best is None:
            found.append(f"horizon {horizon} has no trial that ended well.")
        elif ran < REQUIRED_SEEDS:
            found.append(
                f"horizon {horizon} has {ran} final runs of the {REQUIRED_SEEDS} or more that an entry needs: --seeds={REQUIRED_SEEDS}"
            )
    return found


def _rungs(loaded: Loaded) -> tuple[int, ...]:
    """The task's rungs that the study ran; other horizons are no part of an entry."""
    ran = {result.trial.horizon for result in loaded.results}
    return tuple(horizon for horizon in catalogue.get(loaded.study.task).horizons if horizon in ran)


def write(loaded: Loaded, cost: Cost | None, folder: Path = FOLDER) -> Path:
    """Writes the study's entry, in place of any earlier one of the same optimizer.

    Raises:
      UserError: where `check` does, or the entry would not fit its schema.
    """
    check(loaded)
    study = loaded.study
    entry = {
        "schema": SCHEMA,
        "study": asdict(study),
        "spec": loaded.spec,
        "sources": loaded.sources,
        "environment": loaded.environment,
        "cost": asdict(cost) if cost else None,
        "rungs": [_rung(loaded.results, horizon) for horizon in _rungs(loaded)],
    }
    path = folder / study.task / f"{study.optimizer}.json"
    content = _text(entry) + "\n"
    try:
        validate(json.loads(content))
    except BadEntry as error:
        raise UserError(
            f"{study.optimizer} ({loaded.folder}) cannot be written as an entry: {error}."
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def _text(value: Any, indent: str = "\n") -> str:
    """JSON with what fits on a line, and each list of numbers, on one."""
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


def _rung(results: Sequence[Result], horizon: int) -> dict[str, Any]:
    best = winner(results, horizon)
    assert best  # check() saw to it
    tuned = sorted(
        (r for r in results if r.trial.horizon == horizon and r.trial.seed == TUNING_SEED),
        key=lambda r: r.trial.id,
    )
    return {
        "horizon": horizon,
        "winner": best.trial.hparams,
        "tuning": [
            {
                "hparams": r.trial.hparams,
                "status": r.status,
                "step": r.step,
                "final": rounded(r.final),
            }
            for r in tuned
        ],
        "finals": [
            {
                "seed": r.trial.seed,
                "status": r.status,
                "step": r.step,
                "points": [{"step": step, **rounded(metrics)} for step, metrics in r.points],
                "curve": rounded(_curve(r)),
            }
            for r in finals(results, best)
        ],
    }


def _curve(result: Result, points: int = 40) -> dict[str, list[Any]]:
    """Training losses averaged over stretches that grow with the step, up to `points` of them."""
    edges = (
        np.unique(np.round(np.geomspace(1, max(len(result.losses), 1), points)).astype(int))
        if result.losses
        else np.empty(0, int)
    )
    losses = np.asarray(result.losses, float)
    means = [float(losses[low:high].mean()) for low, high in zip([0, *edges], edges, strict=False)]
    return {"step": edges.tolist(), "loss": [mean if np.isfinite(mean) else None for mean in means]}


def rounded(value: Any) -> Any:
    """The same with its floats to nine significant digits, which name a float32 exactly."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, Mapping):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value
