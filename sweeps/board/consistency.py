"""What in an entry contradicts the rest of it; nothing is run."""

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
    """In words, what shows that the entry was altered after it was made."""
    study, found = entry.study, []
    try:
        digest = source_digest.digest(entry.sources)
    except (SyntaxError, ValueError) as error:
        digest = f"none: {error}"
    if digest != study.source_sha256:
        found.append("its source files are not those that its digest names")
    for horizon in entry.horizons:
        here = [r for r in entry.results if r.trial.horizon == horizon]
        best, tried = (
            winner(here, horizon),
            [r.trial.hparams for r in here if r.trial.seed == TUNING_SEED],
        )
        if best is None or any(
            r.trial.hparams != best.trial.hparams for r in here if r.trial.seed != TUNING_SEED
        ):
            found.append(
                f"horizon {horizon}: its final runs are not of the trial with the lowest probe loss"
            )
        if tried and sorted(map(_plain, tried)) != sorted(map(_plain, _points(study, len(tried)))):
            found.append(f"horizon {horizon}: its trials are not the points that its space gives")
    return found


def _plain(hparams: Mapping[str, Any]) -> str:
    return json.dumps(rounded(hparams), sort_keys=True)


def _points(study: Study, n: int) -> list[dict[str, Any]]:
    """The trials of the study's space, as sampling.sample gives them."""

    def domain(described: Mapping[str, Any]) -> domains.Domain:
        kind, settings = (
            getattr(domains, described["kind"]),
            {k: v for k, v in described.items() if k != "kind"},
        )
        return kind(*settings["values"]) if "values" in settings else kind(**settings)

    return sample({name: domain(described) for name, described in study.space.items()}, {}, n)
