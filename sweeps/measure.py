"""What sweeps/benchmark.py measures: medians after a warm-up, with block_until_ready; ratios within one run."""

from __future__ import annotations

import functools
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench import bit
from distill_bench import lanes as lanes_lib
from distill_bench import networks as nets
from distill_bench.engine import Engine
from distill_bench.events import Compiled, Losses
from distill_bench.feed import Feed
from distill_bench.lanes import Lane
from distill_bench.layout import BATCH, LANES
from distill_bench.losses import kl_divergence
from distill_bench.stream import Source, make_forward
from distill_bench.task import Task
from distill_bench.train import train
from optimizers.api import Optimizer, offer

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


def interleaved(a: Callable[[], Any], b: Callable[[], Any], repeats: int = 3 * REPEATS) -> tuple[float, float]:
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
    cores = len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" and hasattr(os, "sched_getaffinity") else 1
    return {
        "ms_per_trial_step": 1e3 * wall / done,
        "core_utilisation": (time.process_time() - cpu) / (wall * cores),
        "compilations": rules,
    }


def throughput(engine: Engine, opt: Optimizer, lanes: int, steps: int, peak: float) -> dict[str, float]:
    """Images and trial-steps a second of whole training steps, and which fraction of `peak` their networks' arithmetic is.

    An image counts once, however many lanes see it. Evaluation at the end is in the time and not in the arithmetic.
    """
    task = engine.source.task
    sweep(engine, opt, lanes, steps)  # compiles, and warms up
    step = sweep(engine, opt, lanes, steps)["ms_per_trial_step"] * lanes / 1e3
    flops = 2 * task.batch_size * (task.teacher_macs + 3 * lanes * nets.macs(task.student, task.views.size))
    return {
        "ms_per_step": 1e3 * step,
        "images_per_second": task.batch_size / step,
        "trial_steps_per_second": lanes / step,
        "peak_fraction": flops / step / peak,
    }


def input_rate(feed: Feed, images: int = 4096) -> dict[str, float]:
    """Images a second that this host reads, decodes and crops, of at least `images`, nothing else running; and how many of its cores are busy."""
    batches = -(-images // len(feed.rows))
    feed.read(0, 0, 1)
    began, cpu = time.perf_counter(), time.process_time()
    feed.read(0, 1, batches)
    wall = time.perf_counter() - began
    return {"input_images_per_second": batches * len(feed.rows) / wall, "input_cores_busy": (time.process_time() - cpu) / wall}


def one_by_one(engine: Engine, opt: Optimizer, steps: int) -> float:
    """Seconds a step of the best code for a single trial: one compiled loop over views, teacher and student, no lanes.

    It runs on one device, whose products use every core; evaluation is left out.
    """
    task = engine.source.task
    from distill_bench.seen import step_views
    from distill_bench.stream import init_student

    # Put on one device: what is replicated over the mesh would be computed on each.
    device = jax.local_devices()[0]
    images, answers = jax.device_put((np.asarray(engine.source.images), jax.tree.map(np.asarray, engine.source.teachers[0])), device)
    rule = opt.build({}, steps)
    params = jax.jit(init_student, static_argnums=0)(task, 0)

    @jax.jit
    def run(params: bit.Params, state: Any, images: jax.Array, answers: bit.Params, steps: int):
        def step(i: jax.Array, carry: Any):
            params, state = carry
            views = step_views(task, images, 0, i).student
            logits = bit.apply(task.teacher, answers, views, frozen=True)
            gradients = jax.grad(lambda p: kl_divergence(logits, nets.apply(task.student, p, views), task.temperature))(params)
            updates, state = rule.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, steps, step, (params, state))

    state = rule.init(params)
    return seconds(lambda: run(params, state, images, answers, steps), 3) / steps


def networks(engine: Engine, peak: float) -> dict[str, float]:
    """Milliseconds and fractions of the peak of a teacher's forward and a student's step, as the engine runs them: one on each device."""
    task = engine.source.task
    chunk = engine.chunk(0, 0)
    from distill_bench.stream import DEALT

    forward = make_forward(engine.source)
    seen = np.asarray(chunk.views[0])
    shown = tuple(np.zeros((*seen.shape[:2], *[it.size or task.views.size] * 2, seen.shape[-1]), np.float32) for it in task.teachers)
    teacher = seconds(lambda: forward(engine.source.teachers, shown)) / len(seen)

    def rule(hparams: Any, horizon: Any) -> optax.GradientTransformation:
        return optax.sgd(0.0)  # next to nothing beside the gradient

    lane = Lane(rule, {}, 1, 0)
    spec = lanes_lib.spec_of(lane, frozenset({lanes_lib.HORIZON}))
    engine.compile([(spec, lane, frozenset({lanes_lib.HORIZON}))])
    values = lanes_lib.traced_values(engine.source, [lane] * engine.layout.lanes, frozenset({lanes_lib.HORIZON}))
    zeros = engine.layout.spread([np.int32(0)] * engine.layout.lanes)
    steps = engine.layout.spread([np.int32(engine.steps)] * engine.layout.lanes)
    both = engine.layout.deal([chunk] * engine.layout.rows, DEALT)
    params = engine.students(zeros)
    states = [engine.rules[spec].init(values, params)]

    def step() -> Any:
        states[0], losses = engine.rules[spec].advance(states[0], values, zeros, steps, both)
        return losses

    student = seconds(step) / (engine.steps * engine.layout.lanes)
    counted = {"teacher": task.teacher_macs, "student": nets.macs(task.student, task.views.size)}
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
        return NamedSharding(mesh, P(*[BATCH if i == axis and sizes[axis] else None for i in range(leaf.ndim)]))

    task, rng = source.task, np.random.default_rng(0)
    shape = (source.layout.rows, task.batch_size)
    seen = [rng.uniform(-1, 1, (*shape, *[it.size or task.views.size] * 2, it.network.channels)).astype(np.float32) for it in task.teachers]
    views = source.layout.place(tuple(seen), P(LANES, BATCH))
    placed = {"replicated": source.teachers, "sharded": jax.device_put(source.teachers, jax.tree.map(cut, source.teachers))}
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


