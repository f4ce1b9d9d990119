"""BiT-HyperRule: how a BiT network is fine-tuned on labels.

Kolesnikov et al. 2020, *Big Transfer*, arXiv:1912.11370, section 3.3, and its released code, which tells the steps of small data sets
more closely: SGD with momentum 0.9 in batches of 512, no weight decay; below 20,000 images 500 steps, below 500,000 images 10,000,
else 20,000; linear warm-up, then division by 10 three times; mixup, with coefficients of Beta(0.1, 0.1), from 20,000 images on.
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
LEARNING_RATES = (0.001, 0.003, 0.01, 0.03)  # 0.003 is the rule's own

Boundaries = tuple[int, ...]


def boundaries(images: int, steps: int | None = None) -> Boundaries:
    """The last step of the warm-up, three steps after which the learning rate is divided by 10, and the last step, for so many training images.

    steps: in place of the rule's own; the others keep their share of it.
    """
    if images < SMALL:
        rule = (100, 200, 300, 400, 500)
    elif images < MEDIUM:
        rule = (500, 3_000, 6_000, 9_000, 10_000)
    else:
        rule = (500, 6_000, 12_000, 18_000, 20_000)
    return rule if steps is None else tuple(round(step * steps / rule[-1]) for step in rule)


def mixes(images: int) -> bool:
    """Whether mixup is used for so many training images."""
    return images >= SMALL


def learning_rate(
    peak: jax.Array | float, step: jax.typing.ArrayLike, bounds: Sequence[int]
) -> jax.Array:
    """The learning rate of a step, counted from 0, at which it is 0 itself."""
    step = jnp.asarray(step)
    warm_up, *drops = bounds[:-1]
    dropped = sum(jnp.asarray(drop < step, jnp.float32) for drop in drops)
    return jnp.where(step < warm_up, peak * step / max(warm_up, 1), peak / 10.0**dropped)


@functools.cache
def update_rule(bounds: Boundaries) -> Build:
    """A builder of the update rule, whose hyperparameter is "lr"; the same one each time, so that lanes share compilations."""

    def build(hparams, horizon) -> optax.GradientTransformation:
        return optax.sgd(lambda step: learning_rate(hparams["lr"], step, bounds), MOMENTUM)

    return build
