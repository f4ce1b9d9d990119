"""Sweeps over damaged stores: each damaged file is set aside and told, and the sweep completes."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from distill_bench.tasks import catalogue
from distill_bench.training import lane_state
from distill_bench.training.lane_layout import LayoutOptions
from support.paths import CALM
from support.stores import Silent, contents
from sweeps.execution.execute import execute
from sweeps.execution.request import Faults
from sweeps.execution.resources import Resources
from sweeps.planning.plan import make_plan
from sweeps.planning.request import PlanRequest

STEPS = 120  # chunks of 50
LRS = [f"{lr:.2f}" for lr in np.linspace(0.1, 0.9, 13)]


class Stopped(BaseException):
    """Stands in for a kill."""


class Stopping(Silent):
    """A display that stops the run after so many trial-steps."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def advance(self, steps):
        self.left -= steps
        if self.left <= 0:
            raise Stopped


def sweep(root, display=None):
    """Tunes thirteen trials and runs one final; returns what is told."""
    display = display or Silent()
    request = PlanRequest((str(CALM),), "tiny", (str(STEPS),), 13, 1, learning_rates=tuple(LRS))
    resources = Resources(layout=LayoutOptions(devices=2), checkpoint_seconds=0)
    execute(make_plan(request), root, display, resources, Faults())
    return display.said


@pytest.fixture(scope="module")
def undisturbed(tiny_task, tmp_path_factory):
    """What a sweep leaves. It may run again as long as the fixture lives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.CATALOGUE, "tiny", tiny_task)
        root = tmp_path_factory.mktemp("undisturbed") / "runs"
        sweep(root)
        yield root


def folder_in_place_of(path):
    path.unlink()
    path.mkdir()


def link_in_place_of(path):
    path.unlink()
    path.symlink_to("nowhere")


def garble(path):
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_text("")


def one_digit(path):
    found = re.search(r"\d\.\d\d(\d)", text := path.read_text())
    assert found
    place, digit = found.start(1), (int(found[1]) + 1) % 10
    path.write_text(f"{text[:place]}{digit}{text[place + 1 :]}")


DAMAGES = [folder_in_place_of, link_in_place_of, empty, halve, garble, one_digit]


def remade(root):
    """What is in the store but for what was set aside."""
    for aside in (root / "damaged", *root.glob("*/*/damaged")):
        shutil.rmtree(aside, ignore_errors=True)
    return contents(root)


def damaged(said):
    """The messages about damage, each of one line that says where it went."""
    lines = [text for text in said if text.startswith("Damaged")]
    assert [text for text in lines if "\n" in text or "Set aside as" not in text] == []
    return lines


@pytest.mark.long
def test_damaged_trials_and_studies_are_made_again(undisturbed, tmp_path):
    """Also a digit that no reader would notice."""
    root = shutil.copytree(undisturbed, tmp_path / "runs")
    (study,) = (root / "tiny").iterdir()
    trials = sorted(path.parent for path in study.glob("*_seed0_*/result.json"))[:12]
    names = [name for name in ("records.jsonl", "result.json") for _ in DAMAGES]
    hurt = [trial / name for trial, name in zip(trials, names, strict=True)]
    for path, damage in zip(hurt, 2 * DAMAGES, strict=True):
        damage(path)
    halve(study / "study.json")
    folder_in_place_of(next(root.glob("events.*.layout")))
    lines = damaged(sweep(root))
    assert len(lines) == len(hurt) + 2
    for path in hurt:
        assert sum(str(path.parent) in line for line in lines) == 1
    assert remade(root) == contents(undisturbed)
    assert damaged(sweep(root)) == []


def of_another_step(step):
    def damage(path):
        with np.load(path) as archive:
            arrays = dict(archive)
        about = json.loads(arrays["about"].tobytes())
        about["step"] = step
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        np.savez(path, **arrays)

    return damage


def of_another_shape(path):
    with np.load(path) as archive:
        owner = json.loads(archive["about"].tobytes())["owner"]
    saved = lane_state.load(path, owner)
    leaves = (*saved.leaves[:-1], np.zeros((2, 3), np.float32))
    lane_state.save(path, dataclasses.replace(saved, leaves=leaves), owner)


def file_in_place_of(folder):
    shutil.rmtree(folder)
    folder.write_text("mine")


@pytest.mark.long
def test_unfinished_trials_whose_files_are_damaged_start_again(undisturbed, tmp_path):
    root = tmp_path / "runs"
    with pytest.raises(Stopped):
        sweep(root, Stopping(13 * 50 + 1))
    states = sorted(root.rglob("state.npz"))
    damages = [
        of_another_shape,
        of_another_step(STEPS),
        of_another_step(STEPS - 1),
        of_another_step("4"),
        folder_in_place_of,
        link_in_place_of,
        halve,
        garble,
        empty,
        lambda path: folder_in_place_of(path.with_name("records.jsonl")),
        lambda path: link_in_place_of(next(path.parent.glob("events.*"))),
        lambda path: path.with_name("result.json").mkdir(),
        lambda path: file_in_place_of(path.parent),
    ]
    for path, damage in zip(states, damages, strict=True):
        damage(path)
    lines = damaged(sweep(root))
    assert len(lines) == len(damages)
    for path in states:
        assert sum(str(path.parent) in line for line in lines) == 1
    assert remade(root) == contents(undisturbed)
    assert not list(root.rglob("state.npz"))
