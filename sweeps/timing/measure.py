"""The measurements of sweeps/benchmark.py: medians after a warm-up, ratios within one run."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench.errors import UserError
from distill_bench.machine import core_count
from distill_bench.networks import bit, network
from distill_bench.training import cores
from distill_bench.training.engine import Engine
from distill_bench.training.events import Compiled, Finished, Losses
from distill_bench.training.images import InMemory
from distill_bench.training.lane_layout import BATCH, LANES
from distill_bench.training.lanes import batch_loss
from distill_bench.training.parts import accumulated, fitting, in_parts
from distill_bench.training.rules import HORIZON, Lane, spec_of
from distill_bench.training.source import Source, init_student
from distill_bench.training.teacher_logits import make_forward
from distill_bench.training.train import train
from distill_bench.views.host_crops import HostCrops
from distill_bench.views.step_views import step_views
from optimizers.contract.api import Optimizer, offer
from sweeps.planning.plan import lane_of
from sweeps.timing.chunks import chunk_run
from sweeps.timing.clock import REPEATS, interleaved, seconds


def devices_of(engine: Engine) -> list[Any]:
    """All devices that train."""
    return [device for island in engine.islands for device in island.layout.mesh.devices.flat]


def sweep(engine: Engine, opt: Optimizer, lanes: int, steps: int) -> dict[str, float]:
    """Milliseconds per trial-step and core utilisation of `lanes` trials on one stream.

    They differ in their learning rates, if the optimizer has one. Evaluation is included,
    compilation is not.

    Raises:
      UserError: if the optimizer raises an exception.
    """
    rate = opt.defaults.get("lr")
    trials = [
        lane_of(opt, {"lr": rate * float(part)} if isinstance(rate, float) else {}, steps, 0)
        for part in np.linspace(1, 0.5, lanes)
    ]
    began = cpu = 0.0
    done = rules = 0
    for event in train(engine, trials):
        if isinstance(event, Compiled):
            rules, began, cpu = event.rules, time.perf_counter(), time.process_time()
        elif isinstance(event, Losses):
            done += len(event.values)
        elif isinstance(event, Finished) and event.status == "crashed":
            raise UserError(
                f"{opt.name} raised an exception in training: {_gist(str(event.detail))}\n"
                "sweeps/run.py shows where."
            )
    wall = time.perf_counter() - began
    cores = core_count() if jax.default_backend() == "cpu" else 1
    return {
        "ms_per_trial_step": 1e3 * wall / done,
        "core_utilisation": (time.process_time() - cpu) / (wall * cores),
        "compilations": rules,
    }


def _gist(trace: str) -> str:
    """The line of a formatted exception that names it."""
    named = re.findall(r"^[\w.]+: .*", trace, re.MULTILINE)
    return named[-1] if named else trace.splitlines()[-1]


def throughput(
    engine: Engine, opt: Optimizer, lanes: int, steps: int, peak: float
) -> dict[str, float]:
    """Images and trial-steps per second of whole training steps, and their fraction of `peak`.

    An image counts once, however many lanes see it. The time includes the evaluation at the end,
    the arithmetic does not.
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
    """How many images per second this host reads, decodes and crops, and how many cores that takes.

    Measured on at least `images` images, while nothing else runs.
    """
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
    """Seconds per step of the fastest code for a single trial: one compiled loop, without lanes.

    The loop makes the views and runs teacher and student, on one device whose products use every
    core. It does not evaluate.
    """
    task = engine.source.task
    images = engine.source.train_images
    assert isinstance(images, InMemory)
    # On one device: arrays replicated over the mesh would be used by a computation on each device.
    originals, teacher = jax.device_put(
        (images.originals, jax.tree.map(np.asarray, engine.source.teachers[0])),
        device := _widest(engine),
    )
    rule = opt.build({}, steps)
    parts_of = functools.partial(
        fitting, engine.layout, image_size=task.views.size, images=task.batch_size
    )
    params = jax.device_put(
        jax.device_get(jax.jit(init_student, static_argnums=0)(task, 0)), device
    )

    @jax.jit
    def run(params: bit.Params, state: Any, originals: Any, teacher: bit.Params, steps: int):
        def step(i: jax.Array, carry: Any):
            params, state = carry
            views = step_views(task, originals, 0, i).student
            forward = functools.partial(bit.apply, task.teacher, teacher, frozen=True)
            logits = in_parts(forward, parts_of(task.teacher))(views)
            whole = functools.partial(batch_loss, task, False)
            part_by_part = accumulated(whole, parts_of(task.student))

            def loss_of(params: bit.Params) -> jax.Array:
                return part_by_part(params, (logits, views))

            loss, gradients = jax.value_and_grad(loss_of)(params)
            extras = offer(opt.extra_args, loss_of, loss, gradients)
            updates, state = rule.update(gradients, state, params, **extras)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, steps, step, (params, state))

    state = rule.init(params)
    return seconds(lambda: run(params, state, originals, teacher, steps), 3) / steps


