"""The process that computes: reads a request on standard input, runs it, and tells on a pipe how it goes.

    python -m sweeps.execution.worker

What an optimizer prints, and the last words of a process that dies, go to the log file that is its standard output.
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
from sweeps.execution.resources import Resources

if TYPE_CHECKING:
    from distill_bench.training.rules import Lane


@dataclass(frozen=True)
class _Channel:
    """`execute.Display`, as one JSON object a line."""

    pipe: IO[str]

    def send(self, kind: str, value: Any) -> None:
        self.pipe.write(json.dumps([kind, value]) + "\n")

    def begin(self, label: str, steps: int) -> None:
        self.send("begin", [label, steps])

    def advance(self, steps: int) -> None:
        self.send("advance", steps)

    def say(self, text: str) -> None:
        self.send("say", text)

    def suspect(self, optimizers: Sequence[str]) -> None:
        self.send("suspect", list(optimizers))


def _die_with_parent() -> None:
    """On Linux, ends this process when the supervisor ends, however that ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _work(request: dict[str, Any], channel: _Channel) -> None:
    asked = request["where"]
    cli.set_up_jax(asked["cache"], asked["layout"]["devices"])
    from distill_bench.training.lane_layout import LayoutOptions
    from sweeps.execution import execute, multihost
    from sweeps.planning import plan
    from sweeps.results import store

    parts = {"hosts": multihost.Hosts(**asked["hosts"]), "layout": LayoutOptions(**asked["layout"])}
    where = Resources(**asked | parts)
    spans_hosts = where.executor == "multihost"
    if spans_hosts:
        multihost.join(where.hosts)
    the_plan = plan.make_plan(**request["plan"])
    if spans_hosts and not multihost.is_leader():
        channel.say("Following process 0, which keeps the results.")
        opts = {candidate.optimizer.name: candidate.optimizer for candidate in the_plan.candidates}

        def lane_of(name: str, hparams: Mapping[str, Any], steps: int, seed: int) -> Lane:
            return plan.lane_of(opts[name], hparams, steps, seed)

        multihost.follow(
            lambda: where.open_engine(the_plan.task),
            lane_of,
            where.diagnose(),
            lambda: channel.suspect([]),
        )
        multihost.leave()
        channel.send("done", [])
        return
    root = store.open_outdir(request["outdir"])
    i, n = the_plan.shard
    with store.locked(root, f"{i}/{n}" if n > 1 else ""):
        faults = execute.Faults(
            frozenset(request["alone"]),
            {name: tuple(fault) for name, fault in request["dead"].items()},
        )
        folders = execute.execute(the_plan, root, channel, where, faults)
    if spans_hosts:
        multihost.dismiss()
        multihost.leave()
    channel.send("done", [str(folder) for folder in folders])


def main() -> None:
    _die_with_parent()
    faulthandler.enable()
    request = json.load(sys.stdin)
    channel = _Channel(os.fdopen(request["pipe"], "w", buffering=1))
    listen(channel.say)
    try:
        _work(request, channel)
    except UserError as error:
        channel.send("misuse", str(error))
    except OSError as error:
        if not (said := cli.disk_trouble(error, Path(request["outdir"]))):
            raise
        channel.send("failed", said)
    except Exception:
        channel.send(
            "failed",
            f"This is a defect of distill-bench; please report it.\n\n{traceback.format_exc()}",
        )


if __name__ == "__main__":
    main()
