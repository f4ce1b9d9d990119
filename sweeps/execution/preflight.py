"""Runs the conformance checks on optimizers that the tests of this project do not cover.

An optimizer that counts its schedule twice as fast, or takes gradients that it does not declare,
gives numbers that compare with nobody's. What the checks found is kept by source digest, so that
they run once for each version of an optimizer's code.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path

from distill_bench.errors import UserError
from distill_bench.files import replace_atomically
from optimizers.conformance.checks import CHECKS, QUICK, Check
from optimizers.conformance.suite import Outcome, examine
from optimizers.contract import registry
from optimizers.contract.local_modules import PACKAGE
from sweeps.execution.progress import Display
from sweeps.planning.environment import versions
from sweeps.planning.plan import Candidate
from sweeps.planning.plug_ins import resolve
from sweeps.planning.study import content_id
from sweeps.results.store import Loaded


def warn(
    candidates: Sequence[Candidate], cache: str | None, display: Display, skip: Collection[str]
) -> None:
    """Says which quick checks an optimizer fails, before it is trained. Built-ins are not checked.

    Args:
      candidates: the optimizers of a sweep.
      cache: folder that keeps the outcomes; None for none.
      display: shows the warnings; its suspect is the optimizer under examination.
      skip: names of optimizers to leave out.
    """
    for candidate in candidates:
        name, spec = candidate.optimizer.name, candidate.spec
        if spec in registry.builtins() or name in skip:
            continue
        if not _kept(candidate.entry, QUICK, cache):
            display.suspect([name])
            display.begin(f"checking {name}", 0)
        failed = failures(candidate.entry, QUICK, cache)
        display.suspect([])
        if failed:
            display.say(
                f"Warning: {name} fails {_number(failed)}: its results may not compare with those "
                f"of others. Training goes on.\n{_listed(failed)}\n"
                f"All checks: python -m optimizers.conformance {spec}"
            )


def refuse_values(candidates: Sequence[Candidate]) -> None:
    """Refuses values of the command line with which a built-in optimizer cannot be built.

    A plug-in may fail for reasons of its own; that shows in its trials, with its stack trace.

    Raises:
      UserError: names the optimizer and the value.
    """
    for candidate in candidates:
        if candidate.spec not in registry.builtins():
            continue
        for name, values in candidate.search.listed:
            for value in values:
                try:
                    candidate.optimizer.build({**candidate.first, name: value}, 1_000)
                except ValueError as error:
                    raise UserError(f"--set={name}={value}: {candidate.spec}: {error}") from error


def require(loaded: Loaded, cache: str | None) -> None:
    """Runs all checks on the optimizer of a study, unless it is built in.

    Raises:
      UserError: lists the checks that it fails; or if its code is not here as it ran.
    """
    study = loaded.study
    if loaded.spec in registry.builtins():
        return
    entry = resolve(loaded.spec)
    if (entry.optimizer.name, entry.source_sha256) != (study.optimizer, study.source_sha256):
        raise UserError(
            f"{study.optimizer} ({loaded.folder}) has changed since it ran, so that it cannot be "
            "checked: run it again."
        )
    if failed := failures(entry, CHECKS, cache):
        raise UserError(
            f"{study.optimizer} ({loaded.folder}) cannot be an entry: it fails {_number(failed)}.\n"
            f"{_listed(failed)}"
        )


def failures(entry: registry.Resolved, checks: Sequence[Check], cache: str | None) -> list[Outcome]:
    """The checks that the optimizer fails; runs those whose outcome is not kept.

    Warnings are not failures.
    """
    found = _kept(entry, checks, cache)
    if not found:
        found = list(examine(entry.optimizer, checks))
        _keep(entry, checks, found, cache)
    return [outcome for outcome in found if outcome.fails]


def _number(failed: Sequence[Outcome]) -> str:
    return "a conformance check" if len(failed) == 1 else f"{len(failed)} conformance checks"


def _listed(failed: Sequence[Outcome]) -> str:
    return "\n".join(f"- {one.check.replace('_', ' ')}: {one.reason}" for one in failed)


def _path(entry: registry.Resolved, checks: Sequence[Check], cache: str) -> Path:
    """Of the file that keeps the outcomes. It changes with whatever they depend on."""
    files = sorted((PACKAGE / "conformance").glob("*.py")) + sorted(
        (PACKAGE / "contract").glob("*.py")
    )
    key = {
        "optimizer": entry.optimizer.name,
        "source": entry.source_sha256,
        "checks": [check.__name__ for check in checks],
        "code": [path.read_text() for path in files],
        "versions": versions(),
    }
    return Path(cache) / "conformance" / f"{content_id(key)}.json"


def _kept(entry: registry.Resolved, checks: Sequence[Check], cache: str | None) -> list[Outcome]:
    """The outcomes that are kept; none if there are none, or the file is damaged."""
    if not cache:
        return []
    try:
        content = json.loads(_path(entry, checks, cache).read_text())
        return [Outcome(str(check), reason) for check, reason in content]
    except (OSError, ValueError, TypeError):
        return []


def _keep(
    entry: registry.Resolved,
    checks: Sequence[Check],
    found: Sequence[Outcome],
    cache: str | None,
) -> None:
    if not cache:
        return
    path, text = _path(entry, checks, cache), json.dumps([[o.check, o.reason] for o in found])
    with contextlib.suppress(OSError):  # a check can be repeated
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(path, lambda file: file.write(text.encode()))
