"""Figures of the leaderboard for papers and README, as SVG and PDF.

Each SVG holds a digest of the numbers that it shows, so that a picture that has gone stale can be
told from one that was drawn by another version of matplotlib.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_bench.errors import UserError
from distill_bench.files import replace_atomically

COLUMN = (3.4, 2.6)  # inches: the column of a two-column paper
HIGHLIGHTED = 6  # entries with a colour of their own, besides the baseline; the others are grey
_DIGEST = "data sha256 "
_BINS = 10  # of learning rates

Entry = Mapping[str, Any]
Points = list[tuple[float, ...]]


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


@dataclass(frozen=True)
class Line:
    """What a figure shows of one entry.

    Attributes:
      name: the optimizer's.
      points: (x, y) or (x, y, low, high) of each point, in the order of x.
    """

    name: str
    points: Points


@dataclass(frozen=True)
class Figure:
    """The content of a figure, before it is drawn.

    Attributes:
      name: begins its files' names.
      lines: best entry first.
      x, y: labels of the axes.
      connected: whether a line joins the points.
      log_x: whether the x axis is logarithmic; the y axis is, unless `connected` is false.
      ticks: of the x axis; () for matplotlib's.
    """

    name: str
    lines: tuple[Line, ...]
    x: str
    y: str
    connected: bool = True
    log_x: bool = True
    ticks: tuple[float, ...] = ()

    def digest(self) -> str:
        """Identifies the numbers, to six digits."""
        rounded = [
            (line.name, [[float(f"{value:.6g}") for value in point] for point in line.points])
            for line in self.lines
        ]
        return hashlib.sha256(json.dumps([self.name, rounded]).encode()).hexdigest()[:16]


def figures(board: Mapping[str, Any], task: str) -> list[Figure]:
    """The figures of one task."""
    entries = [entry for entry in board["entries"] if entry["task"] == task]
    ladder = next(one["ladder"] for one in board["tasks"] if one["name"] == task)
    makers: Sequence[Callable[[Sequence[Entry], Sequence[int]], Figure]] = (
        _patience,
        _convergence,
        _rates,
        _cost,
    )
    return [make(entries, ladder) for make in makers]


def _patience(entries: Sequence[Entry], ladder: Sequence[int]) -> Figure:
    """Final probe loss by horizon: the mean, and one standard deviation over seeds."""

    def point(rung: Mapping[str, Any]) -> tuple[float, ...]:
        mean, std = rung["mean"]["probe_loss"], (rung["std"] or {}).get("probe_loss") or 0.0
        return rung["horizon"], mean, mean - std, mean + std

    lines = [
        Line(entry["optimizer"], [point(r) for r in entry["rungs"] if r["mean"]])
        for entry in entries
    ]
    horizons = {point[0] for line in lines for point in line.points}
    return Figure(
        "patience",
        _shown(lines),
        "steps of a run",
        "final probe loss",
        ticks=tuple(sorted(horizons | set(ladder))),
    )


def _convergence(entries: Sequence[Entry], ladder: Sequence[int]) -> Figure:
    """Probe loss along the runs at the longest horizon that all entries have: mean over seeds."""
    shared = [h for h in ladder if all(any(r["horizon"] == h for r in e["rungs"]) for e in entries)]
    longest = max(shared, default=ladder[0])
    lines = []
    for entry in entries:
        for rung in entry["rungs"]:
            if rung["horizon"] == longest and rung["curve"]:
                steps, runs = rung["curve"]["steps"], rung["curve"]["probe_loss"]
                means = [sum(values) / len(values) for values in zip(*runs, strict=True)]
                lines.append(Line(entry["optimizer"], list(zip(steps, means, strict=True))))
    return Figure("convergence", _shown(lines), f"step, of {longest:,}", "probe loss")


def _rates(entries: Sequence[Entry], ladder: Sequence[int]) -> Figure:
    """The lowest probe loss among the shortest horizon's trials, by learning rate."""
    lines = []
    for entry in entries:
        tried = [
            (one["hparams"]["lr"], one["probe_loss"])
            for one in entry["rungs"][0]["tried"]
            if one["status"] == "ok" and "lr" in one["hparams"]
        ]
        if tried:
            lines.append(Line(entry["optimizer"], _lowest(tried)))
    return Figure("rates", _shown(lines), "learning rate", f"best probe loss at {ladder[0]} steps")


