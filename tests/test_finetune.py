"""Fine-tuning a teacher: the rule, the loss, the choice of the learning rate, the command."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from distill_bench.data import prepared
from distill_bench.data.dataset import Split
from distill_bench.errors import UserError
from distill_bench.networks import bit
from distill_bench.networks.bit import BiTConfig
from distill_bench.tasks import catalogue
from distill_bench.tasks.catalogue import FLOWERS
from distill_bench.tasks.parameters import load_teachers
from distill_bench.tasks.variation import Variation, vary
from distill_bench.teacher import __main__ as teacher_command
from distill_bench.teacher import finetune, hyperrule, recipes
from distill_bench.training import engine, stream
from distill_bench.training.engine import open_engine as really_open_engine
from distill_bench.training.events import Finished, Losses, Student
from distill_bench.training.lane_layout import make_layout
from distill_bench.training.losses import kl_divergence
from distill_bench.training.rules import Lane
from distill_bench.training.source import open_source, splits
from distill_bench.training.train import train
from distill_bench.views import step_views
from distill_bench.views.originals import Stacked
from distill_bench.weights import files, lookup
from support.paths import ROOT
from test_start import write

NETWORK = BiTConfig((1,), 8, 5, groups=2, root="small")
COLOURS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [240, 240, 20]], np.uint8)


def pictures(n, seed, wrong=0):
    """Noisy images of one colour each; the label is the colour's number plus `wrong`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(COLOURS), n).astype(np.int32)

    def painted(size):
        return np.clip(
            COLOURS[labels][:, None, None].astype(int) + rng.integers(-40, 41, (n, size, size, 3)),
            0,
            255,
        ).astype(np.uint8)

    return Split(
        painted(24), (labels + wrong).astype(np.int32), np.full((n, 2), 30, np.float32), painted(16)
    )


SPLITS = {"train": pictures(64, 0), "validation": pictures(40, 1), "test": pictures(30, 2, wrong=1)}
CLASSES = 6


@functools.cache
def engine_of(task):
    return really_open_engine(task, make_layout(jax.devices()[:1]))


@pytest.fixture
def flowers(monkeypatch, folder):
    """Flowers102 with few classes and images, and weights called "mine"."""
    networks = {
        name: dataclasses.replace(getattr(FLOWERS, name), classes=CLASSES, groups=NETWORK.groups)
        for name in ("teacher", "student")
    }
    monkeypatch.setitem(
        catalogue.CATALOGUE,
        "flowers102",
        dataclasses.replace(FLOWERS, **networks, precision="float32"),
    )
    monkeypatch.setattr(
        prepared, "load", lambda dataset, data_dir, splits: tuple(SPLITS[name] for name in splits)
    )
    monkeypatch.setattr(engine, "open_engine", lambda task, *layouts: engine_of(task))
    write(folder / "mine.npz", NETWORK)
    return vary(catalogue.get("flowers102"), Variation(resolution=16))


def fine_tuning(flowers, **changes):
    return dataclasses.replace(finetune.make_task(flowers, "mine", batch_size=16), **changes)


def log_softmax64(logits):
    logits = np.asarray(logits, np.float64)
    return (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )


@pytest.mark.long
def test_the_loss_is_the_cross_entropy_and_the_steps_follow_the_rule(flowers):
    """Compares with a plain loop."""
    task = fine_tuning(flowers)
    assert (task.teaching.mixup, task.eval_split) == (False, "validation")
    bounds, peak = (2, 3, 4, 5, 6), 0.05
    events = list(
        train(
            engine_of(task),
            [Lane(hyperrule.update_rule(bounds), {"lr": peak}, 4, seed=1)],
            keep=True,
        )
    )
    losses = np.concatenate([event.values for event in events if isinstance(event, Losses)])
    (kept,) = (event for event in events if isinstance(event, Student))
    assert isinstance(events[-1], Finished)

    split, params = (
        SPLITS["train"],
        jax.tree.map(np.asarray, files.read(lookup.path_of("mine"), NETWORK)[0]),
    )
    params["head"]["conv2d"] = {
        "kernel": np.zeros((32, CLASSES), np.float32),
        "bias": np.zeros(CLASSES, np.float32),
    }
    momentum = jax.tree.map(np.zeros_like, params)

    @jax.jit
    def gradient(params, views, target):
        def loss_of(params):
            logits = bit.apply(task.student, params, views)
            return -(target * jax.nn.log_softmax(logits)).sum(-1).mean(), logits

        return jax.grad(loss_of, has_aux=True)(params)

    for step, rate in enumerate([0.0, peak / 2, peak, peak]):
        views = step_views.step_views(task, Stacked(split.images, split.sizes), 1, step)
        labels = split.labels[np.asarray(views.index)]
        gradients, logits = gradient(
            params, views.student, np.eye(CLASSES, dtype=np.float32)[labels]
        )
        np.testing.assert_allclose(
            losses[step], -log_softmax64(logits)[np.arange(len(labels)), labels].mean(), rtol=2e-4
        )
        momentum = jax.tree.map(lambda m, g: 0.9 * m + np.asarray(g), momentum, gradients)
        params = jax.tree.map(lambda p, m, rate=rate: p - np.float32(rate) * m, params, momentum)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4),
        kept.params,
        params,
    )


