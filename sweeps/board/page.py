"""The leaderboard as one HTML file that needs no network, framework or build step."""

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
# In the order in which they are joined; the last one starts the page.
_SCRIPTS = (
    "dom",
    "model",
    "table",
    "detail",
    "plot",
    "hover",
    "save",
    "curves",
    "patience",
    "trials",
    "pareto",
    "profile",
    "validity",
    "elsewhere",
    "choice",
    "main",
)
_CURVE_DIGITS = 5  # significant digits, enough for a figure
_MARKUP = re.compile("[<>&\u2028\u2029]")


def render(board: Mapping[str, Any]) -> str:
    """The leaderboard as one self-contained HTML document, to be written as UTF-8; pure.

    Its strings may be hostile. They are embedded as data and shown as text; they never become
    markup, scripts, styles or links. A content security policy blocks everything else.

    Args:
      board: JSON data from `build.make`: entries, tasks, baseline and warnings. Optional parts may
        be missing or None.

    Raises:
      ValueError: if a number is not finite.
      TypeError: if a value is not plain JSON.
    """
    style = _read("page.css")
    script = (
        '(() => {\n"use strict";\n'
        + "\n".join(_read(f"{name}.js") for name in _SCRIPTS)
        + "})();\n"
    )
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return Template(_read("page.html")).substitute(
        policy=policy, style=style, script=script, board=_embedded(board)
    )


def _read(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hash(block: str) -> str:
    """The hash by which the content security policy allows an inline block."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}'"


def _embedded(board: Mapping[str, Any]) -> str:
    """ASCII JSON without any character that could end the element around it."""
    content = json.dumps(_shortened(board), separators=(",", ":"), allow_nan=False)
    return _MARKUP.sub(lambda match: f"\\u{ord(match[0]):04x}", content)


def _shortened(value: Any, in_curve: bool = False) -> Any:
    """The same data with fewer digits in curves, which make up most of the page's size."""
    if isinstance(value, Mapping):
        return {key: _shortened(item, in_curve or key == "curve") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(item, in_curve) for item in value]
    return float(f"{value:.{_CURVE_DIGITS}g}") if in_curve and isinstance(value, float) else value
