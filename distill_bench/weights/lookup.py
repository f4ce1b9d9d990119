"""Trained weights by name: the published ones, and your own.

Your own are .npz files in the weights folder ($DISTILL_BENCH_CACHE), such as fine-tuned teachers.
"""

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

if TYPE_CHECKING:  # imported in the functions that use it: looking up a name does not need jax
    from distill_bench.networks import bit

_NAME = r"[\w.+-]+"  # safe as a part of a task's name and of a path
# By the side of the root's kernel.
_ROOTS: dict[int, Literal["imagenet", "small"]] = {7: "imagenet", 3: "small"}


@dataclass(frozen=True)
class Pretrained:
    """Trained weights and the network that they belong to.

    Attributes:
      name: name of the weights, or path of a file outside the weights folder.
      network: the network, with the pool padding with which the weights were trained.
      sha256: digest of the file; "" if published, because the digest is recorded when the file is
        first fetched.
    """

    name: str
    network: bit.BiTConfig
    sha256: str


def path_of(name: str) -> Path:
    """The path of the file called `name`: in the weights folder, unless `name` is a path itself."""
    return Path(name) if "/" in name else published.folder() / f"{name}.npz"


def find(name: str) -> Pretrained:
    """The weights called `name` and their network; reads no parameters.

    For published weights, the catalogue says what the network is, whether the file exists or not.
    For others, the names and shapes of the file's arrays say it. No file says the number of groups:
    it is set to 32, as in all published networks. `find_grouped` sets another number.

    Raises:
      UserError: if no weights have this name, or if the file does not hold a BiT network.
    """
    if name in published.CATALOGUE:
        # Big Transfer trained its networks with zero padding, big_vision with minus infinity.
        padding = "zero" if name.startswith("BiT-") else "inf"
        return Pretrained(name, published.CATALOGUE[name].config(padding), "")
    path = path_of(name)
    if not path.is_file():
        known = [
            *published.CATALOGUE,
            *sorted(file.stem for file in published.folder().glob("*.npz")),
        ]
        raise UserError(
            f"There are no weights {name!r}: they are not published, and {path} does not exist."
            f"{suggestion(name, known)}\n"
            "Published weights: python -m distill_bench.weights\n"
            "Your own: put the .npz there, or fine-tune: python -m distill_bench.teacher --help"
        )
    if not re.fullmatch(_NAME, path.stem):
        raise UserError(
            f"{path.name!r} cannot be part of a task's name. "
            f"Rename {path}: only letters, digits and '-_.+' are allowed."
        )
    stat = path.stat()
    network, digest = _inspect(path, stat.st_mtime_ns, stat.st_size)
    return Pretrained(name, network, digest)


def find_grouped(name: str, groups: int) -> Pretrained:
    """Like `find`, but weights that are not published get `groups` groups.

    groups: number of groups of the task's networks.

    Raises:
      UserError: as `find` does, and if `groups` does not divide the network's width.
    """
    weights = find(name)
    if name in published.CATALOGUE:
        return weights
    if weights.network.width % groups:
        raise UserError(
            f"{name} is {weights.network.width} channels wide, which the task's {groups} groups "
            "do not divide: name other weights."
        )
    return dataclasses.replace(weights, network=dataclasses.replace(weights.network, groups=groups))


@functools.lru_cache(maxsize=16)
def _inspect(path: Path, changed: int, size: int) -> tuple[bit.BiTConfig, str]:
    """The file's network and sha256.

    The result is cached for as long as the file has this modification time and size.
    """
    from distill_bench.networks import bit

    try:
        with npz.open_npz(path) as file:
            weight_format, names = formats.detect(file.names)
            shapes = {key: file.shape(stored) for key, stored in names.items()}
            found = formats.network(weight_format, shapes)
        if found is None or found.root not in _ROOTS:
            raise formats.Unfit("does not hold a BiT network: its root or its head is different.")
    except formats.Unfit as error:
        raise UserError(f"{path} {error}") from None
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    padding = formats.POOL_PADDING[weight_format]
    return bit.BiTConfig(
        found.depths,
        found.width,
        found.classes,
        found.channels,
        root=_ROOTS[found.root],
        pool_padding=padding,
    ), digest


def load(weights: Pretrained) -> bit.Params:
    """The parameters, as float32 arrays on the host.

    Raises:
      UserError: if the file cannot be downloaded or read, or does not have the digest or the
        network that `weights` state.
    """
    from distill_bench.weights import files

    if weights.name in published.CATALOGUE:
        return published.load(weights.name).params
    path = path_of(weights.name)
    if (found := find(weights.name).sha256) != weights.sha256:
        raise UserError(
            f"{path} is not the file that the task names: sha256 {found[:16]}…, "
            f"expected {weights.sha256[:16]}….\n"
            "Other weights make another task: put the file back, or start the command again with "
            "another --outdir."
        )
    return files.read(path, weights.network)[0]


def _find_by_name(name: str, groups: int) -> Pretrained:
    """Like `find_grouped`, but refuses paths, which cannot be part of a task's name."""
    if not re.fullmatch(_NAME, name):
        raise UserError(
            f"{name!r} is not a name of weights: put the file into {published.folder()} and give "
            "its name without folder and .npz."
        )
    return find_grouped(name, groups)


def as_teacher(name: str, teacher: bit.BiTConfig) -> dict[str, Any]:
    """The fields of a task that make these weights its only teacher.

    teacher: network of the teacher that they replace.

    Raises:
      UserError: as `find` does, and if the number of classes or channels is different.
    """
    network = (weights := _find_by_name(name, teacher.groups)).network
    if network.channels != teacher.channels:
        raise UserError(
            f"--teacher={name} takes images of {network.channels} channels; the task's images have "
            f"{teacher.channels}: name other weights."
        )
    if network.classes != teacher.classes:
        raise UserError(
            f"--teacher={name} has {network.classes} classes; the task has {teacher.classes}.\n"
            "Fine-tune it to the task, and name the result: "
            f"python -m distill_bench.teacher --task=TASK --from={name}"
        )
    return {
        "teacher": network,
        "teacher_file": name,
        "teacher_sha256": weights.sha256,
        "teacher_size": None,
        "more_teachers": (),
    }


def as_start(name: str, student: Any) -> dict[str, Any]:
    """The fields of a task whose students start from these weights.

    student: the network of the students. It keeps its pool padding, as in the paper's code
      (big_vision), which pads with minus infinity also when it starts from Big Transfer's weights.

    Raises:
      UserError: as `find` does, and if the weights belong to another network.
    """
    from distill_bench.networks import bit

    weights = _find_by_name(name, student.groups)
    fits = isinstance(student, bit.BiTConfig) and student == dataclasses.replace(
        weights.network, classes=student.classes, pool_padding=student.pool_padding
    )
    if not fits:
        raise UserError(
            f"--start={name} is a {_describe(weights.network)}; "
            f"the student is a {_describe(student)}: name weights of the student's network."
        )
    return {"start": name, "start_sha256": weights.sha256}


def _describe(network: Any) -> str:
    from distill_bench.networks import bit

    if not isinstance(network, bit.BiTConfig):
        return type(network).__name__.removesuffix("Config")
    return (
        f"BiT of depths {network.depths}, width {network.width}, {network.channels} channels, "
        f"{network.groups} groups, {network.root} root"
    )
