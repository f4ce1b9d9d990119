"""BiT-HyperRule: how a BiT network is fine-tuned on labels.

Kolesnikov et al. 2020, *Big Transfer*, arXiv:1912.11370, section 3.3, and its released code, which
gives the steps of small data sets in more detail:

- SGD with momentum 0.9 and batches of 512, without weight decay
- 500 steps below 20,000 images, 10,000 steps below 500,000 images, else 20,000 steps
- linear warm-up, then the learning rate is divided by 10 three times
- from 20,000 images on, mixup with coefficients from Beta(0.1, 0.1)
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from distill_bench.training.rules import Build

BATCH_SIZE, MOMENTUM = 512, 0.9
SMALL, MEDIUM = 20_000, 500_000
LEARNING_RATES = (0.001, 0.003, 0.01, 0.03)  # the rule itself uses 0.003

Boundaries = tuple[int, ...]


def boundaries(images: int, steps: int | None = None) -> Boundaries:
    """Five steps: the end of the warm-up, the three divisions of the learning rate, the end.

    Args:
      images: size of the train split.
      steps: total number of steps; None for the rule's. The others are scaled with it.
    """
    if images < SMALL:
        rule = (100, 200, 300, 400, 500)
    elif images < MEDIUM:
        rule = (500, 3_000, 6_000, 9_000, 10_000)
    else:
        rule = (500, 6_000, 12_000, 18_000, 20_000)
    return rule if steps is None else tuple(round(step * steps / rule[-1]) for step in rule)


def uses_mixup(images: int) -> bool:
    """Whether the rule uses mixup for a train split of this size."""
    return images >= SMALL


def learning_rate(
    peak: jax.Array | float, step: jax.typing.ArrayLike, bounds: Sequence[int]
) -> jax.Array:
    """The learning rate at a step. Steps count from 0, where the rate is 0."""
    step = jnp.asarray(step)
    warm_up, *drops = bounds[:-1]
    dropped = sum(jnp.asarray(drop < step, jnp.float32) for drop in drops)
    return jnp.where(step < warm_up, peak * step / max(warm_up, 1), peak / 10.0**dropped)


@functools.cache
def update_rule(bounds: Boundaries) -> Build:
    """A builder of the update rule, whose hyperparameter is "lr".

    It is cached because lanes share a compiled program only if they share the builder.
    """

    def build(hparams, horizon) -> optax.GradientTransformation:
        return optax.sgd(lambda step: learning_rate(hparams["lr"], step, bounds), MOMENTUM)

    return build
