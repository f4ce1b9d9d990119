"""Gives an entry the source digest of the code that is here, if that code gives the same numbers.

An entry names the code of its runs by a digest. When that code is reworded, moved or tidied, the
entry's runs are still right but its digest is not. `restamp` reruns one seed at every rung. Only if
each final probe loss equals a known one to the last digit is the entry written again, with the new
digest and sources and nothing else changed.

Other CPUs give other last digits. On another machine than the recording one, let the old code make
a witness first: a verdict file (`python sweeps/verify.py ENTRY --seeds=1` with the old code). Its
losses are then known too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from distill_bench.training.events import Event
from optimizers.contract import registry, source_digest
from sweeps.board import entries, rerun, revise, verdicts
from sweeps.board.consistency import inconsistencies
from sweeps.board.draw import Drawn, finals_of
from sweeps.board.entries import Entry
from sweeps.board.judge import TO_THE_LAST_DIGIT
from sweeps.board.reruns import Run
from sweeps.board.verdicts import RESTAMPED, Verdict
from sweeps.planning.environment import environment
from sweeps.planning.plan import describe_domain
from sweeps.planning.study import Result


@dataclass(frozen=True)
class Restamped:
    """What came of re-stamping an entry.

    entry: the entry as it is now.
    written: whether its file was written again.
    failed: whether the code here gives other losses.
    detail: what was compared and found, in a sentence.
    """

    entry: Entry
    written: bool
    failed: bool
    detail: str


def restamp(
    path: Path, watch: Callable[[Event, int], None], witness: Path | None = None
) -> Restamped:
    """Re-stamps the entry in the file `path`, and the verdict beside it.

    If only words changed since the entry was stamped, its digest is still right: then its sources
    are written again without a rerun. `watch` gets each training event and the number of all steps.

    Args:
      witness: folder of verdict files that the old code made on this machine; None to compare with
        the entry's own losses only.

    Raises:
      BadEntry: if the file is not an entry.
      UserError: if the entry or its witness cannot be used; the message says why.
    """
    entry = entries.read(path)
    found = _code_here(entry)
    sources = source_digest.source_files(found.path)
    study = dataclasses.replace(entry.study, source_sha256=found.source_sha256)
    wrong = inconsistencies(dataclasses.replace(entry, study=study, sources=sources))
    if wrong:
        raise UserError(f"{path} cannot be re-stamped: {'; '.join(wrong)}.")
    if entry.study.source_sha256 == found.source_sha256:
        return _refreshed(entry, sources)
    known = _witnessed(entry, witness / path.name) if witness else {}
    drawn = Drawn(0, tuple(_one_a_rung(entry, known)), ())
    runs = rerun.rerun(entry, found.optimizer, drawn, watch)
    differing = [run for run in runs if not _is_known(run, known)]
    if differing or len(runs) < len(entry.horizons):
        return Restamped(entry, False, True, _difference(differing, known))
    if source_digest.source_sha256(found.path) != found.source_sha256:
        raise UserError(f"The code of {entry.spec} was edited during the rerun: run it again.")
    what = f"{len(runs)} runs at horizons {', '.join(str(run.horizon) for run in runs)}"
    recorded = all(run.identical for run in runs)
    as_before = "recorded" if recorded else "the old code on the same machine"
    detail = (
        f"{what} with the code here gave the same probe losses as {as_before} {TO_THE_LAST_DIGIT}"
    )
    return Restamped(_write(entry, found.path, runs, detail), True, False, detail)


def _one_a_rung(entry: Entry, known: dict[tuple[int, int], float]) -> Iterator[Result]:
    """A final run of each rung: the first one that the witness has, or else the first one."""
    for h in entry.horizons:
        here = finals_of(entry, h)
        yield from [r for r in here if (h, r.trial.seed) in known][:1] or here[:1]


def _code_here(entry: Entry) -> registry.Resolved:
    """The entry's optimizer as it is here.

    Raises:
      UserError: if it is not built in, or is another optimizer, space or task than the entry's.
    """
    spec, study = entry.spec, entry.study
    if spec not in registry.builtins() and not spec.startswith("optax:"):
        raise UserError(
            f"{entry.path} is of {spec}, which is not built in: its code is the one that the entry "
            "carries, so that there is nothing to re-stamp."
        )
    if study.fingerprint != catalogue.get(study.task).fingerprint():
        raise UserError(f"{entry.path} is of another version of the task: run it again.")
    try:
        found = registry.resolve(spec)
    except registry.UnknownOptimizer as error:
        raise UserError(str(error)) from None
    space = {name: describe_domain(domain) for name, domain in found.optimizer.space.items()}
    if (found.optimizer.name, space) != (study.optimizer, study.space):
        raise UserError(f"{spec} has another name or search space here than in {entry.path}.")
    return found


def _witnessed(entry: Entry, path: Path) -> dict[tuple[int, int], float]:
    """(horizon, seed) -> the probe loss that the old code gave on this machine.

    Raises:
      UserError: if there is no such verdict, or it is of another entry or machine.
    """
    verdict = verdicts.read(path)
    if verdict is None:
        raise UserError(f"No verdict found at {path}: make one with the old code (--seeds=1).")
    if verdict.entry_sha256 != entry.sha256:
        raise UserError(f"{path} is of another version of {entry.path}.")
    if verdict.environment not in (verdicts.here(), environment()):
        raise UserError(f"{path} was made on another machine or with other versions.")
    runs = map(verdicts.run_of, verdict.runs)
    return {
        (run.horizon, run.seed): run.rerun
        for run in runs
        if run.kind == "final" and run.rerun is not None
    }


def _is_known(run: Run, known: dict[tuple[int, int], float]) -> bool:
    """Whether the rerun equals the entry's loss or the witness's to the last digit."""
    return run.identical or (
        run.rerun is not None and run.rerun == known.get((run.horizon, run.seed))
    )


def _difference(differing: Sequence[Run], known: dict[tuple[int, int], float]) -> str:
    if not differing or any(run.rerun is None for run in differing):
        return "a horizon has no final run that ended well"
    found = [
        f"{run.horizon} (seed {run.seed}): {run.rerun} here, {run.recorded} recorded"
        + (
            f", {known[run.horizon, run.seed]} by the witness"
            if (run.horizon, run.seed) in known
            else ""
        )
        for run in differing
    ]
    return f"the code here gives other probe losses at horizon {'; '.join(found)}"


def _refreshed(entry: Entry, sources: dict[str, str]) -> Restamped:
    """The entry with the words of its sources as they are here; its digest stays."""
    if sources == entry.sources:
        return Restamped(entry, False, False, "it already carries the code that is here")
    now = revise.with_verdict(entry, _new_code(entry.study.source_sha256, sources))
    return Restamped(now, True, False, "only words of its sources changed, no rerun was needed")


def _write(entry: Entry, path: Path, runs: Sequence[Run], detail: str) -> Entry:
    """Writes the entry with the code of `path`, and its verdict; returns the new entry.

    The numbers stay, so an earlier verdict's reruns count on, whether they agreed or not.
    """
    sources = source_digest.source_files(path)
    kept = verdicts.of(entry)
    now = revise.rewritten(entry, _new_code(source_digest.digest(sources), sources))
    plain = [asdict(run) for run in runs]
    new = Verdict("reproduced", detail, now.sha256, verdicts.here(), plain)
    merged = verdicts.merge(now, kept, new)
    first = merged.detail.partition(RESTAMPED)[0]
    verdicts.write(now, dataclasses.replace(merged, detail=f"{first}{RESTAMPED}{detail}"))
    return now


def _new_code(sha256: str, sources: dict[str, str]) -> Callable[[dict[str, Any]], None]:
    """Puts another digest and other sources into an entry's content, and leaves all else."""

    def change(content: dict[str, Any]) -> None:
        content["study"]["source_sha256"] = sha256
        content["sources"] = sources

    return change