def parameter_shapes(name: str) -> list[tuple[int, ...]]:
    """Shapes to time optimizers on: "twenty" convolutions, dense layers and biases, 648,266 parameters; "r50x1", BiT-R50x1 of 102 classes."""
    if name == "twenty":
        convolutions = [(3, 3, i, o) for i, o in ((3, 32), (32, 32), (32, 64), (64, 64), (64, 64), (64, 128), (128, 128), (128, 128))]
        points = [(1, 1, 32, 64), (1, 1, 64, 128)]
        dense = [(128, 256), (256, 256), (256, 256), (256, 10)]
        return [*convolutions, *points, *dense, (32,), (64,), (128,), (256,), (256,), (10,)]
    shapes = jax.eval_shape(lambda: bit.init(bit.BiTConfig((3, 4, 6, 3), width=64, classes=102), jax.random.key(0)))
    return [leaf.shape for leaf in jax.tree.leaves(shapes)]


def optimizer_steps(opt: Optimizer, baseline: Optimizer, shapes: list[tuple[int, ...]], steps: int = 60) -> dict[str, float]:
    """Milliseconds of single steps on parameters of these shapes, in turn with `baseline`, each dispatched and waited for alone.

    "largest" is the median over periods of ten steps of the slowest of each: of a rule with refreshes, a refresh.
    """
    rng = np.random.default_rng(0)
    params = [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]
    gradients = [[jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes] for _ in range(2)]
    figures, times, runs = {}, {}, {}
    for name, one in (("step", opt), ("baseline", baseline)):
        rule = one.build({}, steps)
        state = jax.jit(rule.init)(params)
        began = time.perf_counter()
        update = jax.jit(rule.update, donate_argnums=1).lower(gradients[0], state, params).compile()
        figures[f"{name}_compile_seconds"] = time.perf_counter() - began
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        figures[f"{name}_state_bytes_per_parameter"] = size / sum(p.size for p in params)
        runs[name], times[name] = [update, state], []
    for i in range(steps):
        for name, run in runs.items():
            began = time.perf_counter()
            updates, run[1] = run[0](gradients[i % 2], run[1], params)
            jax.block_until_ready((updates, run[1]))
            times[name].append(1e3 * (time.perf_counter() - began))
    for name, taken in times.items():
        periods = np.array(taken[10:]).reshape(-1, 10)  # the first ten warm up
        figures |= {
            f"{name}_ms_largest": float(np.median(periods.max(1))),
            f"{name}_ms_median": float(np.median(periods)),
            f"{name}_ms_mean": float(periods.mean()),
        }
    return figures


def optimizer_cost(task: Task, opt: Optimizer, baseline: Optimizer, steps: int = 100) -> dict[str, float]:
    """Update time and state of `opt` on the student's parameters against `baseline`, taken in turn; and seconds to compile."""
    from distill_bench.stream import init_student

    params = jax.device_get(jax.jit(init_student, static_argnums=0)(task, 0))
    gradients = jax.tree.map(lambda p: jnp.asarray(np.random.default_rng(0).standard_normal(p.shape), jnp.float32), params)

    def prepare(one: Optimizer) -> tuple[Callable[[], Any], float, int]:
        rule = one.build({}, steps)

        def run(params: Any, gradients: Any):
            def step(i: jax.Array, carry: Any):
                params, state = carry
                # Gradients that change, so that no work can be moved out of the loop.
                changed = jax.tree.map(lambda g: g * (1 + 0.01 * i), gradients)
                # A loss that costs next to nothing, for rules that evaluate it.
                extras = offer(one.extra_args, optax.tree.norm, jnp.float32(1), changed)
                updates, state = rule.update(changed, state, params, **extras)
                return optax.apply_updates(params, updates), state

            return jax.lax.fori_loop(0, steps, step, (params, rule.init(params)))

        began = time.perf_counter()
        compiled = jax.jit(run).lower(params, gradients).compile()
        took = time.perf_counter() - began
        state = jax.eval_shape(rule.init, params)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        return (lambda: compiled(params, gradients)), took, size

    mine, compile_seconds, state_bytes = prepare(opt)
    theirs, _, _ = prepare(baseline)
    a, b = interleaved(mine, theirs)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {
        "update_ms": 1e3 * a / steps,
        "baseline_update_ms": 1e3 * b / steps,
        "update_ratio": a / b,
        "state_bytes_per_parameter": state_bytes / parameters,
        "compile_seconds": compile_seconds,
    }
