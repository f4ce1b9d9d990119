"""Makes entries of the leaderboard from finished studies."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from distill_bench.errors import UserError
from sweeps import cli
from sweeps.board import entry_costs, write_entry
from sweeps.board.entries import Cost
from sweeps.planning.plug_ins import resolve
from sweeps.results import store
from sweeps.results.store import Loaded


def add(
    paths: Sequence[Path], folder: Path, replace: bool, measure_cost: bool, cache: str | None
) -> bool:
    """Writes an entry for each study that is ready, and prints why the others are not.

    Args:
      paths: folders of one study each, or those that sweeps/run.py --outdir wrote.
      folder: of the leaderboard's entries.
      replace: also replace entries of the same name that other code made.
      measure_cost: measure what a step of each costs, against the baseline's.
      cache: folder of compiled programs and of the checks' outcomes; None for none.

    Returns:
      Whether every study became an entry, and there was at least one.

    Raises:
      UserError: if one of the paths holds no study.
    """
    studies = store.merge([loaded for path in paths for loaded in _studies(path)])
    cli.set_up_jax(cache)
    from sweeps.execution import preflight  # makes arrays

    by_name: dict[tuple[str, str], list[Loaded]] = {}
    for loaded in studies:
        by_name.setdefault((loaded.study.task, loaded.study.optimizer), []).append(loaded)
    refused = False
    for versions in by_name.values():
        try:
            loaded = _only(versions)
            write_entry.check(loaded, folder, replace)
            preflight.require(loaded, cache)
            cost = _cost(loaded) if measure_cost else None
            print(write_entry.write(loaded, cost, folder, replace))
        except UserError as error:
            refused = True
            print(error, file=sys.stderr)
    return bool(by_name) and not refused


def _only(versions: list[Loaded]) -> Loaded:
    if len(versions) == 1:
        return versions[0]
    folders = "\n".join(
        f"- {loaded.folder}, source {loaded.study.source_sha256[:12]}, "
        f"task {loaded.study.fingerprint}"
        for loaded in versions
    )
    raise UserError(
        f"{len(versions)} studies of {versions[0].study.optimizer} differ in task, source, search "
        f"space or versions: name one of them with --add.\n{folders}"
    )


def _studies(path: Path) -> list[Loaded]:
    if (path / "study.json").is_file():
        return [store.load_study(path)]
    found = store.load(path) if path.is_dir() else []
    if not found:
        raise UserError(
            f"--add={path} holds no study: "
            "name a folder that sweeps/run.py --outdir wrote, or one study's folder in it."
        )
    return found


def _cost(loaded: Loaded) -> Cost:
    """Measures the update rule as it is now, which must be the one that ran."""
    rule = resolve(loaded.spec)
    if rule.source_sha256 != loaded.study.source_sha256:
        raise UserError(
            f"{loaded.study.optimizer} has changed since it ran, so its cost cannot be measured: "
            "run it again, or add it with --nocost."
        )
    return entry_costs.measured(loaded.study.task, rule.optimizer)
