"""Comparing optimizers from Python: what sweeps/run.py does, for scripts and notebooks.

from sweeps import compare

results = compare(["adamw", my_optimizer], horizons=[125, 250])
print(results.table())
results.speedup("my_optimizer")
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill_bench import log, settings
from distill_bench.errors import UserError, suggestion
from distill_bench.tasks.variation import Variation
from sweeps.execution.progress import progress
from sweeps.execution.request import Request
from sweeps.execution.resources import Resources
from sweeps.execution.supervise import supervise
from sweeps.execution.watch import Limits
from sweeps.planning.in_memory import spec_of
from sweeps.planning.parsing import parse_horizons
from sweeps.planning.request import PlanRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from optimizers.contract.api import Optimizer
    from sweeps.board.run_rows import RunTable
    from sweeps.results.statistics import Speedup
    from sweeps.results.store import Loaded

CACHE = "~/.cache/distill-bench"  # compiled programs and measured costs
DEFAULT_LIMITS = Limits(stall_seconds=600.0, memory_gib=0.0)


def compare(
    optimizers: Sequence[str | Optimizer],
    task: str = "digits",
    horizons: Sequence[int] | Literal["ladder"] = (),
    *,
    trials: int = 48,
    seeds: int = 3,
    settings: Mapping[str, Any] | None = None,
    schedule: str | None = None,
    reference: Sequence[str] = (),
    outdir: str | Path = "runs",
    variation: Variation | None = None,
    resources: Resources | None = None,
    export: str | Path | None = None,
) -> Results:
    """Tunes optimizers on a task and compares them, as `python sweeps/run.py` does.

    Trials that `outdir` already holds are not run again, and a run that was interrupted continues.
    Training happens in another process, so a crash there does not end this one.

    Args:
      optimizers: names, in any form that --opt takes, and functions decorated with `@optimizer`. Of
        those in a script or notebook, the source that they need is written to a file in `outdir`.
      task: name of the task.
      horizons: steps of each rung, in rising order; "ladder" for all rungs of the task, () for its
        first two.
      trials: tuning trials of each optimizer at the shortest horizon; half as many at twice the
        steps.
      seeds: final runs of each winner, on fresh seeds.
      settings: hyperparameters to set: name -> a value, a list of values to try, or a range to
        search as text, "1e-3:1e-1".
      schedule: a learning-rate schedule for all of them, as --schedule takes; None for their own.
      reference: names of leaderboard entries to show beside the results, such as ["muon"].
      outdir: folder for results and TensorBoard curves.
      variation: changes to the task.
      resources: devices, or a Ray cluster. Default: all of this machine.
      export: folder for the students of the final runs, as --export takes it; None for none.

    Raises:
      UserError: if an argument is wrong; the message says what to change.
      SweepFailed: if the machine prevents going on.
    """
    folder = Path(outdir).expanduser().absolute()
    names = [optimizers] if isinstance(optimizers, str) else optimizers
    plan = PlanRequest(
        opts=tuple(spec_of(one, folder) for one in names),
        task=task,
        horizons=(horizons,) if isinstance(horizons, str) else tuple(map(str, horizons)),
        trials=trials,
        seeds=seeds,
        settings=tuple(f"{name}={_text(value)}" for name, value in (settings or {}).items()),
        schedule=schedule,
        variation=variation or Variation(),
    )
    cache = str(Path(CACHE).expanduser())
    students = str(Path(export).expanduser().absolute()) if export else None
    request = Request(plan, str(folder), resources or Resources(cache=cache), export=students)
    return run(request, reference=reference)


def _text(value: Any) -> str:
    """A setting as it would be typed."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def run(
    request: Request, limits: Limits = DEFAULT_LIMITS, reference: Sequence[str] = ()
) -> Results:
    """Runs the request to its end, and shows how far it is on standard error.

    Raises:
      UserError: if `reference` names no entry of the leaderboard; or see `supervise`.
      SweepFailed: see `supervise`.
    """
    from sweeps.board import references

    references.find(request.plan.task, reference)  # a typo shows before training
    log.listen(log.to_stderr)
    if removed := settings.cleaned(os.environ)[1]:
        log.LOG.info("Ignored, because it changes numbers: %s", ", ".join(removed))
    with progress() as display:
        swept = supervise(request, limits, display)
    return Results(request, tuple(swept.folders), tuple(swept.lost), tuple(reference))


