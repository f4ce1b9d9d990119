"""Parameters on disk: in the published layouts of BiT weights, and as the embedded teacher."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import jax
import numpy as np

from distill_bench import bit, layouts, npz
from distill_bench.errors import UserError
from distill_bench.layouts import Layout

PREFIX = "resnet"


def _published_shape(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """GroupNorm's vectors and the head's matrix are stored with the axes of an image."""
    if "group_norm" in key:
        return (1, 1, 1, *shape)
    return (1, 1, *shape) if key == f"{PREFIX}/head/conv2d/kernel" else shape


def _flatten(params: bit.Params) -> dict[str, jax.Array]:
    leaves, _ = jax.tree.flatten_with_path(params)
    return {"/".join([PREFIX, *(str(k.key) for k in path)]): leaf for path, leaf in leaves}


def _paths(params: bit.Params) -> dict[str, jax.Array]:
    return {key.removeprefix(f"{PREFIX}/"): leaf for key, leaf in _flatten(params).items()}


def _stored(params: bit.Params, layout: Layout | None) -> dict[str, np.ndarray]:
    if layout is None:
        return {key: np.asarray(leaf).reshape(_published_shape(key, leaf.shape)) for key, leaf in _flatten(params).items()}
    return {
        layouts.stored_key(layout, key): np.asarray(leaf).reshape(layouts.stored_shapes(layout, key, leaf.shape)[0]) for key, leaf in _paths(params).items()
    }


def dumps(params: bit.Params, layout: Layout | None = None) -> bytes:
    """`params` as the bytes of an .npz; equal parameters give equal bytes.

    layout: as the original code of that layout reads it; None as the embedded teacher, which is the published layout with
      GroupNorm's vectors as [1, 1, 1, C].
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, leaf in sorted(_stored(params, layout).items()):
            array = io.BytesIO()
            np.lib.format.write_array(array, leaf)
            # A fixed date: np.savez stamps the time of writing into the archive.
            archive.writestr(zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0)), array.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def read(path: Path, config: bit.BiTConfig) -> tuple[bit.Params, Layout]:
    """Parameters of the network `config` from the .npz at `path`, float32 on the host, and the layout that the file was found in.

    `layouts.POOL_PADDING` says which padding goes with the layout. One array is unpacked at a time, and none before the names,
    shapes and types of all of them fit.

    Raises:
      UserError: where the file is no .npz of floating-point numbers, is of another network, or holds numbers that are not finite.
    """
    template = jax.eval_shape(lambda: bit.init(config, jax.random.key(0)))
    expected = _paths(template)
    try:
        with npz.open_npz(path) as file:
            layout, names = layouts.detect(file.names)
            shapes = {key: file.shape(name) for key, name in names.items()}
            layouts.check(layout, shapes, {key: leaf.shape for key, leaf in expected.items()})
            leaves = [file.read(names[layouts.stored_key(layout, key)]).reshape(leaf.shape) for key, leaf in expected.items()]
    except layouts.Unfit as error:
        raise UserError(f"{path} {error}") from None
    return jax.tree.unflatten(jax.tree.structure(template), leaves), layout


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
