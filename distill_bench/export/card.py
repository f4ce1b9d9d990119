"""The card beside an exported student: which run it comes from, and what was measured.

A card may come from anywhere. It is parsed as JSON and every value is checked; nothing in it is
executed, and nothing is used as a path.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from distill_bench.networks.bit import BiTConfig
from distill_bench.training.lane_layout import LaneMapping, LayoutOptions

VERSION = 1
_LONGEST = 2**20  # bytes of a card
_FINGERPRINT, _TRIAL, _SHA256 = "[0-9a-f]{16}", "[0-9a-f]{12}", "[0-9a-f]{64}"
_MOST = 2**31 - 1  # of a whole number
_LAYOUT = ("batch_shards", "mapping", "lanes_per_device")  # what decides a lane's last digits


class BadCard(Exception):
    """A card is missing or cannot be read; the message continues a sentence after its path."""


@dataclass(frozen=True)
class Card:
    """What an .npz cannot say about the student in it.

    Attributes:
      task, fingerprint: the task that the student was trained on.
      optimizer, source_sha256: the optimizer's name and the digest of its source.
      hparams: its hyperparameters.
      horizon: gradient evaluations of the run.
      seed: of the run.
      trial: id of the run.
      network: the student's network.
      metrics: what was measured of exactly these parameters at the end of the run, by the names in
        `evaluate.METRICS`.
      layout: one row of the devices that measured it, see `LaneLayout.one_row`. Another layout may
        give other last digits.
      environment: versions and machine.
      sha256: digest of the .npz.
    """

    task: str
    fingerprint: str
    optimizer: str
    source_sha256: str
    hparams: Mapping[str, Any]
    horizon: int
    seed: int
    trial: str
    network: BiTConfig
    metrics: Mapping[str, float]
    layout: LayoutOptions
    environment: Mapping[str, Any]
    sha256: str

    def to_json(self) -> str:
        layout = {key: getattr(self.layout, key) for key in _LAYOUT}
        return json.dumps({"version": VERSION, **asdict(self), "layout": layout}, indent=1) + "\n"


def path_of(weights: Path) -> Path:
    """The card of the .npz at `weights`."""
    return weights.with_suffix(".json")


def read(path: Path) -> Card:
    """The card at `path`.

    Raises:
      BadCard: if it is missing, or is not a card.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise BadCard(f"cannot be read: {error.strerror}") from None
    if len(content) > _LONGEST:
        raise BadCard("is too long for a card")
    return parse(content)


def parse(content: bytes) -> Card:
    """Inverse of `Card.to_json`.

    Raises:
      BadCard: if a value is missing or has another type or form than a card's.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadCard(f"is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise BadCard("is not a card")
    values = _Values(found)
    values.whole("version", VERSION, VERSION)
    return Card(
        task=values.text("task"),
        fingerprint=values.text("fingerprint", _FINGERPRINT),
        optimizer=values.text("optimizer"),
        source_sha256=values.text("source_sha256", _SHA256),
        hparams=values.plain("hparams"),
        horizon=values.whole("horizon", 1),
        seed=values.whole("seed", 0),
        trial=values.text("trial", _TRIAL),
        network=_network(values.inner("network")),
        metrics=values.numbers("metrics"),
        layout=_layout(values.inner("layout")),
        environment=values.plain("environment"),
        sha256=values.text("sha256", _SHA256),
    )


@dataclass(frozen=True)
class _Values:
    """Checked access to an object of a card; `where` is the start of its keys in messages."""

    content: dict[str, Any]
    where: str = ""

    def _get(self, key: str) -> Any:
        if key not in self.content:
            raise BadCard(f"lacks {self.where}{key}")
        return self.content[key]

    def _refuse(self, key: str) -> BadCard:
        value = repr(self.content[key])[:80]
        return BadCard(f"has a value that no card has: {self.where}{key} = {value}")

    def text(self, key: str, pattern: str = ".{1,400}") -> str:
        value = self._get(key)
        # Printable, because it is shown on a terminal.
        if (
            not isinstance(value, str)
            or not re.fullmatch(pattern, value)
            or not value.isprintable()
        ):
            raise self._refuse(key)
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> Any:
        return self.text(key, "|".join(map(re.escape, choices)))

    def whole(self, key: str, low: int, high: int = _MOST) -> int:
        value = self._get(key)
        if type(value) is not int or not low <= value <= high:
            raise self._refuse(key)
        return value

    def inner(self, key: str) -> _Values:
        value = self._get(key)
        if not isinstance(value, dict):
            raise self._refuse(key)
        return _Values(value, f"{self.where}{key}.")

    def numbers(self, key: str) -> dict[str, float]:
        values = self.inner(key).content
        for name, value in values.items():
            if not name.isidentifier() or type(value) is not float or not math.isfinite(value):
                raise self._refuse(key)
        return values

    def plain(self, key: str) -> dict[str, Any]:
        """Texts, numbers and truth values by name."""
        values = self.inner(key).content
        for name, value in values.items():
            plain = value is None or type(value) in (str, int, float, bool)
            if not plain or not f"{name}{value}".isprintable():
                raise self._refuse(key)
        return values


def _network(values: _Values) -> BiTConfig:
    depths = values.content.get("depths")
    if not isinstance(depths, list) or not all(type(n) is int and 0 < n < 1000 for n in depths):
        raise BadCard("has a network whose depths are not whole numbers")
    root, padding = (get_args(get_type_hints(BiTConfig)[key]) for key in ("root", "pool_padding"))
    return BiTConfig(
        depths=tuple(depths),
        **{key: values.whole(key, 1) for key in ("width", "classes", "channels", "groups")},
        root=values.choice("root", root),
        pool_padding=values.choice("pool_padding", padding),
    )


def _layout(values: _Values) -> LayoutOptions:
    shards = values.whole("batch_shards", 1, 4096)
    mapping = values.choice("mapping", get_args(LaneMapping))
    width = values.whole("lanes_per_device", 1, 1 if mapping == "dispatch" else 4096)
    return LayoutOptions(shards, shards, mapping, width)
