"""The leaderboard as Markdown, for README."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.board import marked
from sweeps.board.tables import (
    across_cells,
    caption,
    cells,
    certificate,
    reach_lines,
    tune_check_lines,
)

BEGIN, END = (
    "<!-- leaderboard: python sweeps/leaderboard.py --readme=README.md -->",
    "<!-- /leaderboard -->",
)


def render(board: Mapping[str, Any]) -> str:
    """The leaderboard as Markdown, without its warnings."""
    parts = [f"**{_escape(board['notice'])}**" if board["notice"] else ""]
    for task in board["tasks"]:
        names, rows = cells(board, task["name"], intervals=True)
        parts += [
            _markdown_table(names, rows),
            f"`{task['name']}`. {caption(board, task)}",
        ]
        lines = [f"- Code to read: {_escape(line)}." for line in reach_lines(board, task["name"])]
        lines += [f"- Baseline: {_escape(line)}" for line in _of_baseline(board, task["name"])]
        lines += [f"- Tuning: {_escape(line)}." for line in tune_check_lines(board, task["name"])]
        parts += ["\n".join(lines + [f"- Validity: {line}" for line in certificate(task)])]
    if board["across"]:
        parts += [
            "Tasks side by side:",
            _markdown_table(*across_cells(board["across"])),
            "\n".join(
                f"- {_escape(line)}"
                for key in ("sentences", "contradictions")
                for line in board["across"][key]
            ),
        ]
    if board["published"]:
        parts += ["Beside results that others published ([docs/external](docs/external)):"]
        parts += ["\n".join(map(_published, board["published"]))]
    return "\n\n".join(part for part in parts if part)


def _of_baseline(board: Mapping[str, Any], task: str) -> list[str]:
    """The warnings about the baseline, on whose tuning every speed-up rests."""
    return [
        warning
        for entry in board["entries"]
        if (entry["task"], entry["optimizer"]) == (task, board["baseline"])
        for warning in entry["warnings"]
    ]


def _published(found: Mapping[str, Any]) -> str:
    """One publication; evidence.md names the pairs that stand otherwise there."""
    line = f"- {_escape(' '.join(found['sentences']))}"
    if n := len(found["contradictions"]):
        others = "The other one is" if n == 1 else "The others are"
        line += f" {others} named in [docs/evidence.md](docs/evidence.md#published)."
    return line


def _markdown_table(names: list[str], rows: list[list[str]]) -> str:
    lines = [
        names,
        ["---:" if name != "optimizer" else "---" for name in names],
        *[[_escape(cell) for cell in row] for row in rows],
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(cell: str) -> str:
    return (
        re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", cell)
        if not re.fullmatch(r"[\w.,<>x\[\] -]*", cell)
        else cell.replace("<", "&lt;")
    )


def update(path: Path, board: Mapping[str, Any]) -> None:
    """Replaces the leaderboard between the file's markers.

    Raises:
      UserError: if the file lacks the markers.
    """
    marked.replace(path, BEGIN, END, render(board))
