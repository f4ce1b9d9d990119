"""One sweep over several hosts: every trial's batch is divided among all their devices.

The same command runs on every host. Process 0 leads: only it reads and writes the store. It
decides what to train and sends this to the others, which train the same lanes and store nothing.
What it sends is JSON and arrays, never code.
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
from distill_bench.training.diagnose import Observe
from distill_bench.training.engine import Engine
from distill_bench.training.events import Event
from distill_bench.training.lane_state import Saved
from distill_bench.training.rules import Lane
from distill_bench.training.train import train
from sweeps.planning.environment import differences


@dataclass(frozen=True)
class Hosts:
    """How the processes find each other. All None on a cluster that jax knows, such as SLURM.

    Attributes:
      coordinator: "host:port" of process 0.
      processes: the number of processes.
      process: the number of this one, from 0.
    """

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None


def join(hosts: Hosts) -> None:
    """Connects to the other processes; call it before jax's first computation.

    Raises:
      UserError: if neither flags nor cluster say how, or the connection fails.
    """
    try:
        jax.distributed.initialize(hosts.coordinator, hosts.processes, hosts.process)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"--multihost cannot start: {error}\n"
            "On a cluster that jax knows (SLURM, TPU, Kubernetes, MPI) the flag is enough. "
            "Elsewhere run the same command on every host with --coordinator=HOST:PORT "
            "--processes=N --process=I, where HOST is the host of process 0."
        ) from None


def agree(versions: Mapping[str, str]) -> None:
    """Checks that all processes compute the same numbers.

    Raises:
      UserError: if this process has other versions than process 0; names them.
    """
    if is_leader():
        _send(json.dumps(dict(versions)).encode())
    elif differing := differences(json.loads(_receive()), versions):
        raise UserError(
            f"Process {jax.process_index()} would compute other numbers than process 0: "
            f"{differing}.\nUse machines of one kind, with the same versions."
        )


def leave() -> None:
    """Waits until all processes are done: one that left earlier would take the others down."""
    jax.distributed.shutdown()


def is_leader() -> bool:
    return jax.process_index() == 0


def lead(
    open_engine: Callable[[], Engine],
    names: Sequence[str],
    lanes: Sequence[Lane],
    resume: Mapping[int, Saved],
    due: Callable[[], bool],
    observe: Observe | None,
    keep: bool,
) -> Iterator[Event]:
    """`train` on all hosts; `names` are the lanes' optimizers."""
    trials = [
        (name, dict(lane.hparams), lane.horizon, lane.seed)
        for name, lane in zip(names, lanes, strict=True)
    ]
    _send(json.dumps({"trials": trials, "resume": list(resume), "keep": keep}).encode())
    for saved in resume.values():
        file = io.BytesIO()
        lane_state.write(file, saved, {})
        _send(file.getvalue())
    yield from train(open_engine(), lanes, resume, due, observe, keep)


def dismiss() -> None:
    """Ends `follow` on the other processes; called by process 0 when all is trained."""
    _send(b"null")


def follow(
    open_engine: Callable[[], Engine],
    lane_of: Callable[[str, Mapping[str, Any], int, int], Lane],
    observe: Observe | None,
    alive: Callable[[], None],
) -> None:
    """Trains what process 0 sends until process 0 calls `dismiss`.

    lane_of: makes a lane from an optimizer's name, hyperparameters, steps and seed.
    alive: called on every event of training.
    """
    engine = None
    while request := json.loads(_receive()):
        resume = {i: lane_state.read(io.BytesIO(_receive()), {}) for i in request["resume"]}
        engine = engine or open_engine()
        lanes = [
            lane_of(name, hparams, horizon, seed)
            for name, hparams, horizon, seed in request["trials"]
        ]
        for _ in train(engine, lanes, resume, observe=observe, keep=request["keep"]):
            alive()


def _send(content: bytes) -> None:
    multihost_utils.broadcast_one_to_all(np.int32(len(content)))
    multihost_utils.broadcast_one_to_all(np.frombuffer(content, np.uint8))


def _receive() -> bytes:
    size = int(multihost_utils.broadcast_one_to_all(np.int32(0)))
    content = multihost_utils.broadcast_one_to_all(np.zeros(size, np.uint8))
    return np.asarray(content).astype(np.uint8).tobytes()
