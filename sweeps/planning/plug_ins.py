"""Resolves an optimizer that the user typed, and shows the errors of plug-in files."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

from distill_bench import settings
from distill_bench.errors import UserError
from distill_bench.log import LOG
from optimizers.contract import registry


def resolve(spec: str) -> registry.Resolved:
    """The optimizer that `spec` names; see `resolve_watched`."""
    return resolve_watched(spec)[0]


def resolve_watched(spec: str) -> tuple[registry.Resolved, list[str]]:
    """The optimizer that `spec` names, in any form that `registry.resolve` accepts.

    Returns:
      The optimizer, and the settings that its file changed while it was imported, such as
      "jax_enable_x64 = True". They are set back, because they would change the numbers of all.

    Raises:
      UserError: if it does not exist, or its file raises; the message then holds the part of the
        stack trace that lies in the file. Or if a setting cannot be set back.
    """
    before = settings.current()
    try:
        found = _resolve(spec)
    finally:
        changed = before.restore()
        if changed:
            LOG.warning(
                "Warning: --opt=%s changes settings while it is imported: %s. They are set back, "
                "because they would change the numbers of every optimizer.",
                spec,
                ", ".join(changed),
            )
    return found, changed


def _resolve(spec: str) -> registry.Resolved:
    try:
        return registry.resolve(spec)
    except registry.UnknownOptimizer as error:
        raise UserError(str(error)) from None
    except Exception as error:  # a plug-in's file may raise anything
        path = str(Path(spec.partition(":")[0]).resolve())
        own = own_traceback(traceback.format_exception(error), path)
        raise UserError(f"--opt={spec} cannot be imported; its own error:\n\n{own}") from None


def own_traceback(lines: Sequence[str], path: str) -> str:
    """A formatted exception from the first frame in the file `path` on, or its last 12 lines if
    no frame is."""
    text = "".join(lines).rstrip()
    text = text[max(text.rfind("Traceback (most recent call last)"), 0) :]
    frame = text.find(f'  File "{path}"')
    return text[frame:] if frame >= 0 else "\n".join(text.splitlines()[-12:])
