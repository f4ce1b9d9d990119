"""Finds contradictions inside an entry, without running anything."""

from __future__ import annotations

from sweeps.board import protocol
from sweeps.board.entries import Entry
from sweeps.board.identity import digest_of
from sweeps.planning.study import TUNING_SEED
from sweeps.results.summary import winner


def inconsistencies(entry: Entry) -> list[str]:
    """Signs that the entry was altered after it was made, one sentence each."""
    study, found = entry.study, []
    if digest_of(entry.sources) != study.source_sha256:
        found.append("its source files do not match its source digest")
    tuned = protocol.searched(study, entry.results, entry.horizons) if study.space else []
    for horizon in entry.horizons:
        here = [r for r in entry.results if r.trial.horizon == horizon]
        best = winner(study, tuned or entry.results, horizon)
        if best is None or any(
            r.trial.hparams != best.trial.hparams for r in here if r.trial.seed != TUNING_SEED
        ):
            found.append(f"horizon {horizon}: its final runs do not use its best trial")
        tried = sum(r.trial.seed == TUNING_SEED for r in here)
        if tried != sum(r.trial.horizon == horizon for r in tuned):
            found.append(
                f"horizon {horizon}: its trials are not those that the search chooses in its space"
            )
    return found
