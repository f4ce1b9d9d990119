"""Trains runs of an entry again, as a sweep trains them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from distill_bench.networks import bit
from distill_bench.training.engine import Engine
from distill_bench.training.events import Event, Finished, Losses, Point, Student
from distill_bench.training.train import train
from optimizers.contract.api import Optimizer
from sweeps.execution.trial_sink import blown_up, losses_compare
from sweeps.planning.plan import lane_of
from sweeps.planning.study import Result, Status, Trial


@dataclass
class _Run:
    losses: list[float] = field(default_factory=list)
    points: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    status: Status = "crashed"
    step: int = 0
    detail: str | None = None


def train_again(
    engine: Engine,
    opt: Optimizer,
    trials: Sequence[Trial],
    watch: Callable[[Event, int], None],
    keep: Callable[[int, bit.Params], None] | None = None,
) -> list[Result]:
    """The results of the trials, in their order.

    Args:
      engine: the task.
      opt: the optimizer.
      trials: what to train.
      watch: called with each training event and the total number of steps.
      keep: called with the index and the parameters of each student that is trained to its end.
    """
    lanes = [lane_of(opt, t.hparams, opt.steps(t.horizon), t.seed) for t in trials]
    if not lanes:
        return []
    steps = sum(lane.horizon for lane in lanes)
    runs = [_Run() for _ in lanes]
    for event in train(engine, lanes, keep=keep is not None):
        watch(event, steps)
        match event:
            case Losses(lane, _, values):
                runs[lane].losses += values.tolist()
            case Point(lane, step, metrics):
                runs[lane].points.append((step, metrics))
            case Student() if keep:
                keep(event.lane, event.params)
            case Finished(lane, status, step, detail):
                run = runs[lane]
                run.status, run.step, run.detail = status, step, detail
    compare = losses_compare(engine.source.task)
    return [_result(trial, run, compare) for trial, run in zip(trials, runs, strict=True)]


def _result(trial: Trial, run: _Run, compare: bool) -> Result:
    status, detail = run.status, run.detail
    if status == "ok" and compare:
        final = run.points[-1][1]
        if reason := blown_up(run.losses[0] if run.losses else None, final):
            status, detail = "diverged", reason
    return Result(trial, status, run.step, detail, tuple(run.losses), tuple(run.points))
