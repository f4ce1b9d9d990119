"""The leaderboard as one HTML file: no network, no framework, nothing to build."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

_ASSETS = Path(__file__).resolve().parent / "page_assets"
# The last one starts the others.
_SCRIPTS = (
    "dom",
    "model",
    "table",
    "detail",
    "plot",
    "curves",
    "patience",
    "trials",
    "pareto",
    "profile",
    "validity",
    "choice",
    "main",
)
_CURVE_DIGITS = 5  # significant; what a figure can show
_MARKUP = re.compile("[<>&\u2028\u2029]")


def render(board: Mapping[str, Any]) -> str:
    """The board as one self-contained HTML document, to be written as UTF-8; pure.

    `board` is plain JSON data: entries, tasks, baseline and warnings; optional parts may be missing or None. Its strings may be hostile: they
    are embedded as data, set as text, and never become markup, scripts, styles or links; a content security policy refuses whatever is not ours.

    Raises:
      ValueError: where a number is not finite.
      TypeError: where a value is not plain JSON.
    """
    style = _read("page.css")
    script = (
        '(() => {\n"use strict";\n'
        + "\n".join(_read(f"{name}.js") for name in _SCRIPTS)
        + "})();\n"
    )
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    return Template(_read("page.html")).substitute(
        policy=policy, style=style, script=script, board=_embedded(board)
    )


def _read(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hash(block: str) -> str:
    """The policy's name of an inline block."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}'"


def _embedded(board: Mapping[str, Any]) -> str:
    """ASCII JSON in which no character can end the element that holds it."""
    content = json.dumps(_short(board), separators=(",", ":"), allow_nan=False)
    return _MARKUP.sub(lambda match: f"\\u{ord(match[0]):04x}", content)


def _short(value: Any, within_curve: bool = False) -> Any:
    """The board with its curves' numbers cut to what a figure can show: most of the page's bytes are theirs."""
    if isinstance(value, Mapping):
        return {key: _short(item, within_curve or key == "curve") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_short(item, within_curve) for item in value]
    return (
        float(f"{value:.{_CURVE_DIGITS}g}") if within_curve and isinstance(value, float) else value
    )
