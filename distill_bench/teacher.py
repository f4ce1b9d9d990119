"""The teacher: verified weights for distillation, and the command that makes new ones.

python -m distill_bench.teacher --task=pet37 --from=BiT-M-R101x3
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where they are used: the command tells of itself without jax
    from distill_bench import bit, data
    from distill_bench.task import Task, Teacher

_BATCH = 256


def load(task: Task) -> tuple[bit.Params, ...]:
    """The task's teachers: embedded, published, fine-tuned, or synthetic; refused with `UserError` unless they are what the task names."""
    return tuple(_load(it, task.synthetic, seed) for seed, it in enumerate(task.teachers))


def _load(teacher: Teacher, random: bool, seed: int) -> bit.Params:
    from distill_bench import checkpoints, pretrained, synthetic
    from distill_bench.task import WEIGHTS

    if random:
        return synthetic.teacher(teacher.network, seed)
    if teacher.file.endswith(".npz"):
        return checkpoints.load(WEIGHTS / teacher.file, teacher.network, teacher.sha256)
    return pretrained.load(pretrained.Pretrained(teacher.file, teacher.network, teacher.sha256))


def accuracy(network: bit.BiTConfig, params: bit.Params, split: data.Split, precision: str = "float32") -> float:
    """Fraction of the split's whole images that the network classifies correctly, computing in `precision`."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from distill_bench import bit
    from distill_bench.views import scaled

    whole = split.images if split.clean is None else split.clean
    assert isinstance(whole, np.ndarray)

    @jax.jit
    def right(params: bit.Params, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = bit.apply(network, params, scaled(images.astype(jnp.float32), images.dtype).astype(precision))
        return jnp.sum(jnp.argmax(logits, -1) == labels)

    return sum(int(right(params, whole[i : i + _BATCH], split.labels[i : i + _BATCH])) for i in range(0, len(whole), _BATCH)) / len(whole)


if __name__ == "__main__":
    from distill_bench import teacher_command

    sys.exit(teacher_command.main(sys.argv))
