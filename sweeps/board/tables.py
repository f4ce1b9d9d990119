"""The leaderboard as a table for the terminal; the columns of every table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweeps.board.text_layout import Column, choose, printable, table

UNKNOWN = "-"
# Headers of the terminal's table that take two lines.
_HEADERS = {
    "speed-up [95 %]": "speed-up\n[95 %]",
    "per doubling": "per\ndoubling",
    "in time": "in\ntime",
    "state B/param": "state\nB/param",
}


def cells(
    board: Mapping[str, Any], task: str, intervals: bool
) -> tuple[list[str], list[list[str]]]:
    """Column names, and a row of cells for each entry of the task.

    intervals: also give the interval of each rung's speed-up.
    """
    entries = [entry for entry in board["entries"] if entry["task"] == task]
    horizons = next(one["rungs"] for one in board["tasks"] if one["name"] == task)
    names = [
        "rank",
        "optimizer",
        "speed-up [95 %]",
        "per doubling",
        "in time",
        *map(str, horizons),
        "step time",
        "state B/param",
        "seeds",
        "trials",
        "failed",
        "reproduced",
    ]
    return names, [_row(entry, horizons, intervals) for entry in entries]


def _row(entry: Mapping[str, Any], horizons: list[int], intervals: bool) -> list[str]:
    rungs = {rung["horizon"]: rung for rung in entry["rungs"]}
    cost, overall, verdict = entry["cost"], entry["overall"], entry["verification"]
    return [
        str(overall["rank"] or UNKNOWN),
        entry["optimizer"],
        format_gain(overall, True),
        _percent(overall["trend"]),
        f"{overall['wall_clock']['task']:.2f}x" if overall["wall_clock"] else UNKNOWN,
        *(format_gain(rungs[h]["speedup"], intervals) if h in rungs else UNKNOWN for h in horizons),
        f"{cost['relative']:.2f}x" if cost else UNKNOWN,
        f"{cost['state_bytes_per_parameter']:.0f}" if cost else UNKNOWN,
        _range([rung["seeds"] for rung in entry["rungs"]]),
        str(entry["rungs"][0]["trials"]),
        str(sum(rung["diverged"] + rung["crashed"] for rung in entry["rungs"])),
        _rerun(verdict, sum(rung["seeds"] for rung in entry["rungs"])) if verdict else UNKNOWN,
    ]


def format_gain(gain: Mapping[str, Any] | None, interval: bool) -> str:
    """A speed-up as text, such as "1.30x [1.16, 1.45]" or ">1.00x"."""
    if not gain or gain["value"] is None:
        return UNKNOWN
    bound = "" if gain["bound"] == "=" else gain["bound"]
    shown = (
        f" [{gain['low']:.2f}, {gain['high']:.2f}]" if interval and gain["low"] is not None else ""
    )
    return f"{bound}{gain['value']:.2f}x{shown}"


def _percent(trend: Mapping[str, Any] | None) -> str:
    """A change as text, such as "-2 % ± 3"."""
    if not trend:
        return UNKNOWN
    half = (trend["high"] - trend["low"]) / 2
    return f"{100 * trend['value']:+.0f} % ± {100 * half:.0f}"


def _rerun(verdict: Mapping[str, Any], runs: int) -> str:
    """The number of reproduced final runs out of all, and "=" if to the last digit; or "failed"."""
    if verdict["verdict"] != "reproduced":
        return "failed"
    finals = [run for run in verdict["runs"] if run["kind"] == "final"]
    exact = " =" if verdict["test"] == "exact" else ""
    return f"{len({(run['horizon'], run['seed']) for run in finals})}/{runs}{exact}"


def _range(values: list[int]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)}-{max(values)}"


def caption(board: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """Explains the columns."""
    base = board["baseline"]
    law = task["law"]
    curve = (
        f"{base}'s loss is {law['floor']:.4f} + {law['scale']:.4f} (steps / 1000)^-"
        f"{law['exponent']:.2f}. "
        if law
        else ""
    )
    return (
        f"Speed-up: how many times the steps {base} needs for the same loss, over all horizons "
        f"together, then at each number of steps. {curve}"
        "Intervals say what a repetition of everything would give: other seeds, another search, "
        f"and the same for {base}. "
        "rank: one more than the number of entries that are significantly better, corrected for "
        "comparing all pairs; the intervals are not corrected, so neighbouring ranks need not "
        "differ significantly. "
        "per doubling: change of the speed-up when runs get twice as long. "
        "in time: the speed-up divided by step time. "
        "step time: that of a whole step, relative to the baseline's. "
        "state B/param: size of its state in bytes per parameter. "
        "trials: tuning trials at the shortest horizon. "
        "failed: runs that diverged, crashed or ended above the untrained student's loss. "
        "reproduced: final runs that were rerun and agreed, of all final runs; '=' if to the last "
        "digit, otherwise within the noise."
    )


def certificate(task: Mapping[str, Any]) -> list[str]:
    """The validity certificate, a sentence a line, then the generalization gap."""
    lines = list(task["certificate"]["sentences"])
    if task["gap"]:
        gaps = ", ".join(f"{gap['mean']:+.4f} at {gap['horizon']}" for gap in task["gap"])
        lines.append(
            f"Held-out KL minus probe loss, mean over entries: {gaps}; "
            f"largest {max(gap['largest'] for gap in task['gap']):+.4f}."
        )
    return lines


def tune_check_lines(board: Mapping[str, Any], task: str) -> list[str]:
    """What checks of the winners' tuning found, a line for each checked entry."""
    return [
        f"{entry['optimizer']}: {entry['tune_check']['sentence']}"
        for entry in board["entries"]
        if entry["task"] == task and entry["tune_check"]
    ]


