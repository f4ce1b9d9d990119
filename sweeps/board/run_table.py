"""The results of a store's studies, as a table for the terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sweeps.board.entries import BASELINE
from sweeps.board.run_rows import Line, RunTable
from sweeps.board.text_layout import (
    Column,
    cell_len,
    choose,
    fold,
    printable,
    shorten,
    shorten_first,
    table,
    to_left,
    wrap,
)
from sweeps.board.versions import hparam
from sweeps.results.store import Loaded
from sweeps.results.summary import METRICS

if TYPE_CHECKING:
    from rich.console import Console

INTERVAL_NOTE = (
    "Brackets: 95 % interval for a repetition of the whole procedure: seeds, tuning and the "
    "baseline's own noise."
)
MIN_WIDTH = 40  # of a table with shortened names; on a narrower terminal the lines are as long
BRIEF_WIDTH = 64  # on a narrower terminal, numbers come without what they may be off by
NAME_WIDTH = 24  # a longer name is shortened before a column is left out for it
_UNKNOWN = "-"


def records(found: RunTable) -> list[dict[str, Any]]:
    """The rows as plain data; `speedup` is a bound if `speedup_bound` is ">" or "<"."""

    def one(line: Line) -> dict[str, Any]:
        row, gain = line.row, line.gain
        return {
            "opt": line.study.optimizer,
            "name": line.name,
            "task": row.task,
            "horizon": row.horizon,
            **{name: row.mean.get(name) if row.mean else None for name in METRICS},
            "probe_loss_std": row.std["probe_loss"] if row.std else None,
            "speedup": gain.value if gain else None,
            "speedup_bound": gain.bound if gain else None,
            "speedup_interval": gain.interval if gain else None,
            "seeds": row.seeds,
            "trials": row.trials,
            "diverged": row.diverged,
            "crashed": row.crashed,
            "status": row.status,
            "failure": row.failure,
            "hparams": row.hparams,
            "edges": row.edges,
            "newest": line.newest,
            "study": row.study,
            "source_sha256": line.study.source_sha256,
            "fingerprint": line.study.fingerprint,
        }

    return [one(line) for line in found.lines]


def as_json(found: RunTable) -> str:
    """The records as a JSON list."""
    return json.dumps(records(found), indent=1)


def print_table(
    found: RunTable, studies: Sequence[Loaded] = (), horizons: Collection[int] | None = None
) -> None:
    """Prints a table for each task, the notes, the warnings and the validity certificates, as wide
    as the terminal allows.

    Without a terminal, the width is that of $COLUMNS, or 80.

    Args:
      found: what the table holds.
      studies: those that it was made of, for the certificates; none without them.
      horizons: the rungs whose runs count for the certificates; None for all.
    """
    from rich.text import Text

    console = _console()
    for line, style in _lines(found, studies, horizons, console.width):
        console.print(Text(line, style=style), soft_wrap=True)


def text(
    found: RunTable,
    studies: Sequence[Loaded],
    horizons: Collection[int] | None = None,
    width: int | None = None,
) -> str:
    """What `print_table` prints, without colours; `width` is that of the terminal if not given."""
    lines = _lines(found, studies, horizons, width or _console().width)
    return "\n".join(line for line, _ in lines)


def _lines(
    found: RunTable, studies: Sequence[Loaded], horizons: Collection[int] | None, width: int
) -> Iterator[tuple[str, str]]:
    yield from render(found, width)
    yield from ((line, "") for line in _certificates(studies, horizons, max(width, MIN_WIDTH)))


def render(found: RunTable, width: int) -> Iterator[tuple[str, str]]:
    """(line, style) for each line that `print_table` prints.

    It is at most `width` cells long, or MIN_WIDTH; only a single long word, such as the path of a
    damaged file, makes a note or warning longer.
    """
    width = max(width, MIN_WIDTH)
    tasks = list(dict.fromkeys((x.study.task, x.study.fingerprint) for x in found.lines))
    for i, (task, fingerprint) in enumerate(tasks):
        if i:
            yield "", ""
        lines = [
            line
            for line in found.lines
            if (line.study.task, line.study.fingerprint) == (task, fingerprint)
        ]
        version = f" (version {fingerprint} of the task)" if _versions(tasks, task) > 1 else ""
        title = f"{printable(task)}{version}: tuned on probe loss, final runs on fresh seeds"
        yield from ((line, "italic") for line in [*wrap(title, width), ""])
        yield from _rungs(lines, width)
        yield from ((line, "") for line in ["", *_winners(lines, width)])
    notes = [*_legend(found.lines), *found.notes]
    if notes:
        yield "", ""
    for note in notes:
        yield from ((line, "") for line in _paragraph(note, width))
    if found.warnings:
        yield "", ""
    for warning in found.warnings:
        for i, part in enumerate(warning.splitlines()):
            text = f"  {part}" if i else f"Warning: {part}"
            yield from ((line, "") for line in _paragraph(text, width))


def _paragraph(text: str, width: int) -> list[str]:
    """The text's lines, as far indented as its first one and two more from the second on."""
    indent = " " * (len(text) - len(text.lstrip()))
    return [indent + line for line in wrap(printable(text), width - len(indent), 2)]


def _versions(tasks: Sequence[tuple[str, str]], task: str) -> int:
    return sum(name == task for name, _ in tasks)


def _rungs(lines: Sequence[Line], width: int) -> Iterator[tuple[str, str]]:
    """The table, with an empty line between rungs."""
    columns = _columns(lines, brief=width < BRIEF_WIDTH)
    head, rows = table(choose(columns, width, NAME_WIDTH, name=1))
    yield from ((text, "bold") for text in head)
    for i, (line, text) in enumerate(zip(lines, rows, strict=True)):
        if i and _starts_rung(lines, i):
            yield "", ""
        yield text, "" if line.row.mean else "dim"


