"""Leaderboard entries: committed results that comparisons refer to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill_bench import task as tasks
from distill_bench.errors import UserError
from sweeps.statistics import Row, finals, row_of, winner
from sweeps.store import Loaded, write_atomically
from sweeps.study import Result

SCHEMA = 1
_CHECKOUT = Path(__file__).resolve().parent.parent / "leaderboard"
_INSTALLED = Path(__file__).resolve().parent / "leaderboard_entries"
FOLDER = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED
BASELINE = (FOLDER / "baseline.txt").read_text().strip()  # the optimizer whose curve speed-ups are measured on


def write_entry(loaded: Loaded, folder: Path = FOLDER) -> Path:
    """Writes the study's entry.

    Raises:
      UserError: where a horizon lacks final runs.
    """
    study = loaded.study
    horizons = sorted({r.trial.horizon for r in loaded.results})
    made = [row_of(study, loaded.results, h) for h in horizons]
    if not made or any(row.status != "ok" for row in made):
        missing = [row.horizon for row in made if row.status != "ok"]
        raise UserError(f"{study.optimizer} has no final runs at horizons {missing or 'any'}: finish the sweep first.")
    entry = {
        "schema": SCHEMA,
        "study": asdict(study),
        "environment": loaded.environment,
        "rungs": [_plain(row) | {"finals": [{"seed": r.trial.seed, "final": r.final} for r in _finals_of(row, loaded.results)]} for row in made],
        "spec": loaded.spec,
        "sources": loaded.sources,
    }
    path = folder / study.task / f"{study.optimizer}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(entry, indent=1) + "\n")
    return path


def _plain(row: Row) -> dict[str, Any]:
    """The row as plain data; its losses by seed stand in the entry's finals."""
    return {name: value for name, value in asdict(row).items() if name != "by_seed"}


def _finals_of(row: Row, results: Sequence[Result]) -> list[Result]:
    best = winner(results, row.horizon)
    return finals(results, best) if best else []


def load_entries(names: Sequence[str], folder: Path = FOLDER) -> tuple[list[Row], list[str]]:
    """Reference rows of the entries of these tasks, and a warning for each entry that cannot be compared with."""
    found, warnings = [], []
    for name in names:
        for path in sorted((folder / name).glob("*.json")):
            try:
                entry: dict[str, Any] = json.loads(path.read_text())
                study = entry["study"]
                if study["fingerprint"] != tasks.get(name).fingerprint():
                    warnings.append(f"{path} is of another version of the task ({study['fingerprint']}): not compared with.")
                    continue
                for rung in entry["rungs"]:
                    by_seed = {int(final["seed"]): float(final["final"]["probe_loss"]) for final in rung.pop("finals")}
                    found.append(Row(**rung | {"status": "reference", "edges": tuple(rung["edges"]), "by_seed": by_seed}))
            except (ValueError, KeyError, TypeError) as error:
                warnings.append(f"{path} cannot be read ({type(error).__name__}: {error}): not compared with.")
    return found, warnings
