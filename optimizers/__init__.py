"""Optimizers, one file each or one for a family. This package needs jax and optax only.

from optimizers import Choice, Log, Schedule, optimizer
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from optimizers.contract.api import Optimizer, Schedule, optimizer
from optimizers.contract.domains import Choice, Decay, Log, Uniform

if TYPE_CHECKING:
    from optimizers.contract.calls import static_args
    from optimizers.kronecker.factors import diagnostics
    from optimizers.kronecker.grafting import graft, magnitude_of
    from optimizers.masks import fold_kernel, kernels
    from optimizers.shampoo import scale_by_shampoo
    from optimizers.soap import scale_by_soap

__all__ = [
    "Choice",
    "Decay",
    "Log",
    "Optimizer",
    "Schedule",
    "Uniform",
    "diagnostics",
    "fold_kernel",
    "graft",
    "kernels",
    "magnitude_of",
    "optimizer",
    "scale_by_shampoo",
    "scale_by_soap",
    "static_args",
]

# Parts that import jax are loaded on first use, so that reading a search space stays fast.
_LAZY = {
    "diagnostics": "optimizers.kronecker.factors",
    "fold_kernel": "optimizers.masks",
    "graft": "optimizers.kronecker.grafting",
    "kernels": "optimizers.masks",
    "magnitude_of": "optimizers.kronecker.grafting",
    "scale_by_shampoo": "optimizers.shampoo",
    "scale_by_soap": "optimizers.soap",
    "static_args": "optimizers.contract.calls",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'optimizers' has no attribute {name!r}")