def _starts_rung(lines: Sequence[Line], i: int) -> bool:
    return i == 0 or lines[i].row.horizon != lines[i - 1].row.horizon


def _columns(lines: Sequence[Line], brief: bool) -> list[Column]:
    """All columns; the narrowest terminal has room for those that never leave.

    brief: leave out standard deviations and intervals.
    """

    def metric(name: str, header: str, digits: str, leaves: int) -> Column:
        means = [line.row.mean or {} for line in lines]
        cells = [(_number(mean[name], digits) if name in mean else _UNKNOWN, "") for mean in means]
        return Column(header, cells, leaves)

    rows = [line.row for line in lines]
    steps = [str(row.horizon) if _starts_rung(lines, i) else "" for i, row in enumerate(rows)]
    spreads = [
        f" ± {_number(row.std['probe_loss'], '.4f')}" if row.std and not brief else ""
        for row in rows
    ]
    losses = metric("probe_loss", "", ".4f", 0).cells
    gains = [str(line.gain).partition(" ") if line.gain else (_UNKNOWN, "", "") for line in lines]
    return [
        Column("steps", [(step, "") for step in steps]),
        Column("optimizer", [_split(x, _mark(x)) for x in lines], text=True),
        Column(
            "probe loss",
            [(loss, spread) for (loss, _), spread in zip(losses, spreads, strict=True)],
        ),
        metric("heldout_kl", "held-out\nKL", ".4f", 4),
        metric("test_kl", "clean\nKL", ".4f", 1),
        metric("agreement", "agreement", ".2%", 3),
        metric("accuracy", "accuracy", ".2%", 2),
        Column(
            f"speed-up\nover {BASELINE}",
            [(gain, "" if brief else gap + rest) for gain, gap, rest in gains],
        ),
        Column("seeds/\ntrials", [(str(row.seeds), f"/{row.trials}") for row in rows], 6),
        Column("failed", [(str(row.diverged + row.crashed), "") for row in rows], 5),
    ]


def _split(line: Line, mark: str = "") -> tuple[str, str]:
    """The optimizer's name, which may be shortened, and what must stay: digits and the mark."""
    name = line.study.optimizer
    return printable(name), printable(line.name.removeprefix(name)) + mark


def _mark(line: Line) -> str:
    marks = [
        line.origin,
        "newest" if line.newest else "",
        "" if line.row.status in ("ok", "reference") else line.row.status,
    ]
    text = ", ".join(mark for mark in marks if mark)
    return f" ({text})" if text else ""


def _number(value: float, digits: str) -> str:
    return format(value, digits) if abs(value) < 1000 else f"{value:.2e}"


def _winners(lines: Sequence[Line], width: int) -> Iterator[str]:
    """Each row's best hyperparameters, or how its runs failed."""
    steps = max(len("steps"), *(len(str(line.row.horizon)) for line in lines))
    names = [shorten_first(*_split(line), min(NAME_WIDTH, width // 3)) for line in lines]
    indent = steps + 2 + max(map(cell_len, names)) + 2
    yield "Best hyperparameters"
    for i, (line, name) in enumerate(zip(lines, names, strict=True)):
        step = str(line.row.horizon) if _starts_rung(lines, i) else ""
        first = f"{step:>{steps}}  {name}"
        for j, text in enumerate(_outcome(line, width - indent)):
            yield to_left(first if j == 0 else "", indent) + text


def _outcome(line: Line, width: int) -> list[str]:
    hparams = [f"{name} {hparam(value)}" for name, value in (line.row.hparams or {}).items()]
    folded = fold([printable(item) for item in hparams], width)
    if line.row.failure:
        said = wrap(printable(line.row.failure), width)
        return [*(shorten(text, width) for text in said), *folded]
    return folded or ["nothing to tune"]


def _legend(lines: Sequence[Line]) -> Iterator[str]:
    """What marks in the table mean, for those that it has."""
    if any(line.row.std for line in lines):
        yield "±: standard deviation over seeds."
    if any(line.gain and line.gain.interval for line in lines):
        yield INTERVAL_NOTE
    if any(line.gain and line.gain.bound != "=" for line in lines):
        yield f"< or >: a bound, because {BASELINE} has no horizon short or long enough."
    if any(line.origin == "earlier run" for line in lines):
        yield f"(earlier run): {BASELINE} as this folder already held it."
    committed = {line.name for line in lines if line.origin == "reference"}
    if committed:
        again = f"; add {BASELINE} to --opt to run it here as well" if BASELINE in committed else ""
        yield f"(reference): an entry of the leaderboard{again}."


def _certificates(
    studies: Sequence[Loaded], horizons: Collection[int] | None, width: int
) -> Iterator[str]:
    """The validity certificate of each task's final runs; nothing if they are too few."""
    from sweeps.board.certificate import final_runs, sentences
    from sweeps.results.validity import certify

    label = "Validity  "
    for task in sorted({(loaded.study.task, loaded.study.fingerprint) for loaded in studies}):
        runs = [
            run
            for loaded in studies
            if (loaded.study.task, loaded.study.fingerprint) == task
            for run in final_runs(loaded.study.optimizer, loaded.results)
            if horizons is None or run.horizon in horizons
        ]
        found = certify(runs)
        lines = [
            line
            for sentence in (() if found.lacking else sentences(found))
            for line in wrap(sentence, width - len(label))
        ]
        yield from (f"{' ' * len(label) if i else label}{line}" for i, line in enumerate(lines))


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)
