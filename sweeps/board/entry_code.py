"""The optimizer of an entry: from this installation, or from the code that the entry carries.

Carried code runs only if the user trusts it. Built-in optimizers and factories of optax run from
this installation.
"""

from __future__ import annotations

import contextlib
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from distill_bench import settings
from distill_bench.errors import UserError
from optimizers.contract import registry, source_digest
from optimizers.contract.api import Optimizer
from optimizers.contract.local_modules import PACKAGE
from optimizers.contract.reach import beyond
from optimizers.contract.syntax import declared_in
from sweeps.board.entries import Entry
from sweeps.planning.plan import describe_domain


def is_carried(entry: Entry) -> bool:
    """Whether the optimizer is not part of this installation, so that its code must come from the
    entry."""
    spec = entry.spec
    of_optax = spec.startswith("optax:") and spec.removeprefix("optax:").isidentifier()
    return not of_optax and spec not in registry.builtins()


@contextlib.contextmanager
def optimizer_of(entry: Entry, trust: bool) -> Iterator[tuple[Optimizer, list[str]]]:
    """Yields the entry's optimizer, and the signs that it is not the one that ran.

    Raises:
      UserError: if it is not built in and `trust` is false, or its code is missing or fails to
        import.
    """
    if not is_carried(entry):
        yield installed(entry)
        return
    name = trusted_file(entry, trust)
    with tempfile.TemporaryDirectory() as folder:
        carried = (entry.sources, name, entry.study.optimizer, Path(folder))
        yield _checked(entry, _resolve(entry, lambda: registry.resolve_carried(*carried)))


def installed(entry: Entry) -> tuple[Optimizer, list[str]]:
    """The optimizer of this installation that the entry names, and the signs that it is not the one
    that ran."""
    return _checked(entry, _resolve(entry, lambda: registry.resolve(entry.spec)))


def trusted_file(entry: Entry, trust: bool) -> str:
    """The name of the carried file that declares the optimizer.

    Raises:
      UserError: if `trust` is false, or no file or several declare it.
    """
    own = source_digest.own_files(entry.sources)
    declaring = [name for name, text in own.items() if entry.study.optimizer in declared_in(text)]
    if len(declaring) != 1:
        raise UserError(
            f"{entry.path} cannot be rerun: it must carry exactly one file that declares "
            f"{entry.study.optimizer}, and it carries {len(declaring)}."
        )
    if not trust:
        raise UserError(
            f"The optimizer of {entry.path} is not built in. "
            "Rerunning it would run code from the entry:\n"
            + "\n".join(_files_to_read(own))
            + "\nRead this code in the entry, under 'sources', then pass --trust to run it."
        )
    return declaring[0]


def other_package_files(entry: Entry) -> list[str]:
    """A sentence that says which files of this package are others than those that the entry's code
    used. Nothing is imported."""
    own = source_digest.own_files(entry.sources)
    ours = [name for name in entry.sources if name not in own]
    here = {name: PACKAGE.parent / name for name in ours}
    return _differences(
        entry, {n: path.read_text() if path.is_file() else "" for n, path in here.items()}, ours
    )


def _files_to_read(own: Mapping[str, str]) -> list[str]:
    """A line for each file: its length, and what it reaches beyond arrays."""
    reached = beyond(own)
    return [
        f"  {name}, {len(text.splitlines())} lines"
        + (f"; reaches {', '.join(reached[name])}" if name in reached else "")
        for name, text in own.items()
    ]


def _resolve(entry: Entry, resolve: Callable[[], registry.Resolved]) -> registry.Resolved:
    before = settings.current()
    try:
        return resolve()
    except registry.UnknownOptimizer as error:
        raise UserError(str(error)) from None
    except Exception:
        raise UserError(
            f"The code in {entry.path} cannot be imported. Its error:\n\n"
            f"{traceback.format_exc(limit=-2)}"
        ) from None
    finally:
        before.restore()


def _checked(entry: Entry, found: registry.Resolved) -> tuple[Optimizer, list[str]]:
    contradictions = []
    if found.optimizer.name != entry.study.optimizer:
        contradictions.append(
            f"its runs are those of {found.optimizer.name}, not of {entry.study.optimizer}"
        )
    if found.source_sha256 != entry.study.source_sha256:
        contradictions += _differences(entry, found.sources, {*found.sources, *entry.sources})
    described = {name: describe_domain(domain) for name, domain in found.optimizer.space.items()}
    if described != entry.study.space:
        contradictions.append("its search space is not the one that its source declares")
    return found.optimizer, contradictions


def _differences(entry: Entry, here: Mapping[str, str], names: set[str] | list[str]) -> list[str]:
    differ = sorted(
        name
        for name in names
        if source_digest.digest({name: here.get(name, "")})
        != source_digest.digest({name: entry.sources.get(name, "")})
    )
    if not differ:
        return []
    return [
        f"its source differs from the one here ({', '.join(differ)}), so it cannot be confirmed"
    ]
