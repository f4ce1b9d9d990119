"""How lanes lie on devices: how batches are divided, and how many lanes run together, and how.

A mesh has two axes. Devices along LANES train different lanes side by side; devices along BATCH
share every batch, of a lane and of the teacher. shard_map handles LANES, so lanes never
communicate. The partitioner handles BATCH, so one program works for one device and many hosts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench.errors import UserError
from distill_bench.machine import core_count
from distill_bench.training import cores
from distill_bench.training.program import Program

LANES, BATCH = "lanes", "batch"

LaneMapping = Literal["dispatch", "loop", "vmap"]

# Lanes of a vmapped dispatch: enough to hide the kernel launches of a small student.
TOGETHER = 8

# At level 1 a student's step compiles in three quarters of the time and runs a little faster.
_CPU_OPTIONS = {"xla_backend_optimization_level": 1}


@dataclass(frozen=True)
class LayoutOptions:
    """What the user asked for; None lets `make_layout` choose.

    Attributes:
      devices: number of devices to use; on CPU, the number of lanes that run side by side, times
        `batch_shards`.
      batch_shards: number of devices that share each lane's batch.
      mapping, lanes_per_device: see LaneLayout.mapping and LaneLayout.width.
      microbatches, remat: save memory at the cost of time, see LaneLayout.
    """

    devices: int | None = None
    batch_shards: int | None = None
    mapping: LaneMapping | None = None
    lanes_per_device: int | None = None
    microbatches: int = 1
    remat: bool = False


@dataclass(frozen=True)
class LaneLayout:
    """How lanes and batches lie on the devices.

    Attributes:
      mesh: the devices, axes (LANES, BATCH). A row is the devices that share one place along LANES.
      mapping: how the lanes of a row run. "dispatch": each in a program run of its own; "loop": one
        after another within a run; "vmap": as one batched computation.
      width: lanes per row and dispatch; 1 for "dispatch".
      microbatches: number of equal parts of a batch, whose gradients are computed one after another
        (accumulate.py).
      remat: recompute a student's activations in the backward pass instead of keeping them
        (bit.apply).
    """

    mesh: Mesh
    mapping: LaneMapping = "dispatch"
    width: int = 1
    microbatches: int = 1
    remat: bool = False

    @property
    def rows(self) -> int:
        """Rows of devices, which train different lanes."""
        return self.mesh.shape[LANES]

    @property
    def lanes(self) -> int:
        """Lanes of one dispatch, over all devices."""
        return self.rows * self.width

    @property
    def one_row(self) -> LayoutOptions:
        """Options for one row of as many devices: it computes the same numbers for a lane."""
        shards = self.mesh.shape[BATCH]
        return LayoutOptions(shards, shards, self.mapping, self.width)

    def as_default(self) -> AbstractContextManager[Any]:
        """What has no devices of its own is computed on this layout's, in this context."""
        return jax.default_device(self.mesh.local_devices[0])

    @property
    def manual(self) -> set[str]:
        """Axes that shard_map handles.

        The partitioner, which does not support callbacks, gets BATCH only if batches are divided.
        """
        return {LANES, BATCH} if self.mesh.shape[BATCH] == 1 else {LANES}

    def replicate(self, tree: Any) -> Any:
        """The same arrays on every device."""
        return self.place(tree, P())

    def place(self, tree: Any, spec: P) -> Any:
        """The arrays, split over the mesh by `spec`."""
        if jax.process_count() > 1:  # device_put moves nothing between hosts
            return _resharding(NamedSharding(self.mesh, spec))(tree)
        return jax.device_put(tree, NamedSharding(self.mesh, spec))

    def spread(self, values: list) -> Any:
        """Stacks one pytree per lane of a dispatch, and places each on its lane's devices."""
        stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *values)
        return self.place(stacked, P(LANES))

    def scatter(self, trees: Sequence[Any], spec: P) -> Any:
        """Stacks one pytree for each row of devices along a leading axis, without copying.

        spec: of the result, P(LANES, ...). The arrays [1, ...] of each tree must be replicated
          over LANES and placed by the rest of `spec`.
        """
        rows = {device: row for row, devices in enumerate(self.mesh.devices) for device in devices}

        def stacked(*replicas: jax.Array) -> jax.Array:
            held = [{shard.device: shard.data for shard in x.addressable_shards} for x in replicas]
            shards = [held[rows[device]][device] for device in held[0]]
            return jax.make_array_from_single_device_arrays(
                (self.rows, *replicas[0].shape[1:]), NamedSharding(self.mesh, spec), shards
            )

        return jax.tree.map(stacked, *trees)

    def each(self, function: Callable) -> Callable:
        """Maps a function of one lane over a row's lanes; all arrays get a leading axis."""
        if self.mapping == "dispatch":

            def alone(*args):
                return jax.tree.map(
                    lambda x: jnp.asarray(x)[None], function(*jax.tree.map(lambda x: x[0], args))
                )

            return alone
        if self.mapping == "loop":
            return lambda *args: lax.map(lambda own: function(*own), args)
        return jax.vmap(function)

    def spmd(
        self, function: Callable, last: P | None = None, donate: tuple[int, ...] = ()
    ) -> Program:
        """The program of `function`, which each row of devices runs on its own lanes.

        Arguments and results have a leading axis over lanes.

        last: placement of the last argument if it differs: P() to give every row all of it,
          P(LANES) for a result of `scatter`.
        """

        def on(mesh: Mesh) -> Callable:
            @functools.wraps(function)
            def run(*args):
                if self.rows == 1 and BATCH not in self.manual:
                    # There is only one row, and an update rule may spread its own work over BATCH.
                    return function(*args)
                specs = [P(LANES)] * len(args)
                if last is not None:
                    specs[-1] = last
                return self._mapped(function, mesh, tuple(specs))(*args)

            return run

        return self._program(on, P(LANES), donate)

    def _mapped(self, function: Callable, mesh: Mesh, specs: tuple[P, ...]) -> Callable:
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=specs,
            out_specs=P(LANES),
            axis_names=self.manual,
            check_vma=False,
        )

    def _program(
        self, on: Callable[[Mesh], Callable], out: P, donate: tuple[int, ...] = ()
    ) -> Program:
        def jit(mesh: Mesh) -> Any:
            return jax.jit(
                on(mesh),
                donate_argnums=donate,
                out_shardings=NamedSharding(mesh, out),
                compiler_options=_CPU_OPTIONS if mesh.devices.flat[0].platform == "cpu" else None,
            )

        return Program(jit, self.mesh)

    def share_steps(self, function: Callable) -> Program:
        """The program of `function(shared, steps)`; each row of devices does its share of them.

        `steps` and the results have a leading axis over steps; batches are split over BATCH.
        """
        return self._program(
            lambda mesh: self._mapped(function, mesh, (P(), P(LANES))), P(LANES, BATCH)
        )


