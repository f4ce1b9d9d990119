"""A profile of one lane's training step, operation by operation."""

from __future__ import annotations

import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

from distill_bench.errors import UserError
from distill_bench.training.engine import Engine
from optimizers.contract.api import Optimizer
from sweeps.timing.chunks import chunk_run, compiled_lane
from sweeps.timing.clock import matmul_peak, memory_bandwidth, seconds
from sweeps.timing.hlo import Module
from sweeps.timing.measure import devices_of

CALLS = 3  # calls of the program in the trace; each is a chunk of steps
SLOWEST = 15  # operations that are listed one by one


@dataclass(frozen=True)
class Program:
    """The compiled steps of one lane.

    Attributes:
      text: optimized HLO.
      run: runs `steps` steps.
    """

    text: str
    run: Callable[[], Any]
    steps: int


def one_lane(engine: Engine, opt: Optimizer) -> Program:
    """The program that trains one lane with `opt` on the first row of devices.

    Raises:
      UserError: if the optimizer raises an exception.
    """
    spec, lane, traced = compiled_lane(engine, opt, engine.steps)
    run, executable = chunk_run(engine, engine.islands[0], spec, lane, traced)
    return Program(executable.as_text(), run, engine.steps)


def profile(engine: Engine, opt: Optimizer) -> dict[str, Any]:
    """Time, traffic and arithmetic of one training step, by kind of operation.

    Times are means over the steps of the trace. Traffic is the bytes of operands and results.
    `of_peak` is relative to a large matrix product. `of_bandwidth` is relative to an array that
    fits in the cache, because the arrays of a small student do.

    The engine has one device; on a CPU, give it one core.

    Raises:
      UserError: if the optimizer raises an exception, or the trace lacks the operations.
    """
    program = one_lane(engine, opt)
    module = Module(program.text)
    alone = seconds(program.run, 3) / program.steps
    spent, counts, wall = traced(program, module)
    steps = CALLS * program.steps
    large = 2048 if jax.default_backend() == "cpu" else 8192
    ceilings = {
        "matmul_peak_gflops": matmul_peak(devices_of(engine), large, engine.source.task.precision)
        / 1e9,
        "memory_gb_per_s": memory_bandwidth(2**26) / 1e9,
        "cache_gb_per_s": memory_bandwidth(2**19) / 1e9,
    }
    cost = {name: _cost(spent[name], counts[name], module, name, steps, ceilings) for name in spent}
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, own in cost.items():
        kinds[module.kind(module.instructions[name])].append(own)
    total = _sum(cost.values(), ceilings)
    slowest = sorted(cost, key=lambda name: -spent[name])[:SLOWEST]
    return {
        "optimizer": opt.name,
        "task": engine.source.task.name,
        "step_ms": 1e3 * alone,
        "traced_step_ms": 1e3 * wall / steps,
        **{f"operations_{name}": value for name, value in total.items()},
        **ceilings,
        "kinds": sorted(
            ({"kind": kind, **_sum(costs, ceilings)} for kind, costs in kinds.items()),
            key=lambda row: -row["ms"],
        ),
        "slowest": [_describe(module, name) | cost[name] for name in slowest],
    }


def _describe(module: Module, name: str) -> dict[str, str]:
    instruction = module.instructions[name]
    path = instruction.source.split("/")
    return {
        "operation": name,
        "result": instruction.result.partition("{")[0],
        "source": "/".join(path[-2:]),
    }


def _cost(
    spent: float, count: int, module: Module, name: str, steps: int, ceilings: dict[str, float]
) -> dict[str, float]:
    """The figures of one operation, in one step."""
    instruction, runs = module.instructions[name], count / steps
    bytes_moved = 0 if instruction.opcode in _CONTROL else module.moved(instruction)
    return _rates(
        runs,
        1e3 * spent / steps,
        runs * bytes_moved / 1e6,
        runs * module.flops(instruction) / 1e6,
        ceilings,
    )


_CONTROL = {"while", "conditional", "call"}  # what runs in them is counted by itself


def _sum(costs: Iterable[dict[str, float]], ceilings: dict[str, float]) -> dict[str, float]:
    costs = list(costs)
    count, ms, mb, mflop = (
        sum(cost[name] for cost in costs) for name in ("count", "ms", "mb", "mflop")
    )
    return _rates(count, ms, mb, mflop, ceilings)


def _rates(
    count: float, ms: float, mb: float, mflop: float, ceilings: dict[str, float]
) -> dict[str, float]:
    gflops, gb_per_s = (amount / ms if ms else 0.0 for amount in (mflop, mb))
    return {
        "count": count,
        "ms": ms,
        "mb": mb,
        "mflop": mflop,
        "gb_per_s": gb_per_s,
        "gflops": gflops,
        "of_bandwidth": gb_per_s / ceilings["cache_gb_per_s"],
        "of_peak": gflops / ceilings["matmul_peak_gflops"],
    }


def traced(program: Program, module: Module) -> tuple[dict[str, float], Counter[str], float]:
    """Seconds and runs of each operation in CALLS calls of the program, and their wall time.

    Raises:
      UserError: if the profiler of this platform does not report operations.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        jax.profiler.start_trace(folder, profiler_options=options)
        try:
            began = time.perf_counter()
            for _ in range(CALLS):
                jax.block_until_ready(program.run())
            wall = time.perf_counter() - began
        finally:
            jax.profiler.stop_trace()
        file = next(Path(folder).rglob("*.xplane.pb"))
        data = ProfileData.from_file(str(file))
    spent: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for plane in data.planes:
        for line in plane.lines:
            events = [e for e in line.events if e.name in module.instructions]
            for name, own in _own_times((e.name, e.start_ns, e.duration_ns) for e in events):
                spent[name] += own / 1e9
                counts[name] += 1
    if not spent:
        raise UserError(
            "The trace has no operations: jax's profiler does not report them on this platform "
            f"({jax.default_backend()}). --profile is known to work on CPU."
        )
    return spent, counts, wall


def _own_times(events: Iterable[tuple[str, float, float]]) -> Iterator[tuple[str, float]]:
    """The time of each event without that of the events inside it, such as a loop's body."""
    open_events: list[list[Any]] = []  # [name, end, own time], the innermost last

    def closed(until: float) -> Iterator[tuple[str, float]]:
        while open_events and open_events[-1][1] <= until:
            name, _, own = open_events.pop()
            yield name, own

    for name, start, duration in sorted(events, key=lambda event: (event[1], -event[2])):
        yield from closed(start)
        if open_events:
            open_events[-1][2] -= duration
        open_events.append([name, start + duration, duration])
    yield from closed(float("inf"))