def reach_lines(board: Mapping[str, Any], task: str) -> list[str]:
    """A line for each entry whose code reaches beyond jax, optax and numpy."""
    return [
        f"{entry['optimizer']} reaches beyond jax, optax and numpy ({'; '.join(entry['reaches'])})"
        for entry in board["entries"]
        if entry["task"] == task and entry["reaches"]
    ]


def across_cells(across: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column names, and a row of cells for each optimizer that is on several tasks' boards."""
    rows = [
        [
            one["optimizer"],
            *(
                f"{place['rank']}: {format_gain(place['speedup'], True)}" if place else UNKNOWN
                for place in one["places"]
            ),
        ]
        for one in across["rows"]
    ]
    return ["optimizer", *(f"{task}, rank: speed-up" for task in across["tasks"])], rows


def print_board(board: Mapping[str, Any]) -> None:
    """Prints the leaderboard and its warnings, as wide as the terminal; 160 cells without one."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    if board["notice"]:
        console.print(Text(board["notice"]))
    for task in board["tasks"]:
        console.print(Text(f"{task['name']} ({task['fingerprint']})", style="italic"))
        for line in _lines(board, task["name"], console.width):
            console.print(Text(line), soft_wrap=True)
        tuned = [f"Tuning: {line}." for line in tune_check_lines(board, task["name"])]
        code = [f"Code to read: {line}." for line in reach_lines(board, task["name"])]
        for line in [caption(board, task), *code, *tuned, *certificate(task)]:
            console.print(Text(line))
    if board["across"]:
        console.print(Text("Tasks side by side", style="italic"))
        names, rows = across_cells(board["across"])
        columns = [
            Column(name, [(printable(row[i]), "") for row in rows], text=not i)
            for i, name in enumerate(names)
        ]
        head, body = table(choose(columns, console.width, narrow=24, name=0))
        lines = [*head, *body, "", *board["across"]["sentences"]]
        lines += [f"Against it: {line}" for line in board["across"]["contradictions"]]
        for line in lines:
            console.print(Text(line), soft_wrap=True)
    for found in board["published"]:
        console.print(Text(f"Published: {' '.join(found['sentences'])}"))
        for line in found["contradictions"]:
            console.print(Text(f"Against it: {line}"))
    if not board["entries"]:
        console.print(
            "No entries yet. Write one from a finished sweep: "
            "python sweeps/leaderboard.py --add=runs"
        )
    for warning in [
        *board["warnings"],
        *(
            f"{entry['optimizer']} {warning}"
            for entry in board["entries"]
            for warning in entry["warnings"]
        ),
    ]:
        console.print(Text(f"Warning: {warning}"))


def _lines(board: Mapping[str, Any], task: str, width: int) -> Iterator[str]:
    """The table of a task, with an empty line between ranks. Where the width does not hold all
    columns, the last ones leave first."""
    names, rows = cells(board, task, intervals=False)
    if not rows:
        return
    columns = [
        Column(
            _HEADERS.get(name, name),
            [(printable(row[i]), "") for row in rows],
            leaves=max(0, len(names) - i) if i > 2 else 0,
            text=name == "optimizer",
        )
        for i, name in enumerate(names)
    ]
    head, body = table(choose(columns, width, narrow=24, name=1))
    yield from head
    for i, line in enumerate(body):
        if i and rows[i][0] != rows[i - 1][0]:
            yield ""
        yield line
    yield ""
