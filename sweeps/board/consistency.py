"""Finds contradictions inside an entry, without running anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optimizers.contract import domains, source_digest
from sweeps.board.entries import Entry
from sweeps.board.write_entry import rounded
from sweeps.planning.sampling import sample
from sweeps.planning.study import TUNING_SEED, Study
from sweeps.results.summary import winner


def inconsistencies(entry: Entry) -> list[str]:
    """Signs that the entry was altered after it was made, one sentence each."""
    study, found = entry.study, []
    try:
        digest = source_digest.digest(entry.sources)
    except (SyntaxError, ValueError) as error:
        digest = f"none: {error}"
    if digest != study.source_sha256:
        found.append("its source files do not match its source digest")
    for horizon in entry.horizons:
        here = [r for r in entry.results if r.trial.horizon == horizon]
        best = winner(here, horizon)
        tried = [r.trial.hparams for r in here if r.trial.seed == TUNING_SEED]
        if best is None or any(
            r.trial.hparams != best.trial.hparams for r in here if r.trial.seed != TUNING_SEED
        ):
            found.append(
                f"horizon {horizon}: its final runs do not use the trial with the lowest probe loss"
            )
        if tried and sorted(map(_plain, tried)) != sorted(map(_plain, _points(study, len(tried)))):
            found.append(f"horizon {horizon}: its trials are not the points sampled from its space")
    return found


def _plain(hparams: Mapping[str, Any]) -> str:
    return json.dumps(rounded(hparams), sort_keys=True)


def _points(study: Study, n: int) -> list[dict[str, Any]]:
    """The first n points that a sweep samples from the study's space."""

    def domain(described: Mapping[str, Any]) -> domains.Domain:
        kind = getattr(domains, described["kind"])
        settings = {k: v for k, v in described.items() if k != "kind"}
        return kind(*settings["values"]) if "values" in settings else kind(**settings)

    return sample({name: domain(described) for name, described in study.space.items()}, {}, n)
