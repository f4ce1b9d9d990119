"""How long a call takes, and how fast the machine is: medians after a warm-up."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

REPEATS = 7


def seconds(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median seconds of `call`, until its result is ready, after one call that is not counted."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def interleaved(*calls: Callable[[], Any], repeats: int = 3 * REPEATS) -> tuple[float, ...]:
    """Median seconds of each call; they take turns, so that changes of the machine affect all."""
    jax.block_until_ready([call() for call in calls])
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, taken in zip(calls, times, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(call())
            taken.append(time.perf_counter() - began)
    return tuple(map(statistics.median, times))


def matmul_peak(devices: Sequence[Any], n: int = 2048, precision: str = "float32") -> float:
    """FLOP/s of a square matrix product on all of the devices at once."""
    key = jax.random.key(0)
    matrices = [jax.device_put(jax.random.normal(key, (n, n), precision), d) for d in devices]
    multiply = jax.jit(lambda x: x @ x)
    return len(devices) * 2 * n**3 / seconds(lambda: [multiply(a) for a in matrices])


def memory_bandwidth(size: int) -> float:
    """Bytes per second that one device reads and writes in an array of `size` bytes.

    Of a small array, this is the bandwidth of the cache.
    """
    turns = max(4, 2**28 // size)
    loop = jax.jit(
        lambda x: jax.lax.fori_loop(0, turns, lambda i, x: 0.5 * x + 1.0, x), donate_argnums=0
    )
    x = jnp.zeros(size // 4, jnp.float32)

    def run() -> jax.Array:
        nonlocal x
        x = loop(x)  # in place: new memory would have to be mapped
        return x

    return 2 * size * turns / seconds(run)


def memory_bytes() -> int:
    """Peak memory of a device if it reports it, else of this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
