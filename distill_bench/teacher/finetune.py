"""Fine-tuning a teacher on a task's labels from trained weights, by BiT-HyperRule; the learning rate is chosen on the validation split.

It is a task of its own, whose students start from the weights and whose answers are the labels, so it runs on the engine that sweeps run on:
each learning rate is a lane, and all lanes see one stream of views. Views are mild crops of the task's size, and not the rule's 480 pixels.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax

from distill_bench.data.dataset import TfdsDataset
from distill_bench.errors import UserError
from distill_bench.files import replace_atomically
from distill_bench.networks.bit import BiTConfig, Params
from distill_bench.tasks.task import ProbeConfig, Task
from distill_bench.tasks.view_config import LABEL_MODES
from distill_bench.teacher import accuracy as teacher
from distill_bench.teacher import hyperrule
from distill_bench.training.engine import Engine
from distill_bench.training.events import Event, Finished, Point, Snapshot
from distill_bench.training.lanes import params_of
from distill_bench.training.rules import Lane
from distill_bench.training.source import splits
from distill_bench.training.train import train
from distill_bench.weights import files, formats, lookup

Say = Callable[[str], None]


@dataclass(frozen=True)
class Tuned:
    """What a learning rate came to: the parameters, and their accuracy on the validation split."""

    learning_rate: float
    validation: float
    params: Params


def make_task(task: Task, weights: str, batch_size: int | None = None) -> Task:
    """The task of fine-tuning the weights called `weights` to the labels of `task`.

    Raises:
      UserError: where there are no such weights, they see other channels, the task's groups do not divide theirs, or the task's data has no
        validation split.
    """
    if not isinstance(task.dataset, TfdsDataset):
        raise UserError(
            f"The images of {task.name} have no validation split, on which a learning rate is chosen: fine-tune on another task."
        )
    found = lookup.find_grouped(weights, task.teacher.groups)
    if found.network.channels != task.student.channels:
        raise UserError(
            f"--from={weights} sees {found.network.channels} channels; the images of {task.name} have {task.student.channels}."
        )
    network = dataclasses.replace(found.network, classes=task.student.classes)
    mixes, images = hyperrule.mixes(task.dataset.train_size), task.dataset.train_size
    return dataclasses.replace(
        task,
        name=f"{task.name}@from-{Path(weights).stem}",
        teacher=network,  # of which there is none: see Task.teachers
        teacher_file="",
        teacher_sha256="",
        teacher_size=None,
        more_teachers=(),
        student=network,
        start=weights,
        start_sha256=found.sha256,
        mode=_mode(mixes),
        views=dataclasses.replace(task.views, mixup=mixes),
        batch_size=min(batch_size or hyperrule.BATCH_SIZE, images),
        temperature=1.0,
        probe=ProbeConfig(
            batches=1, batch_size=64
        ),  # the choice is by accuracy: a glance is enough
        horizons=(hyperrule.boundaries(images)[-1],),
        eval_split="validation",
    )


def _mode(mixes: bool) -> str:
    return next(name for name, mode in LABEL_MODES.items() if mode.mixup == mixes)


def search(
    engine: Engine,
    learning_rates: Sequence[float],
    say: Say,
    steps: int | None = None,
    in_turn: bool = False,
) -> Tuned:
    """Trains with each learning rate and returns the one with the best accuracy on the validation split; of equals, the smallest.

    engine: of a task of `make_task`. steps: in place of the rule's. in_turn: one learning rate after another, to save memory: each that trains
    takes two copies of the parameters on its device (parameters and momentum), besides one that all start from.

    Raises:
      UserError: where every learning rate diverges.
    """
    dataset = engine.source.task.dataset
    assert isinstance(dataset, TfdsDataset)
    bounds = hyperrule.boundaries(dataset.train_size, steps)
    build = hyperrule.update_rule(bounds)
    lanes = [Lane(build, {"lr": rate}, bounds[-1], seed=0) for rate in sorted(learning_rates)]
    best: Tuned | None = None
    for together in [[lane] for lane in lanes] if in_turn else [lanes]:
        best = _train(engine, together, say, best)
    if best is None:
        raise UserError(
            f"Every learning rate diverged: {', '.join(f'{rate:g}' for rate in sorted(learning_rates))}. Try smaller ones: --lr=1e-4,3e-4"
        )
    return best


def _train(engine: Engine, lanes: Sequence[Lane], say: Say, best: Tuned | None) -> Tuned | None:
    """The best of these lanes, or `best` if that is better; of equals, the smaller learning rate. Only one's parameters are kept."""
    accuracy: dict[int, float] = {}
    for event in train(engine, lanes, keep=True):
        _tell(event, lanes, say)
        if isinstance(event, Point):
            accuracy[event.lane] = event.metrics["accuracy"]
        elif isinstance(event, Snapshot):
            rate, found = float(lanes[event.lane].hparams["lr"]), accuracy[event.lane]
            params = params_of(engine.source.task, event.saved.leaves)
            if best is None or (-found, rate) < (-best.validation, best.learning_rate):
                best = Tuned(rate, found, params)
    return best


def _tell(event: Event, lanes: Sequence[Lane], say: Say) -> None:
    match event:
        case Point(lane, step, metrics):
            say(
                f"lr {lanes[lane].hparams['lr']:<8g} step {step:6,}  validation accuracy {metrics['accuracy']:.4f}"
            )
        case Finished(lane, "diverged", _, detail):
            say(f"lr {lanes[lane].hparams['lr']:<8g} diverged: {detail}")
        case Finished(_, "crashed", _, detail):
            raise RuntimeError(detail)  # of the project's own update rule: a defect


def accuracy_on_test(task: Task, params: Params) -> float:
    """Fraction of the clean images of the test split, which chose nothing, that the network classifies correctly."""
    _, test = splits(dataclasses.replace(task, eval_split="test"), task.dataset)
    return teacher.accuracy(_network(task), params, test, task.precision)


def _network(task: Task) -> BiTConfig:
    assert isinstance(task.student, BiTConfig)
    return task.student


def _layout(network: BiTConfig) -> Literal["published", "flax"]:
    """The layout of a file that has to be read back with the network's padding."""
    return next(
        layout
        for layout, padding in formats.POOL_PADDING.items()
        if padding == network.pool_padding
    )


def export(task: Task, params: Params, path: Path) -> str:
    """Writes the parameters to `path`, whole or not at all, in the published layout that goes with their network; returns the file's sha256."""
    content = files.dumps(jax.device_get(params), _layout(_network(task)))
    replace_atomically(path, lambda file: file.write(content))
    return hashlib.sha256(content).hexdigest()
