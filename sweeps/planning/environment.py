"""The versions and the machine that results are recorded with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import jax

from distill_bench import __version__
from distill_bench.machine import THREADS

_PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy")


def versions() -> dict[str, str]:
    """What changes numbers: versions of the packages that compute, the platform, and on CPU the
    threads that share a matrix product. They are part of a study's id."""
    packages = {name: metadata.version(name) for name in _PACKAGES}
    platform = jax.default_backend()
    threads = {"threads": str(THREADS)} if platform == "cpu" else {}
    return {"distill-bench": __version__} | packages | {"platform": platform} | threads


def environment() -> dict[str, Any]:
    """The versions and the machine, stored with every result."""
    device = jax.devices()[0]
    return versions() | {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": device.device_kind,
        "devices": jax.local_device_count(),
        "cores": os.cpu_count(),
    }