def test_labels_are_mixed_like_their_images(flowers, monkeypatch):
    """The loss is then the cross-entropy minus the entropy of the mixed labels."""
    monkeypatch.setattr(hyperrule, "SMALL", 10)
    task, split = fine_tuning(flowers), SPLITS["train"]
    assert task.teaching.mixup
    chunk = stream.make_chunks(open_source(task, make_layout(jax.devices()[:1])), 3, None)(1, 0)
    coefficients = set()
    for step in range(3):
        plain = step_views.step_views(
            dataclasses.replace(task, mode="fine-tuning"),
            Stacked(split.images, split.sizes),
            1,
            step,
        )
        coefficients.add(drawn := float(step_views.mixup_coefficient(task, 1, step)))
        a, target = max(drawn, 1 - drawn), np.eye(CLASSES)[split.labels[np.asarray(plain.index)]]
        views, target = (
            a * x + (1 - a) * np.concatenate([x[-1:], x[:-1]])
            for x in (np.asarray(plain.student), target)
        )
        np.testing.assert_allclose(chunk.views[0, step], views, atol=1e-5)
        student = np.random.default_rng(step).standard_normal(target.shape).astype(np.float32)
        entropy = -(target * np.log(np.where(target > 0, target, 1))).sum(-1).mean()
        expected = -(target * log_softmax64(student)).sum(-1).mean() - entropy
        np.testing.assert_allclose(
            kl_divergence(chunk.logits[0, step], student), expected, rtol=1e-4
        )
    assert len(coefficients) == 3


def published_rate(step, images, peak):
    """The schedule of Big Transfer's released code, written in another way."""
    warm_up, first, second, third, last = {
        1_020: (100, 200, 300, 400, 500),
        68_175: (500, 3000, 6000, 9000, 10_000),
        1_255_544: (500, 6000, 12_000, 18_000, 20_000),
    }[images]
    assert step < last
    if step < warm_up:
        return peak * step / warm_up
    return peak * (
        1 if step <= first else 0.1 if step <= second else 0.01 if step <= third else 0.001
    )


@pytest.mark.parametrize("images", [1_020, 68_175, 1_255_544])
def test_the_schedule_is_the_published_one(images):
    bounds = hyperrule.boundaries(images)
    steps = np.arange(bounds[-1])
    found = jax.jit(lambda step: hyperrule.learning_rate(0.003, step, bounds))(steps)
    np.testing.assert_allclose(
        found, [published_rate(step, images, 0.003) for step in steps], rtol=1e-5
    )
    assert hyperrule.uses_mixup(images) == (images >= 20_000)
    assert hyperrule.boundaries(images, 100)[-1] == 100
    assert (
        max(
            abs(100 * a / bounds[-1] - b)
            for a, b in zip(bounds, hyperrule.boundaries(images, 100), strict=True)
        )
        <= 0.5
    )


def test_mixup_coefficients_follow_the_beta_distribution():
    """Beta(0.1, 0.1) has the variance 1 / (4 (2 alpha + 1)): most draws lie near 0 or 1."""
    task = dataclasses.replace(FLOWERS, mode="fine-tuning/mixup")
    drawn = np.asarray(
        jax.jit(jax.vmap(lambda step: step_views.mixup_coefficient(task, 0, step)))(np.arange(4000))
    )
    assert abs(drawn.mean() - 0.5) < 0.03
    assert abs(drawn.var() - 1 / 4.8) < 0.01
    assert step_views.mixup_coefficient(FLOWERS, 0, 0) is None


