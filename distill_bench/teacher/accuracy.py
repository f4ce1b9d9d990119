"""The teacher: verified weights for distillation, and the command that makes new ones.

python -m distill_bench.teacher --task=pet37 --from=BiT-M-R101x3
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where they are used: the command tells of itself without jax
    from distill_bench.data import dataset
    from distill_bench.networks import bit

_BATCH = 256


def accuracy(
    network: bit.BiTConfig, params: bit.Params, split: dataset.Split, precision: str = "float32"
) -> float:
    """Fraction of the split's whole images that the network classifies correctly, computing in `precision`."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from distill_bench.networks import bit
    from distill_bench.views.augment import scaled

    whole = split.images if split.clean is None else split.clean
    assert isinstance(whole, np.ndarray)

    @jax.jit
    def right(params: bit.Params, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = bit.apply(
            network, params, scaled(images.astype(jnp.float32), images.dtype).astype(precision)
        )
        return jnp.sum(jnp.argmax(logits, -1) == labels)

    return sum(
        int(right(params, whole[i : i + _BATCH], split.labels[i : i + _BATCH]))
        for i in range(0, len(whole), _BATCH)
    ) / len(whole)
