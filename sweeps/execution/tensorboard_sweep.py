"""Writes what TensorBoard shows of a whole sweep, beside each trial's own curves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.execution.tensorboard_overview import write_mean, write_tables
from sweeps.execution.tensorboard_runs import MEAN, Runs, folder_of
from sweeps.planning.plan import Job, Plan
from sweeps.planning.sampling import parse_domain
from sweeps.results import pending, store
from sweeps.results.outdir import Say
from sweeps.results.summary import chosen, finals


def write_overview(plan: Plan, root: Path, say: Say) -> None:
    """Writes the charts and columns for all studies of the plan's task in the store."""
    folder = folder_of(root, plan.task.name)
    before = (path.name[1:] for path in (folder / "finals").glob("h*/"))
    horizons = {*plan.horizons, *(int(name) for name in before if name.isdecimal())}
    hparams: dict[str, Any] = {}  # name -> a value
    for study in store.known_studies(root, plan.task.name):
        hparams |= {name: parse_domain(domain).at(0) for name, domain in study.space.items()}
        hparams |= {k: value for k, value in study.fixed.items() if not k.startswith("--")}
    write_tables(folder / "finals", horizons, hparams, say)
    write_tables(folder / "tuning", (), hparams, say)


def write_means(
    jobs: Sequence[Job], new: Collection[str], root: Path, runs: Mapping[str, Runs]
) -> None:
    """Writes the mean of each optimizer's final runs at a horizon, if all of them ended well.

    Args:
      jobs: the final runs.
      new: ids of those that have just ended. Of others, the mean is written only if it is missing,
        because the process was killed before.
      root: folder of the results.
      runs: the folders of TensorBoard's runs, by study.
    """
    for candidate in {job[0].study.id: job[0] for job in jobs}.values():
        results = pending.results_of(root, candidate)
        for horizon in sorted({trial.horizon for one, trial in jobs if one is candidate}):
            folder = runs[candidate.study.id].of_finals(horizon) / MEAN
            here = [
                trial.id for one, trial in jobs if one is candidate and trial.horizon == horizon
            ]
            if not {*new} & {*here} and any(folder.glob("events.out.tfevents.*")):
                continue
            best = chosen(results, horizon)
            ran = finals(results, best) if best else []
            if ran and all(run.final for run in ran):
                write_mean(folder, ran, horizon, candidate.optimizer.evaluations)
