"""Saves a lane's state to disk atomically, and restores it bit for bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from distill_bench.files import replace_atomically


class BadCheckpoint(Exception):
    """A checkpoint cannot be read or belongs to something else; the message says why."""


@dataclass(frozen=True)
class Saved:
    """A lane's state after `step` steps: its leaves on the host, in `jax.tree.leaves` order."""

    step: int
    leaves: tuple[np.ndarray, ...]


def to_host(leaf: jax.Array) -> np.ndarray:
    """The leaf as a numpy array; a random key as its data."""
    return np.asarray(
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    )


def to_device(array: np.ndarray, like: jax.Array) -> jax.Array:
    """Inverse of `to_host`: a leaf of the same dtype and sharding as `like`."""
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        data = jax.device_put(array, jax.random.key_data(like).sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))
    return jax.device_put(array, like.sharding)


def write(file: IO[bytes], saved: Saved, owner: dict[str, Any]) -> None:
    """Writes the lane's state; `owner` identifies, in JSON data, whose state it is."""
    dtypes = [str(leaf.dtype) for leaf in saved.leaves]
    # numpy's format lacks bfloat16 and float8: such leaves are stored as unsigned integers.
    plain = [
        leaf if leaf.dtype.isbuiltin == 1 else leaf.view(f"u{leaf.dtype.itemsize}")
        for leaf in saved.leaves
    ]
    about = json.dumps({"owner": owner, "step": saved.step, "dtypes": dtypes})
    arrays: dict[str, Any] = {f"leaf{i:05d}": leaf for i, leaf in enumerate(plain)}
    np.savez(file, about=np.frombuffer(about.encode(), np.uint8), **arrays)


def read(file: IO[bytes], owner: dict[str, Any]) -> Saved:
    """Reads what `write` wrote.

    Raises:
      BadCheckpoint: if it cannot be read or is not of `owner`; the message says what differs.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            about = json.loads(archive["about"].tobytes())
            leaves = [archive[f"leaf{i:05d}"] for i in range(len(about["dtypes"]))]
        if about["owner"] != owner:
            differs = [
                key
                for key in owner.keys() | about["owner"].keys()
                if owner.get(key) != about["owner"].get(key)
            ]
            raise BadCheckpoint(f"belongs to another {' and '.join(sorted(differs))}")
        typed = [
            leaf.view(_dtype(name)) for leaf, name in zip(leaves, about["dtypes"], strict=True)
        ]
        step = about["step"]
        if type(step) is not int or step < 1:
            raise BadCheckpoint(f"is of step {step!r}")
        return Saved(step, tuple(typed))
    except BadCheckpoint:
        raise
    except Exception as error:  # zipfile and numpy raise many kinds for a damaged file
        raise BadCheckpoint(f"cannot be read ({type(error).__name__}: {error})") from None


def save(path: Path, saved: Saved, owner: dict[str, Any]) -> None:
    """Saves the lane's state at `path`, atomically."""
    replace_atomically(path, lambda file: write(file, saved, owner))


def load(path: Path, owner: dict[str, Any]) -> Saved:
    """The state saved at `path`.

    Raises:
      BadCheckpoint: if it cannot be read or its owner is not `owner`; the message names the file.
    """
    try:
        with open(path, "rb") as file:
            return read(file, owner)
    except (OSError, BadCheckpoint) as error:
        raise BadCheckpoint(f"{path} {error}") from None


def _dtype(name: str) -> np.dtype:
    try:
        return np.dtype(name)
    except TypeError:
        return np.dtype(getattr(ml_dtypes, name))


def mismatch(leaves: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> str | None:
    """How `leaves` differ from `expected` in number, shape or dtype; None if they do not."""
    if len(leaves) != len(expected):
        return f"it has {len(leaves)} arrays, the rule's state has {len(expected)}"
    for i, (a, b) in enumerate(zip(leaves, expected, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            saved, wanted = f"{a.dtype}{list(a.shape)}", f"{b.dtype}{list(b.shape)}"
            return f"its array {i} is {saved}, the rule's state has {wanted}"
    return None
