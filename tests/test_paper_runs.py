"""The commands of docs/tasks.md that repeat the paper's runs."""

from __future__ import annotations

import copy
import shlex

import pytest

from optimizers.adamw_funmatch import adamw_funmatch
from support.paths import ROOT
from sweeps import run
from sweeps.planning.plan import make_plan

# Beyer et al. 2021, arXiv:2106.05237: table 4, and for ImageNet the first row of table 1 with the
# settings of big_vision's configs/proj/distill/bit_i1k.py.
# task: (training images, batch size, warm-up, [(epochs, T, lr, wd, test accuracy)])
PUBLISHED = {
    "flowers102": (
        1020,
        512,
        1500,
        [
            (1_000, 10, 3e-3, 1e-3, 77.51),
            (10_000, 10, 3e-3, 3e-4, 92.83),
            (100_000, 1, 1e-3, 1e-4, 95.54),
            (1_000_000, 1, 3e-4, 1e-5, 96.93),
        ],
    ),
    "pet37": (
        3312,
        512,
        1500,
        [
            (300, 2, 1e-2, 1e-5, 82.75),
            (1_000, 5, 1e-2, 1e-3, 88.01),
            (3_000, 10, 3e-3, 3e-4, 90.08),
            (10_000, 2, 1e-3, 1e-4, 90.98),
            (30_000, 2, 3e-3, 1e-5, 91.06),
        ],
    ),
    "food101": (
        68_175,
        512,
        1500,
        [
            (100, 10, 1e-2, 1e-3, 83.29),
            (1_000, 10, 1e-3, 3e-4, 86.64),
            (3_000, 5, 1e-2, 1e-4, 87.20),
        ],
    ),
    "sun397": (
        76_128,
        512,
        1500,
        [
            (100, 10, 1e-2, 1e-3, 68.28),
            (1_000, 10, 3e-3, 1e-4, 73.46),
            (3_000, 10, 1e-2, 3e-5, 74.26),
        ],
    ),
    "imagenet2012": (
        1_255_544,
        4096,
        5000,
        [
            (300, 1, 3e-2, 3e-4, 80.30),
            (1_200, 1, 3e-2, 3e-4, 81.54),
            (9_600, 1, 3e-2, 3e-4, 82.31),
        ],
    ),
}
ROWS = [(name, *row) for name, (*_, rows) in PUBLISHED.items() for row in rows]


def table() -> list[list[str]]:
    """The cells of the table in docs/tasks.md, without its head."""
    section = (ROOT / "docs" / "tasks.md").read_text().split("## The paper's runs\n")[1]
    lines = [line for line in section.split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def number(text: str) -> float:
    return float(text.replace(",", "").removesuffix(" %"))


def test_the_table_holds_the_published_numbers():
    rows = [
        (name, *(number(cell) for cell in (epochs, t, lr, wd, accuracy)))
        for name, epochs, _, t, lr, wd, accuracy, _ in table()
    ]
    assert rows == ROWS


@pytest.mark.parametrize("row", table(), ids=lambda row: f"{row[0]}-{row[1]}")
def test_each_command_is_the_run_of_its_row(row, monkeypatch):
    name, epochs, steps, t, lr, wd, _, command = row
    images, batch_size, warmup, _ = PUBLISHED[name]
    python, script, *flags = shlex.split(command.strip("`"))
    assert (python, script) == ("python", "sweeps/run.py")
    monkeypatch.setattr(run, "FLAGS", copy.deepcopy(run.FLAGS))
    assert run.FLAGS([script, *flags]) == [script]
    plan = make_plan(run._plan_request())

    assert plan.task.name.split("@")[0] == name
    assert (plan.task.dataset.train_size, plan.task.batch_size) == (images, batch_size)
    assert plan.task.temperature == number(t)
    assert (plan.task.name == name) == ("--temperature" not in command)
    assert plan.horizons == (number(steps),) == (round(number(epochs) * images / batch_size),)
    (candidate,) = plan.candidates
    assert candidate.optimizer.name == adamw_funmatch.name
    settings = candidate.optimizer.defaults | candidate.first
    assert settings == {
        "lr": number(lr),
        "weight_decay": number(wd),
        "warmup_steps": warmup,
    }
    assert (candidate.search.stages, len(plan.final_seeds)) == ((), 1)
