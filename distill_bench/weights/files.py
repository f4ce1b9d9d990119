"""Parameters in .npz files: written and read in the published formats of BiT weights."""

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


def dumps(params: bit.Params, weight_format: WeightFormat | None = None) -> bytes:
    """`params` as the bytes of an .npz. Equal parameters give equal bytes.

    weight_format: the format to write; None for that of the embedded teachers, which is
      "published" with GroupNorm's vectors as [1, 1, 1, C].
    """
    names, form = (weight_format, 0) if weight_format else ("published", -1)
    arrays = {
        formats.stored_key(names, key): np.asarray(leaf).reshape(
            formats.stored_shapes(names, key, leaf.shape)[form]
        )
        for key, leaf in _flatten(params).items()
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            content = io.BytesIO()
            np.lib.format.write_array(content, arrays[name])
            # With a fixed date: np.savez would store the time of writing.
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, content.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def dumps_as(network: bit.BiTConfig, params: bit.Params) -> bytes:
    """`params` in the format that implies the network's pool padding when the file is read."""
    return dumps(
        params,
        next(name for name, pad in formats.POOL_PADDING.items() if pad == network.pool_padding),
    )


def read(
    path: Path, config: bit.BiTConfig, content: bytes | None = None
) -> tuple[bit.Params, WeightFormat]:
    """The parameters of the network `config` from the .npz at `path`, and the file's format.

    Parameters are float32 arrays on the host. `formats.POOL_PADDING` gives the padding that belongs
    to the format. Nothing is unpickled. One array is unpacked at a time, and none before the names,
    shapes and dtypes of all of them are known to fit.

    content: the file's bytes, if they have been read before.

    Raises:
      UserError: if the file cannot be read, is not an .npz of floating-point numbers, holds another
        network, or holds numbers that are not finite.
    """
    template = jax.eval_shape(lambda: bit.init(config, jax.random.key(0)))
    expected = _flatten(template)
    try:
        with npz.open_npz(path if content is None else io.BytesIO(content)) as file:
            weight_format, names = formats.detect(file.names)
            shapes = {key: file.shape(name) for key, name in names.items()}
            formats.check(
                weight_format, shapes, {key: leaf.shape for key, leaf in expected.items()}
            )
            leaves = [
                file.read(names[formats.stored_key(weight_format, key)]).reshape(leaf.shape)
                for key, leaf in expected.items()
            ]
    except formats.Unfit as error:
        raise UserError(f"{path} {error}") from None
    return jax.tree.unflatten(jax.tree.structure(template), leaves), weight_format


def load_verified(path: Path, config: bit.BiTConfig, sha256: str) -> bit.Params:
    """The parameters of the network `config` from the .npz at `path`, whose digest is `sha256`.

    Raises:
      UserError: if the file is missing or has another digest, and as `read` does.
    """
    try:
        content = path.read_bytes()  # once, so that what is verified is what is used
    except OSError as error:
        raise UserError(
            f"Cannot read the teacher's weights {path}: {error.strerror}.\n"
            f"Restore the file: git checkout -- {path.name}"
        ) from None
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise UserError(
            f"The teacher's weights {path} have changed: sha256 {found[:16]}…, "
            f"expected {sha256[:16]}….\n"
            "Losses against another teacher belong to another task. "
            "Restore the file from the repository, or reinstall the package."
        )
    return read(path, config, content)[0]
