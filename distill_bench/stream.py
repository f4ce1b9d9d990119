"""One stream of (views, teacher logits) for every student of a seed.

A stream is a pure function of (task, seed, step). It is made in chunks of steps that the local devices
share, and handed to all lanes: the teacher's forward, most of a step's arithmetic, is paid once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench import bit, data, teacher, views
from distill_bench.task import Task

AXIS = "lanes"  # the mesh axis over local devices: steps of a stream here, students in lanes.py
_STREAM, _INIT, _PROBE = range(3)  # the task's independent random streams


def _key(task: Task, purpose: int, seed: jax.Array | int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(task.seed), purpose), seed)


def init_student(task: Task, seed: jax.Array | int) -> bit.Params:
    """The student's first parameters, a pure function of (task, seed) and common to all optimizers."""
    return bit.init(task.student, _key(task, _INIT, seed))


def step_views(task: Task, images_NHWC: jax.Array, seed: jax.Array | int, step: jax.Array | int) -> jax.Array:
    """The views [batch, size, size, C] of one training step, a pure function of (task, seed, step)."""
    key = _key(task, _STREAM, seed)
    order_key, view_key = jax.random.split(key)
    index = views.batch_indices(order_key, jnp.asarray(step), len(images_NHWC), task.batch_size)
    return views.make_views(jax.random.fold_in(view_key, step), images_NHWC[index], task.views)


def probe_views(task: Task, images_NHWC: jax.Array) -> jax.Array:
    """Fixed views [batches * batch_size, size, size, C] on which losses are reported.

    Each batch has its own mixup coefficient, the coefficients stratified over [0, 1]: with one
    coefficient for all of them, losses of two probe sets could not be compared. Train and test images use
    the same key, hence the same crops and coefficients.
    """
    n = task.probe.batches
    strata_key, order_key, view_key = jax.random.split(_key(task, _PROBE, 0), 3)
    coefficients = (jnp.arange(n) + jax.random.uniform(strata_key, (n,))) / n

    def batch(i: jax.Array) -> jax.Array:
        index = views.batch_indices(order_key, i, len(images_NHWC), task.probe.batch_size)
        return views.make_views(jax.random.fold_in(view_key, i), images_NHWC[index], task.views, coefficients[i])

    return lax.map(batch, jnp.arange(n)).reshape(-1, *images_NHWC.shape[1:])


class Chunk(NamedTuple):
    """Steps `first` to `first + C` of each of S streams: views [S, C, N, H, W, c], teacher logits [S, C, N, K]."""

    views: jax.Array
    logits: jax.Array


@dataclass(frozen=True)
class Source:
    """The task's arrays on the devices of a mesh.

    Attributes:
      task: whose arrays these are.
      mesh: local devices, one axis.
      train, test: the splits, on the host.
      images: the train images, on every device.
      teacher: the teacher's parameters, on every device.
    """

    task: Task
    mesh: Mesh
    train: data.Split
    test: data.Split
    images: jax.Array
    teacher: bit.Params

    def replicate(self, tree):
        return jax.device_put(tree, NamedSharding(self.mesh, P()))


def open_source(task: Task, mesh: Mesh) -> Source:
    """Loads and verifies the task's data and teacher.

    Raises:
      UserError: where either is not what the task names.
    """
    train, test = data.load(task.dataset)
    images, params = jax.device_put((train.images, teacher.load(task)), NamedSharding(mesh, P()))
    return Source(task, mesh, train, test, images, params)


def local_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    return Mesh(np.array(jax.local_devices() if devices is None else devices), (AXIS,))


def chunk_steps(task: Task, mesh: Mesh, budget: int = 2**26) -> int:
    """Steps in a chunk: as many as `budget` bytes of views hold, at most 25, on each device."""
    size = task.batch_size * task.views.size**2 * task.student.channels * 4
    return mesh.size * int(np.clip(budget // size, 1, 25))


def make_chunk(source: Source, seeds: tuple[int, ...], steps: int):
    """A function first_step -> Chunk for these seeds, compiled on first use; each device makes its share of the steps."""
    task = source.task

    def share(images: jax.Array, params: bit.Params, step_C: jax.Array) -> Chunk:
        def one(at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            seen = step_views(task, images, *at)
            return seen, bit.apply(task.teacher, params, seen)

        seed_S = jnp.asarray(seeds)
        grid = jnp.repeat(seed_S, len(step_C)), jnp.tile(step_C, len(seeds))
        return Chunk(*(x.reshape(len(seeds), len(step_C), *x.shape[1:]) for x in lax.map(one, grid)))

    spread = jax.jit(jax.shard_map(share, mesh=source.mesh, in_specs=(P(), P(), P(AXIS)), out_specs=P(None, AXIS)))

    def chunk(first: int) -> Chunk:
        return source.replicate(spread(source.images, source.teacher, np.arange(first, first + steps, dtype=np.int32)))

    return chunk
