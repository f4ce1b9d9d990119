"""The trials of a plan on a Ray cluster, by the contract of `distill_bench.train.train`: lanes in, events out.

A unit of work is a slice of one optimizer's trials; it shares one teacher, on one Ray worker, with that worker's GPU or
TPU chips where the cluster has any. Ray starts a lost worker's unit again, and the events of a unit arrive when it is
done, so that a unit has happened wholly or not at all. Files of optimizers must be at the same path on every node.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_bench import machine
from distill_bench.errors import UserError
from distill_bench.training.events import Alive, Event, Finished, Losses, Point

if TYPE_CHECKING:
    from distill_bench.training.engine import Engine
    from sweeps.execution.resources import Resources

RETRIES = 3
_HEARTBEAT_SECONDS = 5.0

TrialSpec = tuple[dict[str, Any], int, int]  # hyperparameters, horizon, seed


@functools.cache
def _open(task: str, where: Resources) -> Engine:
    """This Ray worker's engine, kept for its next unit."""
    from distill_bench.tasks import catalogue
    from sweeps import cli

    cli.set_up_jax(where.cache, where.layout.devices)
    return where.open_engine(catalogue.get(task))


def _unit(task: str, where: Resources, opt: str, trials: Sequence[TrialSpec]) -> list[Event]:
    """Runs on a Ray worker: trains the trials and returns what happened."""
    from distill_bench.training.train import train
    from sweeps.planning import plan

    engine = _open(task, where)
    optimizer = plan.resolve(opt).optimizer
    lanes = [
        plan.lane_of(optimizer, hparams, optimizer.steps(horizon), seed)
        for hparams, horizon, seed in trials
    ]
    return [
        event
        for event in train(engine, lanes, diagnose=where.diagnose())
        if isinstance(event, Losses | Point | Finished)
    ]


def slices(optimizers: Sequence[str], workers: int) -> list[list[int]]:
    """Indices of the trials of each unit: one optimizer's each, in about as many equal slices as keep all workers busy."""
    units = []
    names = sorted(set(optimizers))
    parts = max(1, -(-workers // len(names)))
    for name in names:
        mine = [i for i, other in enumerate(optimizers) if other == name]
        units += [mine[k::parts] for k in range(parts) if mine[k::parts]]
    return units


def run(
    task: str, where: Resources, opts: Sequence[str], trials: Sequence[TrialSpec]
) -> Iterator[Event]:
    """Events of `trials`, trial i under the optimizer that was typed as opts[i]; a unit's come together, when it is done.

    Raises:
      UserError: where Ray is not installed or its cluster cannot be reached.
    """
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError:
        raise UserError(
            "--executor=ray needs Ray, which is not installed: pip install 'distill-bench[ray]'"
        ) from None
    if not ray.is_initialized():
        root = str(Path(__file__).resolve().parents[2])
        variables = machine.chosen() | {
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        }
        try:
            ray.init(
                address=where.ray_address,
                include_dashboard=False,
                log_to_driver=False,
                runtime_env={"env_vars": variables},
            )
        except ConnectionError as error:
            raise UserError(
                f"--ray_address={where.ray_address} cannot be reached: {error}"
            ) from None
    cluster = ray.cluster_resources()
    wants = _wants(cluster)
    workers = max(1, int(min(cluster.get(name, 0) // amount for name, amount in wants.items())))
    places = {
        "num_cpus": wants["CPU"],
        "num_gpus": wants.get("GPU", 0),
        "resources": {k: v for k, v in wants.items() if k == "TPU"},
    }
    unit = ray.remote(max_retries=RETRIES, **places)(_unit)
    waiting = {}
    for indices in slices(opts, workers):
        spec = opts[indices[0]]
        target, colon, attribute = spec.partition(":")
        if target.endswith(".py"):
            spec = f"{Path(target).expanduser().resolve()}{colon}{attribute}"
        waiting[unit.remote(task, where, spec, [trials[i] for i in indices])] = indices
    while waiting:
        yield Alive(next(iter(waiting.values()))[0])
        done, _ = ray.wait(list(waiting), timeout=_HEARTBEAT_SECONDS)
        for reference in done:
            indices = waiting.pop(reference)
            try:
                events = ray.get(reference)
            except RayTaskError as error:  # raised on the worker by this project: an update rule's exceptions are events
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


def _wants(cluster: Mapping[str, float]) -> dict[str, float]:
    """What one unit takes: an accelerator where the cluster has some, else one CPU."""
    for name in ("TPU", "GPU"):
        if cluster.get(name, 0) >= 1:
            return {"CPU": 1, name: 1}
    return {"CPU": 1}