@functools.cache
def _resharding(sharding: NamedSharding) -> Callable:
    return jax.jit(lambda tree: tree, out_shardings=sharding)


def _check_shards(shards: int, devices: int) -> None:
    if shards < 1 or devices % shards:
        raise UserError(
            f"--batch_shards={shards} does not divide the {devices} devices here: choose a divisor."
        )


def make_layout(
    devices: Sequence[Any] | None = None,
    options: LayoutOptions = LayoutOptions(),
    *,
    small: bool = True,
) -> LaneLayout:
    """Chooses how lanes lie on `devices`.

    On CPU each lane is a dispatch of its own: a core gains nothing from a batch of students
    (docs/benchmarks.md). On an accelerator the kernels of a `small` student take less time than
    their launch, so lanes run together, by vmap. A larger student fills the device, and vmap
    would turn its convolutions into slow grouped ones.

    devices: default: the first `options.devices` of this host; with several hosts, all devices.

    Raises:
      UserError: if the options contradict each other or do not suit the devices.
    """
    several_hosts = jax.process_count() > 1
    if devices is None:
        devices = jax.devices() if several_hosts else jax.devices()[: options.devices]
    shards = options.batch_shards or (len(devices) if several_hosts else 1)
    _check_shards(shards, len(devices))
    if several_hosts and shards != len(devices):
        raise UserError(
            f"With --multihost a batch is always divided among all {len(devices)} devices: "
            "leave out --batch_shards."
        )
    mapping = options.mapping or ("vmap" if small and devices[0].platform != "cpu" else "dispatch")
    width = options.lanes_per_device or (1 if mapping == "dispatch" else TOGETHER)
    if width < 1 or (mapping == "dispatch" and width > 1):
        raise UserError(
            f"--lanes_per_device={width} does not go with --lane_mapping={mapping}: "
            "use loop or vmap to run more than one lane per dispatch."
        )
    mesh = Mesh(np.array(devices).reshape(-1, shards), (LANES, BATCH))
    return LaneLayout(mesh, mapping, width, options.microbatches, options.remat)


def make_layouts(
    options: LayoutOptions = LayoutOptions(), *, small: bool = True
) -> tuple[LaneLayout, ...]:
    """The layouts of this machine: on CPU one for each core, elsewhere one for all devices.

    Raises:
      UserError: as `make_layout`.
    """
    if jax.process_count() > 1 or jax.default_backend() != "cpu":
        return (make_layout(options=options, small=small),)
    shards = options.batch_shards or 1
    number = options.devices or core_count()
    _check_shards(shards, number)
    alone = replace(options, devices=None)
    return tuple(
        make_layout(own, alone, small=small)
        for core in range(number // shards)
        if (own := cores.devices(core, shards))
    )
