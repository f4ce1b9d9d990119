"""Outcomes of verifying entries, kept beside them: leaderboard/digits/verdicts/shampoo.json.

A file collects the reruns of all verifications of an entry's present content, on any machine. Its
verdict is judged from all of them together, so that a small rerun never replaces a large one.

Verdicts are other people's files, like entries: leaderboard/verdict.schema.json says what they may
hold.
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
from sweeps.board import untrusted
from sweeps.board.draw import finals_of, trials_of
from sweeps.board.entries import Entry
from sweeps.board.judge import COLUMNS, judge
from sweeps.board.reruns import Run
from sweeps.board.untrusted import BadFile
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
      cost: the latest measurement of a step's cost, with the fields of `entries.Cost`; None if
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


_MAX_DETAIL = 999
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
    judged = judge(entry, list(runs.values()), cost) if new.runs else new
    _, restamped, how = kept.detail.partition(RESTAMPED) if kept else ("", "", "")
    return Verdict(
        judged.verdict,
        f"{judged.detail}{restamped}{how}"[:_MAX_DETAIL],
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


def load(entry: Entry) -> Verdict | None:
    """The verdict on this entry's present content; None if there is none.

    Raises:
      BadFile: if the file beside the entry is not a verdict.
    """
    path = path_of(entry)
    found = _load(path) if os.path.lexists(path) else None
    return found if found and found.entry_sha256 == entry.sha256 else None


def of(entry: Entry) -> Verdict | None:
    """The verdict on this entry's present content; None if missing or unreadable."""
    found = read(path_of(entry))
    return found if found and found.entry_sha256 == entry.sha256 else None


def read(path: Path) -> Verdict | None:
    """The verdict in a file; None if missing or unreadable."""
    try:
        return _load(path)
    except BadFile:
        return None


def _load(path: Path) -> Verdict:
    content, _ = untrusted.parse(path)
    untrusted.check(content, "verdict.schema.json")
    found = Verdict(**content)
    if found.stamped().sha256 != found.sha256:
        raise BadFile("its digest is not that of its content: verify the entry again")
    return dataclasses.replace(found, runs=[asdict(run_of(run)) for run in found.runs])
