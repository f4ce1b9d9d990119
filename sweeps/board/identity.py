"""Whose code an entry carries: that of the optimizer by whose name it goes, or another's."""

from __future__ import annotations

from collections.abc import Mapping

from optimizers.contract import names, registry
from optimizers.contract.reach import beyond
from optimizers.contract.source_digest import digest, own_files, source_sha256
from optimizers.contract.syntax import summaries_in
from sweeps.planning.study import Study


def digest_of(sources: Mapping[str, str]) -> str:
    """The source digest of carried files; a text that is no digest if they are not Python."""
    try:
        return digest(sources)
    except (SyntaxError, ValueError) as error:
        return f"none: {error}"


def reaches(spec: str, sources: Mapping[str, str]) -> list[str]:
    """What the files of an optimizer reach beyond arrays (reach.py), such as "mine.py: os, exec".

    None for the code of this package: it was reviewed.
    """
    if registry.file_of(spec):
        return []
    return [f"{name}: {', '.join(found)}" for name, found in beyond(own_files(sources)).items()]


def declaration(name: str, sources: Mapping[str, str]) -> tuple[str, str, str] | None:
    """The carried file that declares an optimizer: its name, its text and the first line of the
    optimizer's docstring. None if no file does. Nothing is run."""
    for file, text in sources.items():
        try:
            summaries = summaries_in(text)
        except (SyntaxError, ValueError):
            continue
        if name in summaries:
            return file, text, summaries[name]
    return None


def objection(study: Study, spec: str, sources: Mapping[str, str]) -> str | None:
    """Why a study may not stand on the leaderboard under its name; None if it may.

    Its files must be those of its source digest. The name of a built-in optimizer, or of one of
    optax, is for the code that this installation has under that name.
    """
    if binary := sorted(name for name in sources if not name.endswith(".py")):
        return f"it uses {', '.join(binary)}, which holds no Python text that an entry could show"
    if digest_of(sources) != study.source_sha256:
        return "its source files do not match its source digest"
    file = registry.file_of(spec)
    if file is None:
        return names.objection(study.optimizer, registry.builtins())
    name = spec.replace("optax:", "optax_", 1)
    if study.optimizer != name:
        return f"its runs are said to be those of --opt={spec}, which is called {name}"
    if study.source_sha256 != source_sha256(file):
        return (
            f"its code is not that of {name} here: run it again (or, if the code was only moved or "
            "renamed: python sweeps/verify.py --restamp)"
        )
    return None
