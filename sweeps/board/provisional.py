"""One's own runs beside the leaderboard's entries, before they are entries themselves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from sweeps.board import versions
from sweeps.board.entries import Entry
from sweeps.board.run_records import mean_losses
from sweeps.planning.study import TUNING_SEED, Study
from sweeps.results.store import Loaded


def beside(
    committed: Sequence[Entry],
    studies: Sequence[Loaded],
    horizons: Collection[int] | None = None,
) -> tuple[list[Entry], list[str]]:
    """The studies in the form of entries, at the rungs of the board that have final runs.

    A study whose name an entry of its task has is called "name (own)".

    Args:
      committed: the leaderboard's entries.
      studies: one's own runs.
      horizons: the rungs to show; None for all.

    Returns:
      The entries, and a warning for each study that cannot be shown or lacks a rung on the board.
    """
    found, warnings = [], []
    for task in sorted({loaded.study.task for loaded in studies}):
        here = [loaded for loaded in studies if loaded.study.task == task]
        board = [entry for entry in committed if entry.study.task == task]
        names = _names(here, {entry.study.optimizer for entry in board})
        rungs = {horizon for entry in board for horizon in entry.horizons}
        for loaded in here:
            ran = _finished(loaded)
            shown = (ran & rungs if rungs else ran) & (set(horizons) if horizons else ran)
            if reason := _objection(loaded.study):
                warnings.append(f"{loaded.folder} is not shown: {reason}.")
            elif not ran:
                warnings.append(f"{loaded.folder} is not shown: it has no final runs yet.")
            elif rungs and (beyond := sorted(ran - rungs)):
                warnings.append(
                    f"{loaded.folder} is not shown at {', '.join(map(str, beyond))} steps: the "
                    "board has no such rung."
                )
            if shown and not reason:
                found.append(_entry(loaded, names[loaded.study.id], shown))
    return found, warnings


def _names(studies: Sequence[Loaded], taken: Collection[str]) -> dict[str, str]:
    """Id of each study -> the name that it has on the page."""
    names = versions.names_of(loaded.study for loaded in studies)
    return {id: f"{name} (own)" if name in taken else name for id, name in names.items()}


def _objection(study: Study) -> str | None:
    try:
        fingerprint = catalogue.get(study.task).fingerprint()
    except UserError as error:
        return str(error).splitlines()[0].rstrip(".")
    if study.fingerprint != fingerprint:
        return f"it ran on another version of the task ({study.fingerprint})"
    return None


def _entry(loaded: Loaded, name: str, horizons: Collection[int]) -> Entry:
    results = tuple(one for one in loaded.results if one.trial.horizon in horizons)
    curves = {}
    for result in results:
        if result.trial.seed != TUNING_SEED:
            means = mean_losses(result.losses)
            at = result.trial.horizon, result.trial.seed
            curves[at] = tuple(means["step"]), tuple(means["loss"])
    return Entry(
        replace(loaded.study, optimizer=name),
        results,
        curves,
        loaded.spec,
        loaded.sources,
        loaded.environment,
        None,
        loaded.folder / "study.json",
        "",
        provisional=True,
    )


def _finished(loaded: Loaded) -> set[int]:
    """Horizons with a final run that ended well."""
    return {
        one.trial.horizon for one in loaded.results if one.trial.seed != TUNING_SEED and one.final
    }
