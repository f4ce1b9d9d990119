"""The process that trains. It reads a request on standard input and reports on a pipe.

    python -u -P -m sweeps.execution.worker FILE_DESCRIPTOR_OF_THE_PIPE

Whatever an optimizer prints, and the last words of a dying process, go to standard output, which
the supervisor keeps as a log file.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_bench import log
from distill_bench.errors import UserError, clip
from distill_bench.log import listen
from sweeps import cli
from sweeps.execution.channel import Channel
from sweeps.execution.messages import Kind
from sweeps.execution.request import Request

_USED_UP = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # open files, memory

if TYPE_CHECKING:
    from distill_bench.training.rules import Lane
    from sweeps.execution.resources import Resources
    from sweeps.planning.plan import Plan


def _die_with_parent() -> None:
    """On Linux: ends this process when the supervisor ends, for whatever reason."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _run(request: Request, channel: Channel, plug_ins: dict[str, str]) -> list[Path]:
    """Runs the request. Returns the folders of its studies; none in a process that follows.

    plug_ins: filled with the names of optimizers that are not built in, by file.
    """
    resources = request.resources
    spans_hosts = resources.executor == "multihost"
    cli.set_up_jax(resources.cache, resources.cpu_devices, spans_hosts)
    # Only now, because set_up_jax limits the threads of LAPACK, which scipy loads.
    from optimizers.contract import registry
    from sweeps.execution import multihost
    from sweeps.execution.execute import execute
    from sweeps.execution.export import Exporter
    from sweeps.planning.environment import versions
    from sweeps.planning.plan import make_plan
    from sweeps.results.outdir import locked, open_folder

    if spans_hosts:
        multihost.join(resources.hosts)
        multihost.agree(versions())
    plan = make_plan(request.plan, lambda spec: channel.send(Kind.IMPORTING, spec))
    names = [candidate.optimizer.name for candidate in plan.candidates]
    channel.send(Kind.PLANNED, list(zip(names, (one.spec for one in plan.candidates), strict=True)))
    plug_ins |= {
        str(candidate.entry.path): name
        for candidate, name in zip(plan.candidates, names, strict=True)
        if candidate.spec not in registry.builtins()
    }
    if spans_hosts and not multihost.is_leader():
        _follow(plan, resources, channel)
        return []
    from sweeps.execution import preflight  # makes arrays, which `join` forbids

    preflight.refuse_values(plan.candidates)
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


def _follow(plan: Plan, resources: Resources, channel: Channel) -> None:
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
        resources.observe(),
        lambda: channel.suspect([]),
    )
    multihost.leave()


def _explain(
    error: Exception, outdir: Path, plug_ins: Mapping[str, str]
) -> tuple[Kind, str | list[str]]:
    """The message for an exception that nobody expected: whose fault it is, if that can be seen.

    plug_ins: names of optimizers that are not built in, by file.

    Raises:
      Exception: the same, if it is best that the process ends with it.
    """
    trace = clip("".join(traceback.format_exception(error)).rstrip())
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    for file in reversed(frames):
        if file in plug_ins:
            headline = traceback.format_exception_only(error)[-1].strip()
            return Kind.BLAMED, [plug_ins[file], f"{clip(headline, 500)}\n\n{trace}"]
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _USED_UP):
        raise error  # by whom is seen when its optimizers run in processes of their own
    if isinstance(error, OSError) and (message := cli.storage_trouble(error, outdir)):
        return Kind.FAILED, message
    if plug_ins:
        whose = (
            f"An error in distill-bench or caused by {', '.join(sorted(plug_ins.values()))}. "
            "If it also happens without them, please report it."
        )
    else:
        whose = "This is a defect of distill-bench; please report it."
    return Kind.FAILED, f"{whose}\n\n{trace}"


def main() -> None:
    _die_with_parent()
    log.make_ready()
    faulthandler.enable()
    cli.user_folder_last()
    token, _, text = sys.stdin.read().partition("\n")
    request, channel = Request.from_json(text), Channel(int(sys.argv[1]), token)
    listen(channel.say)
    plug_ins: dict[str, str] = {}
    try:
        channel.send(Kind.DONE, [str(folder) for folder in _run(request, channel, plug_ins)])
    except UserError as error:
        channel.send(Kind.MISUSE, clip(str(error)))
    except Exception as error:
        channel.send(*_explain(error, Path(request.outdir), plug_ins))


if __name__ == "__main__":
    main()
