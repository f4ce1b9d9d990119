"""Students that a sweep exports: exact, never overwritten, and checked against their cards."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from distill_bench.errors import UserError
from distill_bench.export import card as cards
from distill_bench.export import check, write
from distill_bench.tasks import catalogue
from distill_bench.tasks.variation import Variation, vary
from distill_bench.teacher.accuracy import accuracy
from distill_bench.training import source
from distill_bench.training.lane_layout import LayoutOptions
from distill_bench.weights import files, lookup
from distill_bench.weights.__main__ import main
from optimizers.contract.syntax import declared_in
from support.paths import CALM, ROOT
from support.stores import Silent, contents
from sweeps.execution.execute import execute
from sweeps.execution.export import Exporter, describe
from sweeps.execution.request import Faults
from sweeps.execution.resources import Resources
from sweeps.planning.plan import make_plan
from sweeps.planning.request import PlanRequest
from sweeps.results import store
from sweeps.results.trial_files import TrialWriter

TWO_DEVICES = LayoutOptions(devices=2)
# Measured at other parameters than those that it moves.
AVERAGING = declared_in((ROOT / "optimizers" / "schedule_free.py").read_text())[0]
DIVERGING = """
import jax.numpy as jnp, optax
from optimizers import Schedule, optimizer

@optimizer
def nan(lr: Schedule = 0.1):
    return optax.chain(optax.scale(jnp.nan), optax.scale_by_learning_rate(lr))
