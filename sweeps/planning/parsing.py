"""Parses the text of the flags --horizons, --shard, --lr and --set.

Every function raises UserError if the text is wrong; the message shows what to write instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from distill_bench.errors import UserError
from distill_bench.tasks.task import Task
from optimizers.contract.domains import Decay, Domain, Log, Uniform, Value


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


class Setting(NamedTuple):
    """What was typed for one hyperparameter.

    Attributes:
      flag: the flag up to its values: "--lr=" or "--set b2=".
      texts: the values.
    """

    flag: str
    texts: tuple[str, ...]

    def typed(self, text: str) -> str:
        """The flag with this value."""
        return f"{self.flag}{text}"


def parse_settings(learning_rates: Sequence[str], settings: Sequence[str]) -> dict[str, Setting]:
    """What was typed for each hyperparameter. --lr=1e-2,2e-2 means --set lr=1e-2,2e-2."""
    found = {"lr": Setting("--lr=", tuple(learning_rates))} if learning_rates else {}
    for setting in settings:
        name, equals, values = setting.partition("=")
        if not (name and equals and values):
            raise UserError(
                f"--set {setting!r} is not understood: write --set name=value, "
                "--set name=value,value or --set name=low:high"
            )
        if name in found:
            raise UserError(
                f"Hyperparameter {name!r} is set twice: list its values once, "
                f"--set {name}=value,value"
            )
        found[name] = Setting(f"--set {name}=", tuple(values.split(",")))
    return found


def parse_range(setting: Setting, declared: Domain | None, default: Any) -> Domain | None:
    """The domain to search if "low:high" was typed; None if values were.

    It has the scale of the declared domain: logarithmic, if that is not a range.
    """
    if isinstance(default, str) or not any(":" in text for text in setting.texts):
        return None
    typed = setting.typed(",".join(setting.texts))
    text, *more = setting.texts
    if more:
        raise UserError(f"{typed}: give one range, such as low:high, or values.")
    if isinstance(default, int):  # also True and False
        raise UserError(f"{typed}: a range is for numbers with a fraction. List the values to try.")
    low, _, high = text.partition(":")
    kind = type(declared) if isinstance(declared, Log | Decay | Uniform) else Log
    try:
        return kind(float(low), float(high))
    except ValueError as error:
        raise UserError(
            f"{typed} is not a range: {error} Write it as {setting.typed('1e-3:1e-1')}, with "
            "numbers that suit it."
        ) from None


def cast(setting: Setting, text: str, default: Any) -> Any:
    """The text as a value of the default's type. If the default is None: an int if the text is
    one, else a float if it is one, else the text itself."""
    if not isinstance(default, Value | None):
        raise UserError(
            f"{setting.typed(text)} cannot be set, because the default is a "
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
        raise UserError(
            f"{setting.typed(text)}: {text!r} is not {kinds.get(type(default), 'a value')}, such "
            f"as {default}."
        ) from None


def _parses_as(kind: type, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
