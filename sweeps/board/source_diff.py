"""What changed in an optimizer's source between the versions of it that a store holds."""

from __future__ import annotations

import difflib
import itertools
import time
from collections.abc import Iterator, Sequence

from distill_bench.errors import UserError, suggestion
from sweeps.board import versions
from sweeps.board.text_layout import printable
from sweeps.results.store import Loaded


def describe(studies: Sequence[Loaded], name: str) -> str:
    """Unified diffs from each version of the optimizer to the next, in the order in which they ran.

    Raises:
      UserError: if the store has no study of that name, or a single version.
    """
    found = [loaded for loaded in studies if loaded.study.optimizer == name]
    if not found:
        known = sorted({loaded.study.optimizer for loaded in studies})
        raise UserError(f"--diff={name}: no such optimizer ran.{suggestion(name, known)}")
    names = versions.names_of(loaded.study for loaded in found)
    by_source: dict[str, Loaded] = {}
    for loaded in sorted(found, key=versions.last_written):
        by_source.setdefault(loaded.study.source_sha256, loaded)
    if len(by_source) == 1:
        raise UserError(f"--diff={name}: one version ran, so that there is nothing to compare.")
    ordered = sorted(by_source.values(), key=versions.last_written)
    lines: list[str] = []
    for old, new in itertools.pairwise(ordered):
        lines += _diff(old, new, names)
    return "\n".join(printable(line) for line in lines)


def _diff(old: Loaded, new: Loaded, names: dict[str, str]) -> Iterator[str]:
    for file in sorted(old.sources.keys() | new.sources.keys()):
        yield from difflib.unified_diff(
            old.sources.get(file, "").splitlines(),
            new.sources.get(file, "").splitlines(),
            f"{names[old.study.id]} {file}",
            f"{names[new.study.id]} {file}",
            _when(old),
            _when(new),
            lineterm="",
        )


def _when(loaded: Loaded) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(versions.last_written(loaded)))
