"""The process that trains. It reads a request on standard input and reports on a pipe.

    python -m sweeps.execution.worker FILE_DESCRIPTOR_OF_THE_PIPE

Whatever an optimizer prints, and the last words of a dying process, go to standard output, which
the supervisor keeps as a log file.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from distill_bench.errors import UserError
from distill_bench.log import listen
from sweeps import cli
from sweeps.execution.messages import Kind
from sweeps.execution.progress import Display
from sweeps.execution.request import Request

if TYPE_CHECKING:
    from distill_bench.training.rules import Lane
    from sweeps.execution.resources import Resources
    from sweeps.planning.plan import Plan


@dataclass(frozen=True)
class _Channel(Display):
    """A display that sends everything to the supervisor."""

    pipe: IO[str]

    def send(self, kind: Kind, value: Any) -> None:
        self.pipe.write(json.dumps([kind, value]) + "\n")

    def begin(self, label: str, steps: int) -> None:
        self.send(Kind.BEGIN, [label, steps])

    def advance(self, steps: int) -> None:
        self.send(Kind.ADVANCE, steps)

    def say(self, text: str) -> None:
        self.send(Kind.SAY, text)

    def suspect(self, optimizers: Sequence[str]) -> None:
        self.send(Kind.SUSPECT, list(optimizers))


def _die_with_parent() -> None:
    """On Linux: ends this process when the supervisor ends, for whatever reason."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _run(request: Request, channel: _Channel) -> list[Path]:
    """Runs the request. Returns the folders of its studies; none in a process that follows."""
    resources = request.resources
    cli.set_up_jax(resources.cache, resources.cpu_devices)
    # Only now, because set_up_jax limits the threads of LAPACK, which scipy loads.
    from sweeps.execution import multihost
    from sweeps.execution.execute import execute
    from sweeps.execution.export import Exporter
    from sweeps.planning.environment import versions
    from sweeps.planning.plan import make_plan
    from sweeps.results.outdir import locked, open_folder

    spans_hosts = resources.executor == "multihost"
    if spans_hosts:
        multihost.join(resources.hosts)
        multihost.agree(versions())
    plan = make_plan(request.plan)
    if spans_hosts and not multihost.is_leader():
        _follow(plan, resources, channel)
        return []
    from sweeps.execution import preflight  # makes arrays, which `join` forbids

    outdir = open_folder(request.outdir)
    exporter = Exporter.open(request.export, plan.task, channel.say) if request.export else None
    i, n = plan.shard
    with locked(outdir, channel.say, f"{i}/{n}" if n > 1 else ""):
        # A suspect of an earlier process has no second chance to end this one before it trains.
        suspected = request.faults.alone | request.faults.dead.keys()
        preflight.warn(plan.candidates, resources.cache, channel, suspected)
        folders = execute(plan, outdir, channel, resources, request.faults, exporter)
    if spans_hosts:
        multihost.dismiss()
        multihost.leave()
    return folders


def _follow(plan: Plan, resources: Resources, channel: _Channel) -> None:
    """Trains what process 0 asks for, and keeps nothing."""
    from sweeps.execution import multihost
    from sweeps.planning.plan import lane_of

    channel.say("Following process 0, which keeps the results.")
    optimizers = {candidate.optimizer.name: candidate.optimizer for candidate in plan.candidates}

    def lane(name: str, hparams: Mapping[str, Any], steps: int, seed: int) -> Lane:
        return lane_of(optimizers[name], hparams, steps, seed)

    multihost.follow(
        lambda: resources.open_engine(plan.task),
        lane,
        resources.diagnose(),
        lambda: channel.suspect([]),
    )
    multihost.leave()


def main() -> None:
    _die_with_parent()
    faulthandler.enable()
    request = Request.from_json(sys.stdin.read())
    channel = _Channel(os.fdopen(int(sys.argv[1]), "w", buffering=1))
    listen(channel.say)
    try:
        channel.send(Kind.DONE, [str(folder) for folder in _run(request, channel)])
    except UserError as error:
        channel.send(Kind.MISUSE, str(error))
    except OSError as error:
        if not (message := cli.disk_trouble(error, Path(request.outdir))):
            raise
        channel.send(Kind.FAILED, message)
    except Exception:
        channel.send(
            Kind.FAILED,
            f"This is a defect of distill-bench; please report it.\n\n{traceback.format_exc()}",
        )


if __name__ == "__main__":
    main()
