"""Writes tables as CSV, Parquet and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from distill_bench.errors import UserError
from distill_bench.files import replace_atomically, write_atomically
from sweeps.board.entries import BASELINE
from sweeps.board.run_rows import Line, RunTable
from sweeps.board.tidy import Table, tables
from sweeps.results.statistics import Speedup

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: rf"\{c}" for c in "&%$#_{}"},
}
_FORMULA = re.compile(r"^[=+\-@\t\r].")


def write(found: RunTable, folder: Path, format: str) -> list[Path]:
    """Writes the results into the folder, and returns the files.

    Args:
      found: the results.
      folder: is created if missing.
      format: "csv" or "parquet" (rows, curves and trials) or "latex" (rows).

    Raises:
      UserError: if a file cannot be written, or Parquet needs a package that is missing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if format == "latex":
            write_atomically(folder / "rows.tex", latex(found))
            return [folder / "rows.tex"]
        written = []
        for name, table in tables(found).items():
            path = folder / f"{name}.{format}"
            _parquet(table, path) if format == "parquet" else write_atomically(path, as_csv(table))
            written.append(path)
    except OSError as error:
        raise UserError(f"--tables={folder} cannot be written: {error.strerror}.") from None
    return written


def as_csv(table: Table) -> str:
    """The table with a line of column names; a column that a record lacks is empty.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, _columns(table), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in record.items()} for record in table)
    return out.getvalue()


def _columns(table: Table) -> list[str]:
    return list(dict.fromkeys(name for record in table for name in record))


def _plain(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _parquet(table: Table, path: Path) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise UserError("--format=parquet needs pyarrow: pip install pyarrow") from None
    columns = {name: [record.get(name) for record in table] for name in _columns(table)}
    for name, values in columns.items():
        if len({type(value) for value in values} - {int, float, type(None)}) > 1:
            columns[name] = [None if value is None else str(value) for value in values]
    content = pyarrow.table(columns)
    replace_atomically(path, lambda file: parquet.write_table(content, file))


def latex(found: RunTable) -> str:
    """A table for each task, in the style of the package booktabs: probe losses by horizon, their
    standard deviation over seeds, and the speed-up over all horizons with its interval."""
    tasks = dict.fromkeys(line.row.task for line in found.lines)
    return "\n".join(_latex(found, [x for x in found.lines if x.row.task == t]) for t in tasks)


def _latex(found: RunTable, lines: Sequence[Line]) -> str:
    # The baseline runs longer ones.
    shared = {x.row.horizon for x in lines if x.row.opt != BASELINE}
    horizons = sorted(shared or {line.row.horizon for line in lines})
    by_name: dict[str, dict[int, Line]] = {}
    for line in lines:
        by_name.setdefault(line.row.opt, {})[line.row.horizon] = line
    head = " & ".join(["Optimizer", *(f"{h} steps" for h in horizons), f"Speed-up over {BASELINE}"])
    body = [
        " & ".join(
            [
                _escaped(next(iter(of.values())).name),
                *(_loss(of.get(horizon)) for horizon in horizons),
                _gain(Speedup(1.0) if opt == BASELINE else found.overall.get(opt)),
            ]
        )
        + r" \\"
        for opt, of in by_name.items()
    ]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * len(horizons)}r}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _loss(line: Line | None) -> str:
    if line is None or line.row.mean is None:
        return "--"
    loss, std = line.row.mean["probe_loss"], line.row.std
    return f"${loss:.4f}$" if std is None else rf"${loss:.4f} \pm {std['probe_loss']:.4f}$"


def _gain(gain: Speedup | None) -> str:
    if gain is None:
        return "--"
    bound = "" if gain.bound == "=" else gain.bound
    over = f" [{gain.interval[0]:.2f}, {gain.interval[1]:.2f}]" if gain.interval else ""
    return rf"${bound}{gain.value:.2f}\times${over}"


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(c, c) for c in text)
