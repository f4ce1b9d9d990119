"""CPU cores as devices: each core has a runtime client of its own, with a single thread.

XLA splits a matrix product among the threads of its client, and the split changes the last digits.
A client has as many threads as the machine has cores, so numbers would depend on the machine. With
one thread per client they do not, and lanes on different cores do not wait for each other.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import jax

from distill_bench.machine import THREADS, THREADS_VARIABLES


@functools.cache
def devices(core: int, number: int = 1, threads: int = THREADS) -> tuple[Any, ...]:
    """The devices that stand for a core: one, or `number` that share each batch.

    Their client has `threads` threads, or as many as devices. A jaxlib that makes no clients has
    one core: the devices of its own client.
    """
    with _threads(threads):
        try:
            from jaxlib.xla_client import make_cpu_client
        except ImportError:
            return tuple(jax.devices()[:number]) if core == 0 else ()
        return tuple(make_cpu_client(asynchronous=True, num_devices=number).devices())


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Clients made in this context have `number` threads, if they have no more devices."""
    before = {name: os.environ.get(name) for name in THREADS_VARIABLES}
    os.environ.update(dict.fromkeys(THREADS_VARIABLES, str(number)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
