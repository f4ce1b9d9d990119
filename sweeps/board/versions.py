"""Names for several studies of one optimizer, the newest of them, and what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import count
from typing import Any

from sweeps.planning.study import Study
from sweeps.results.store import Loaded

_DIGITS = 6


def names_of(studies: Iterable[Study]) -> dict[str, str]:
    """Id of each study -> its name.

    That is the optimizer's name, alone if no other study has it. Studies with different sources add
    "@" and the first digits of the source's SHA-256; those with one source add "#" and the first
    digits of the study's id.
    """
    names: dict[str, str] = {}
    for name, group in _by_optimizer(studies).items():
        sources = {study.source_sha256 for study in group}
        for study in group:
            siblings = [other.id for other in group if other.source_sha256 == study.source_sha256]
            source = f"@{_start(study.source_sha256, sources)}" if len(sources) > 1 else ""
            one = f"#{_start(study.id, siblings)}" if len(siblings) > 1 else ""
            names[study.id] = name + source + one
    return names


def last_written(loaded: Loaded) -> float:
    """When the study or its last trial was written, in seconds since 1970; 0 without its files."""
    paths = [*loaded.folder.glob("study.json"), *loaded.folder.glob("*/result.json")]
    return max((path.lstat().st_mtime for path in paths), default=0.0)


def newest_of(studies: Sequence[Loaded]) -> set[str]:
    """Ids of the studies that were written last, one for each name that several of them have."""
    by_id = {loaded.study.id: loaded for loaded in studies}
    groups = _by_optimizer(loaded.study for loaded in studies).values()
    return {
        max(group, key=lambda study: last_written(by_id[study.id])).id
        for group in groups
        if len(group) > 1
    }


def describe(studies: Iterable[Study]) -> list[str]:
    """What the names of `names_of` stand for, and what differs between studies of one source."""
    studies = list(studies)
    names, lines = names_of(studies), []
    for name, group in _by_optimizer(studies).items():
        sources: dict[str, list[Study]] = {}
        for study in group:
            sources.setdefault(study.source_sha256, []).append(study)
        if len(sources) > 1:
            lines.append(
                f"{name}: {len(sources)} versions of its source; the digits after @ begin the "
                f"source's SHA-256. leaderboard.py --diff={name} shows what changed."
            )
        for siblings in sources.values():
            if len(siblings) > 1:
                lines.append(
                    f"{name}: the digits after # begin the study's id. Studies with one source "
                    "differ in:"
                )
                differing = _differences(siblings)
                lines += [f"  {names[study.id]}: {differing[study.id]}" for study in siblings]
    return lines


def _by_optimizer(studies: Iterable[Study]) -> dict[str, list[Study]]:
    found: dict[str, list[Study]] = {}
    for study in studies:
        found.setdefault(study.optimizer, []).append(study)
    return found


def _start(digits: str, among: Iterable[str]) -> str:
    """The first _DIGITS digits, or more if another one of `among` starts with the same."""
    others = {other for other in among if other != digits}
    return next(
        digits[:n]
        for n in count(_DIGITS)
        if n >= len(digits) or not any(other.startswith(digits[:n]) for other in others)
    )


def _differences(studies: Sequence[Study]) -> dict[str, str]:
    """Id of each study -> what it has that another of the studies has not."""
    facts = {study.id: _facts(study) for study in studies}
    names = list(dict.fromkeys(name for found in facts.values() for name in found))
    differing = [n for n in names if len({found.get(n, "") for found in facts.values()}) > 1]
    return {
        id: ", ".join(found.get(name, f"{name} not set") for name in differing)
        for id, found in facts.items()
    }


def _facts(study: Study) -> dict[str, str]:
    """Name -> a phrase, for everything of the study that is part of its id."""
    content = asdict(study)
    space, fixed = content.pop("space"), content.pop("fixed")
    facts = {name: f"{name} in {_domain(domain)}" for name, domain in space.items()}
    for name, value in fixed.items():
        facts[name] = f"{name} {'one of' if isinstance(value, list) else 'set to'} {_value(value)}"
    for field, value in content.items():
        parts = value.items() if isinstance(value, Mapping) else [(field, value)]
        facts |= {str(name): f"{name} {_value(one)}" for name, one in parts}
    return facts


def _domain(domain: Mapping[str, Any]) -> str:
    values = [value for field, value in domain.items() if field != "kind"]
    return f"{domain.get('kind')}({', '.join(_value(value) for value in values)})"


def _value(value: Any) -> str:
    return ", ".join(map(_value, value)) if isinstance(value, list | tuple) else hparam(value)


def hparam(value: Any) -> str:
    """A hyperparameter's value, a float with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
