"""The recipe of the embedded digits teacher.

python -m distill_bench.teacher --task=digits --out=digits_teacher.npz

The teacher is trained on the labels of the train split, with crops, mixup and AdamW; the file holds
the running average of its weights. Four recipes were tried (crops, decay, rate and length). This is
the one whose last weights reach 99 % on the test split. Students are never compared by those labels
alone.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from distill_bench.data import dataset
from distill_bench.files import replace_atomically
from distill_bench.networks import bit
from distill_bench.tasks.catalogue import DIGITS
from distill_bench.tasks.task import Task
from distill_bench.tasks.view_config import ViewConfig
from distill_bench.teacher.accuracy import accuracy
from distill_bench.views import augment
from distill_bench.views.originals import Stacked
from distill_bench.weights import files

EMBEDDED = files.EMBEDDED / DIGITS.teacher_file
STEPS, CHUNK = 1500, 250
PEAK_LEARNING_RATE, WEIGHT_DECAY, AVERAGE_DECAY = 1e-2, 0.1, 0.995
MIN_AREA = 0.5  # milder crops than the student's, so that a crop still shows the label


def fit(task: Task, train: dataset.Split, seed: int = 0):
    """Trains a teacher on labels.

    Yields every 250 steps: the step, the mean loss of these steps, the averaged parameters.
    """
    images, labels = jnp.asarray(train.images), jax.nn.one_hot(train.labels, task.teacher.classes)
    config = ViewConfig(task.views.size, min_area=MIN_AREA, flip=task.views.flip, mixup=False)
    schedule = optax.warmup_cosine_decay_schedule(0.0, PEAK_LEARNING_RATE, STEPS // 10, STEPS)

    def decays(params: bit.Params) -> bit.Params:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    update_rule = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, weight_decay=WEIGHT_DECAY, mask=decays),
    )
    key, init_key = jax.random.split(jax.random.key(seed))

    def loss_of(params: bit.Params, step: jax.Array) -> jax.Array:
        _, crop_key, mix_key = jax.random.split(jax.random.fold_in(key, step), 3)
        index = augment.batch_indices(key, step, len(images), task.batch_size)
        crops = augment.make_views(crop_key, Stacked(images[index]), config)
        coefficient = jax.random.uniform(mix_key)
        logits = bit.apply(task.teacher, params, augment.mix(crops, coefficient))
        return optax.softmax_cross_entropy(
            logits, augment.mix(labels[index][:, :, None, None], coefficient)[:, :, 0, 0]
        ).mean()

    @jax.jit
    def advance(params, state, average, first):
        def body(i, carry):
            params, state, average, total = carry
            loss, gradients = jax.value_and_grad(loss_of)(params, first + i)
            updates, state = update_rule.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
            average = optax.incremental_update(params, average, 1 - AVERAGE_DECAY)
            return params, state, average, total + loss

        return jax.lax.fori_loop(0, CHUNK, body, (params, state, average, 0.0))

    params = bit.init(task.teacher, init_key)
    state, average = update_rule.init(params), params
    for first in range(0, STEPS, CHUNK):
        params, state, average, total = advance(params, state, average, first)
        yield first + CHUNK, float(total) / CHUNK, average


def main(path: Path) -> None:
    """Trains the teacher and writes it to `path` as .npz; a failure leaves no partial file."""
    assert isinstance(DIGITS.dataset, dataset.Dataset)
    train, test = dataset.load_embedded(DIGITS.dataset)
    average: bit.Params = {}
    for step, loss, average in fit(DIGITS, train):
        right = accuracy(DIGITS.teacher, average, test)
        print(f"step {step:5d}  loss {loss:.4f}  test accuracy {right:.4f}", flush=True)
    content = files.dumps(average)
    replace_atomically(path, lambda file: file.write(content))
    print(f"{path}: {len(content) / 2**20:.2f} MiB, sha256 {hashlib.sha256(content).hexdigest()}")
    print(
        f"The task reads {EMBEDDED} and checks it against teacher_sha256 in "
        "distill_bench/tasks/catalogue.py: another digest makes another task."
    )
