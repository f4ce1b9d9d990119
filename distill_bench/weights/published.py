"""The published BiT weights: what there is, fetched once and checked at every use.

    python -m distill_bench.weights                             # the catalogue, and what is in the cache
    python -m distill_bench.weights --name=R152x2_T_flowers128  # fetches or finds a file and reads it

Files lie in --cache, else $DISTILL_BENCH_CACHE, else ~/.cache/distill-bench/weights. One that is put there by hand is used
as it is, without a network. The sha256 of a file's first use is kept beside it; a file that changed later is refused.

Sources: the READMEs of Big Transfer and of big_vision's `configs/proj/distill`, and `common.py` there.
"""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distill_bench import machine
from distill_bench.errors import UserError, suggestion
from distill_bench.log import LOG
from distill_bench.weights.cache import obtain
from distill_bench.weights.download import PAUSES, Progress
from distill_bench.weights.formats import POOL_PADDING, WeightFormat

if TYPE_CHECKING:
    from distill_bench.networks import bit

BASE_URL = "https://storage.googleapis.com/bit_models"
CACHE_VARIABLE = machine.WEIGHTS
DEFAULT_CACHE = "~/.cache/distill-bench/weights"

_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@dataclass(frozen=True)
class Published:
    """One published file.

    Attributes:
      name: the key in the catalogue and, with `.npz`, the file's name in the cache.
      path: where it is below the server's `BASE_URL`.
      depth: layers: 50, 101 or 152.
      factor: the width over that of an ordinary ResNet.
      classes: of the head.
      resolution: pixels along each side of the images that it was last trained on.
    """

    name: str
    path: str
    depth: int
    factor: int
    classes: int
    resolution: int

    def config(self, pool_padding: Literal["zero", "inf"]) -> bit.BiTConfig:
        """The network; `layouts.POOL_PADDING` says which padding goes with the layout that the file turns out to have."""
        from distill_bench.networks import bit  # here: the catalogue can be read without jax

        return bit.BiTConfig(
            _DEPTHS[self.depth], 64 * self.factor, self.classes, pool_padding=pool_padding
        )


def _distilled(name: str, depth: int, factor: int, classes: int, resolution: int) -> Published:
    return Published(name, f"distill/{name}.npz", depth, factor, classes, resolution)


def _transfer(
    size: str, depth: int, factor: int, suffix: str, classes: int, resolution: int
) -> Published:
    name = f"BiT-{size}-R{depth}x{factor}{suffix}"
    return Published(name, f"{name}.npz", depth, factor, classes, resolution)


_NETWORKS = ((50, 1), (50, 3), (101, 1), (101, 3), (152, 2), (152, 4))

CATALOGUE = {
    published.name: published
    for published in (
        _distilled("R50x1_160", 50, 1, 1000, 160),  # students of ImageNet
        _distilled("R50x1_224", 50, 1, 1000, 224),
        _distilled("R152x2_T_224", 152, 2, 1000, 224),  # their teachers
        _distilled("R152x2_T_384", 152, 2, 1000, 384),
        _distilled("R152x2_T_flowers128", 152, 2, 102, 128),
        _distilled("R152x2_T_pet128", 152, 2, 37, 128),
        _distilled("R152x2_T_food128", 152, 2, 101, 128),
        _distilled("R152x2_T_sun128", 152, 2, 397, 128),
        *(_transfer("S", *network, "", 1000, 224) for network in _NETWORKS),  # ILSVRC-2012
        *(_transfer("M", *network, "", 21_843, 224) for network in _NETWORKS),  # ImageNet-21k
        *(
            _transfer("M", *network, "-ILSVRC2012", 1000, 480) for network in _NETWORKS
        ),  # from M; 480 by BiT-HyperRule
    )
}


def get(name: str) -> Published:
    """The file called `name`.

    Raises:
      UserError: where there is none, with the nearest name.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    raise UserError(
        f"There are no published weights {name!r}.{suggestion(name, CATALOGUE)}\nThe catalogue: python -m distill_bench.weights"
    )


def folder(cache: str | Path | None = None) -> Path:
    """The cache: the folder given, else $DISTILL_BENCH_CACHE, else ~/.cache/distill-bench/weights."""
    return Path(cache or os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE).expanduser().absolute()


def place(name: str, cache: str | Path | None = None) -> Path:
    """Where the file called `name` is in the cache, or would be."""
    return folder(cache) / f"{get(name).name}.npz"


def command(name: str, cache: str | Path | None = None) -> str:
    """What a user types, in any shell, to have the file called `name` in this cache."""
    there = folder(cache)
    elsewhere = (
        cache or there != Path(DEFAULT_CACHE).expanduser().absolute()
    )  # which another shell's variable may not say
    return f"python -m distill_bench.weights --name={name}{f' --cache={shlex.quote(str(there))}' if elsewhere else ''}"


def fetch(
    name: str,
    cache: str | Path | None = None,
    base_url: str = BASE_URL,
    progress: Progress | None = None,
    pauses: Sequence[float] = PAUSES,
) -> Path:
    """The file called `name`: found in the cache, else downloaded into it.

    Args:
      cache: see `folder`.
      base_url: the server, or a mirror with the same paths.
      progress, pauses: see `download`.

    Raises:
      UserError: where the name is unknown, the file cannot be had or written, is no .npz, or was changed since its first use.
    """
    return _fetch(name, cache, base_url, progress, pauses)[0]


def _fetch(
    name: str,
    cache: str | Path | None,
    base_url: str,
    progress: Progress | None,
    pauses: Sequence[float],
) -> tuple[Path, str]:
    path = place(name, cache)
    return path, obtain(
        path, f"{base_url.rstrip('/')}/{get(name).path}", command(name, cache), progress, pauses
    )


@dataclass(frozen=True)
class Weights:
    """A published network on the host.

    Attributes:
      path: its file.
      sha256: the file's digest.
      layout: how the file names its arrays.
      config: the network, with the padding that goes with the layout.
      params: its parameters, float32.
    """

    path: Path
    sha256: str
    layout: WeightFormat
    config: bit.BiTConfig
    params: bit.Params


def load(
    name: str,
    cache: str | Path | None = None,
    base_url: str = BASE_URL,
    progress: Progress | None = None,
) -> Weights:
    """The network called `name`; arguments as of `fetch`.

    Raises:
      UserError: as `fetch` does, and where the file does not hold the catalogue's network.
    """
    from distill_bench.weights import files

    path, digest = _fetch(name, cache, base_url, progress or _Told(name), PAUSES)
    params, layout = files.read(path, get(name).config("zero"))
    return Weights(path, digest, layout, get(name).config(POOL_PADDING[layout]), params)


TOLD_SECONDS = 10.0


@dataclass
class _Told:
    """Tells how far a download is: at its begin, every ten seconds, and at its end."""

    name: str
    last: float = -math.inf

    def __call__(self, there: int, total: int | None) -> None:
        if there == total or time.monotonic() - self.last >= TOLD_SECONDS:
            self.last = time.monotonic()
            LOG.info(f"{self.name}: {mebibytes(there, total)}")


def mebibytes(there: int, total: int | None) -> str:
    return f"{there / 2**20:,.0f}{f' of {total / 2**20:,.0f}' if total else ''} MiB"
