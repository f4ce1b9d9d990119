"""Copies of entries under another name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optimizers.contract.source_digest import digest


def made_up(
    path: Path,
    name: str,
    change: Callable[[Any], object] = lambda content: None,
    code: Callable[[str], str] = lambda text: text,
) -> None:
    """Writes an entry of a plug-in `name`, whose file is that of the entry at `path`, renamed.

    Args:
      path: the entry to copy.
      name: of the copy.
      change: edits the copy in place.
      code: edits the text of its file.
    """
    content = json.loads(path.read_text())
    old, sources = content["study"]["optimizer"], content["sources"]
    own = next(one for one, text in sources.items() if f"def {old}(" in text)
    text = sources.pop(own).replace(f"def {old}(", f"def {name}(")
    sources[f"{name}.py"] = code(text)
    content["study"] |= {"optimizer": name, "source_sha256": digest(sources)}
    content["spec"] = f"./{name}.py"
    change(content)
    path.with_name(f"{name}.json").write_text(json.dumps(content))
