"""The results of a store's studies, as a table for the terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.board import entries
from sweeps.board.entries import BASELINE
from sweeps.results.comparison import Comparison, edge_warning
from sweeps.results.statistics import Speedup
from sweeps.results.store import Loaded
from sweeps.results.summary import METRICS, Row, row_of, rows, sort_key

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def collect(studies: Sequence[Loaded]) -> tuple[list[tuple[Row, Speedup | None]], list[str]]:
    """The rows of the studies with their speed-ups, and warnings.

    The committed baseline fills in at horizons where the studies lack the baseline.
    """
    made = rows([(loaded.study, loaded.results) for loaded in studies])
    tasks = sorted({row.task for row in made})
    committed, warnings = entries.load(names=tasks, only=BASELINE)
    reference = [
        replace(row_of(entry.study, entry.results, h), status="reference")
        for entry in committed
        for h in entry.horizons
    ]
    comparisons = {
        task: Comparison(
            BASELINE,
            [row for row in made if row.task == task],
            [row for row in reference if row.task == task],
        )
        for task in tasks
    }
    missing = [
        row
        for row in reference
        if row.horizon in comparisons[row.task].horizons
        and (row.opt, row.horizon) not in comparisons[row.task].by_name
    ]
    shown = sorted([*made, *missing], key=sort_key)
    warnings += _store_warnings(studies)
    for row in made:
        found = (edge_warning(row), comparisons[row.task].seeds_warning(row))
        warnings += [f"{row.opt} at {row.horizon}: {warning}" for warning in found if warning]
    if unfinished := [f"{row.opt} at {row.horizon}" for row in made if row.status == "tuning"]:
        warnings.append(
            "No final runs on fresh seeds yet, so selection makes these losses look too low: "
            f"{', '.join(unfinished)}."
        )
    return [(row, comparisons[row.task].speedup(row)) for row in shown], warnings


def _store_warnings(studies: Sequence[Loaded]) -> list[str]:
    warnings = [
        f"{reason}\n  {path} is not counted."
        for loaded in studies
        for path, reason in loaded.problems
    ]
    names = [loaded.study.optimizer for loaded in studies]
    for name in sorted({name for name in names if names.count(name) > 1}):
        warnings.append(
            f"The store holds {names.count(name)} studies of {name}, with different sources, "
            "spaces or versions: each has its own rows."
        )
    return warnings


def as_json(shown: Sequence[tuple[Row, Speedup | None]]) -> str:
    """A JSON list of rows; `speedup` is a bound if `speedup_bound` is ">" or "<"."""

    def one(row: Row, gain: Speedup | None) -> dict[str, Any]:
        return {
            "opt": row.opt,
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
            "hparams": row.hparams,
            "study": row.study,
        }

    return json.dumps([one(row, gain) for row, gain in shown], indent=1)


def print_table(shown: Sequence[tuple[Row, Speedup | None]], warnings: Sequence[str]) -> None:
    """Prints one table for each task, then the warnings."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=136)
    for task in sorted({row.task for row, _ in shown}):
        console.print(_table(task, [pair for pair in shown if pair[0].task == task]))
    _print_footnotes(console, shown)
    for warning in warnings:
        console.print(Text(f"Warning: {warning}"))


def _table(task: str, shown: Sequence[tuple[Row, Speedup | None]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"{task}: tuned on probe loss, final runs on fresh seeds",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for name in (
        "steps",
        "optimizer",
        "probe loss",
        "held-out KL",
        "agreement",
        "accuracy",
        f"speed-up\nover {BASELINE}",
        "seeds",
        "trials",
        "diverged",
    ):
        table.add_column(name, justify="left" if name == "optimizer" else "right", no_wrap=True)
    previous = None
    for row, gain in shown:
        if previous not in (None, row.horizon):
            table.add_section()
        first = str(row.horizon) if row.horizon != previous else ""
        # Text, not markup: names come from other people's files.
        table.add_row(*(Text(cell) for cell in [first, *_cells(row, gain)]))
        previous = row.horizon
    return table


def _cells(row: Row, gain: Speedup | None) -> list[str]:
    label = row.opt if row.status == "ok" else f"{row.opt} ({row.status})"
    spread = f" ± {row.std['probe_loss']:.4f}" if row.std else ""
    metrics = ["-"] * 4
    if mean := row.mean:
        metrics = [
            format(mean[name], digits) if name in mean else "-"
            for name, digits in zip(METRICS, (".4f", ".4f", ".2%", ".2%"), strict=True)
        ]
        metrics[0] += spread
    counts = [str(row.seeds), str(row.trials), str(row.diverged)]
    return [label, *metrics, str(gain) if gain else "-", *counts]


def _print_footnotes(console: Console, shown: Sequence[tuple[Row, Speedup | None]]) -> None:
    if any(row.status == "reference" for row, _ in shown):
        console.print(
            f"(reference): the committed entry in {_short(entries.FOLDER)}; "
            f"add {BASELINE} to --opt to run it here as well."
        )


def print_certificates(studies: Sequence[Loaded]) -> None:
    """Prints the validity certificate of each task that has final runs."""
    from sweeps.board.certificate import final_runs, sentences
    from sweeps.results.validity import certify

    for task in sorted({loaded.study.task for loaded in studies}):
        runs = [
            run
            for loaded in studies
            if loaded.study.task == task
            for run in final_runs(loaded.study.optimizer, loaded.results)
        ]
        for i, sentence in enumerate(sentences(certify(runs)) if runs else ()):
            print(f"{'' if i else 'Validity':8}  {sentence}")


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
