"""Names that a plug-in's optimizer may have. Results and entries are kept under them."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection

_PLAIN = re.compile("[A-Za-z][A-Za-z0-9_]{0,63}")
_OPTAX = "optax_"  # --opt=optax:yogi is called optax_yogi
# Devices of Windows, where con.json is no file; and what --opt understands.
_RESERVED = {"aux", "con", "nul", "prn", "all", "optax"} | {
    f"{device}{i}" for device in ("com", "lpt") for i in range(10)
}


def objection(name: object, builtins: Collection[str]) -> str | None:
    """Why an optimizer that is not built in may not be called so, and how to rename it; None if it
    may. Names that differ in case only are one name: they are one file on some systems."""
    why = _why_not(name, builtins)
    if why is None:
        return None
    words = re.sub("[^A-Za-z0-9]+", "_", str(name)).strip("_")[:40]
    plain = f"my_{words}" if words else "my_optimizer"
    return (
        f"an optimizer may not be called {str(name)[:80]!a}: {why}. Results and leaderboard "
        f"entries are kept by name: rename the function, for example to {plain}."
    )


def _why_not(name: object, builtins: Collection[str]) -> str | None:
    if type(name) is not str or not _PLAIN.fullmatch(name) or keyword.iskeyword(name):
        return "a name is up to 64 ASCII letters, digits and underscores, a letter first"
    folded = {one.casefold(): one for one in builtins}
    if builtin := folded.get(name.casefold()):
        if name != builtin:
            return f"only its case differs from the built-in optimizer {builtin}"
        return f"it is the name of a built-in optimizer (--opt={builtin})"
    if name.casefold().startswith(_OPTAX):
        return f"names that begin with {_OPTAX} are those of --opt=optax:NAME"
    if name.casefold() in _RESERVED:
        return "the name is reserved"
    return None