@pytest.mark.long
@pytest.mark.parametrize("in_turn", [False, True])
def test_the_learning_rate_with_the_best_validation_accuracy_wins(flowers, in_turn):
    lines, task = [], fine_tuning(flowers)
    best = finetune.search(
        engine_of(task), [1e30, 0.3, 1e-6], lines.append, steps=25, in_turn=in_turn
    )
    accuracies = {
        float(line.split()[1]): float(line.split()[-1]) for line in lines if "accuracy" in line
    }
    assert accuracies[0.3] == pytest.approx(best.validation, abs=1e-4)
    assert best.validation > accuracies[1e-6] + 0.2
    assert best.learning_rate == 0.3
    assert any(line.startswith("lr 1e+30") and "diverged" in line for line in lines)
    validation = SPLITS["validation"]
    logits = bit.apply(task.student, best.params, validation.clean.astype(np.float32) / 127.5 - 1)
    assert np.mean(np.argmax(logits, -1) == validation.labels) == pytest.approx(best.validation)


def test_the_command_writes_a_teacher_that_a_task_can_use(flowers, folder, capsys):
    flags = [
        "--task=flowers102",
        "--from=mine",
        "--resolution=16",
        "--batch_size=16",
        "--steps=25",
        "--lr=0.3",
    ]
    assert teacher_command.main(["teacher", *flags]) == 0
    output = capsys.readouterr().out
    path = folder / "flowers102-mine.npz"
    assert f"{path}: " in output
    assert hashlib.sha256(path.read_bytes()).hexdigest() in output
    assert "--teacher=flowers102-mine" in output
    assert "synthetic" not in output
    task = vary(flowers, Variation(teacher="flowers102-mine"))
    assert task.teacher == dataclasses.replace(NETWORK, classes=CLASSES)
    (params,) = load_teachers(task)
    reported = dict(re.findall(r"(validation|Test) accuracy (\d\.\d{4})$", output, re.MULTILINE))
    for name, split in (("validation", SPLITS["validation"]), ("Test", SPLITS["test"])):
        answers = np.argmax(
            bit.apply(task.teacher, params, split.clean.astype(np.float32) / 127.5 - 1), -1
        )
        assert np.mean(answers == split.labels) == pytest.approx(float(reported[name]), abs=1e-4)
    assert float(reported["validation"]) > 0.6
    assert float(reported["Test"]) < 0.2  # all labels of the test split are wrong


