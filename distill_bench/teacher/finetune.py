"""Fine-tunes a teacher on a task's labels, from trained weights, by BiT-HyperRule.

Fine-tuning is a task too: its "student" starts from the weights and trains on the labels. So it
runs on the same engine as a sweep. Each learning rate is a lane, all lanes share one stream of
views, and the validation split decides between them. Views are mild crops of the task's size
instead of the rule's 480 pixels.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill_bench.data.dataset import TfdsDataset
from distill_bench.errors import UserError
from distill_bench.files import replace_atomically
from distill_bench.networks.bit import BiTConfig, Params
from distill_bench.tasks.task import ProbeConfig, Task
from distill_bench.tasks.view_config import FINE_TUNING_MODES
from distill_bench.teacher import hyperrule
from distill_bench.teacher.accuracy import accuracy
from distill_bench.training.engine import Engine
from distill_bench.training.events import Event, Finished, Point, Student
from distill_bench.training.exams import CURVE
from distill_bench.training.rules import Lane
from distill_bench.training.source import splits
from distill_bench.training.train import train
from distill_bench.weights import files, lookup

Say = Callable[[str], None]


@dataclass(frozen=True)
class Tuned:
    """The result of one learning rate: parameters and their accuracy on the validation split."""

    learning_rate: float
    validation: float
    params: Params


def make_task(task: Task, weights: str, batch_size: int | None = None) -> Task:
    """The task of fine-tuning the weights called `weights` on the labels of `task`.

    Raises:
      UserError: if the weights are not found, take images with another number of channels or have a
        width that the task's groups do not divide; or if the task's data has no validation split.
    """
    if not isinstance(task.dataset, TfdsDataset):
        raise UserError(
            f"The images of {task.name} have no validation split to choose a learning rate on: "
            "fine-tune on another task."
        )
    found = lookup.find_grouped(weights, task.teacher.groups)
    if found.network.channels != task.student.channels:
        raise UserError(
            f"--from={weights} needs images with {found.network.channels} channels, but those of "
            f"{task.name} have {task.student.channels}: name other weights."
        )
    network = dataclasses.replace(found.network, classes=task.student.classes)
    images = task.dataset.train_size
    mixup = hyperrule.uses_mixup(images)
    return dataclasses.replace(
        task,
        name=f"{task.name}@from-{Path(weights).stem}",
        teacher=network,  # unused: without a file, there is no teacher
        teacher_file="",
        teacher_sha256="",
        teacher_size=None,
        more_teachers=(),
        student=network,
        start=weights,
        start_sha256=found.sha256,
        mode=_label_mode(mixup),
        views=dataclasses.replace(task.views, mixup=mixup),
        batch_size=min(batch_size or hyperrule.BATCH_SIZE, images),
        temperature=1.0,
        probe=ProbeConfig(batches=1, batch_size=64),  # small, because accuracy decides
        horizons=(hyperrule.boundaries(images)[-1],),
        eval_split="validation",
    )


def _label_mode(mixup: bool) -> str:
    return next(name for name, mode in FINE_TUNING_MODES.items() if mode.mixup == mixup)


def search(
    engine: Engine,
    learning_rates: Sequence[float],
    say: Say,
    steps: int | None = None,
    in_turn: bool = False,
) -> Tuned:
    """Trains with each learning rate; returns the result with the best validation accuracy.

    Of equal results, the smallest learning rate wins.

    Args:
      engine: engine for a task from `make_task`.
      say: prints a line of progress.
      steps: number of steps; None for the rule's.
      in_turn: train one learning rate after another, to save memory. Each one in training needs two
        copies of the parameters on its device (parameters and momentum), and all share one copy of
        the start.

    Raises:
      UserError: if every learning rate diverges.
    """
    dataset = engine.source.task.dataset
    assert isinstance(dataset, TfdsDataset)
    bounds = hyperrule.boundaries(dataset.train_size, steps)
    build = hyperrule.update_rule(bounds)
    lanes = [Lane(build, {"lr": rate}, bounds[-1], seed=0) for rate in sorted(learning_rates)]
    best: Tuned | None = None
    for group in [[lane] for lane in lanes] if in_turn else [lanes]:
        best = _train(engine, group, say, best)
    if best is None:
        rates = ", ".join(f"{rate:g}" for rate in sorted(learning_rates))
        raise UserError(f"Every learning rate diverged: {rates}. Try smaller ones: --lr=1e-4,3e-4")
    return best


def _train(engine: Engine, lanes: Sequence[Lane], say: Say, best: Tuned | None) -> Tuned | None:
    """The best of these lanes and `best`. Keeps the parameters of only one result at a time."""
    accuracies: dict[int, float] = {}
    for event in train(engine, lanes, keep=True):
        _report(event, lanes, say)
        if isinstance(event, Point) and "accuracy" in event.metrics:
            accuracies[event.lane] = event.metrics["accuracy"]
        elif isinstance(event, Student):
            rate, found = float(lanes[event.lane].hparams["lr"]), accuracies[event.lane]
            if best is None or (-found, rate) < (-best.validation, best.learning_rate):
                best = Tuned(rate, found, event.params)
    return best


def _report(event: Event, lanes: Sequence[Lane], say: Say) -> None:
    match event:
        case Point(lane, step, metrics):
            measured = (
                f"validation accuracy {metrics['accuracy']:.4f}"
                if "accuracy" in metrics
                else f"loss {metrics[CURVE]:.4f}"
            )
            say(f"lr {lanes[lane].hparams['lr']:<8g} step {step:6,}  {measured}")
        case Finished(lane, "diverged", _, detail):
            say(f"lr {lanes[lane].hparams['lr']:<8g} diverged: {detail}")
        case Finished(_, "crashed", _, detail):
            raise RuntimeError(detail)  # a defect: the update rule is the project's own


def accuracy_on_test(task: Task, params: Params) -> float:
    """Accuracy on the clean images of the test split, which no choice has used."""
    _, test = splits(dataclasses.replace(task, eval_split="test"), task.dataset)
    return accuracy(_network(task), params, test, task.precision)


def _network(task: Task) -> BiTConfig:
    assert isinstance(task.student, BiTConfig)
    return task.student


def export(task: Task, params: Params, path: Path) -> str:
    """Writes the parameters to `path` as .npz; returns the file's sha256.

    A failure leaves no partial file.
    """
    content = files.dumps_as(_network(task), params)
    replace_atomically(path, lambda file: file.write(content))
    return hashlib.sha256(content).hexdigest()
