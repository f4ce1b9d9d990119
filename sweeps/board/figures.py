"""What figures of the leaderboard and of one's own runs show; plotting.py draws them.

Each SVG holds a digest of the numbers that it shows, so that a picture that has gone stale does
not look like one that was drawn by another version of matplotlib.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill_bench.training.exams import CURVE
from sweeps.board.run_rows import RunTable
from sweeps.planning.study import Result
from sweeps.results.summary import chosen, finals

_DIGEST = "data sha256 "
_BINS = 10  # of learning rates

Entry = Mapping[str, Any]
Points = list[tuple[float, ...]]


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

    def description(self) -> str:
        """What a drawn SVG says of its numbers; see `digest_in`."""
        return _DIGEST + self.digest()

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


def of_runs(found: RunTable) -> list[Figure]:
    """For each horizon, probe loss along the final runs: the mean over seeds. Best line first."""
    lines: dict[int, list[Line]] = {}
    for one in found.lines:
        results = found.results.get(one.study.id, [])
        if best := chosen(results, one.row.horizon):
            line = Line(one.label, _mean(finals(results, best)))
            lines.setdefault(one.row.horizon, []).append(line)
    return [
        Figure(f"convergence-{h}", _shown(of), f"step, of {h:,}", "probe loss")
        for h, of in sorted(lines.items())
    ]


def _mean(runs: Sequence[Result]) -> Points:
    """(step, probe loss of a few views) along the runs that ended well: the mean over runs."""
    points = [
        [(step, metrics[CURVE]) for step, metrics in run.points if CURVE in metrics]
        for run in runs
        if run.final
    ]
    return [
        (step[0][0], sum(loss for _, loss in step) / len(step))
        for step in zip(*points, strict=False)
    ]


def _shown(lines: Sequence[Line]) -> tuple[Line, ...]:
    return tuple(line for line in lines if line.points)


def digest_in(svg: str) -> str | None:
    """The digest of the numbers that a written SVG shows."""
    _, found, rest = svg.partition(_DIGEST)
    return rest[:16] if found else None
