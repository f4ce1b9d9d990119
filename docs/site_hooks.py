"""Makes a site of the pages that are written for the repository (mkdocs.yml names this file).

README.md and CONTRIBUTING.md become pages. A link to any other file becomes the file's name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
_PICTURE = re.compile(r"<picture>.*?</picture>", re.DOTALL)
_SVG = "figures/digits-patience"


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that lie outside docs/."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_as_page(text)))
    return files


def _as_page(text: str) -> str:
    """The text of a file in the root, as if it lay in docs/."""
    # A link to docs/x is one to x; one to x is one to ../x.
    moved = _LINK.sub(
        lambda m: f"[{m[1]}]({_moved(m[2])})" if not m[2].startswith(("http", "#")) else m[0], text
    )
    picture = "".join(
        f"![Final probe loss by the length of a run.]({_SVG}{suffix}.svg#only-{scheme})\n"
        for suffix, scheme in (("", "light"), ("-dark", "dark"))
    )
    return _PICTURE.sub(picture, moved)


def _moved(link: str) -> str:
    return link.removeprefix("docs/") if link.startswith("docs/") else f"../{link}"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Points links to README and CONTRIBUTING at their pages, and unlinks other files."""

    def replaced(match: re.Match[str]) -> str:
        text, link = match.groups()
        path, hash, anchor = link.partition("#")
        if not path.startswith("../"):
            return match[0]
        page = PAGES.get(path.removeprefix("../"))
        return f"[{text}]({page}{hash}{anchor})" if page else text

    return _LINK.sub(replaced, markdown)
