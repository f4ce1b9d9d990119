"""Trained weights by name: the published ones, and any .npz in the weights folder ($DISTILL_BENCH_CACHE), such as a fine-tuned teacher."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill_bench.errors import UserError, suggestion
from distill_bench.weights import formats, npz, published

if TYPE_CHECKING:  # imported where it is used: names and files can be told without jax
    from distill_bench.networks import bit

_NAME = r"[\w.+-]+"  # a part of a task's name, and of a path
_ROOTS: dict[int, Literal["imagenet", "small"]] = {
    7: "imagenet",
    3: "small",
}  # by the size of the root's kernel


@dataclass(frozen=True)
class Pretrained:
    """What weights are of.

    Attributes:
      name: under which they are found; or the path of a file that lies elsewhere.
      network: the network, with the pool padding that goes with the weights.
      sha256: digest of the file; empty for a published one, whose digest is recorded when it is first fetched.
    """

    name: str
    network: bit.BiTConfig
    sha256: str


def place(name: str) -> Path:
    """The file called `name`, in the weights folder unless it is a path."""
    return Path(name) if "/" in name else published.folder() / f"{name}.npz"


def find(name: str) -> Pretrained:
    """What the weights called `name` are of, by the catalogue, or by the names and shapes of the file's arrays; no parameter is read.

    A published file is taken for what the catalogue says, whether it is there or not. No file tells the groups of its network: 32, as all published
    ones have; a task whose networks have another number takes that.

    Raises:
      UserError: where there is none of this name, or the file holds no BiT network.
    """
    if name in published.CATALOGUE:
        entry = published.CATALOGUE[name]
        # Big Transfer trained its networks with zeros beyond the border, big_vision the distilled ones with minus infinity.
        return Pretrained(
            name, entry.config("zero" if entry.name.startswith("BiT-") else "inf"), ""
        )
    path = place(name)
    if not path.is_file():
        known = [
            *published.CATALOGUE,
            *sorted(file.stem for file in published.folder().glob("*.npz")),
        ]
        raise UserError(
            f"There are no weights {name!r}: they are not published, and {path} is not there.{suggestion(name, known)}\n"
            "Published: python -m distill_bench.weights. Your own: put the .npz there, or fine-tune: python -m distill_bench.teacher --help"
        )
    if not re.fullmatch(_NAME, path.stem):
        raise UserError(
            f"{path} cannot be named in a task: rename it to letters, digits and any of '-_.+'."
        )
    stat = path.stat()
    network, digest = _inspect(path, stat.st_mtime_ns, stat.st_size)
    return Pretrained(name, network, digest)


def find_grouped(name: str, groups: int) -> Pretrained:
    """What `find` gives, with the groups of the task's network where the weights are not published.

    Raises:
      UserError: as `find`, and where so many groups do not divide the channels.
    """
    weights = find(name)
    if name in published.CATALOGUE:
        return weights
    if weights.network.width % groups:
        raise UserError(
            f"{name} is {weights.network.width} channels wide, which {groups} groups, the task's, do not divide: name other weights."
        )
    return dataclasses.replace(weights, network=dataclasses.replace(weights.network, groups=groups))


@functools.lru_cache(maxsize=16)
def _inspect(path: Path, changed: int, size: int) -> tuple[bit.BiTConfig, str]:
    """The file's network and its sha256; kept while the file is `size` bytes of the time `changed`."""
    from distill_bench.networks import bit

    try:
        with npz.open_npz(path) as file:
            layout, names = formats.detect(file.names)
            shapes = {key: file.shape(stored) for key, stored in names.items()}
            found = formats.network(layout, shapes)
        if found is None or found.root not in _ROOTS:
            raise formats.Unfit("holds no BiT network: its root or its head is another.")
    except formats.Unfit as error:
        raise UserError(f"{path} {error}") from None
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    padding = formats.POOL_PADDING[layout]
    return bit.BiTConfig(
        found.depths,
        found.width,
        found.classes,
        found.channels,
        root=_ROOTS[found.root],
        pool_padding=padding,
    ), digest


def load(weights: Pretrained) -> bit.Params:
    """Their parameters, float32 on the host.

    Raises:
      UserError: where the file cannot be had, is not what it was found to be, or was changed since.
    """
    from distill_bench.weights import files

    if weights.name in published.CATALOGUE:
        return published.load(weights.name).params
    path = place(weights.name)
    if (found := find(weights.name).sha256) != weights.sha256:
        raise UserError(
            f"{path} is not the file that the task names: sha256 {found[:16]}…, expected {weights.sha256[:16]}….\n"
            "Other weights are another task: put the file back, or start the command again, under another --outdir."
        )
    return files.read(path, weights.network)[0]


def _named(name: str, groups: int) -> Pretrained:
    """What `find_grouped` gives, of a name that may stand in a task's."""
    if not re.fullmatch(_NAME, name):
        raise UserError(
            f"{name!r} is no name of weights: put the file into {published.folder()} and name it without folder and .npz."
        )
    return find_grouped(name, groups)


def as_teacher(name: str, teacher: bit.BiTConfig) -> dict[str, Any]:
    """The fields of a task whose only teacher these weights are, in place of one with the network `teacher`.

    Raises:
      UserError: as `find`, and where they are of another number of classes or channels.
    """
    network = (weights := _named(name, teacher.groups)).network
    if network.channels != teacher.channels:
        raise UserError(
            f"--teacher={name} sees {network.channels} channels; the task's images have {teacher.channels}: name other weights."
        )
    if network.classes != teacher.classes:
        raise UserError(
            f"--teacher={name} has {network.classes} classes; the task has {teacher.classes}.\n"
            f"Fine-tune it to the task, and name the result: python -m distill_bench.teacher --task=TASK --from={name}"
        )
    return {
        "teacher": network,
        "teacher_file": name,
        "teacher_sha256": weights.sha256,
        "teacher_size": None,
        "more_teachers": (),
    }


def as_start(name: str, student: Any) -> dict[str, Any]:
    """The fields of a task whose students, of the network `student`, start from these weights: the student's pool is padded as theirs.

    Raises:
      UserError: as `find`, and where they are of another network.
    """
    from distill_bench.networks import bit

    weights = _named(name, student.groups)
    fits = isinstance(student, bit.BiTConfig)
    expected = (
        dataclasses.replace(
            student, classes=weights.network.classes, pool_padding=weights.network.pool_padding
        )
        if fits
        else None
    )
    if weights.network != expected:
        raise UserError(
            f"--start={name} is a {_describe(weights.network)}; the student is a {_describe(student)}: name weights of the student's network."
        )
    return {
        "start": name,
        "start_sha256": weights.sha256,
        "student": dataclasses.replace(student, pool_padding=weights.network.pool_padding),
    }


def _describe(network: Any) -> str:
    from distill_bench.networks import bit

    if not isinstance(network, bit.BiTConfig):
        return type(network).__name__.removesuffix("Config")
    return f"BiT of depths {network.depths}, width {network.width}, {network.channels} channels, {network.groups} groups, {network.root} root"
