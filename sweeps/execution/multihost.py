"""One sweep over several hosts: every trial's batch is spread over all their devices.

The same command runs on every host. Process 0 leads: it alone reads and writes the store, decides what is to be trained,
and tells the others, which train the same lanes and keep nothing. What is told is JSON and arrays, never code.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from distill_bench.errors import UserError
from distill_bench.training import lane_state
from distill_bench.training.engine import Engine
from distill_bench.training.events import Event
from distill_bench.training.lane_state import Saved
from distill_bench.training.rules import Lane
from distill_bench.training.train import train

Diagnose = Callable[[Any], dict[str, jax.Array]]


@dataclass(frozen=True)
class Hosts:
    """Where the processes meet. None where the cluster (SLURM, TPU, Kubernetes, MPI) tells jax by itself.

    coordinator: "host:port" of process 0.
    processes: how many there are.
    process: which one this is, from 0.
    """

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None


def join(hosts: Hosts) -> None:
    """Meets the other processes; call before jax's first computation.

    Raises:
      UserError: where neither flags nor cluster say how.
    """
    try:
        jax.distributed.initialize(hosts.coordinator, hosts.processes, hosts.process)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"--multihost cannot start: {error}\nOn a cluster that jax knows (SLURM, TPU, Kubernetes, MPI) the flag is enough; elsewhere run the "
            "same command on every host with --coordinator=HOST:PORT --processes=N --process=I, HOST being that of process 0."
        ) from None


def leave() -> None:
    """Waits until all processes are done: whoever left before would take the others down."""
    jax.distributed.shutdown()


def is_leader() -> bool:
    return jax.process_index() == 0


def lead(
    open_engine: Callable[[], Engine],
    names: Sequence[str],
    lanes: Sequence[Lane],
    resume: Mapping[int, Saved],
    due: Callable[[], bool],
    diagnose: Diagnose | None,
) -> Iterator[Event]:
    """`train`, on all hosts; `names` are the lanes' optimizers."""
    trials = [
        (name, dict(lane.hparams), lane.horizon, lane.seed)
        for name, lane in zip(names, lanes, strict=True)
    ]
    _tell(json.dumps({"trials": trials, "resume": list(resume)}).encode())
    for saved in resume.values():
        file = io.BytesIO()
        lane_state.write(file, saved, {})
        _tell(file.getvalue())
    yield from train(open_engine(), lanes, resume, due, diagnose)


def dismiss() -> None:
    """Process 0 has no more to train."""
    _tell(b"null")


def follow(
    open_engine: Callable[[], Engine],
    lane_of: Callable[[str, Mapping[str, Any], int, int], Lane],
    diagnose: Diagnose | None,
    alive: Callable[[], None],
) -> None:
    """Trains what process 0 says until it has no more; `alive` is called as it goes on.

    `lane_of` makes a lane from an optimizer's name, hyperparameters, steps and seed.
    """
    engine = None
    while told := json.loads(_told()):
        resume = {i: lane_state.read(io.BytesIO(_told()), {}) for i in told["resume"]}
        engine = engine or open_engine()
        lanes = [
            lane_of(name, hparams, horizon, seed) for name, hparams, horizon, seed in told["trials"]
        ]
        for _ in train(engine, lanes, resume, diagnose=diagnose):
            alive()


def _tell(content: bytes) -> None:
    multihost_utils.broadcast_one_to_all(np.int32(len(content)))
    multihost_utils.broadcast_one_to_all(np.frombuffer(content, np.uint8))


def _told() -> bytes:
    size = int(multihost_utils.broadcast_one_to_all(np.int32(0)))
    return (
        np.asarray(multihost_utils.broadcast_one_to_all(np.zeros(size, np.uint8)))
        .astype(np.uint8)
        .tobytes()
    )
