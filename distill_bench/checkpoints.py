"""Parameters in the key layout of the published BiT .npz files."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import jax
import numpy as np

from distill_bench import bit
from distill_bench.errors import UserError

PREFIX = "resnet"


def _published_shape(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """GroupNorm's vectors and the head's matrix are stored with the axes of an image."""
    if "group_norm" in key:
        return (1, 1, 1, *shape)
    return (1, 1, *shape) if key == f"{PREFIX}/head/conv2d/kernel" else shape


def _flatten(params: bit.Params) -> dict[str, jax.Array]:
    leaves, _ = jax.tree.flatten_with_path(params)
    return {"/".join([PREFIX, *(str(k.key) for k in path)]): leaf for path, leaf in leaves}


def dumps(params: bit.Params) -> bytes:
    """`params` as the bytes of an .npz; equal parameters give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, leaf in sorted(_flatten(params).items()):
            array = io.BytesIO()
            np.lib.format.write_array(array, np.asarray(leaf).reshape(_published_shape(key, leaf.shape)))
            # A fixed date: np.savez stamps the time of writing into the archive.
            archive.writestr(zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0)), array.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def load(path: Path, config: bit.BiTConfig, sha256: str) -> bit.Params:
    """Verified parameters of the network `config` from the .npz at `path`.

    Raises:
      UserError: where the file is missing, its digest is not `sha256`, or its arrays do not fit `config`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read the teacher's weights {path}: {error.strerror}.\nRestore the file: git checkout -- {path.name}") from None
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise UserError(
            f"The teacher's weights {path} were changed: sha256 {found[:16]}…, expected {sha256[:16]}….\n"
            "Losses against another teacher are another task. Restore the file from the repository or reinstall the package."
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        stored = {key: archive[key] for key in archive.files}
    template = jax.eval_shape(lambda: bit.init(config, jax.random.key(0)))
    expected = _flatten(template)
    if missing := sorted(expected.keys() - stored.keys()):
        raise UserError(f"{path} lacks {len(missing)} arrays of the network, the first {missing[0]!r}: it holds another architecture.")
    if extra := sorted(stored.keys() - expected.keys()):
        raise UserError(f"{path} has {len(extra)} arrays that the network lacks, the first {extra[0]!r}: it holds another architecture.")
    for key, leaf in expected.items():
        if stored[key].shape != _published_shape(key, leaf.shape):
            raise UserError(f"{path} holds {key} with shape {stored[key].shape}; the network wants {_published_shape(key, leaf.shape)}.")
    leaves = [stored[key].reshape(leaf.shape) for key, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)