"""


@pytest.fixture
def sweep(tiny_task, tiny_engine, monkeypatch, tmp_path):
    """A function that runs a sweep of one rung on the tiny task and returns what it says."""
    monkeypatch.setitem(catalogue.CATALOGUE, "tiny", tiny_task)
    really_open = Resources.open_engine

    def open_engine(resources, task):  # the usual layout's is opened once for all tests
        return tiny_engine if resources.layout == TWO_DEVICES else really_open(resources, task)

    monkeypatch.setattr(Resources, "open_engine", open_engine)

    def run(*opts, outdir="runs", export="students", seeds=1, layout=TWO_DEVICES):
        display = Silent()
        plan = make_plan(PlanRequest(opts or (str(CALM),), "tiny", ("5",), 1, seeds))
        exporter = Exporter.open(str(tmp_path / export), plan.task, display.say) if export else None
        resources = Resources(layout=layout)
        execute(plan, tmp_path / outdir, display, resources, Faults(), exporter)
        return display.said

    return run


@pytest.fixture(scope="module")
def exported(tiny_task, tiny_engine, tmp_path_factory):
    """A folder with the `runs` and the `students` of a sweep with one final."""
    root = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.CATALOGUE, "tiny", tiny_task)
        patch.setattr(Resources, "open_engine", lambda resources, task: tiny_engine)
        plan = make_plan(PlanRequest((str(CALM),), "tiny", ("5",), 1, 1))
        exporter = Exporter.open(str(root / "students"), plan.task, print)
        resources = Resources(layout=TWO_DEVICES)
        execute(plan, root / "runs", Silent(), resources, Faults(), exporter)
    return root


@pytest.fixture
def student(exported, sweep, tmp_path):
    """The path of an exported student, which the test may change."""
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    (path,) = (tmp_path / "students").glob("*.npz")
    return path


def students(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout",
    [
        TWO_DEVICES,
        *(
            pytest.param(options, marks=pytest.mark.long)
            for options in (
                LayoutOptions(devices=2, mapping="loop", lanes_per_device=2),
                LayoutOptions(devices=1, mapping="vmap", lanes_per_device=3),
                LayoutOptions(devices=2, batch_shards=2),
                LayoutOptions(devices=1, microbatches=2, remat=True),
            )
        ),
    ],
    ids=str,
)
def test_a_student_measures_the_same_to_the_last_digit(sweep, tmp_path, tiny_task, layout):
    sweep(str(CALM), AVERAGING, seeds=2, layout=layout)
    results = {
        result.trial.id: result
        for study in store.load(tmp_path / "runs")
        for result in study.results
    }
    paths = sorted((tmp_path / "students").glob("*.npz"))
    assert len(paths) == len(results) == 4
    _, test = source.splits(tiny_task, tiny_task.dataset)
    for path in paths:
        found = check.load(path)
        task = check.task_of(found.card, None)
        assert task == tiny_task
        metrics = check.measure(found, task)
        assert check.differences(found.card, metrics) is None
        assert metrics == found.card.metrics == results[found.card.trial].final
        params, _ = files.read(path, tiny_task.student)
        # Counted by other code, over the clean images alone.
        counted = accuracy(tiny_task.student, params, test, tiny_task.precision)
        assert metrics["accuracy"] == pytest.approx(counted, abs=1e-6)


@pytest.mark.slow
def test_finals_of_an_earlier_command_are_trained_again_and_their_results_kept(sweep, tmp_path):
    sweep(export=None, seeds=2)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.json*")}
    said = sweep(seeds=2)
    assert any("2 finals are trained again, to export" in text for text in said)
    assert times == {path: path.stat().st_mtime_ns for path in times}
    sweep(outdir="other", export="direct", seeds=2)
    assert students(tmp_path / "students") == students(tmp_path / "direct")
    assert sweep(seeds=2) == []
    # In another folder of results the same runs write the same bytes.
    assert not any("last digits" in text for text in sweep(outdir="third", seeds=2))
    assert students(tmp_path / "students") == students(tmp_path / "direct")


@pytest.mark.slow
def test_a_sweep_killed_anywhere_ends_with_the_whole_export(sweep, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*args, **kwargs):
        raise Killed

    for owner, name in (
        (write, "replace_atomically"),  # before the .npz
        (cards.Card, "to_json"),  # between the .npz and the card
        (TrialWriter, "finish"),  # between the export and the record of the end
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, die)
            with pytest.raises(Killed):
                sweep()
        assert store.load(tmp_path / "runs")[0].results == []
    sweep()
    sweep(outdir="other", export="direct")
    assert len(students(tmp_path / "direct")) == 2
    assert students(tmp_path / "students") == students(tmp_path / "direct")
    assert contents(tmp_path / "runs") == contents(tmp_path / "other")


def test_files_of_others_are_neither_replaced_nor_taken_for_exports(sweep, student, tmp_path):
    card, weights = cards.path_of(student), student.read_bytes()
    text = card.read_text()
    trial = json.loads(text)["trial"]
    for change, message in (
        (lambda: card.write_text(text.replace(trial, "0" * 12)), "belongs to another run"),
        (lambda: card.write_text(text[:-30]), "is not JSON"),
        (lambda: student.write_bytes(weights[:-1]), "has changed"),
        (lambda: (card.unlink(), student.write_bytes(b"mine")), "holds other parameters"),
    ):
        change()
        before = students(tmp_path / "students")
        with pytest.raises(UserError, match=message):
            sweep()
        assert students(tmp_path / "students") == before
        card.write_text(text)
        student.write_bytes(weights)
    # The same run with other last digits, as from another machine.
    params, _ = files.read(student, check.load(student).card.network)
    other = jax.tree.map(lambda leaf: leaf + np.float32(1e-6), params)
    assert not write.write(student, other, check.load(student).card)
    assert students(tmp_path / "students") == {card.name: text.encode(), student.name: weights}


def test_only_runs_that_end_well_are_exported(sweep, tmp_path):
    (tmp_path / "nan.py").write_text(DIVERGING)
    sweep(str(tmp_path / "nan.py"))
    (study,) = store.load(tmp_path / "runs")
    assert [result.status for result in study.results] == ["diverged"]
    assert students(tmp_path / "students") == {}
    assert describe(tmp_path / "students", [study]).startswith("No student was exported")


def test_a_place_that_cannot_be_written_and_a_student_without_format_are_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", "/proc/distill-bench"):
        with pytest.raises(UserError, match=r"--export=.* (is a file|cannot be written)"):
            Exporter.open(str(folder), catalogue.DIGITS, print)
    mobile = vary(catalogue.FLOWERS, Variation(student="mobilenetv3"))
    with pytest.raises(UserError, match="the student of flowers102@mobilenetv3 is not a BiT"):
        Exporter.open(str(tmp_path / "students"), mobile, print)
    assert not (tmp_path / "students").exists()


def test_names_are_names_of_weights_and_differ_between_runs(tmp_path):
    def name(task="digits", trial="3f2a1b9c4d5e", optimizer="calm"):
        return write.path_for(tmp_path, task, optimizer, 250, 1, trial).name

    assert name() == "digits-calm-h250-seed1-3f2a1b.npz"
    assert name(trial="3f2a1c9c4d5e") != name()
    for task in ("digits@same-ic@start-BiT-M-R50x1", "my.tasks:WARM", "../../x", "é" * 999):
        assert re.fullmatch(r"[A-Za-z0-9_.+-]{1,120}", name(task))
    assert lookup._NAME == r"[\w.+-]+"


def test_the_command_prints_both_figures_and_says_that_they_agree(student, capsys):
    assert main(["weights", f"--check={student}", "--task=tiny"]) == 0
    out = capsys.readouterr().out
    card = cards.read(cards.path_of(student))
    for name, value in card.metrics.items():
        assert re.search(rf"^{name} +{value} +{value}$", out, re.MULTILINE)
    assert out.endswith("All figures agree with the card's to the last digit.\n")


def test_a_figure_that_differs_in_the_last_digit_fails(student, capsys):
    card = cards.read(cards.path_of(student))
    nearest = float(np.nextafter(np.float32(card.metrics["probe_loss"]), np.float32(9)))
    edited = dataclasses.replace(
        card,
        metrics={**card.metrics, "probe_loss": nearest},
        environment={**card.environment, "jax": "0.0.1"},
    )
    cards.path_of(student).write_text(edited.to_json())
    assert main(["weights", f"--check={student}"]) == 1
    error = capsys.readouterr().err
    assert "error: probe_loss: not the card's figures" in error
    assert "jax 0.0.1 there" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: cards.path_of(path).unlink(), "has no card"),
        (lambda path: cards.path_of(path).write_text("{"), "is not JSON"),
        (lambda path: cards.path_of(path).write_text("[1]"), "is not a card"),
        (lambda path: cards.path_of(path).write_bytes(b"\xff" * 99), "is not JSON"),
        (lambda path: cards.path_of(path).write_text("[" * 10**5), "is not JSON"),
        (lambda path: cards.path_of(path).write_text(" " * 2**21), "is too long"),
        (lambda path: edit(path, fingerprint="0" * 16), "it is another task"),
        (lambda path: edit(path, task="digits"), "it is another task"),
        (lambda path: edit(path, task="no_such"), "is not built in"),
        (lambda path: edit(path, task="tiny@start-../../x"), "is not a name of weights"),
        (lambda path: edit(path, sha256="0" * 64), "is not the file that its card describes"),
        (lambda path: edit(path, optimizer="\x1b[2J"), "has a value that no card has: optimizer"),
    ],
)
def test_a_wrong_file_or_card_is_one_message(student, change, message, capsys):
    change(student)
    assert main(["weights", f"--check={student}"]) == 2
    out, error = capsys.readouterr()
    assert message in error
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert out == ""


def edit(path, **changes):
    """Changes values of the student's card."""
    card = cards.path_of(path)
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))


