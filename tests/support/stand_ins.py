"""Workers of a few lines, which stand in for the one that trains: they start without jax."""

from __future__ import annotations

from pathlib import Path

from sweeps.execution import worker_process
from sweeps.execution.request import Request
from sweeps.execution.watch import Limits, run_worker
from sweeps.planning.request import PlanRequest

# `part` holds the optimizers that this worker is to run, `faults` those of its request.
PRELUDE = """
import json, os, signal, subprocess, sys, time
pipe, token = int(sys.argv[1]), sys.stdin.readline().strip()
request = json.loads(sys.stdin.read())
part, faults = request["plan"]["part"] or request["plan"]["opts"], request["faults"]
def send(kind, value):
    os.write(pipe, f"\\n{token}{json.dumps([kind, value])}\\n".encode())
def plan():
    send("planned", [[spec[2:-3], spec] for spec in part])
def done():
    send("done", [f"/store/{spec[2:-3]}" for spec in part])
"""


def install(monkeypatch, body: str) -> None:
    """Makes every worker run the prelude and then `body`."""
    monkeypatch.setattr(worker_process, "COMMAND", ("-u", "-P", "-c", PRELUDE + body))


def request(outdir: Path, *opts: str, shard: str = "0/1") -> Request:
    """A request for the optimizers, "./NAME.py" each."""
    typed = tuple(f"./{name}.py" for name in opts)
    return Request(PlanRequest(typed, "tiny", (), 1, 1, shard=shard), str(outdir))


def run(outdir: Path, display, stall_seconds: float = 60.0):
    """Watches one worker that runs the optimizer "mine"."""
    return run_worker(request(outdir, "mine"), Limits(stall_seconds, 0), display)
