"""What a step of an entry costs, measured on this machine."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

from distill_bench.errors import UserError, suggestion
from distill_bench.tasks import catalogue
from distill_bench.training.engine import Engine
from optimizers.contract import registry
from optimizers.contract.api import Optimizer
from sweeps.board import entries, entry_code, revise
from sweeps.board.entries import BASELINE, Cost, Entry
from sweeps.board.judge import COLUMNS, COST
from sweeps.board.verdicts import Verdict

ALL = "all"


def measured(task: str, opt: Optimizer) -> Cost:
    """The cost of a step of `opt` on the task, in turn with the baseline's; nothing else should run
    meanwhile.

    Raises:
      UserError: if the optimizer raises an exception.
    """
    from sweeps.timing.step_cost import step_cost

    cost = Cost(**step_cost(_engine(task), opt, registry.resolve(BASELINE).optimizer))
    if opt.name == BASELINE:  # against itself
        return dataclasses.replace(cost, baseline_step_ms=cost.step_ms)
    return cost


@cache
def _engine(task: str) -> Engine:
    from sweeps.execution.resources import Resources

    return Resources().open_engine(catalogue.get(task))


def measure_again(folder: Path, task: str | None, names: Sequence[str]) -> bool:
    """Writes costs measured here into entries of built-in optimizers, so that a whole board can
    have those of one machine. Their runs and verdicts stay.

    Args:
      folder: of the leaderboard's entries.
      task: entries of this task; None for all tasks.
      names: optimizers, or ALL.

    Returns:
      Whether every entry has a new cost.

    Raises:
      UserError: if a name has no entry.
    """
    found, warnings = entries.load(folder, [task] if task else None)
    known = sorted({entry.study.optimizer for entry in found})
    for warning in warnings:
        print(f"Warning: {warning}", file=sys.stderr)
    for name in names:
        if name not in (ALL, *known):
            raise UserError(f"--costs={name} has no entry.{suggestion(name, known)}")
    refused = bool(warnings)
    for entry in found:
        if ALL not in names and entry.study.optimizer not in names:
            continue
        try:
            print(_described(_measured_again(entry)), flush=True)
        except UserError as error:
            refused = True
            print(error, file=sys.stderr)
    return not refused


def _measured_again(entry: Entry) -> Entry:
    """
    Raises:
      UserError: if the entry's optimizer is not built in, is another one here, or raises an
        exception.
    """
    if entry_code.is_carried(entry):  # an entry's own code is not run
        raise UserError(f"{entry.path}: {entry.spec} is not built in. Its cost stays as it was.")
    opt, differences = entry_code.installed(entry)
    if differences:
        raise UserError(f"{entry.path}: {'; '.join(differences)}. Its cost stays as it was.")
    cost = measured(entry.study.task, opt)
    return revise.with_verdict(entry, lambda content: content.update(cost=asdict(cost)), _unproved)


def _unproved(kept: Verdict) -> Verdict:
    """The verdict without an earlier cost's measurement."""
    unverified = [name for name in COLUMNS if name in (*kept.unverified, COST)]
    return dataclasses.replace(kept, cost=None, unverified=unverified)


def _described(entry: Entry) -> str:
    cost = entry.cost
    assert cost
    return (
        f"{entry.study.task}/{entry.study.optimizer}: a student's step takes {cost.step_ms:.2f} ms "
        f"({cost.baseline_step_ms:.2f} with {BASELINE}, the teacher {cost.teacher_ms:.2f}), "
        f"a whole step {cost.relative:.2f} times as long"
    )
