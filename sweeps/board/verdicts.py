"""Outcomes of verifying entries, kept beside them: leaderboard/digits/verdicts/shampoo.json.

A file collects the reruns of all verifications of an entry's present content, on any machine. Its
verdict is judged from all of them together, so that a small rerun never replaces a large one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from distill_bench.files import write_atomically
from distill_bench.training.exams import CURVE
from sweeps.board.draw import finals_of, trials_of
from sweeps.board.entries import METRICS, Entry
from sweeps.board.judge import COLUMNS, judge
from sweeps.board.reruns import Run
from sweeps.board.run_records import CURVES
from sweeps.planning.environment import environment


@dataclass(frozen=True)
class Verdict:
    """The outcome of all verifications of an entry.

    Attributes:
      verdict: "reproduced" or "failed".
      detail: one sentence: what was rerun, and the outcome.
      entry_sha256: digest of the verified file; the verdict does not count for other content.
      environment: machine and versions of the latest rerun.
      runs: the reruns, each with the fields of `reruns.Run`: numbers and its kind. The latest
        one of a run in each environment.
      environments: the environments that runs name by their index.
      draws: for each verification the seed of its draw and how many runs it drew.
      test: "exact" if every final run gave the recorded numbers to the last digit on some machine,
        else "intervals".
      unverified: columns of the board that no rerun covers.
      cost: the latest measurement of the update rule's cost, with fields of `entries.Cost`; None if
        there is none.
      sha256: digest of all the other fields; "" in a verdict that is not written yet.
    """

    verdict: Literal["reproduced", "failed"]
    detail: str
    entry_sha256: str
    environment: dict[str, Any]
    runs: list[dict[str, Any]]
    environments: list[dict[str, Any]] = field(default_factory=list)
    draws: list[dict[str, int]] = field(default_factory=list)
    test: Literal["exact", "intervals"] = "intervals"
    unverified: list[str] = field(default_factory=lambda: list(COLUMNS))
    cost: dict[str, float] | None = None
    sha256: str = ""

    def stamped(self) -> Verdict:
        """The same verdict with its digest."""
        content = asdict(dataclasses.replace(self, sha256=""))
        text = json.dumps(content, sort_keys=True)
        return dataclasses.replace(self, sha256=hashlib.sha256(text.encode()).hexdigest())


_MAX_BYTES = 1 << 20
_MAX_DETAIL = 1000
_DIFFERING = {"status", CURVES, CURVE, *METRICS}
_LARGEST = 1e39
RESTAMPED = "; re-stamped later: "
"""Stands in a verdict's detail before what re-stamping found."""


def here() -> dict[str, Any]:
    """Versions and machine of a rerun, with the processor, which decides the last digits."""
    return environment() | {"processor": _processor()}


