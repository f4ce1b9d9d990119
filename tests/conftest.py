"""Eight CPU devices, two of them for the engine, implicit rank promotion refused, and a task small enough to train in a second."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Programs here run for a moment and took five times as long to compile as to run. Scripts under test are compiled as they are for users;
# XLA_FLAGS= makes the tests so too.
XLA_FLAGS = os.environ.get("XLA_FLAGS", "")
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

from distill_bench import machine
from distill_bench.networks import bit
from distill_bench.tasks import catalogue
from distill_bench.tasks.catalogue import DIGITS
from distill_bench.tasks.task import ProbeConfig, Task
from distill_bench.training.engine import Engine, open_engine
from distill_bench.training.lane_layout import LayoutOptions, make_layout
from distill_bench.weights import files
from support.paths import CALM, ROOT
from support.stores import Silent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start processes first: they are the long ones, and no worker should wait for one at the end."""
    items.sort(key=lambda item: "script" not in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled programs, shared by the workers of one test session and by the scripts that they start."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """The digits with a one-unit teacher of random weights and a one-unit student."""
    teacher = dataclasses.replace(DIGITS.teacher, depths=(1,), width=8, groups=4)
    params = bit.init(teacher, jax.random.key(1))
    params["head"]["conv2d"]["kernel"] = jax.random.normal(
        jax.random.key(2), params["head"]["conv2d"]["kernel"].shape
    )
    content = files.dumps(params)
    path = tmp_path_factory.mktemp("weights") / "teacher.npz"
    path.write_bytes(content)
    return dataclasses.replace(
        DIGITS,
        name="tiny",
        teacher=teacher,
        teacher_file=str(path),
        teacher_sha256=hashlib.sha256(content).hexdigest(),
        student=dataclasses.replace(DIGITS.student, depths=(1,), width=4, groups=2),
        batch_size=16,
        probe=ProbeConfig(batches=4, batch_size=8),
    )


@pytest.fixture(scope="session")
def tiny_engine(tiny_task: Task) -> Engine:
    return open_engine(tiny_task, make_layout(jax.devices()[:2]))


@pytest.fixture(scope="session")
def finished(tiny_task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the whole of a short ladder: the baseline and a plug-in, as many trials and seeds as an entry needs."""
    from sweeps.board.entries import BASELINE
    from sweeps.board.write_entry import REQUIRED_SEEDS, REQUIRED_TRIALS
    from sweeps.execution.execute import execute
    from sweeps.execution.request import Faults
    from sweeps.execution.resources import Resources
    from sweeps.planning.plan import make_plan
    from sweeps.planning.request import PlanRequest

    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            catalogue.CATALOGUE, "tiny", dataclasses.replace(tiny_task, horizons=(4, 8, 16))
        )
        request = PlanRequest(
            (BASELINE, str(CALM)), "tiny", ("ladder",), REQUIRED_TRIALS, REQUIRED_SEEDS
        )
        resources = Resources(layout=LayoutOptions(devices=2))
        execute(make_plan(request), root, Silent(), resources, Faults())
    return root


@pytest.fixture
def board_folder(
    finished: Path, tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A leaderboard with the entries of `finished`, and the task that they are of."""
    from sweeps.board import entries, write_entry
    from sweeps.results import store

    monkeypatch.setitem(
        catalogue.CATALOGUE, "tiny", dataclasses.replace(tiny_task, horizons=(4, 8, 16))
    )
    for loaded in store.load(finished):
        write_entry.write(loaded, entries.Cost(2.0, 1.0, 2.0, 8.0), tmp_path / "board")
    return tmp_path / "board"


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir with `small_flowers.DATASET`, as TFDS leaves it."""
    from support import small_tfds
    from support.small_flowers import FILES, TRAIN

    data_dir = tmp_path_factory.mktemp("published")
    small_tfds.write(
        data_dir,
        {
            "train": [(image, i) for i, image in enumerate(TRAIN)],
            "test": [(image, 90 + i) for i, image in enumerate(FILES)],
        },
    )
    return data_dir


@pytest.fixture(scope="session")
def once_packed(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from distill_bench.data import prepared
    from support.small_flowers import DATASET

    data_dir = tmp_path_factory.mktemp("packed") / "data"
    shutil.copytree(published, data_dir)
    prepared.prepare(DATASET, data_dir, lambda text: None)
    return data_dir


@pytest.fixture(scope="module")
def small_sun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Task]:
    """A streamed task, prepared where TFDS_DATA_DIR points."""
    from support import small_sun

    root = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(root))
        yield small_sun.make(root)


@pytest.fixture
def fresh(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "data"))


@pytest.fixture
def packed(once_packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(once_packed, tmp_path / "data"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights folder, empty."""
    monkeypatch.setenv(machine.WEIGHTS, str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def browser():
    from support import browsers

    if not browsers.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(browsers.MISSING)
    opened = browsers.open_browser()
    yield opened
    opened.quit()


@pytest.fixture
def show(browser, tmp_path):
    """Opens a board, from a file; in the end the console must hold nothing."""
    from selenium.webdriver.support.ui import WebDriverWait

    from support import browsers
    from sweeps.board.page import render

    def opened(board):
        path = tmp_path / "page.html"
        path.write_text(render(board), encoding="utf-8")
        browser.get(path.as_uri())
        WebDriverWait(browser, 30).until(
            lambda b: b.execute_script(
                "return document.querySelector('#count').textContent || !document.querySelector('#empty').hidden"
            )
        )
        return browser

    browsers.resize(browser, 1280)
    browsers.media(browser, prefers_color_scheme="light")
    browser.get_log("browser")
    yield opened
    assert browser.get_log("browser") == []


@pytest.fixture
def script(compilation_cache, tiny_task, tmp_path, monkeypatch):
    """Runs a script of sweeps/ with an outdir of its own, in a process that knows the tiny task too; sweeps are of it unless they name another."""
    (tmp_path / "tiny.pickle").write_bytes(pickle.dumps(tiny_task))
    monkeypatch.setenv("XLA_FLAGS", XLA_FLAGS)
    monkeypatch.setenv("TINY_TASK", str(tmp_path / "tiny.pickle"))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "support" / "small_task"), str(ROOT)])
    )

    def command(name, *flags):
        given = [f"--cache={compilation_cache}", "--task=tiny"] if name == "run" else []
        return [
            sys.executable,
            str(ROOT / "sweeps" / f"{name}.py"),
            f"--outdir={tmp_path / 'runs'}",
            *given,
            *flags,
        ]

    def run(name, *flags):
        return subprocess.run(
            command(name, *flags), cwd=tmp_path, capture_output=True, text=True, timeout=300
        )

    run.command = command
    return run