def test_one_byte_more_or_less_is_seen(student, capsys):
    content = student.read_bytes()
    for changed in (content[:-1], content + b"\0", bytes([content[0] ^ 1]) + content[1:]):
        student.write_bytes(changed)
        assert main(["weights", f"--check={student}"]) == 2
        assert "is not the file that its card describes" in capsys.readouterr().err


def test_a_card_never_runs_the_code_that_it_names(student, tmp_path, monkeypatch, capsys):
    (tmp_path / "evil.py").write_text(
        "import pathlib\n"
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "from distill_bench.tasks.catalogue import DIGITS as T\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    edit(student, task="evil:T")
    assert main(["weights", f"--check={student}"]) == 2
    assert "If you trust its code, name the task yourself: --task=evil:T" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert main(["weights", f"--check={student}", "--task=evil:T"]) == 2  # the user's own wish
    assert "it is another task" in capsys.readouterr().err
    assert (tmp_path / "ran").exists()


def test_no_card_is_read_in_part_or_with_values_of_other_types(student):
    content = cards.path_of(student).read_bytes()
    card = cards.parse(content)
    assert cards.parse(card.to_json().encode()) == card
    for cut in range(len(content) - 2):
        with pytest.raises(cards.BadCard):
            cards.parse(content[:cut])
    whole = json.loads(content)
    for key in whole:
        lacking = {name: value for name, value in whole.items() if name != key}
        wrong = (None, [], "", -1, True, 1e99, {"x": {}}, "a\nb", 10**400)
        for values in (lacking, *(whole | {key: value} for value in wrong)):
            with pytest.raises(cards.BadCard):
                cards.parse(json.dumps(values).encode())
    for number in (float("nan"), float("inf"), 1, "1"):
        with pytest.raises(cards.BadCard):
            cards.parse(json.dumps(whole | {"metrics": {"probe_loss": number}}).encode())
    for part, key in (("network", "width"), ("layout", "lanes_per_device")):
        inner = json.loads(content)
        inner[part][key] = "1"
        with pytest.raises(cards.BadCard, match=f"no card has: {part}.{key} = "):
            cards.parse(json.dumps(inner).encode())


def test_random_damage_to_a_card_is_refused_or_leaves_a_card(student):
    content = cards.path_of(student).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(256)
        with contextlib.suppress(cards.BadCard):
            assert isinstance(cards.parse(bytes(damaged)), cards.Card)


@pytest.mark.long
def test_a_student_of_the_digits_starts_and_teaches_others(script, tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    monkeypatch.setenv("DISTILL_BENCH_CACHE", str(weights))
    flags = [f"--opt={CALM}", "--task=digits", "--trials=1", "--seeds=1"]

    def checked(path):
        return subprocess.run(
            [sys.executable, "-m", "distill_bench.weights", f"--check={path}"],
            capture_output=True,
            text=True,
        )

    done = script("run", *flags, "--horizons=25", f"--export={weights}")
    assert done.returncode == 0, done.stderr
    (path,) = weights.glob("*.npz")
    line = done.stdout.splitlines()[-2]
    assert line.startswith(f"1 student in {weights}. ")
    assert line.endswith(f"--check={path}")
    assert (again := checked(path)).returncode == 0, again
    # The student goes on from where it was: one step with a tiny rate changes little.
    for flag in ("start", "teacher"):
        done = script(
            *("run", *flags, "--horizons=1", "--lr=1e-6"),
            *(f"--{flag}={path.stem}", f"--export={weights}"),
        )
        assert done.returncode == 0, done.stderr
        (varied,) = weights.glob(f"digits-{flag}-*.npz")
        assert (again := checked(varied)).returncode == 0, again
    before, after = (
        cards.read(cards.path_of(p)).metrics["probe_loss"]
        for p in (path, next(weights.glob("digits-start-*.npz")))
    )
    assert after == pytest.approx(before, rel=1e-4)
    shutil.rmtree(tmp_path / "runs")
    refused = script("run", *flags, "--horizons=25", f"--export={path}")
    assert refused.returncode == 2
    assert refused.stderr == (
        f"error: --export={path} is a file. Name a folder; it is created if missing.\n"
    )
    assert not list((tmp_path / "runs").rglob("result.json"))
