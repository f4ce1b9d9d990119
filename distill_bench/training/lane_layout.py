"""How lanes lie on devices: which share a batch, how many lanes a dispatch carries, in what form, and in how much memory.

A mesh has two axes. Devices along LANES train different lanes side by side; devices along BATCH share every
batch of one lane, and of the teacher. LANES is handled by shard_map, so that lanes never communicate; BATCH is
left to the partitioner, so that the same program serves one device and a slice of many hosts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench.errors import UserError

LANES, BATCH = "lanes", "batch"

Form = Literal["dispatch", "loop", "vmap"]

# Lanes of a vmapped dispatch: enough to hide the launches of a small student's kernels.
TOGETHER = 8


@dataclass(frozen=True)
class LayoutOptions:
    """What the user asked for; None lets `make_layout` choose.

    Attributes:
      devices: how many devices to use; on CPU, how many the cores are divided into.
      batch_shards: devices that share each trial's batch.
      mapping, lanes_per_device: see LaneLayout.mapping and LaneLayout.width.
      microbatches, remat: less memory for more time, see LaneLayout.
    """

    devices: int | None = None
    batch_shards: int | None = None
    mapping: Form | None = None
    lanes_per_device: int | None = None
    microbatches: int = 1
    remat: bool = False


@dataclass(frozen=True)
class LaneLayout:
    """Attributes:
    mesh: devices, axes (LANES, BATCH).
    mapping: "dispatch" one program run per lane; "loop" one after another within a run; "vmap" as one batched
      computation.
    width: lanes of one dispatch on each row of the mesh; 1 for "dispatch".
    microbatches: equal parts of a batch whose gradients a student computes one after another (accumulate.py).
    remat: whether a student's gradient computes activations again that would else be kept (bit.apply).
    """

    mesh: Mesh
    mapping: Form = "dispatch"
    width: int = 1
    microbatches: int = 1
    remat: bool = False

    @property
    def rows(self) -> int:
        """Places along LANES."""
        return self.mesh.shape[LANES]

    @property
    def lanes(self) -> int:
        """Lanes of one dispatch, over all devices."""
        return self.rows * self.width

    @property
    def manual(self) -> set[str]:
        """Axes that shard_map takes; BATCH is left to the partitioner only where it splits something (it knows no callbacks)."""
        return {LANES, BATCH} if self.mesh.shape[BATCH] == 1 else {LANES}

    def replicate(self, tree: Any) -> Any:
        """The same arrays on every device."""
        return self.place(tree, P())

    def place(self, tree: Any, spec: P) -> Any:
        """Arrays split over the mesh as `spec` says."""
        if jax.process_count() > 1:  # device_put moves nothing between hosts
            return _resharding(NamedSharding(self.mesh, spec))(tree)
        return jax.device_put(tree, NamedSharding(self.mesh, spec))

    def spread(self, values: list) -> Any:
        """Stacks one pytree per lane of a dispatch along a leading axis, and places each where its lane is."""
        stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *values)
        return self.place(stacked, P(LANES))

    def scatter(self, trees: Sequence[Any], spec: P) -> Any:
        """One pytree for each row, stacked along a leading axis over rows; nothing is copied.

        `spec` is that of the result, P(LANES, ...); each tree's arrays [1, ...] are replicated over LANES and otherwise placed so.
        """
        rows = {device: row for row, devices in enumerate(self.mesh.devices) for device in devices}

        def one(*replicas: jax.Array) -> jax.Array:
            held = [{shard.device: shard.data for shard in x.addressable_shards} for x in replicas]
            shards = [held[rows[device]][device] for device in held[0]]
            return jax.make_array_from_single_device_arrays(
                (self.rows, *replicas[0].shape[1:]), NamedSharding(self.mesh, spec), shards
            )

        return jax.tree.map(one, *trees)

    def each(self, function: Callable) -> Callable:
        """`function` of one lane, as a function of all lanes of one row: arguments and results with a leading axis."""
        if self.mapping == "dispatch":

            def alone(*args):
                return jax.tree.map(
                    lambda x: jnp.asarray(x)[None], function(*jax.tree.map(lambda x: x[0], args))
                )

            return alone
        if self.mapping == "loop":
            return lambda *args: lax.map(lambda own: function(*own), args)
        return jax.vmap(function)

    def spmd(self, function: Callable, last: P | None = None, donate: tuple[int, ...] = ()):
        """jit of `function`, run on each row with its own lanes: arguments and results have a leading axis over lanes.

        The last argument is placed by `last` instead, where that is given: P() for all of it on each row, P(LANES)
        for what `scatter` made.
        """

        @functools.wraps(function)
        def run(*args):
            if self.rows == 1 and BATCH not in self.manual:
                return function(
                    *args
                )  # no row to keep apart, and an update rule may spread its own work over BATCH
            specs = [P(LANES)] * len(args)
            if last is not None:
                specs[-1] = last
            return jax.shard_map(
                function,
                mesh=self.mesh,
                in_specs=tuple(specs),
                out_specs=P(LANES),
                axis_names=self.manual,
                check_vma=False,
            )(*args)

        return jax.jit(run, donate_argnums=donate, out_shardings=NamedSharding(self.mesh, P(LANES)))


@functools.cache
def _resharding(sharding: NamedSharding) -> Callable:
    return jax.jit(lambda tree: tree, out_shardings=sharding)


def make_layout(
    devices: Sequence[Any] | None = None,
    options: LayoutOptions = LayoutOptions(),
    *,
    small: bool = True,
) -> LaneLayout:
    """How lanes lie on `devices` (default: the first `options.devices` here; all of them with several hosts).

    On CPU each lane is a dispatch of its own: a core gains nothing from a batch of students (docs/benchmarks.md).
    On an accelerator, kernels of a `small` student take less time than their launch, so lanes run together, by vmap;
    a larger student fills the device, and vmap would turn its convolutions into slow grouped ones.

    Raises:
      UserError: if the options contradict each other or the devices.
    """
    several_hosts = jax.process_count() > 1
    if devices is None:
        devices = jax.devices() if several_hosts else jax.devices()[: options.devices]
    shards = options.batch_shards or (len(devices) if several_hosts else 1)
    if shards < 1 or len(devices) % shards:
        raise UserError(
            f"--batch_shards={shards} does not divide the {len(devices)} devices here: choose a divisor."
        )
    if several_hosts and shards != len(devices):
        raise UserError(
            f"With --multihost a batch is spread over all {len(devices)} devices: leave --batch_shards out."
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