def _processor() -> str:
    """The processor's name; on Linux also a digest of its features, which compilers use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    features = facts.get("flags") or facts.get("Features", "")
    digest = hashlib.sha256(" ".join(sorted(features.split())).encode()).hexdigest()[:8]
    return f"{facts.get('model name') or platform.machine()} {digest}"


def path_of(entry: Entry) -> Path:
    return entry.path.parent / "verdicts" / entry.path.name


def record(entry: Entry, verdict: Verdict) -> Verdict:
    """Adds the verdict to the file beside the entry, and returns what the file now says."""
    merged = merge(entry, of(entry), verdict).stamped()
    write(entry, merged)
    return merged


def write(entry: Entry, verdict: Verdict) -> None:
    """Writes the verdict in place of any earlier one.

    A file that cannot be read is not overwritten: it gets another name.
    """
    path, verdict = path_of(entry), verdict.stamped()
    path.parent.mkdir(exist_ok=True)
    if os.path.lexists(path) and read(path) is None:
        path.rename(path.with_name(f"{path.name}.unreadable"))
    write_atomically(path, json.dumps(asdict(verdict), indent=1) + "\n")


def merge(entry: Entry, kept: Verdict | None, new: Verdict) -> Verdict:
    """The verdict on all reruns of both.

    A rerun replaces the earlier one of the same run in the same environment; other environments
    keep theirs. So a failure lasts until the runs that disagree are rerun in the same environment
    and agree, a rerun elsewhere repeats them to the last digit, or further reruns bring
    the mean back. A contradiction in the entry fails it whatever its runs say.

    Args:
      kept: an earlier verdict on the entry's present content.
      new: the new one; without runs, it says what contradicts the entry.
    """
    environments: list[dict[str, Any]] = []
    runs: dict[tuple[Any, ...], Run] = {}
    draws: list[dict[str, int]] = []
    known = _known(entry)
    for verdict in (kept, new):
        if verdict is None:
            continue
        own = verdict.environments or [verdict.environment]
        for one in own:
            if one not in environments:
                environments.append(one)
        draws += verdict.draws
        for plain in verdict.runs:
            run = run_of(plain)
            run = dataclasses.replace(
                run, environment=environments.index(own[min(run.environment, len(own) - 1)])
            )
            if run.key in known and known[run.key] == run.recorded:
                runs.pop((run.key, run.environment), None)
                runs[run.key, run.environment] = run
    cost = new.cost or (kept.cost if kept else None)
    judged = judge(entry, list(runs.values()), environments, cost) if new.runs else new
    _, restamped, how = kept.detail.partition(RESTAMPED) if kept else ("", "", "")
    return Verdict(
        judged.verdict,
        f"{judged.detail}{restamped}{how}"[: _MAX_DETAIL - 1],
        entry.sha256,
        new.environment,
        [asdict(run) for run in runs.values()],
        environments,
        draws,
        judged.test,
        list(judged.unverified),
        cost,
    )


def _known(entry: Entry) -> dict[tuple[str, int, int, int | None], float | None]:
    """The recorded loss of each run of the entry; None for a failed one."""
    known: dict[tuple[str, int, int, int | None], float | None] = {}
    for h in entry.horizons:
        for r in finals_of(entry, h):
            known["final", h, r.trial.seed, None] = r.final["probe_loss"] if r.final else None
        for i, r in enumerate(trials_of(entry, h)):
            known["tuning", h, r.trial.seed, i] = r.final["probe_loss"] if r.final else None
    return known


def run_of(plain: Mapping[str, Any]) -> Run:
    """A run of a verdict's file; files of earlier versions hold final runs only."""
    return Run(
        "tuning" if plain.get("kind") == "tuning" else "final",
        plain["horizon"],
        plain["seed"],
        plain.get("trial"),
        plain["recorded"],
        plain["rerun"],
        plain.get("environment") or 0,
        None if plain.get("differs") is None else tuple(plain["differs"]),
        {name: (pair[0], pair[1]) for name, pair in plain.get("metrics", {}).items()},
    )


def of(entry: Entry) -> Verdict | None:
    """The verdict on this entry's present content; None if missing or unreadable."""
    found = read(path_of(entry))
    return found if found and found.entry_sha256 == entry.sha256 else None


def read(path: Path) -> Verdict | None:
    """The verdict in a file; None if missing, unreadable or not what `record` writes.

    Its digest must be that of its content: a verdict is made by a rerun, not by an editor.
    """
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return None
        content = json.loads(path.read_text(), parse_constant=_refuse_constant)
        found = Verdict(**content)
        if not _valid(found):
            return None
        if found.stamped().sha256 != found.sha256:
            return None
        runs = [asdict(run_of(run)) for run in found.runs]
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None
    return dataclasses.replace(found, runs=runs)


def _valid(found: Verdict) -> bool:
    return (
        found.verdict in ("reproduced", "failed")
        and isinstance(found.detail, str)
        and len(found.detail) < _MAX_DETAIL
        and found.detail.isprintable()
        and isinstance(found.entry_sha256, str)
        and all(
            isinstance(one, dict) and all(isinstance(value, str | int) for value in one.values())
            for one in [found.environment, *found.environments]
        )
        and all(isinstance(value, int) for draw in found.draws for value in draw.values())
        and found.test in ("exact", "intervals")
        and {*found.unverified} <= {*COLUMNS}
        and (found.cost is None or all(0 < value < _LARGEST for value in found.cost.values()))
        and all(map(_valid_run, found.runs))
    )


def _valid_run(run: Mapping[str, Any]) -> bool:
    whole = [run["horizon"], run["seed"], run.get("trial") or 0, run.get("environment") or 0]
    return (
        run.get("kind", "final") in ("final", "tuning")
        and all(isinstance(value, int) and value >= 0 for value in whole)
        and all(
            run[name] is None or (isinstance(run[name], int | float) and 0 < run[name] < _LARGEST)
            for name in ("recorded", "rerun")
        )
        and {*(run.get("differs") or ())} <= _DIFFERING
        and all(
            name in COLUMNS and len(pair) == 2 and all(0 <= value < _LARGEST for value in pair)
            for name, pair in run.get("metrics", {}).items()
        )
    )


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")
