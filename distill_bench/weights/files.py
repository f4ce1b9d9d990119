"""Parameters on disk: in the published layouts of BiT weights, and as the embedded teacher."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import jax
import numpy as np

from distill_bench.errors import UserError
from distill_bench.networks import bit
from distill_bench.weights import formats, npz
from distill_bench.weights.formats import WeightFormat

EMBEDDED = Path(__file__).parent  # the folder of the teachers that come with the package


def _flatten(params: bit.Params) -> dict[str, jax.Array]:
    """The leaves by their path, in the order of `jax.tree.leaves`."""
    leaves, _ = jax.tree.flatten_with_path(params)
    return {"/".join(str(k.key) for k in path): leaf for path, leaf in leaves}


def _stored(params: bit.Params, layout: WeightFormat | None) -> dict[str, tuple[int, ...]]:
    """The name and the shape that each leaf has in a file, in the order of `jax.tree.leaves`; `layout` as of `dumps`."""
    names, form = (
        (layout, 0) if layout else ("published", -1)
    )  # the embedded teacher's vectors have the other form
    return {
        formats.stored_key(names, key): formats.stored_shapes(names, key, leaf.shape)[form]
        for key, leaf in _flatten(params).items()
    }


def dumps(params: bit.Params, layout: WeightFormat | None = None) -> bytes:
    """`params` as the bytes of an .npz; equal parameters give equal bytes.

    layout: as the original code of that layout reads it; None as the embedded teacher, which is the published layout with
      GroupNorm's vectors as [1, 1, 1, C].
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for (key, shape), leaf in sorted(
            zip(_stored(params, layout).items(), jax.tree.leaves(params), strict=True),
            key=lambda item: item[0],
        ):
            array = io.BytesIO()
            np.lib.format.write_array(array, np.asarray(leaf).reshape(shape))
            # A fixed date: np.savez stamps the time of writing into the archive.
            archive.writestr(
                zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0)),
                array.getvalue(),
                zipfile.ZIP_DEFLATED,
            )
    return buffer.getvalue()


def read(path: Path, config: bit.BiTConfig) -> tuple[bit.Params, WeightFormat]:
    """Parameters of the network `config` from the .npz at `path`, float32 on the host, and the layout that the file was found in.

    `layouts.POOL_PADDING` says which padding goes with the layout. One array is unpacked at a time, and none before the names,
    shapes and types of all of them fit.

    Raises:
      UserError: where the file is no .npz of floating-point numbers, is of another network, or holds numbers that are not finite.
    """
    template = jax.eval_shape(lambda: bit.init(config, jax.random.key(0)))
    expected = _flatten(template)
    try:
        with npz.open_npz(path) as file:
            layout, names = formats.detect(file.names)
            shapes = {key: file.shape(name) for key, name in names.items()}
            formats.check(layout, shapes, {key: leaf.shape for key, leaf in expected.items()})
            leaves = [
                file.read(names[formats.stored_key(layout, key)]).reshape(leaf.shape)
                for key, leaf in expected.items()
            ]
    except formats.Unfit as error:
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
        raise UserError(
            f"Cannot read the teacher's weights {path}: {error.strerror}.\nRestore the file: git checkout -- {path.name}"
        ) from None
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise UserError(
            f"The teacher's weights {path} were changed: sha256 {found[:16]}…, expected {sha256[:16]}….\n"
            "Losses against another teacher are another task. Restore the file from the repository or reinstall the package."
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        stored = {key: archive[key] for key in archive.files}
    template = jax.eval_shape(lambda: bit.init(config, jax.random.key(0)))
    expected = _stored(template, None)
    if missing := sorted(expected.keys() - stored.keys()):
        raise UserError(
            f"{path} lacks {len(missing)} arrays of the network, the first {missing[0]!r}: it holds another architecture."
        )
    if extra := sorted(stored.keys() - expected.keys()):
        raise UserError(
            f"{path} has {len(extra)} arrays that the network lacks, the first {extra[0]!r}: it holds another architecture."
        )
    for key, shape in expected.items():
        if stored[key].shape != shape:
            raise UserError(
                f"{path} holds {key} with shape {stored[key].shape}; the network wants {shape}."
            )
    leaves = [
        stored[key].reshape(leaf.shape)
        for key, leaf in zip(expected, jax.tree.leaves(template), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)
