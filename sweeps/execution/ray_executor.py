"""Runs the trials of a plan on a Ray cluster. Like `train`, it takes lanes and yields events.

A unit of work is a part of one optimizer's trials. It shares one teacher and runs on one Ray
worker, with a GPU or TPU chip if the cluster has any. Ray restarts the unit of a lost worker. The
events of a unit arrive when it is done, so a unit takes effect as a whole or not at all. An
optimizer's file must be at the same path on every node.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distill_bench import machine
from distill_bench.errors import UserError
from distill_bench.training.events import Alive, Event, Finished, Losses, Point, Student

if TYPE_CHECKING:
    from distill_bench.training.engine import Engine
    from sweeps.execution.resources import Resources

RETRIES = 3
_HEARTBEAT_SECONDS = 5.0

TrialSpec = tuple[dict[str, Any], int, int]  # hyperparameters, horizon, seed


@functools.cache
def _open(task: str, resources: Resources, expected: tuple[tuple[str, str], ...]) -> Engine:
    """This Ray worker's engine, kept for its next units.

    Raises:
      UserError: if the worker's versions are not the `expected` ones: its numbers are others.
    """
    from distill_bench.tasks import catalogue
    from sweeps import cli
    from sweeps.planning import environment

    cli.set_up_jax(resources.cache)
    if differing := environment.differences(environment.versions(), dict(expected)):
        raise UserError(
            f"The Ray worker on {socket.gethostname()} would compute other numbers than this "
            f"process: {differing}.\nUse machines of one kind, with the same versions."
        )
    return resources.open_engine(catalogue.get(task))


def _unit(
    task: str,
    resources: Resources,
    expected: Mapping[str, str],
    opt: str,
    trials: Sequence[TrialSpec],
    keep: bool,
    schedule: str | None,
) -> list[Event]:
    """Trains the trials, on a Ray worker whose versions are as expected; returns their events."""
    from distill_bench.training.train import train
    from optimizers.contract.rescheduling import with_schedule
    from sweeps.planning.plan import lane_of
    from sweeps.planning.plug_ins import resolve

    engine = _open(task, resources, tuple(sorted(expected.items())))
    most = resources.rules_at_once()
    if most and len(engine.islands[0].rules) >= most:
        engine.forget_all()
    optimizer = resolve(opt).optimizer
    if schedule:
        optimizer = with_schedule(optimizer, schedule)
    lanes = [
        lane_of(optimizer, hparams, optimizer.steps(horizon), seed)
        for hparams, horizon, seed in trials
    ]
    return [
        event
        for event in train(engine, lanes, observe=resources.observe(), keep=keep)
        if isinstance(event, Losses | Point | Student | Finished)
    ]


def slices(optimizers: Sequence[str], workers: int) -> list[list[int]]:
    """Indices of the trials of each unit.

    A unit holds trials of one optimizer. Each optimizer's trials are split into as many units as
    keep all workers busy, of about equal size.
    """
    units = []
    names = sorted(set(optimizers))
    parts = max(1, -(-workers // len(names)))
    for name in names:
        indices = [i for i, other in enumerate(optimizers) if other == name]
        units += [indices[k::parts] for k in range(parts) if indices[k::parts]]
    return units


def run(
    task: str,
    resources: Resources,
    versions: Mapping[str, str],
    opts: Sequence[str],
    trials: Sequence[TrialSpec],
    keep: bool = False,
    schedule: str | None = None,
) -> Iterator[Event]:
    """Events of `trials`. Trial i uses the optimizer opts[i]; a file is named by its absolute path.
    The events of a unit come together, when it is done.

    Args:
      versions: those of the study, which every Ray worker must have.
      keep: see `train`.
      schedule: see `Plan`.

    Raises:
      UserError: if Ray is not installed, its cluster cannot be reached, or one of its workers has
        other versions.
    """
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError:
        raise UserError(
            "--executor=ray needs Ray, which is not installed: pip install 'distill-bench[ray]'"
        ) from None
    if not ray.is_initialized():
        _connect(resources.ray_address)
    cluster = ray.cluster_resources()
    demand = _demand(cluster)
    workers = max(1, int(min(cluster.get(name, 0) // amount for name, amount in demand.items())))
    unit = ray.remote(
        max_retries=RETRIES,
        num_cpus=demand["CPU"],
        num_gpus=demand.get("GPU", 0),
        resources={name: amount for name, amount in demand.items() if name == "TPU"},
    )(_unit)
    waiting = {}
    for indices in slices(opts, workers):
        opt, own = opts[indices[0]], [trials[i] for i in indices]
        waiting[unit.remote(task, resources, versions, opt, own, keep, schedule)] = indices
    while waiting:
        yield Alive(next(iter(waiting.values()))[0])
        done, _ = ray.wait(list(waiting), timeout=_HEARTBEAT_SECONDS)
        for reference in done:
            indices = waiting.pop(reference)
            try:
                events = ray.get(reference)
            except RayTaskError as error:
                # This project raised it. The exceptions of update rules are events instead.
                raise (error.cause if isinstance(error.cause, UserError) else error) from None
            except RayError as error:
                events = [
                    Finished(
                        i, "crashed", 0, f"Its Ray worker was lost {RETRIES + 1} times: {error}"
                    )
                    for i in range(len(indices))
                ]
            for event in events:
                yield replace(event, lane=indices[event.lane])


def _connect(address: str | None) -> None:
    """Connects to the Ray cluster at the address, or starts one here."""
    import ray

    from sweeps import cli

    try:
        ray.init(
            address=address,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": machine.chosen_folders() | {"PYTHONPATH": cli.python_path()}},
        )
    except ConnectionError as error:
        raise UserError(f"--ray_address={address} cannot be reached: {error}") from None


def _demand(cluster: Mapping[str, float]) -> dict[str, float]:
    """What one unit occupies: an accelerator if the cluster has any, and one CPU."""
    for name in ("TPU", "GPU"):
        if cluster.get(name, 0) >= 1:
            return {"CPU": 1, name: 1}
    return {"CPU": 1}
