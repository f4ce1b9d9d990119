"""JSON files that carry the digest of what they say, so that a changed digit does not pass."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_bench.files import write_atomically

_DIGEST = "sha256"


class Damaged(Exception):
    """Files of the store cannot be read, or were changed; the message names them and the reason."""


def write(path: Path, content: Mapping[str, Any], beside: bytes = b"") -> None:
    """Writes the content with the digest of itself and of what is stored `beside` it."""
    sealed = {**content, _DIGEST: _digest(content, beside)}
    write_atomically(path, json.dumps(sealed, indent=1))


def read(path: Path, names: frozenset[str], beside: bytes = b"") -> dict[str, Any]:
    """The content that `write` wrote.

    Files of earlier versions have no digest and are read as they are.

    Args:
      path: the file.
      names: the names that the content has; with any others, the digest's name may have changed.
      beside: what is stored beside it now.

    Raises:
      Damaged: if it cannot be read, has other names, or has changed since it was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{path} cannot be read ({type(error).__name__}: {error})") from None
    if not isinstance(content, dict):
        raise Damaged(f"{path} holds a {type(content).__name__}, not an object")
    written = content.pop(_DIGEST, None)
    if content.keys() != names:
        raise Damaged(
            f"{path} does not hold what it should: {', '.join(sorted(content.keys() ^ names))}"
        )
    if written is not None and written != _digest(content, beside):
        which = f"{path} or what lies beside it" if beside else path
        raise Damaged(f"{which} was changed after it was written")
    return content


def _digest(content: Mapping[str, Any], beside: bytes) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode() + beside).hexdigest()