def _widest(engine: Engine) -> Any:
    """A device whose products use every core, or an accelerator that trains."""
    first = devices_of(engine)[0]
    return cores.devices(0, threads=core_count())[0] if first.platform == "cpu" else first


def networks(engine: Engine, peak: float) -> dict[str, float]:
    """Milliseconds of a teacher's forward pass and a student's step, and their fractions of `peak`.

    They run as in the engine: one on each device.
    """
    task = engine.source.task
    teacher, student = _teacher_seconds(engine), _student_seconds(engine)
    macs = {"teacher": task.teacher_macs, "student": network.macs(task.student, task.views.size)}
    flops = {name: 2 * count * task.batch_size for name, count in macs.items()}
    return {
        "teacher_ms": 1e3 * teacher,
        "student_ms": 1e3 * student,
        "teacher_peak_fraction": flops["teacher"] / teacher / peak,
        "student_peak_fraction": 3 * flops["student"] / student / peak,
    }


def teacher_run(engine: Engine) -> tuple[Callable[[], Any], int]:
    """A call that runs the teacher's forward pass on every row of devices, and how many batches
    that is."""
    forward = make_forward(engine.source)
    placed = [(island.source.teachers, _random_views(island.source)) for island in engine.islands]
    programs = [forward.on(island.layout.mesh) for island in engine.islands]

    def run() -> Any:
        return [program(*args) for program, args in zip(programs, placed, strict=True)]

    return run, len(placed) * engine.layout.rows


def _teacher_seconds(engine: Engine) -> float:
    """Seconds of a teacher's forward pass on one batch."""
    run, batches = teacher_run(engine)
    return seconds(run) / batches


def _student_seconds(engine: Engine) -> float:
    """Seconds of a student's step, without an optimizer that matters."""

    def rule(hparams: Any, horizon: Any) -> optax.GradientTransformation:
        return optax.sgd(0.0)  # next to nothing beside the gradient

    lane, traced = Lane(rule, {}, 1, 0), frozenset({HORIZON})
    spec = spec_of(lane, traced)
    for _, error in engine.compile([(spec, lane, traced)]):
        assert error is None
    runs = [chunk_run(engine, island, spec, lane, traced)[0] for island in engine.islands]
    lanes = len(runs) * engine.layout.lanes
    return seconds(lambda: [run() for run in runs]) / (engine.steps * lanes)


def teacher_placements(source: Source) -> dict[str, float]:
    """Compares two placements of the teacher's parameters: on every device, and divided.

    Divided, each array is cut among the devices that share a batch, along its largest axis that
    they divide. Reported are the milliseconds of a forward pass on one batch for each row of
    devices, and MiB
    per device: parameters, and what the program needs besides arguments and results.
    """
    mesh = source.layout.mesh
    shards = mesh.shape[BATCH]

    def cut(leaf: jax.Array) -> NamedSharding:
        sizes = [size if size % shards == 0 else 0 for size in leaf.shape]
        axis = int(np.argmax(sizes))
        return NamedSharding(
            mesh, P(*[BATCH if i == axis and sizes[axis] else None for i in range(leaf.ndim)])
        )

    placed = {
        "replicated": source.teachers,
        "sharded": jax.device_put(source.teachers, jax.tree.map(cut, source.teachers)),
    }
    views = _random_views(source)
    forward, figures, calls = make_forward(source), {}, []
    for name, params in placed.items():
        program = forward.compile(params, views)
        calls.append(functools.partial(program, params, views))
        held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(params))
        figures[f"{name}_parameters_mib"] = held / 2**20
        if memory := program.memory_analysis():
            figures[f"{name}_temporary_mib"] = memory.temp_size_in_bytes / 2**20
    times = interleaved(*calls, repeats=REPEATS)
    return figures | {f"{name}_ms": 1e3 * took for name, took in zip(placed, times, strict=True)}


def _random_views(source: Source) -> tuple[jax.Array, ...]:
    """One batch for each row of devices, for each teacher."""
    task, rng = source.task, np.random.default_rng(0)
    shape = (source.layout.rows, task.batch_size)
    views = [
        rng.uniform(
            -1,
            1,
            (*shape, *[teacher.size or task.views.size] * 2, teacher.network.channels),
        ).astype(np.float32)
        for teacher in task.teachers
    ]
    return source.layout.place(tuple(views), P(LANES, BATCH))
