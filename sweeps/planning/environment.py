"""The versions and the machine that results are recorded with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import jax

from distill_bench import __version__

_PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy")


def versions() -> dict[str, str]:
    """Versions of the packages that compute, and the platform. They are part of a study's id."""
    packages = {name: metadata.version(name) for name in _PACKAGES}
    return {"distill-bench": __version__} | packages | {"platform": jax.default_backend()}


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
