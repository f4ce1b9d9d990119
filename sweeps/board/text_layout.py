"""Plain text that fits a terminal: columns, folded lines, and names that cannot disturb it; pure.

Widths are counted in the terminal's cells, of which some characters take two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len

GAP = 2
ELLIPSIS = "…"


def printable(text: str) -> str:
    """The text on one line, with an escape such as \\x1b for each character that prints nothing.

    Names and messages come from other people's files and must not reach the terminal as commands.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shorten(text: str, width: int) -> str:
    """The text, without its middle if it is wider than `width` cells."""
    if cell_len(text) <= width:
        return text
    front = _head(text, width // 2)
    back = _head(text[::-1], width - 1 - cell_len(front))[::-1]
    return f"{front}{ELLIPSIS}{back}" if width > 0 else ""


def shorten_first(first: str, second: str, width: int) -> str:
    """Both together; the first loses its middle where they are wider than `width` cells.

    If that leaves less than three cells of the first, both are shortened as one.
    """
    room = width - cell_len(second)
    return shorten(shorten(first, room) + second if room > 2 else first + second, width)


def _head(text: str, width: int) -> str:
    """The start of the text that fits into `width` cells."""
    while cell_len(text) > max(width, 0):
        text = text[:-1]
    return text


def fold(items: Sequence[str], width: int) -> list[str]:
    """Lines of items, separated by commas, that break after commas only.

    An item that is wider than a line loses its middle.
    """
    lines: list[str] = []
    for i, item in enumerate(items):
        comma = "," if i < len(items) - 1 else ""
        shown = shorten(item, width - len(comma)) + comma
        if lines and cell_len(lines[-1]) + 1 + cell_len(shown) <= width:
            lines[-1] += f" {shown}"
        else:
            lines.append(shown)
    return lines


def wrap(text: str, width: int, hanging: int = 0) -> list[str]:
    """Lines that break between words; lines after the first are indented by `hanging` spaces.

    A word that is wider than a line, such as a path, stays whole.
    """
    lines = [""]
    for word in text.split():
        if lines[-1].strip() and cell_len(lines[-1]) + 1 + cell_len(word) > width:
            lines.append(" " * hanging + word)
        else:
            lines[-1] += f"{' ' if lines[-1] else ''}{word}"
    return lines


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
      header: its name; a newline divides it into two lines.
      cells: (left, right) of each cell. The ends of all left parts lie below each other, unless
        the column is text.
      leaves: order in which columns are left out where the width does not hold all; 0 for never.
      text: align cells and header to the left.
    """

    header: str
    cells: Sequence[tuple[str, str]]
    leaves: int = 0
    text: bool = False

    def lines(self) -> list[str]:
        """Two lines of the header, then the cells, all of the same width."""
        rights = 0 if self.text else max(cell_len(right) for _, right in self.cells)
        body = [left + to_left(right, rights) for left, right in self.cells]
        pad = to_left if self.text else _to_right
        head = self.header.split("\n")
        lines = [*[""] * (2 - len(head)), *head, *body]
        width = max(map(cell_len, lines))
        return [pad(line, width) for line in lines]

    @property
    def width(self) -> int:
        return cell_len(self.lines()[0])


def to_left(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _to_right(text: str, width: int) -> str:
    return " " * (width - cell_len(text)) + text


def choose(columns: Sequence[Column], width: int, narrow: int, name: int) -> list[Column]:
    """The columns that fit into `width` cells, and as many cells of the column of names as remain.

    Args:
      columns: all columns.
      width: cells of a line.
      narrow: cells that the column of names may always have, if it needs them.
      name: its place among the columns.
    """
    names = columns[name]

    def remaining(kept: Sequence[Column]) -> int:
        others = [column.width for column in kept if column is not names]
        return width - sum(others) - GAP * len(others)

    kept = list(columns)
    droppable = sorted((c for c in columns if c.leaves), key=lambda c: c.leaves)
    while droppable and remaining(kept) < min(names.width, narrow):
        kept.remove(droppable.pop(0))
    room = max(remaining(kept), len(names.header))
    short = [(shorten_first(left, right, room), "") for left, right in names.cells]
    return [replace(names, cells=short) if column is names else column for column in kept]


def table(columns: Sequence[Column]) -> tuple[list[str], list[str]]:
    """The lines of the header with the rule below, and a line for each row; at least one row."""
    found = [
        (" " * GAP).join(parts).rstrip()
        for parts in zip(*(c.lines() for c in columns), strict=True)
    ]
    rule = "─" * (sum(c.width for c in columns) + GAP * (len(columns) - 1))
    head = [line for line in found[:2] if line]
    return [*head, rule], found[2:]
