"""Rows as a table for the terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.board import entries
from sweeps.board.entries import BASELINE
from sweeps.results.statistics import Speedup, seeds_wanted, with_interval
from sweeps.results.store import Loaded
from sweeps.results.summary import METRICS, Row, baseline_curve, row_of, rows, seed_curves


def collect(studies: Sequence[Loaded]) -> tuple[list[tuple[Row, Speedup | None]], list[str]]:
    """Rows of the studies and of the committed baseline where they lack it, with speed-ups; and warnings."""
    made = rows([(loaded.study, loaded.results) for loaded in studies])
    tasks = sorted({row.task for row in made})
    committed, warnings = entries.load(names=tasks, only=BASELINE)
    reference = [
        replace(row_of(entry.study, entry.results, h), status="reference")
        for entry in committed
        for h in entry.horizons
    ]
    have = {(row.opt, row.task, row.horizon) for row in made}
    horizons = {(row.task, row.horizon) for row in made}
    missing = [
        row
        for row in reference
        if (row.task, row.horizon) in horizons and (row.opt, row.task, row.horizon) not in have
    ]
    shown = sorted(
        [*made, *missing],
        key=lambda row: (
            row.task,
            row.horizon,
            row.mean["probe_loss"] if row.mean else float("inf"),
            row.opt,
        ),
    )
    curves = {
        task: (
            baseline_curve(made, reference, task, BASELINE),
            seed_curves(made, reference, task, BASELINE),
        )
        for task in tasks
    }
    for loaded in studies:
        warnings += [f"{reason}\n  {path} is not counted." for path, reason in loaded.problems]
    names = [loaded.study.optimizer for loaded in studies]
    for name in sorted({name for name in names if names.count(name) > 1}):
        warnings.append(
            f"{name} stands in the store {names.count(name)} times, with different sources, spaces or versions: each has its own rows."
        )
    for row in made:
        if row.edges:
            warnings.append(
                f"{row.opt} at {row.horizon}: the best {' and '.join(row.edges)} lies at an edge of its range; a wider one may hold a better."
            )
        if row.opt != BASELINE and (
            needed := seeds_wanted(row.by_seed, row.horizon, curves[row.task][1])
        ):
            warnings.append(
                f"{row.opt} at {row.horizon}: {row.seeds} seeds do not tell it from {BASELINE}; {needed} would."
            )
    if unfinished := [f"{row.opt} at {row.horizon}" for row in made if row.status == "tuning"]:
        warnings.append(
            f"Not yet run on fresh seeds, so that selection favours their numbers: {', '.join(unfinished)}."
        )
    return [(row, _speedup(row, *curves[row.task])) for row in shown], warnings


def _speedup(
    row: Row, curve: dict[int, float], by_seed: dict[int, dict[int, float]]
) -> Speedup | None:
    seeds = row.by_seed if row.opt != BASELINE else {}  # its own interval would be [1, 1]
    return (
        with_interval(row.mean["probe_loss"], seeds, row.horizon, curve, by_seed)
        if row.mean
        else None
    )


def as_json(shown: Sequence[tuple[Row, Speedup | None]]) -> str:
    """A list of rows; `speedup` is a bound where `speedup_bound` is ">" or "<"."""

    def one(row: Row, gain: Speedup | None) -> dict[str, Any]:
        return {
            "opt": row.opt,
            "task": row.task,
            "horizon": row.horizon,
            **{name: row.mean[name] if row.mean else None for name in METRICS},
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
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=136)
    for task in sorted({row.task for row, _ in shown}):
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
        for row, gain in (pair for pair in shown if pair[0].task == task):
            if previous not in (None, row.horizon):
                table.add_section()
            label = row.opt if row.status == "ok" else f"{row.opt} ({row.status})"
            spread = f" ± {row.std['probe_loss']:.4f}" if row.std else ""
            mean = row.mean
            cells = (
                [
                    f"{mean['probe_loss']:.4f}{spread}",
                    f"{mean['heldout_kl']:.4f}",
                    f"{mean['agreement']:.2%}",
                    f"{mean['accuracy']:.2%}",
                ]
                if mean
                else ["-"] * 4
            )
            first = str(row.horizon) if row.horizon != previous else ""
            counts = [str(row.seeds), str(row.trials), str(row.diverged)]
            # Text, not markup: names come from other people's files.
            table.add_row(
                *(
                    Text(cell)
                    for cell in [first, label, *cells, str(gain) if gain else "-", *counts]
                )
            )
            previous = row.horizon
        console.print(table)
    if any(row.status == "reference" for row, _ in shown):
        console.print(
            f"(reference): the committed entry in {_short(entries.FOLDER)}; --opt={BASELINE},... runs it here as well."
        )
    for warning in warnings:
        console.print(Text(f"Warning: {warning}"))


def print_certificates(studies: Sequence[Loaded]) -> None:
    """For each task, whether a lower probe loss meant a better student in these runs; nothing for a few runs."""
    from sweeps.results.validity import certify

    for task in sorted({loaded.study.task for loaded in studies}):
        found = certify(
            [
                (r.trial.horizon, r.final)
                for loaded in studies
                if loaded.study.task == task
                for r in loaded.results
                if r.final
            ]
        )
        for c in found:
            metric = c.metric.replace("heldout_kl", "held-out KL")
            print(
                f"{'Validity' if c is found[0] else '        '}  probe loss against {metric}: Kendall's tau {c.tau:.3f} "
                f"[{c.low:.3f}, {c.high:.3f}] over {c.runs} runs; {c.disagree:.1%} of pairs disagree"
            )


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
