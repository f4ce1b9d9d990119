"""Accuracy of a teacher on whole images."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported inside the function, so that --help works without jax
    from distill_bench.data import dataset
    from distill_bench.networks import bit

_BATCH = 256


def accuracy(
    network: bit.BiTConfig, params: bit.Params, split: dataset.Split, precision: str = "float32"
) -> float:
    """Fraction of the split's clean images that the network classifies correctly.

    `precision` is the data type of the activations.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from distill_bench.networks import bit
    from distill_bench.views.originals import scaled

    clean = split.images if split.clean is None else split.clean
    assert isinstance(clean, np.ndarray)

    @jax.jit
    def correct(params: bit.Params, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = bit.apply(
            network, params, scaled(images.astype(jnp.float32), images.dtype).astype(precision)
        )
        return jnp.sum(jnp.argmax(logits, -1) == labels)

    return sum(
        int(correct(params, clean[i : i + _BATCH], split.labels[i : i + _BATCH]))
        for i in range(0, len(clean), _BATCH)
    ) / len(clean)
