"""Writes a trained student as an .npz with a card beside it. Another run's file is never replaced.

The .npz comes first. If the process is killed before the card is written, the same run finishes
the pair later, because the same run writes the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path

from distill_bench.errors import UserError
from distill_bench.export import card as cards
from distill_bench.export.card import BadCard, Card
from distill_bench.files import replace_atomically
from distill_bench.networks import bit
from distill_bench.weights import files

_LONGEST = 80  # characters of a task's or an optimizer's name in a file's name


def path_for(folder: Path, task: str, optimizer: str, horizon: int, seed: int, trial: str) -> Path:
    """Where a run's student goes, such as digits-adamw-h250-seed1-3f2a1b.npz.

    `--start` and `--teacher` accept the name. It ends in the first digits of the trial's id, which
    differ for other hyperparameters, sources and versions.
    """
    name = f"{task[:_LONGEST]}-{optimizer[:_LONGEST]}-h{horizon}-seed{seed}-{trial[:6]}"
    return folder / f"{re.sub(r'[^A-Za-z0-9_.+-]', '-', name)}.npz"


def is_complete(path: Path, trial: str) -> bool:
    """Whether the student of this trial lies at `path`, with its card.

    Raises:
      UserError: if something else lies there.
    """
    card_path = cards.path_of(path)
    if not card_path.exists():
        return False
    try:
        card = cards.read(card_path)
    except BadCard as error:
        raise UserError(f"{card_path} {error}.\n{_remedy(path)}") from None
    if card.trial != trial:
        raise UserError(f"{path} belongs to another run, {card.trial}.\n{_remedy(path)}")
    if not path.exists():
        return False
    if (found := digest(path)) != card.sha256:
        raise UserError(
            f"{path} has changed: sha256 {found[:16]}…; its card says {card.sha256[:16]}….\n"
            f"{_remedy(path)}"
        )
    return True


def write(path: Path, params: bit.Params, card: Card) -> bool:
    """Writes the student and its card, whose digest is filled in.

    Returns False, and changes nothing, if another machine has exported the same trial there with
    other last digits.

    Raises:
      UserError: if something else lies there.
    """
    content = files.dumps_as(card.network, params)
    card = dataclasses.replace(card, sha256=hashlib.sha256(content).hexdigest())
    if is_complete(path, card.trial):
        return digest(path) == card.sha256
    if path.exists() and digest(path) != card.sha256:
        raise UserError(f"{path} holds other parameters and has no card.\n{_remedy(path)}")
    replace_atomically(path, lambda file: file.write(content))
    replace_atomically(cards.path_of(path), lambda file: file.write(card.to_json().encode()))
    return True


def digest(path: Path) -> str:
    """The file's sha256.

    Raises:
      UserError: if it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


def _remedy(path: Path) -> str:
    return (
        f"It is not replaced: move {path.name} and {cards.path_of(path).name} away, or name "
        "another folder. The same command then continues."
    )
