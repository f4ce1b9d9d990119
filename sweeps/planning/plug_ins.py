"""Resolves an optimizer that the user typed, and shows the errors of plug-in files."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

from distill_bench import settings
from distill_bench.errors import UserError
from distill_bench.log import LOG
from optimizers.contract import registry


def absolute(spec: str) -> str:
    """The spec with an absolute path if it names a file that exists."""
    target, colon, attribute = spec.partition(":")
    path = Path(target).expanduser()
    if not (target.endswith(".py") and path.is_file()):
        return spec
    return f"{path.absolute()}{colon}{attribute}"


def resolve(spec: str) -> registry.Resolved:
    """The optimizer that `spec` names; see `resolve_watched`."""
    return resolve_watched(spec)[0]


def resolve_watched(spec: str, found: str | None = None) -> tuple[registry.Resolved, list[str]]:
    """The optimizer that `spec` names, in any form that `registry.resolve` accepts.

    found: the same as `absolute` returned earlier, in case the current folder has changed.

    Returns:
      The optimizer, and the settings that its file changed while it was imported, such as
      "jax_enable_x64 = True". They are set back, because they would change the numbers of all.

    Raises:
      UserError: if it does not exist, or its file raises; the message then holds the part of the
        stack trace that lies in the file. Or if a setting cannot be set back.
    """
    before = settings.current()
    try:
        resolved = _resolve(spec, found or absolute(spec))
    finally:
        changed = before.restore()
        if changed:
            LOG.warning(
                "Warning: --opt=%s changes settings while it is imported: %s. They are set back, "
                "because they would change the numbers of every optimizer.",
                spec,
                ", ".join(changed),
            )
    return resolved, changed


def _resolve(spec: str, found: str) -> registry.Resolved:
    try:
        return registry.resolve(found)
    except registry.UnknownOptimizer as error:
        raise UserError(str(error)) from None
    except (Exception, SystemExit) as error:  # a plug-in's file may raise anything
        path = found.partition(":")[0]
        own = own_traceback(traceback.format_exception(error), path)
        raise UserError(f"--opt={spec} cannot be imported; its own error:\n\n{own}") from None


def own_traceback(lines: Sequence[str], path: str) -> str:
    """A formatted exception from the first frame in the file `path` on, or its last 12 lines if
    no frame is."""
    text = "".join(lines).rstrip()
    text = text[max(text.rfind("Traceback (most recent call last)"), 0) :]
    frame = text.find(f'  File "{path}"')
    return text[frame:] if frame >= 0 else "\n".join(text.splitlines()[-12:])
