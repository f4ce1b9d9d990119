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
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from distill_bench.training.events import Event
from optimizers.contract import registry, source_digest
from sweeps.board import entries, rerun, verdicts, write_entry
from sweeps.board.consistency import inconsistencies
from sweeps.board.entries import Entry
from sweeps.board.verdicts import Verdict
from sweeps.planning.environment import environment
from sweeps.planning.plan import describe_domain
from sweeps.results.store import write_atomically

_NOTE = "; re-stamped later: "


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
    rungs = rerun.rerun_finals(entry, found.optimizer, 1, entry.horizons, watch)
    differing = [rung.horizon for rung in rungs if not _is_known(rung, known)]
    if differing or not rungs or not all(rung.rerun for rung in rungs):
        return Restamped(entry, False, True, _difference(rungs, differing, known))
    if source_digest.source_sha256(found.path) != found.source_sha256:
        raise UserError(f"The code of {entry.spec} was edited during the rerun: run it again.")
    what = f"{len(rungs)} runs at horizons {', '.join(str(rung.horizon) for rung in rungs)}"
    recorded = all(rung.identical == len(rung.rerun) for rung in rungs)
    as_before = "recorded" if recorded else "the old code on the same machine"
    detail = (
        f"{what} with the code here gave the same probe losses as {as_before} to the last digit"
    )
    return Restamped(_write(entry, found.path, rungs, detail), True, False, detail)


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
    if verdict.environment != environment():
        raise UserError(f"{path} was made on another machine or with other versions.")
    losses = {(run["horizon"], run["seed"]): run["rerun"] for run in verdict.runs}
    return {key: loss for key, loss in losses.items() if loss is not None}


def _is_known(rung: rerun.Rung, known: dict[tuple[int, int], float]) -> bool:
    """Whether each rerun equals the entry's loss or the witness's to the last digit."""
    if rung.identical == len(rung.rerun):
        return True
    return all(
        loss is not None and loss == known.get((rung.horizon, seed))
        for seed, loss in rung.rerun.items()
    )


def _difference(
    rungs: Sequence[rerun.Rung], differing: Sequence[int], known: dict[tuple[int, int], float]
) -> str:
    if not rungs or not all(rung.rerun for rung in rungs):
        return "a horizon has no final run that ended well"
    found = [
        f"{rung.horizon} (seed {seed}): {loss} here, {rung.recorded[seed]} recorded"
        + (f", {known[rung.horizon, seed]} by the witness" if (rung.horizon, seed) in known else "")
        for rung in rungs
        if rung.horizon in differing
        for seed, loss in rung.rerun.items()
    ]
    return f"the code here gives other probe losses at horizon {'; '.join(found)}"


def _refreshed(entry: Entry, sources: dict[str, str]) -> Restamped:
    """The entry with the words of its sources as they are here; its digest stays."""
    if sources == entry.sources:
        return Restamped(entry, False, False, "it already carries the code that is here")
    kept = verdicts.of(entry)
    now = _with_sources(entry, entry.study.source_sha256, sources)
    if kept:
        verdicts.record(now, dataclasses.replace(kept, entry_sha256=now.sha256))
    return Restamped(now, True, False, "only words of its sources changed, no rerun was needed")


def _write(entry: Entry, path: Path, rungs: Sequence[rerun.Rung], detail: str) -> Entry:
    """Writes the entry with the code of `path`, and its verdict; returns the new entry."""
    sources = source_digest.source_files(path)
    kept = verdicts.of(entry)
    now = _with_sources(entry, source_digest.digest(sources), sources)
    if kept and kept.verdict == "reproduced" and rerun.TO_THE_LAST_DIGIT in kept.detail:
        first = kept.detail.partition(_NOTE)[0]
        verdict = dataclasses.replace(
            kept, entry_sha256=now.sha256, detail=f"{first}{_NOTE}{detail}"
        )
    else:
        runs = rerun.described(rungs)
        verdict = Verdict("reproduced", detail, now.sha256, environment(), runs)
    verdicts.record(now, verdict)
    return now


def _with_sources(entry: Entry, sha256: str, sources: dict[str, str]) -> Entry:
    """Writes the entry's file with another digest and sources, all else as it was."""
    text = entry.path.read_text()
    content = json.loads(text)
    if write_entry.as_text(content) != text:
        raise UserError(f"{entry.path} is not laid out as this version writes entries.")
    content["study"]["source_sha256"] = sha256
    content["sources"] = sources
    entries.validate(content)
    write_atomically(entry.path, write_entry.as_text(content))
    return entries.read(entry.path)