@dataclass(frozen=True, repr=False)
class Results:
    """What came of a comparison; shown as its table.

    Attributes:
      request: what was compared.
      folders: of the studies, in the order of the request.
      lost: names of optimizers that ended even the process that was to store how they ended.
      reference: names of leaderboard entries that are shown beside the results.
    """

    request: Request
    folders: tuple[Path, ...]
    lost: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()

    @cached_property
    def studies(self) -> list[Loaded]:
        """The studies, with all trials and their curves."""
        from sweeps.results import store

        return [store.load_study(folder) for folder in self.folders]

    @cached_property
    def horizons(self) -> tuple[int, ...]:
        from distill_bench.tasks import catalogue

        plan = self.request.plan
        return parse_horizons(plan.horizons, catalogue.get(plan.task))

    @cached_property
    def rows(self) -> RunTable:
        """The rows of the table with their speed-ups, notes and warnings."""
        from sweeps.board import run_rows

        return run_rows.collect(
            self.studies,
            self.horizons,
            run_rows.earlier_baselines(self.folders),
            self.reference,
        )

    @property
    def failed(self) -> list[str]:
        """Names of the optimizers without a result at some horizon."""
        return sorted({x.name for x in self.rows.lines if not x.origin and x.row.failure})

    def table(self, width: int | None = None) -> str:
        """The table that run.py prints, with its notes and warnings.

        width: characters of a line; None for the terminal's.
        """
        from sweeps.board import run_table

        return run_table.text(self.rows, self.studies, self.horizons, width)

    def __repr__(self) -> str:
        return self.table()

    def to_pandas(self) -> DataFrame:
        """One row for each optimizer and horizon: losses, speed-ups and hyperparameters.

        Raises:
          UserError: if pandas is not installed.
        """
        from sweeps.board import run_table

        try:
            import pandas
        except ModuleNotFoundError:
            raise UserError("to_pandas() needs pandas: pip install pandas") from None
        return pandas.DataFrame(run_table.records(self.rows))

    def plot(self) -> Figure:
        """Convergence of the final runs: probe loss by step, the mean over seeds, for each horizon.

        Raises:
          UserError: if matplotlib is not installed.
        """
        from sweeps.board import figures, plotting
        from sweeps.board.entries import BASELINE

        return plotting.side_by_side(figures.of_runs(self.rows), BASELINE)

    def speedup(self, name: str, horizon: int | None = None) -> Speedup:
        """How many times the steps the baseline needs for the same loss, with its 95 % interval.

        Args:
          name: the optimizer's name in the table.
          horizon: one horizon; None for all of them together.

        Raises:
          UserError: if no optimizer has that name, or it has no speed-up.
        """
        from sweeps.board.entries import BASELINE

        found = self.rows.overall if horizon is None else self._at(horizon)
        if name not in found:
            raise UserError(f"No results of {name!r}.{suggestion(name, found)}")
        if (gain := found[name]) is None:
            where = f" at {horizon}" if horizon else ""
            raise UserError(f"{name} has no speed-up{where}: it or {BASELINE} has no result there.")
        return gain

    def _at(self, horizon: int) -> dict[str, Speedup | None]:
        if horizon not in self.horizons:
            raise UserError(
                f"No run of {horizon} steps; those compared have "
                f"{', '.join(map(str, self.horizons))}."
            )
        return {x.row.opt: x.gain for x in self.rows.lines if x.row.horizon == horizon}
