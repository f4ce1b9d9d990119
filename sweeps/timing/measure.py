"""What sweeps/benchmark.py measures: medians after a warm-up, with block_until_ready; ratios within one run."""

from __future__ import annotations

import functools
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench.machine import core_count
from distill_bench.networks import bit, network
from distill_bench.training import lanes as lanes_lib
from distill_bench.training.engine import Engine
from distill_bench.training.events import Compiled, Losses
from distill_bench.training.lane_layout import BATCH, LANES
from distill_bench.training.losses import kl_divergence
from distill_bench.training.rules import HORIZON, Lane, spec_of
from distill_bench.training.source import Source
from distill_bench.training.teacher_logits import make_forward
from distill_bench.training.train import train
from distill_bench.views.host_crops import HostCrops
from optimizers.contract.api import Optimizer

REPEATS = 7


def seconds(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median time of `call`, its result waited for, after one call that is not counted."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def interleaved(
    a: Callable[[], Any], b: Callable[[], Any], repeats: int = 3 * REPEATS
) -> tuple[float, float]:
    """Median times of two calls taken in turn, so that a machine that changes its speed changes both."""
    jax.block_until_ready((a(), b()))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, kept in zip((a, b), times, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(call())
            kept.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


def matmul_peak(n: int = 2048, precision: str = "float32", devices: int | None = None) -> float:
    """FLOP/s of a square product on so many devices, or all of this process: on CPU one product uses every core."""
    a = jax.random.normal(jax.random.key(0), (n, n), precision)
    multiply = jax.jit(lambda x: x @ x)
    devices = 1 if jax.default_backend() == "cpu" else devices or jax.local_device_count()
    return devices * 2 * n**3 / seconds(lambda: multiply(a))


def memory_bytes() -> int:
    """Peak memory of a device that tells it, else of this process."""
    if (told := jax.local_devices()[0].memory_stats()) and "peak_bytes_in_use" in told:
        return told["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def sweep(engine: Engine, opt: Optimizer, lanes: int, steps: int) -> dict[str, float]:
    """Milliseconds per trial-step and core utilisation of `lanes` learning rates on one stream, evaluation included, compilation not."""
    rates = np.geomspace(1e-2, 1e-1, lanes)
    trials = [Lane(opt.builder, {"lr": float(lr)}, steps, 0) for lr in rates]
    began = cpu = 0.0
    done = rules = 0
    for event in train(engine, trials):
        if isinstance(event, Compiled):
            rules, began, cpu = event.rules, time.perf_counter(), time.process_time()
        elif isinstance(event, Losses):
            done += len(event.values)
    wall = time.perf_counter() - began
    cores = core_count() if jax.default_backend() == "cpu" else 1
    return {
        "ms_per_trial_step": 1e3 * wall / done,
        "core_utilisation": (time.process_time() - cpu) / (wall * cores),
        "compilations": rules,
    }


def throughput(
    engine: Engine, opt: Optimizer, lanes: int, steps: int, peak: float
) -> dict[str, float]:
    """Images and trial-steps a second of whole training steps, and which fraction of `peak` their networks' arithmetic is.

    An image counts once, however many lanes see it. Evaluation at the end is in the time and not in the arithmetic.
    """
    task = engine.source.task
    sweep(engine, opt, lanes, steps)  # compiles, and warms up
    step = sweep(engine, opt, lanes, steps)["ms_per_trial_step"] * lanes / 1e3
    flops = (
        2
        * task.batch_size
        * (task.teacher_macs + 3 * lanes * network.macs(task.student, task.views.size))
    )
    return {
        "ms_per_step": 1e3 * step,
        "images_per_second": task.batch_size / step,
        "trial_steps_per_second": lanes / step,
        "peak_fraction": flops / step / peak,
    }


def input_rate(feed: HostCrops, images: int = 4096) -> dict[str, float]:
    """Images a second that this host reads, decodes and crops, of at least `images`, nothing else running; and how many of its cores are busy."""
    batches = -(-images // len(feed.rows))
    feed.read(0, 0, 1)
    began, cpu = time.perf_counter(), time.process_time()
    feed.read(0, 1, batches)
    wall = time.perf_counter() - began
    return {
        "input_images_per_second": batches * len(feed.rows) / wall,
        "input_cores_busy": (time.process_time() - cpu) / wall,
    }


def one_by_one(engine: Engine, opt: Optimizer, steps: int) -> float:
    """Seconds a step of the best code for a single trial: one compiled loop over views, teacher and student, no lanes.

    It runs on one device, whose products use every core; evaluation is left out.
    """
    task = engine.source.task
    from distill_bench.training.source import init_student
    from distill_bench.views.step_views import step_views

    # Put on one device: what is replicated over the mesh would be computed on each.
    device = jax.local_devices()[0]
    images, answers = jax.device_put(
        (np.asarray(engine.source.images), jax.tree.map(np.asarray, engine.source.teachers[0])),
        device,
    )
    rule = opt.build({}, steps)
    params = jax.jit(init_student, static_argnums=0)(task, 0)

    @jax.jit
    def run(params: bit.Params, state: Any, images: jax.Array, answers: bit.Params, steps: int):
        def step(i: jax.Array, carry: Any):
            params, state = carry
            views = step_views(task, images, 0, i).student
            logits = bit.apply(task.teacher, answers, views, frozen=True)
            gradients = jax.grad(
                lambda p: kl_divergence(
                    logits, network.apply(task.student, p, views), task.temperature
                )
            )(params)
            updates, state = rule.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, steps, step, (params, state))

    state = rule.init(params)
    return seconds(lambda: run(params, state, images, answers, steps), 3) / steps


def networks(engine: Engine, peak: float) -> dict[str, float]:
    """Milliseconds and fractions of the peak of a teacher's forward and a student's step, as the engine runs them: one on each device."""
    task = engine.source.task
    chunk = engine.chunk(0, 0)
    from distill_bench.training.stream import SCATTERED

    forward = make_forward(engine.source)
    seen = np.asarray(chunk.views[0])
    shown = tuple(
        np.zeros((*seen.shape[:2], *[it.size or task.views.size] * 2, seen.shape[-1]), np.float32)
        for it in task.teachers
    )
    teacher = seconds(lambda: forward(engine.source.teachers, shown)) / len(seen)

    def rule(hparams: Any, horizon: Any) -> optax.GradientTransformation:
        return optax.sgd(0.0)  # next to nothing beside the gradient

    lane = Lane(rule, {}, 1, 0)
    spec = spec_of(lane, frozenset({HORIZON}))
    engine.compile([(spec, lane, frozenset({HORIZON}))])
    values = lanes_lib.traced_values(
        engine.source, [lane] * engine.layout.lanes, frozenset({HORIZON})
    )
    zeros = engine.layout.spread([np.int32(0)] * engine.layout.lanes)
    steps = engine.layout.spread([np.int32(engine.steps)] * engine.layout.lanes)
    both = engine.layout.scatter([chunk] * engine.layout.rows, SCATTERED)
    params = engine.students(zeros)
    states = [engine.rules[spec].init(values, params)]

    def step() -> Any:
        states[0], losses = engine.rules[spec].advance(states[0], values, zeros, steps, both)
        return losses

    student = seconds(step) / (engine.steps * engine.layout.lanes)
    counted = {"teacher": task.teacher_macs, "student": network.macs(task.student, task.views.size)}
    flops = {name: 2 * macs * task.batch_size for name, macs in counted.items()}
    return {
        "teacher_ms": 1e3 * teacher,
        "student_ms": 1e3 * student,
        "teacher_peak_fraction": flops["teacher"] / teacher / peak,
        "student_peak_fraction": 3 * flops["student"] / student / peak,
    }


def teacher_placements(source: Source) -> dict[str, float]:
    """A chunk's teacher forward with its parameters on every device, and with each cut over the devices of a batch along its largest axis that they divide.

    MiB of one device: parameters, and what the program takes beside arguments and results.
    """
    mesh = source.layout.mesh
    shards = mesh.shape[BATCH]

    def cut(leaf: jax.Array) -> NamedSharding:
        sizes = [size if size % shards == 0 else 0 for size in leaf.shape]
        axis = int(np.argmax(sizes))
        return NamedSharding(
            mesh, P(*[BATCH if i == axis and sizes[axis] else None for i in range(leaf.ndim)])
        )

    task, rng = source.task, np.random.default_rng(0)
    shape = (source.layout.rows, task.batch_size)
    seen = [
        rng.uniform(-1, 1, (*shape, *[it.size or task.views.size] * 2, it.network.channels)).astype(
            np.float32
        )
        for it in task.teachers
    ]
    views = source.layout.place(tuple(seen), P(LANES, BATCH))
    placed = {
        "replicated": source.teachers,
        "sharded": jax.device_put(source.teachers, jax.tree.map(cut, source.teachers)),
    }
    forward, figures, calls = make_forward(source), {}, []
    for name, params in placed.items():
        program = forward.lower(params, views).compile()
        calls.append(functools.partial(program, params, views))
        held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(params))
        figures[f"{name}_parameters_mib"] = held / 2**20
        if memory := program.memory_analysis():
            figures[f"{name}_temporary_mib"] = memory.temp_size_in_bytes / 2**20
    times = interleaved(calls[0], calls[1], REPEATS)
    return figures | {f"{name}_ms": 1e3 * took for name, took in zip(placed, times, strict=True)}
