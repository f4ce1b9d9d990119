"""The results as flat tables, for other programs: rows, curves and trials."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distill_bench.training.exams import CURVE, HELDOUT_CURVE
from sweeps.board.run_rows import Line, RunTable
from sweeps.board.run_table import records
from sweeps.planning.study import TUNING_SEED, Result
from sweeps.results.summary import chosen, finals

Table = list[dict[str, Any]]
# Metrics whose names do not explain themselves.
_COLUMN = {CURVE: "probe_loss_of_few_views", HELDOUT_CURVE: "heldout_kl_of_few_views"}


def tables(found: RunTable) -> dict[str, Table]:
    """Name -> table.

    - "rows": one for each optimizer and horizon, as the printed table has them, and each winning
      hyperparameter as a column "hparams.lr".
    - "curves": one for each value along a final run: optimizer, horizon, seed, step, metric, value.
    - "trials": one for each run, with its hyperparameters, how it ended and its metrics then.
    """
    return {"rows": _rows(found), "curves": list(_curves(found)), "trials": list(_trials(found))}


def _rows(found: RunTable) -> Table:
    return [_flat(record) for record in records(found)]


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Numbers and texts only: lists and dictionaries become columns of their own."""
    hparams, interval = record.pop("hparams") or {}, record.pop("speedup_interval")
    low, high = interval or (None, None)
    edges = " ".join(record.pop("edges"))
    plain = {**record, "speedup_low": low, "speedup_high": high, "edges": edges}
    return plain | {f"hparams.{name}": value for name, value in hparams.items()}


def _curves(found: RunTable) -> Iterator[dict[str, Any]]:
    for line in found.lines:
        for run in _finals(found, line):
            run_of = {
                "name": line.label,
                "task": line.row.task,
                "horizon": line.row.horizon,
                "seed": run.trial.seed,
            }
            for i, loss in enumerate(run.losses):
                yield {**run_of, "step": i + 1, "metric": "train_loss", "value": loss}
            for step, metrics in run.points:
                for name, value in metrics.items():
                    metric = _COLUMN.get(name, name)
                    yield {**run_of, "step": step, "metric": metric, "value": value}


def _finals(found: RunTable, line: Line) -> list[Result]:
    results = found.results.get(line.study.id, ())
    best = chosen(results, line.row.horizon)
    return finals(results, best) if best else []


def _trials(found: RunTable) -> Iterator[dict[str, Any]]:
    for line in found.lines:
        for run in found.results.get(line.study.id, ()):
            if run.trial.horizon == line.row.horizon:
                yield {
                    "name": line.label,
                    "task": line.row.task,
                    "horizon": run.trial.horizon,
                    "seed": run.trial.seed,
                    "kind": "tuning" if run.trial.seed == TUNING_SEED else "final",
                    "status": run.status,
                    "steps": run.step,
                    **{_COLUMN.get(k, k): value for k, value in (run.final or {}).items()},
                    **{f"hparams.{k}": value for k, value in run.trial.hparams.items()},
                }
