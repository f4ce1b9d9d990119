"""Checks of how well entries were tuned, kept beside them: leaderboard/digits/checks/shampoo.json.

`sweeps/tune_check.py` makes them. They are other people's files, like entries:
leaderboard/check.schema.json says what they may hold.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill_bench.files import write_atomically
from sweeps.board import untrusted
from sweeps.board.entries import Entry
from sweeps.results.one_factor import Finding, Gain


@dataclass(frozen=True)
class TuneCheck:
    """What one hyperparameter changed at a time would have gained.

    Attributes:
      entry_sha256: digest of the checked entry; the check does not count for other content.
      environment: machine and versions of the check.
      command: the command that made it.
      largest: the largest gain of all, as a fraction of the loss; None if nothing could be
        compared.
      horizons: the horizons checked.
      seeds: number of seeds at each.
      factors: for each horizon and hyperparameter its gain and every neighbour's.
    """

    entry_sha256: str
    environment: dict[str, Any]
    command: str
    largest: Gain | None
    horizons: list[int]
    seeds: int
    factors: list[dict[str, Any]]


def described(finding: Finding) -> dict[str, Any]:
    """A finding as plain data, for a check's `factors`; None stands for a failed neighbour."""
    factor = finding.factor
    return {
        "horizon": factor.horizon,
        "hyperparameter": factor.name,
        "gain": asdict(finding.best) if finding.best else None,
        "offset": finding.offset,
        "neighbours": [
            {
                "value": arm.neighbour.value,
                "offset": arm.neighbour.offset,
                "losses": {
                    str(seed): loss if math.isfinite(loss) else None
                    for seed, loss in arm.losses.items()
                },
                "gain": asdict(gain) if gain else None,
            }
            for arm, gain in zip(factor.arms, finding.neighbours, strict=True)
        ],
    }


def make(
    entry: Entry,
    findings: Sequence[Finding],
    largest: Gain | None,
    command: str,
    environment: Mapping[str, Any],
) -> TuneCheck:
    """The check of an entry."""
    return TuneCheck(
        entry.sha256,
        dict(environment),
        command,
        largest,
        sorted({finding.factor.horizon for finding in findings}),
        min(len(finding.factor.winner) for finding in findings),
        [described(finding) for finding in findings],
    )


def path_of(entry: Entry) -> Path:
    return entry.path.parent / "checks" / entry.path.name


def record(entry: Entry, check: TuneCheck) -> Path:
    """Writes the check, replaces any earlier one, and returns its file."""
    path = path_of(entry)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(asdict(check), indent=1, allow_nan=False) + "\n")
    return path


def load(entry: Entry) -> TuneCheck | None:
    """The check of this entry's present content; None if there is none.

    Raises:
      BadFile: if the file beside the entry is not a check.
    """
    path = path_of(entry)
    if not os.path.lexists(path):
        return None
    content, _ = untrusted.parse(path)
    untrusted.check(content, "check.schema.json")
    largest = content["largest"]
    found = TuneCheck(**content | {"largest": Gain(**largest) if largest else None})
    return found if found.entry_sha256 == entry.sha256 else None


def as_json(check: TuneCheck) -> dict[str, Any]:
    """What the board shows of a check: the largest gain, what was looked at, and both in words."""
    where = f"at {', '.join(map(str, check.horizons))} steps, {check.seeds} seeds"
    said = (
        f"one hyperparameter changed at a time gains at most {check.largest.percent} of loss"
        if check.largest
        else "no neighbour of its winners could be compared"
    )
    return {
        "largest": asdict(check.largest) if check.largest else None,
        "horizons": list(check.horizons),
        "seeds": check.seeds,
        "sentence": f"{said} ({where})",
    }
