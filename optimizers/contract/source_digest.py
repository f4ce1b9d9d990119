"""The source digest: names what an optimizer's code does.

Results are kept under the digest of the code that made them: that of the optimizer's file and of
the files that it uses (`used_files.py`), each under its name.

- Files of this package count without their words (`stripping.py`). They were reviewed, and the
  digests of stored results outlive their rewording.
- A plug-in's own files count as they are parsed: comments and layout may change, and docstrings.
- If one of these reaches beyond arrays (`reach.py`), it may read its own text: then all of them
  count to the letter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from optimizers.contract.canonical_code import canonical, parsed
from optimizers.contract.local_modules import PACKAGE
from optimizers.contract.reach import beyond, sees_words
from optimizers.contract.used_files import source_files


def digest(files: Mapping[str, str]) -> str:
    """sha256 of what the files do, in hexadecimal.

    Args:
      files: name -> text. Files of this package are named by their path ("optimizers/masks.py").

    Raises:
      SyntaxError: if one of them is not Python.
      ValueError: if one of them holds null bytes or is nested too deeply.
    """
    own = own_files(files)
    python = {name: text for name, text in own.items() if name.endswith(".py")}
    exact = len(python) < len(own) or bool(beyond(python)) or any(map(sees_words, python.values()))
    whole = hashlib.sha256()
    for name, text in sorted(files.items()):
        if name not in own:
            form, code = "", canonical(text).encode()
        elif exact or name not in python:
            form, code = "exact ", text.encode()
        else:
            form, code = "parsed ", parsed(text).encode()
        whole.update(f"{name}\0{form}{len(code)}\0".encode() + code)
    return whole.hexdigest()


def own_files(files: Mapping[str, str]) -> dict[str, str]:
    """Those of the files that are not of this package."""
    return {name: text for name, text in files.items() if not name.startswith(f"{PACKAGE.name}/")}


def source_sha256(path: Path) -> str:
    """The digest of the file at `path` and of all files that reading finds it to use."""
    return digest(source_files(path))
