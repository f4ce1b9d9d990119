"""A lane's state on disk: whole or not at all, and back to the same bits."""

from __future__ import annotations

import json
import zipfile
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
    """A checkpoint cannot be read, or belongs to something else; the message says which and why."""


@dataclass(frozen=True)
class Saved:
    """A lane after `step` steps: the leaves of its state, in the order of `jax.tree.leaves`, on the host."""

    step: int
    leaves: tuple[np.ndarray, ...]


def to_host(leaf: jax.Array) -> np.ndarray:
    """The leaf as plain numbers; random keys as their data."""
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
    """Writes the lane's state; `owner` says, in plain data, what it is a state of."""
    dtypes = [str(leaf.dtype) for leaf in saved.leaves]
    # numpy's format knows no bfloat16 or float8: such leaves travel as unsigned integers of their width.
    plain = [
        leaf if leaf.dtype.isbuiltin == 1 else leaf.view(f"u{leaf.dtype.itemsize}")
        for leaf in saved.leaves
    ]
    about = json.dumps({"owner": owner, "step": saved.step, "dtypes": dtypes})
    arrays: dict[str, Any] = {f"leaf{i:05d}": leaf for i, leaf in enumerate(plain)}
    np.savez(file, about=np.frombuffer(about.encode(), np.uint8), **arrays)


def read(file: IO[bytes], owner: dict[str, Any]) -> Saved:
    """What `write` wrote, refused unless it is `owner`'s.

    Raises:
      BadCheckpoint: where it cannot be read or is another's; the reason names what differs.
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
            raise BadCheckpoint(f"is of another {' and '.join(sorted(differs))}")
        typed = [
            leaf.view(_dtype(name)) for leaf, name in zip(leaves, about["dtypes"], strict=True)
        ]
        return Saved(about["step"], tuple(typed))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
    ) as error:
        raise BadCheckpoint(f"cannot be read ({type(error).__name__}: {error})") from None


def save(path: Path, saved: Saved, owner: dict[str, Any]) -> None:
    """Puts the lane's state at `path`, all of it or nothing."""
    replace_atomically(path, lambda file: write(file, saved, owner))


def load(path: Path, owner: dict[str, Any]) -> Saved:
    """The state saved at `path`.

    Raises:
      BadCheckpoint: where it cannot be read or is not `owner`'s; the reason names the file.
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
    """What keeps `leaves` from standing in for `expected`, or None."""
    if len(leaves) != len(expected):
        return f"it has {len(leaves)} arrays, the state {len(expected)}"
    for i, (a, b) in enumerate(zip(leaves, expected, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            return (
                f"its array {i} is {a.dtype}{list(a.shape)}, the state's {b.dtype}{list(b.shape)}"
            )
    return None