@pytest.mark.parametrize("out", [[], ["--out=there.npz"], ["--out=there.npz", "--synthetic"]])
def test_an_existing_file_is_not_replaced(flowers, folder, out, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    path = folder / ("there.npz" if out else "flowers102-mine.npz")
    path.write_bytes(b"trained for hours")
    assert (
        teacher_command.main(
            [
                "teacher",
                "--task=flowers102",
                "--from=mine",
                "--resolution=16",
                "--batch_size=8",
                "--steps=1",
                "--lr=0.1",
                *out,
            ]
        )
        == 2
    )
    assert f"error: {path} already exists" in capsys.readouterr().err
    assert path.read_bytes() == b"trained for hours"


@pytest.mark.long
def test_a_dry_run_replaces_the_file_of_the_previous_dry_run(flowers, folder):
    path = folder / "flowers102-r16-mine-synthetic.npz"
    path.write_bytes(b"trained for seconds")
    assert (
        teacher_command.main(
            [
                "teacher",
                "--task=flowers102@r16",
                "--from=mine",
                "--synthetic",
                "--batch_size=8",
                "--steps=1",
                "--lr=0.1",
            ]
        )
        == 0
    )
    assert (
        vary(flowers, Variation(teacher=path.stem)).teacher_sha256
        == hashlib.sha256(path.read_bytes()).hexdigest()
    )


@pytest.mark.parametrize("padding", ["zero", "inf"])
def test_an_exported_file_gives_the_same_logits_and_padding(flowers, folder, padding):
    task = finetune.make_task(flowers, "mine")
    task = dataclasses.replace(
        task, student=dataclasses.replace(task.student, root="imagenet", pool_padding=padding)
    )
    params = write(folder / "other.npz", task.student, seed=1)
    digest = finetune.export(task, params, folder / "out.npz")
    assert hashlib.sha256((folder / "out.npz").read_bytes()).hexdigest() == digest
    found = lookup.find("out")
    assert (found.network, found.sha256) == (dataclasses.replace(task.student, groups=32), digest)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    logits = [
        bit.apply(task.student, p, images)
        for p in (params, lookup.load(dataclasses.replace(found, network=task.student)))
    ]
    np.testing.assert_array_equal(*logits)


def test_fine_tuning_evaluates_on_validation_and_trains_on_the_tasks_data(flowers, folder):
    task = finetune.make_task(flowers, "mine")
    assert (task.dataset, task.batch_size, task.horizons) == (flowers.dataset, 512, (500,))
    assert task.teachers == () == load_teachers(task)
    assert splits(task, task.dataset)[1] is SPLITS["validation"]
    write(folder / "wide.npz", dataclasses.replace(NETWORK, width=32))
    large = finetune.make_task(catalogue.get("imagenet2012"), "wide")
    assert (large.batch_size, large.horizons, large.teaching.mixup) == (512, (20_000,), True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "Name the task"),
        (["--from=mine"], "Name the task"),
        (
            ["--task=digits"],
            r"name the file to write, such as --out=.*\n.*weights/digits_teacher.npz",
        ),
        (
            ["--task=digits", "--out=x.npz", "--synthetic", "--steps=4"],
            "^error: --steps, --synthetic cannot be used here",
        ),
        (["--task=digits", "--from=mine"], "The images of digits have no validation split"),
        (["--task=flowers102", "--from=mone"], "no weights 'mone'.*Did you mean 'mine'"),
        (
            ["--task=flowers102", "--from=./mine.npz"],
            r"--from=\./mine.npz: no .npz file found there",
        ),
        (
            ["--task=flowers102", "--from=grey"],
            "--from=grey needs images with 1 channels, but those of .* have 3",
        ),
        (
            ["--task=flowers102", "--from=narrow"],
            "narrow is 7 channels wide, which the task's 2 groups do not divide",
        ),
        (["--task=flowers102", "--from=mine", "--lr=0.1,fast"], "'fast' is not a learning rate"),
        (["--task=flowers102", "--from=mine", "--lr=-1"], "'-1' is not a learning rate"),
        (
            ["--task=flowers102", "--from=mine", "--out=BiT-M-R50x1.npz"],
            "must not be that of published weights",
        ),
        (["--task=flowers102"], "distill_bench.weights --name=R152x2_T_flowers128"),
        (["--task=flower102", "--from=mine"], "Did you mean 'flowers102'"),
        (["--task=flowers102", "mine"], "Unexpected argument 'mine'"),
        (
            ["--task=flowers102", "--form=mine"],
            "Unknown flag --form. Did you mean '--from'",
        ),
    ],
)
def test_an_impossible_request_ends_with_one_message(
    flags, message, flowers, folder, monkeypatch, capsys
):
    monkeypatch.setattr(recipes, "fit", None)  # so that a command that is not refused cannot train
    write(folder / "grey.npz", dataclasses.replace(NETWORK, channels=1))
    write(folder / "narrow.npz", dataclasses.replace(NETWORK, width=7, groups=1))
    assert teacher_command.main(["teacher", *flags]) == 2
    message_shown = capsys.readouterr().err
    assert message_shown.startswith("error: ")
    assert re.search(message, message_shown), message_shown


@pytest.mark.slow
def test_an_embedded_teacher_is_written_only_where_out_says(tmp_path, monkeypatch, capsys):
    network = dataclasses.replace(NETWORK, classes=10, channels=1)
    small = dataclasses.replace(catalogue.DIGITS, teacher=network)
    monkeypatch.setitem(catalogue.CATALOGUE, "digits", small)
    short = dataclasses.replace(recipes.RECIPES["digits"], steps=2)
    monkeypatch.setitem(recipes.RECIPES, "digits", short)
    monkeypatch.setattr(recipes, "CHUNK", 2)
    embedded, path = recipes.embedded_file(small).read_bytes(), tmp_path / "new" / "again.npz"
    assert teacher_command.main(["teacher", "--task=digits", f"--out={path}"]) == 0
    assert hashlib.sha256(path.read_bytes()).hexdigest() in capsys.readouterr().out
    assert files.read(path, network)[1] == "published"
    assert [*path.parent.iterdir()] == [path]
    assert recipes.embedded_file(small).read_bytes() == embedded
    assert teacher_command.main(["teacher", "--task=digits", f"--out={path}"]) == 2
    assert f"{path} already exists" in capsys.readouterr().err
    monkeypatch.setattr(recipes, "embedded_file", lambda task: path)
    assert teacher_command.main(["teacher", "--task=digits", f"--out={path}"]) == 0


def test_an_error_says_if_every_learning_rate_diverged(flowers):
    with pytest.raises(UserError, match="Every learning rate diverged: 1e\\+30, 1e\\+31"):
        finetune.search(engine_of(fine_tuning(flowers)), [1e31, 1e30], lambda text: None, steps=25)


@pytest.mark.process
def test_help_does_not_import_jax():
    code = (
        "import sys; from distill_bench.teacher import __main__, accuracy; "
        "__main__.main(['', '--help']); assert 'jax' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--from" in done.stdout
