"""Entries that have another entry's code or losses are told."""

from __future__ import annotations

import re

import pytest

from optimizers.contract import registry
from optimizers.contract.likeness import likeness
from support.copies import made_up
from support.paths import BRISK, CALM
from sweeps.board import build, entries
from sweeps.board.entries import BASELINE

RULE = """
from typing import Annotated, NamedTuple
import jax, optax
import jax.numpy as jnp
from optimizers import Log, Schedule, kernels, optimizer

class State(NamedTuple):
    count: jax.Array
    slow: jax.Array

def scale_by_mean(decay, power=0.5):
    def init(params):
        return State(jnp.zeros((), int), jax.tree.map(jnp.zeros_like, params))
    def update(updates, state, params=None):
        slow = jax.tree.map(lambda s, g: decay * s + g, state.slow, updates)
        return slow, State(count=state.count + 1, slow=slow)
    return optax.GradientTransformation(init, update)

@optimizer
def first(
    lr: Annotated[Schedule, Log(1e-3, 1.0)] = 0.1, *, b1: float = 0.9, weight_decay: float = 0.0
):
    return optax.chain(
        scale_by_mean(b1, power=1.0),
        optax.masked(optax.clip(1.0), kernels),
        optax.add_decayed_weights(weight_decay=weight_decay),
        optax.scale_by_learning_rate(lr),
    )
"""

# The same with other names for everything that may have another name.
COPY = '''
"""Something entirely new."""
import typing
import jax
from jax import numpy as np
from optax import GradientTransformation as Rule, chain, clip, masked
from optax import scale_by_learning_rate as finish
import optax
import optimizers
import optimizers.masks as which
from optimizers import optimizer

@optimizer
def second(
    rate: typing.Annotated[optimizers.Schedule, optimizers.Log(1e-2, 2.0)] = 0.1, *,
    memory: float = 0.9, shrink: float = 0.0):
    return chain(
        rule(memory, sharpness=1.0), masked(clip(1.0), which.kernels),
        optax.add_decayed_weights(weight_decay=shrink), finish(rate)
    )

def rule(memory, sharpness=0.5):
    def start(weights):
        # Nothing yet.
        return Held(np.zeros((), int), jax.tree.map(np.zeros_like, weights))
    def step(grads, held, weights=None):
        mean = jax.tree.map(lambda old, new: memory * old + new, held.mean, grads)
        return mean, Held(steps=held.steps + 1, mean=mean)
    return Rule(start, step)

class Held(typing.NamedTuple):
    steps: jax.Array
    mean: jax.Array
'''


def carried(text, name="mine.py"):
    masks = "optimizers/masks.py"
    return {name: text, masks: registry.resolve(BASELINE).sources[masks]}


def test_renamed_and_rearranged_code_is_recognized():
    first = likeness(carried(RULE), "first")
    assert first is not None
    assert likeness(carried(COPY), "second") == first
    assert likeness(carried(RULE + "\n\ndef unused():\n    return 5\n"), "first") == first
    split = RULE[: RULE.index("@optimizer")]
    rest = "from part import scale_by_mean\n" + RULE.replace(split[split.index("class") :], "")
    assert likeness(carried(rest) | {"part.py": split}, "first") == first


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("memory * old + new", "memory * new + old"),
        ("memory * old + new", "memory * old - new"),
        ("sharpness=1.0", "sharpness=2.0"),
        ("held.mean, grads", "grads, held.mean"),
        ("clip(1.0)", "clip(2.0)"),
        ("which.kernels", "which.not_empty"),
        ("masked(clip(1.0), which.kernels),", ""),
        ("np.zeros_like", "np.ones_like"),
        ("float = 0.9", "float = 0.8"),
        ("steps=held.steps + 1, mean=mean", "steps=held.steps, mean=mean"),
        ("@optimizer\n", "@optimizer(evaluations=2)\n"),
    ],
)
def test_other_code_is_not_taken_for_a_copy(old, new):
    assert old in COPY
    assert likeness(carried(COPY.replace(old, new)), "second") != likeness(carried(RULE), "first")


def test_no_built_in_optimizer_is_like_another():
    found = {name: likeness(registry.resolve(name).sources, name) for name in registry.builtins()}
    found |= {
        path.stem: likeness({path.name: path.read_text()}, path.stem) for path in (BRISK, CALM)
    }
    assert None not in found.values()
    assert len(set(found.values())) == len(found)


def times(factor):
    def change(content):
        for run in runs(content):
            run["probe_loss"] *= factor

    return change


def runs(content):
    for rung in content["rungs"]:
        yield from (run["points"][-1] for run in rung["finals"])
        yield from (run["final"] for run in rung["tuning"] if run["final"])


def told(board_folder):
    board = build.make(*entries.load(board_folder, ["tiny"]))
    assert board["warnings"] == []
    return {
        entry["optimizer"]: [w for w in entry["warnings"] if re.match(r"has ", w)]
        for entry in board["entries"]
    }


def noisy(content):
    for i, run in enumerate(runs(content)):
        run["probe_loss"] *= 1.01 + 0.01 * (i * 7 % 5)


def other_code(text):
    return text.replace("return optax", "checked = 5\n    return optax")


def test_copies_are_told_on_the_board(board_folder):
    calm = board_folder / "tiny" / "calm.json"
    assert told(board_folder) == {"calm": [], BASELINE: []}
    made_up(calm, "twin", noisy)
    code = "has the code of {}, under another name or in another layout."
    found = told(board_folder)
    assert (found["twin"], found["calm"]) == ([code.format("calm")], [code.format("twin")])
    made_up(calm, "twin", code=other_code)
    assert told(board_folder)["twin"] == ["has 30 losses in common with calm, to the last digit."]
    made_up(calm, "twin", times(0.93), other_code)
    assert told(board_folder)["twin"] == [
        "has the losses of calm times a factor, at every seed and horizon."
    ]
    made_up(calm, "twin", noisy, other_code)
    assert told(board_folder)["twin"] == []


def test_a_built_in_optimizer_is_not_told_of_its_copies(board_folder):
    made_up(board_folder / "tiny" / f"{BASELINE}.json", "best", times(0.5))
    found = told(board_folder)
    assert (len(found["best"]), found[BASELINE]) == (2, [])
