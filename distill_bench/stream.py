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


def probe_views(task: Task, images_BNHWC: jax.Array) -> jax.Array:
    """Fixed views [B, N, size, size, C] of batches of images, on which losses are reported.

    Each batch has its own mixup coefficient, the coefficients stratified over [0, 1]: with one
    coefficient for all of them, losses of two probe sets could not be compared. All sets of images use
    the same key, hence the same crops and coefficients.
    """
    n = task.probe.batches
    strata_key, view_key = jax.random.split(_key(task, _PROBE, 0))
    coefficients = (jnp.arange(n) + jax.random.uniform(strata_key, (n,))) / n

    def batch(at: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        i, images, coefficient = at
        return views.make_views(jax.random.fold_in(view_key, i), images, task.views, coefficient)

    return lax.map(batch, (jnp.arange(n), images_BNHWC, coefficients))


class Chunk(NamedTuple):
    """C steps of one stream, on every device: views [1, C, N, H, W, c] and teacher logits [1, C, N, K]."""

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


def local_mesh(devices: list | None = None) -> Mesh:
    """One axis over `devices`; all local ones where none are given."""
    return Mesh(np.array(jax.local_devices() if devices is None else devices), (AXIS,))


def chunk_steps(task: Task, mesh: Mesh, budget: int = 2**26) -> int:
    """Steps in a chunk: as many as `budget` bytes of views hold, at most 25, on each device."""
    size = task.batch_size * task.views.size**2 * task.student.channels * 4
    return mesh.size * int(np.clip(budget // size, 1, 25))


def make_forward(source: Source):
    """jit images [D * m, N, H, W, C] -> teacher logits [D * m, N, K]; each of D devices takes m batches."""

    def share(params: bit.Params, images: jax.Array) -> jax.Array:
        return lax.map(lambda batch: bit.apply(source.task.teacher, params, batch), images)

    return jax.jit(jax.shard_map(share, mesh=source.mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS)))


def make_chunks(source: Source, steps: int, forward):
    """A function (seed, first step) -> Chunk; each device makes its share of the steps, then all get all."""

    def share(images: jax.Array, seed: jax.Array, step_C: jax.Array) -> jax.Array:
        return lax.map(lambda step: step_views(source.task, images, seed, step), step_C)

    make = jax.jit(jax.shard_map(share, mesh=source.mesh, in_specs=(P(), P(), P(AXIS)), out_specs=P(AXIS)))

    def chunk(seed: int, first: int) -> Chunk:
        seen = make(source.images, np.int32(seed), np.arange(first, first + steps, dtype=np.int32))
        both = source.replicate(Chunk(seen, forward(source.teacher, seen)))
        return jax.tree.map(lambda x: x[None], both)

    return chunk


def deal(source: Source, chunks: list[Chunk]) -> Chunk:
    """One chunk for each device, leading axis over devices; nothing is copied."""

    def one(*replicas: jax.Array) -> jax.Array:
        devices = source.mesh.devices.flat
        shards = [{s.device: s.data for s in x.addressable_shards}[d] for x, d in zip(replicas, devices, strict=True)]
        shape = (len(shards), *replicas[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, NamedSharding(source.mesh, P(AXIS)), shards)

    return jax.tree.map(one, *chunks)
