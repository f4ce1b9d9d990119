"""Draws figures with matplotlib: the leaderboard's as SVG and PDF, those of one's own runs."""

from __future__ import annotations

import functools
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_bench.errors import UserError
from distill_bench.files import replace_atomically
from sweeps.board.figures import Figure, figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

COLUMN = (3.4, 2.6)  # inches: the column of a two-column paper
_NOTEBOOK_DPI = 144
_BESIDE, _DEEPEST = 5, 200  # points from a point to its name: to the right, down at most
_NEAR = 8  # points down, at most, to the name of a grey point
HIGHLIGHTED = 6  # entries with a colour of their own, besides the baseline; the others are grey


@dataclass(frozen=True)
class Theme:
    """Colours; `suffix` ends the names of its files."""

    suffix: str
    paper: str
    ink: str
    faint: str
    colours: tuple[str, ...]


# Okabe & Ito's colours, which colour-blind readers can tell apart; brighter on dark paper.
LIGHT = Theme(
    "",
    "#ffffff",
    "#1f2328",
    "#c9ced6",
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9"),
)
DARK = Theme(
    "-dark",
    "#0d1117",
    "#e6edf3",
    "#3d444d",
    ("#56b4e9", "#e69f00", "#2ecc9a", "#e39fc6", "#f0e442", "#7aa7ff"),
)


def write(board: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws all figures of all tasks: `<task>-<figure>.svg`, the same on dark paper, and PDF.

    Raises:
      UserError: if matplotlib is not installed, or a file cannot be written.
    """
    _need_matplotlib("--figures")
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for task in (one["name"] for one in board["tasks"]):
            for figure in figures(board, task):
                for theme, kind in ((LIGHT, "svg"), (DARK, "svg"), (LIGHT, "pdf")):
                    path = folder / f"{task}-{figure.name}{theme.suffix}.{kind}"
                    _draw(figure, board["baseline"], theme, path)
                    written.append(path)
    except OSError as error:
        raise UserError(f"--figures={folder} cannot be written: {error.strerror}.") from None
    return written


def side_by_side(drawn: Sequence[Figure], baseline: str) -> Canvas:
    """The figures in one row, for a notebook or `savefig`.

    Raises:
      UserError: if matplotlib is not installed.
    """
    _need_matplotlib("plot()")
    import matplotlib

    with matplotlib.rc_context(_style(LIGHT)):
        width, height = COLUMN
        canvas = _shown_in_notebooks()((width * max(1, len(drawn)), height), layout="constrained")
        for i, figure in enumerate(drawn):
            _fill(canvas.add_subplot(1, len(drawn), i + 1), figure, baseline, LIGHT)
    return canvas


@functools.cache
def _shown_in_notebooks() -> type[Canvas]:
    from matplotlib.figure import Figure as Canvas

    class Shown(Canvas):
        """A figure that a notebook shows, whether or not it uses pyplot."""

        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            self.savefig(content, format="png", dpi=_NOTEBOOK_DPI)
            return content.getvalue()

    return Shown


def _need_matplotlib(what: str) -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise UserError(
            f"{what} needs matplotlib, which is not installed.\n"
            "Install it: pip install 'distill-bench[plots]'"
        )


def _draw(figure: Figure, baseline: str, theme: Theme, path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(_style(theme)):
        canvas = Canvas(figsize=COLUMN, layout="constrained")
        axes = canvas.add_subplot()
        _fill(axes, figure, baseline, theme)
        metadata = (
            {"Date": None, "Description": figure.description()}
            if path.suffix == ".svg"
            else {"CreationDate": None}
        )
        replace_atomically(
            path,
            lambda file: canvas.savefig(file, format=path.suffix[1:], metadata=metadata),
        )


def _style(theme: Theme) -> dict[Any, Any]:
    return {
        "font.size": 8,
        "svg.fonttype": "none",
        "svg.hashsalt": "distill-bench",
        "pdf.fonttype": 42,  # fonts that editors can edit
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "axes.edgecolor": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "grid.color": theme.faint,
        "grid.linewidth": 0.4,
    }


def _fill(axes: Any, figure: Figure, baseline: str, theme: Theme) -> None:
    colours = iter(theme.colours)
    own = [line.name for line in figure.lines if line.name != baseline][:HIGHLIGHTED]
    own.append(baseline)
    for i, line in enumerate(figure.lines):
        known = line.name in own
        colour = theme.ink if line.name == baseline else next(colours) if known else theme.faint
        x, y, *ends = zip(*line.points, strict=True)
        # How far each end of a point's interval lies from the point.
        spread = [[abs(a - b) for a, b in zip(end, y, strict=True)] for end in ends] or None
        axes.errorbar(
            x,
            y,
            spread,
            color=colour,
            linewidth=1.2 if known else 0.7,
            linestyle=("--" if line.name == baseline else "-") if figure.connected else "",
            marker="o" if len(line.points) < 12 else None,
            markersize=2.5,
            elinewidth=0.7,
            label=line.name if known else None,
            zorder=2 + known - i / 1000,
        )
    axes.set_xlabel(figure.x)
    axes.set_ylabel(figure.y)
    axes.grid(visible=True, which="major")
    if figure.log_x:
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
    if figure.connected:
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)
        axes.legend(frameon=False, fontsize=7, labelcolor=theme.ink)
    if figure.ticks:
        axes.set_xticks(figure.ticks, [_thousands(tick) for tick in figure.ticks])
        axes.minorticks_off()
    if not figure.connected:
        _name_points(axes, figure, own)


def _name_points(axes: Any, figure: Figure, own: Collection[str]) -> None:
    """Writes names beside first points, lower where another name stands already.

    Those of the grey points, which are not in `own`, only where they need not be far lower.
    """
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # fixes the limits, from which places follow
    points, placed = axes.figure.dpi / 72, []
    ink = axes.xaxis.label.get_color()
    line_to_it = dict(arrowstyle="-", linewidth=0.3, shrinkA=0, relpos=(0, 0.5), color=ink)
    for line in sorted(figure.lines, key=lambda x: (x.name not in own, -x.points[0][1])):
        name = axes.annotate(
            line.name,
            line.points[0][:2],
            xytext=(_BESIDE, 0),
            textcoords="offset points",
            arrowprops=line_to_it,
        )
        size = Text.get_window_extent(name)
        left, bottom = axes.transData.transform(line.points[0][:2])
        for down in range(1, -_DEEPEST, -1):
            box = Bbox.from_bounds(
                left + _BESIDE * points, bottom + down * points, size.width, size.height
            )
            if not any(box.overlaps(other) for other in placed):
                break
        if line.name not in own and down < -_NEAR:
            name.remove()
            continue
        name.set_position((_BESIDE, down))
        placed.append(box)


def _plain_numbers(axis: Any) -> None:
    """Writes 0.2 instead of 2 x 10^-1, at a few round values."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _thousands(value)))
    axis.set_minor_formatter(NullFormatter())


def _thousands(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
