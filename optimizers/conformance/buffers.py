"""Checks that arrays are not shared, so that a training loop may donate them (reuse their memory).

With `jax.jit(step, donate_argnums=(0, 1))`, jax refuses to donate one buffer twice.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from optimizers.conformance.problems import build, start
from optimizers.contract.api import Optimizer

Buffers = dict[int, str]  # address -> where it is


def holds_no_buffer_twice(opt: Optimizer) -> str | None:
    """Each array of the first state has memory of its own."""
    seen: Buffers = {}
    for place, address in _buffers(build(opt).init(start())):
        if address in seen:
            return (
                f"state{place} and state{seen[address]} are one buffer: a training loop cannot "
                "donate the state, since jax does not donate a buffer twice. Make an array for "
                "each in init, such as its own jnp.zeros_like"
            )
        seen[address] = place
    return None


def copies_the_parameters_it_keeps(opt: Optimizer) -> str | None:
    """No array of the first state is a buffer of the parameters."""
    params = start()
    theirs = {address: place for place, address in _buffers(params)}
    for place, address in _buffers(build(opt).init(params)):
        if address in theirs:
            return (
                f"state{place} is the buffer of parameters{theirs[address]}: a training loop that "
                "donates both stops with an error, and one that donates the parameters deletes "
                "this part of the state. Copy it in init with jnp.array"
            )
    return None


def _buffers(tree: Any) -> list[tuple[str, int]]:
    """(place, address) of each array that is not empty and lies on one device."""
    return [
        (jax.tree_util.keystr(path), leaf.unsafe_buffer_pointer())
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if isinstance(leaf, jax.Array)
        and leaf.size
        and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        and len(leaf.devices()) == 1
    ]
