"""Outcomes of verifying entries, kept beside them: leaderboard/digits/verdicts/shampoo.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sweeps.board.entries import Entry
from sweeps.results.store import write_atomically


@dataclass(frozen=True)
class Verdict:
    """The outcome of one verification.

    Attributes:
      verdict: "reproduced" or "failed".
      detail: one sentence: what was rerun, and the outcome.
      entry_sha256: digest of the verified file; the verdict does not count for other content.
      environment: machine and versions of the rerun.
      runs: for each run its horizon, seed, recorded and rerun probe loss, and the prediction
        interval of its rung.
    """

    verdict: Literal["reproduced", "failed"]
    detail: str
    entry_sha256: str
    environment: dict[str, Any]
    runs: list[dict[str, Any]]


_MAX_BYTES = 1 << 20


def path_of(entry: Entry) -> Path:
    return entry.path.parent / "verdicts" / entry.path.name


def record(entry: Entry, verdict: Verdict) -> Path:
    """Writes the verdict, replaces any earlier one, and returns its file."""
    path = path_of(entry)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(asdict(verdict), indent=1) + "\n")
    return path


def of(entry: Entry) -> Verdict | None:
    """The verdict on this entry's present content; None if missing or unreadable."""
    found = read(path_of(entry))
    return found if found and found.entry_sha256 == entry.sha256 else None


def read(path: Path) -> Verdict | None:
    """The verdict in a file; None if missing or unreadable."""
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_BYTES:
            return None
        found = Verdict(**json.loads(path.read_text()))
        if not all(
            isinstance(value, int | float | None) for run in found.runs for value in run.values()
        ):
            return None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    valid = (
        found.verdict in ("reproduced", "failed")
        and isinstance(found.detail, str)
        and len(found.detail) < 1000
        and found.detail.isprintable()
    )
    return found if valid else None
