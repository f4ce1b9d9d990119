"""The teacher: verified weights for distillation, and the command that trained them.

    python -m distill_bench.teacher --task=digits

The embedded digits teacher is fitted to the labels of the train split on crops and mixup, with AdamW, and
stored as the running average of its weights. Of the four recipes tried (crops, decay, rate and length), this
is the one whose last weights reach 99 % on the test split; no student is ever compared on those labels alone.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from absl import flags

from distill_bench import bit, checkpoints, data, published, synthetic, views
from distill_bench.task import WEIGHTS, Task, Teacher
from distill_bench.task import get as get_task

STEPS, CHUNK = 1500, 250
PEAK_LEARNING_RATE, WEIGHT_DECAY, AVERAGE_DECAY = 1e-2, 0.1, 0.995
MIN_AREA = 0.5  # milder crops than the student's: a label must survive its crop


def load(task: Task) -> tuple[bit.Params, ...]:
    """The task's teachers: embedded and refused with `UserError` unless the file is the one that the task names, published, or synthetic."""
    return tuple(_load(it, task.synthetic, seed) for seed, it in enumerate(task.teachers))


def _load(teacher: Teacher, random: bool, seed: int) -> bit.Params:
    if random:
        return synthetic.teacher(teacher.network, seed)
    if teacher.file in published.CATALOGUE:
        return published.load(teacher.file).params
    return checkpoints.load(WEIGHTS / teacher.file, teacher.network, teacher.sha256)


def accuracy(task: Task, params: bit.Params, split: data.Split) -> float:
    """Fraction of the split's whole images that the teacher classifies correctly."""
    logits = jax.jit(lambda p, x: bit.apply(task.teacher, p, x))(params, split.images)
    return float(jnp.mean(jnp.argmax(logits, -1) == split.labels))


def fit(task: Task, train: data.Split, seed: int = 0):
    """Trains a teacher on labels; yields (step, mean loss since the last, averaged parameters) every 250 steps."""
    images, labels = jnp.asarray(train.images), jax.nn.one_hot(train.labels, task.teacher.classes)
    config = views.ViewConfig(task.views.size, min_area=MIN_AREA, flip=task.views.flip, mixup=False)
    schedule = optax.warmup_cosine_decay_schedule(0.0, PEAK_LEARNING_RATE, STEPS // 10, STEPS)

    def decays(params: bit.Params) -> bit.Params:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    update_rule = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=WEIGHT_DECAY, mask=decays))
    key, init_key = jax.random.split(jax.random.key(seed))

    def loss_of(params: bit.Params, step: jax.Array) -> jax.Array:
        _, crop_key, mix_key = jax.random.split(jax.random.fold_in(key, step), 3)
        index = views.batch_indices(key, step, len(images), task.batch_size)
        crops = views.make_views(crop_key, images[index], config)
        coefficient = jax.random.uniform(mix_key)
        logits = bit.apply(task.teacher, params, views.mix(crops, coefficient))
        return optax.softmax_cross_entropy(logits, views.mix(labels[index][:, :, None, None], coefficient)[:, :, 0, 0]).mean()

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


def main(argv: list[str]) -> None:
    # Defined here, not at import: this module is imported by scripts with flags of the same names.
    flags.DEFINE_string("task", "digits", "Which task's teacher to train.")
    flags.DEFINE_string("out", None, "Where to write the .npz; default: the place that the task reads.")
    flags.FLAGS(argv)
    task = get_task(flags.FLAGS.task)
    if isinstance(task.dataset, data.TfdsDataset):
        sys.exit(f"error: The teacher of {task.name} is published, not trained here: python -m distill_bench.published --name={task.teacher_file}")
    train, test = data.load(task.dataset)
    average: bit.Params = {}
    for step, loss, average in fit(task, train):
        print(f"step {step:5d}  loss {loss:.4f}  test accuracy {accuracy(task, average, test):.4f}", flush=True)
    content = checkpoints.dumps(average)
    path = Path(flags.FLAGS.out or WEIGHTS / task.teacher_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    print(f"{path}: {len(content) / 2**20:.2f} MiB; set teacher_sha256 in distill_bench/task.py to\n{hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main(sys.argv)
