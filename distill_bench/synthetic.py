"""Random arrays of a task's real shapes in place of its images and its teacher's weights: for dry runs and benchmarks, not for results."""

from __future__ import annotations

import jax
import numpy as np

from distill_bench import bit
from distill_bench.bit import BiTConfig
from distill_bench.data import Split, TfdsDataset

MAX_BYTES = 2 << 30  # of one split; larger ones repeat their first images


def load(dataset: TfdsDataset, seed: int = 0) -> tuple[Split, Split]:
    """(train, test) splits of uniform random bytes, as many as the data set has, or as fit into MAX_BYTES."""
    rng = np.random.default_rng(seed)

    def split(count: int, clean: bool) -> Split:
        kept = min(count, MAX_BYTES // (3 * dataset.side**2))
        images = rng.integers(0, 256, (kept, dataset.side, dataset.side, 3), np.uint8)
        sizes = rng.uniform(0.7, 1.4, (kept, 2)).astype(np.float32) * 2 * dataset.side
        whole = rng.integers(0, 256, (kept, dataset.clean[1], dataset.clean[1], 3), np.uint8) if clean else None
        return Split(images, np.zeros(kept, np.int32), sizes, whole)

    return split(dataset.train_size, False), split(dataset.test_size, True)


def teacher(config: BiTConfig, seed: int = 0) -> bit.Params:
    """Fresh parameters with a random classifier, so that images get different answers."""
    key, head_key = jax.random.split(jax.random.key(seed))
    params = bit.init(config, key)
    kernel = params["head"]["conv2d"]["kernel"]
    params["head"]["conv2d"]["kernel"] = jax.random.normal(head_key, kernel.shape) / np.sqrt(len(kernel))
    return params
