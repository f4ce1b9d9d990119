"""Parses the text of the flags --horizons, --shard, --lr and --set.

Every function raises UserError if the text is wrong; the message shows what to write instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from distill_bench.errors import UserError
from distill_bench.tasks.task import Task
from optimizers.contract.domains import Value


def parse_shard(text: str) -> tuple[int, int]:
    """(i, n) from "i/n", with 0 <= i < n."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(
            f"--shard={text} is not a slice: write --shard=i/n with i from 0 to n - 1, "
            "such as --shard=0/4."
        )
    return int(index), int(count)


def parse_horizons(horizons: Sequence[str], task: Task) -> tuple[int, ...]:
    """Steps of each rung. Nothing means the first two rungs of the task, "ladder" all of them."""
    if not horizons:
        return task.horizons[:2]
    if list(horizons) == ["ladder"]:
        return task.horizons
    text = ",".join(horizons)
    try:
        rungs = tuple(int(horizon) for horizon in horizons)
    except ValueError:
        raise UserError(
            f"--horizons={text} must be whole numbers of steps: write --horizons=250,500 or "
            "--horizons=ladder."
        ) from None
    if any(rung < 1 for rung in rungs) or any(a >= b for a, b in itertools.pairwise(rungs)):
        corrected = ",".join(str(rung) for rung in sorted({rung for rung in rungs if rung > 0}))
        raise UserError(
            f"--horizons={text} must be positive and increase, without repeats: write "
            f"--horizons={corrected or '250,500'}"
        )
    return rungs


def parse_settings(learning_rates: Sequence[str], settings: Sequence[str]) -> dict[str, list[str]]:
    """The values listed for each hyperparameter, as text. --lr=1e-2,2e-2 means
    --set lr=1e-2,2e-2."""
    values_by_name: dict[str, list[str]] = {"lr": list(learning_rates)} if learning_rates else {}
    for setting in settings:
        name, equals, values = setting.partition("=")
        if not (name and equals and values):
            raise UserError(
                f"--set {setting!r} is not understood: write --set name=value or "
                "--set name=value,value"
            )
        if name in values_by_name:
            raise UserError(
                f"Hyperparameter {name!r} is set twice: list its values once, "
                f"--set {name}=value,value"
            )
        values_by_name[name] = values.split(",")
    return values_by_name


def cast(name: str, text: str, default: Any) -> Any:
    """The text as a value of the default's type. If the default is None: an int if the text is
    one, else a float if it is one, else the text itself."""
    if not isinstance(default, Value | None):
        raise UserError(
            f"--set {name}={text}: {name!r} cannot be set, because its default is a "
            f"{type(default).__name__}. Only numbers, text, true and false can be typed."
        )
    try:
        if default is None:
            return next((kind(text) for kind in (int, float) if _parses_as(kind, text)), text)
        if isinstance(default, bool):
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        value = type(default)(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        return value
    except (ValueError, KeyError):
        kinds = {bool: "true or false", int: "a whole number", float: "a finite number"}
        flag = f"--lr={text}" if name == "lr" else f"--set {name}={text}"
        raise UserError(
            f"{flag}: {text!r} is not a value of {name!r}, which takes "
            f"{kinds.get(type(default), 'a value')} such as {default}."
        ) from None


def _parses_as(kind: type, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