def _lowest(tried: Sequence[tuple[float, float]]) -> Points:
    """The trial with the lowest loss in each of a few equal parts of the learning rates' range."""
    low = math.log(min(rate for rate, _ in tried))
    width = (math.log(max(rate for rate, _ in tried)) - low) / _BINS or 1.0
    best: dict[int, tuple[float, float]] = {}
    for rate, loss in tried:
        part = min(int((math.log(rate) - low) / width), _BINS - 1)
        if part not in best or loss < best[part][1]:
            best[part] = rate, loss
    return [best[part] for part in sorted(best)]


def _cost(entries: Sequence[Entry], ladder: Sequence[int]) -> Figure:
    """Speed-up against the time of a whole step, relative to the baseline's."""
    del ladder
    lines = []
    for entry in entries:
        overall = entry["overall"]
        if overall["value"] and overall["wall_clock"]:
            x = overall["value"] / overall["wall_clock"]["task"]
            low, high = overall["low"] or overall["value"], overall["high"] or overall["value"]
            lines.append(Line(entry["optimizer"], [(x, overall["value"], low, high)]))
    return Figure(
        "cost",
        tuple(lines),
        "time of a step, relative to the baseline",
        "speed-up in steps",
        connected=False,
        log_x=False,
    )


def _shown(lines: Sequence[Line]) -> tuple[Line, ...]:
    return tuple(line for line in lines if line.points)


def write(board: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws all figures of all tasks: `<task>-<figure>.svg`, the same on dark paper, and PDF.

    Raises:
      UserError: if matplotlib is not installed, or a file cannot be written.
    """
    _need_matplotlib()
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


def digest_in(svg: str) -> str | None:
    """The digest of the numbers that a written SVG shows."""
    _, found, rest = svg.partition(_DIGEST)
    return rest[:16] if found else None


def _need_matplotlib() -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise UserError(
            "--figures needs matplotlib, which is not installed.\n"
            "Install it: pip install 'distill-bench[plots]'"
        )


def _draw(figure: Figure, baseline: str, theme: Theme, path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    style: dict[Any, Any] = {
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
    with matplotlib.rc_context(style):
        canvas = Canvas(figsize=COLUMN, layout="constrained")
        axes = canvas.add_subplot()
        _fill(axes, figure, baseline, theme)
        metadata = (
            {"Date": None, "Description": _DIGEST + figure.digest()}
            if path.suffix == ".svg"
            else {"CreationDate": None}
        )
        replace_atomically(
            path,
            lambda file: canvas.savefig(file, format=path.suffix[1:], metadata=metadata),
        )


def _fill(axes: Any, figure: Figure, baseline: str, theme: Theme) -> None:
    colours = iter(theme.colours)
    own = [line.name for line in figure.lines if line.name != baseline][:HIGHLIGHTED]
    for i, line in enumerate(figure.lines):
        known = line.name == baseline or line.name in own
        colour = theme.ink if line.name == baseline else next(colours) if known else theme.faint
        x, y, *ends = zip(*line.points, strict=True)
        spread = [[b - a for a, b in zip(ends[0], y, strict=True)]] if ends else None
        spread = spread and [*spread, [b - a for a, b in zip(y, ends[1], strict=True)]]
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
        if not figure.connected:
            axes.annotate(line.name, (x[0], y[0]), xytext=(4, 2), textcoords="offset points")
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


def _plain_numbers(axis: Any) -> None:
    """Writes 0.2 instead of 2 x 10^-1, at a few round values."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _thousands(value)))
    axis.set_minor_formatter(NullFormatter())


def _thousands(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
