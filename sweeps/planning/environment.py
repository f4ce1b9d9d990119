"""The versions and the machine that results are recorded with."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax

from distill_bench import __version__, settings
from distill_bench.machine import THREADS
from distill_bench.training import numerics

_PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy")


def versions() -> dict[str, str]:
    """What changes numbers: versions of the packages that compute, the platform, flags of the
    compiler, and on CPU the threads that share a matrix product and a fingerprint of the
    processor's arithmetic. They are part of a study's id."""
    found = {"distill-bench": __version__} | {name: metadata.version(name) for name in _PACKAGES}
    found["platform"] = jax.default_backend()
    if found["platform"] == "cpu":
        found |= {"threads": str(THREADS), "numerics": numerics.fingerprint()}
    return found | settings.recorded()


def differences(other: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What differs between versions of two machines: "jax 0.10.1, here 0.10.2"; "" if nothing."""
    return "; ".join(
        f"{name} {other.get(name, 'none')}, here {here.get(name, 'none')}"
        for name in sorted({*other, *here})
        if other.get(name) != here.get(name)
    )


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
