"""The published BiT weights: a catalogue of files, each fetched once and verified at every use.

    python -m distill_bench.weights                             # catalogue and content of the cache
    python -m distill_bench.weights --name=R152x2_T_flowers128  # fetch and describe a file

The cache is --cache, else $DISTILL_BENCH_CACHE, else ~/.cache/distill-bench/weights. A file that
you put there yourself is used without a network. Each file's sha256 is recorded next to it at its
first use; a file that changed later is refused.

Sources: README of Big Transfer; README and `common.py` of big_vision's `configs/proj/distill`.
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

from distill_bench.data.download import PAUSES, Progress
from distill_bench.errors import UserError, suggestion
from distill_bench.log import LOG
from distill_bench.machine import WEIGHTS_VARIABLE
from distill_bench.weights.cache import obtain
from distill_bench.weights.formats import POOL_PADDING, WeightFormat

if TYPE_CHECKING:
    from distill_bench.networks import bit

BASE_URL = "https://storage.googleapis.com/bit_models"
DEFAULT_CACHE = "~/.cache/distill-bench/weights"

_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@dataclass(frozen=True)
class Published:
    """One published file.

    Attributes:
      name: key in the catalogue; with `.npz`, the file's name in the cache.
      path: path of the file below `BASE_URL` on the server.
      depth: number of layers: 50, 101 or 152.
      factor: width of the network, as a multiple of an ordinary ResNet's.
      classes: number of logits.
      resolution: side in pixels of the images on which the network was last trained.
    """

    name: str
    path: str
    depth: int
    factor: int
    classes: int
    resolution: int

    def config(self, pool_padding: Literal["zero", "inf"]) -> bit.BiTConfig:
        """The network. `formats.POOL_PADDING` gives the padding that belongs to a file's format."""
        from distill_bench.networks import bit  # imported here: the catalogue does not need jax

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
        # M fine-tuned to ILSVRC-2012; the resolution of 480 follows from BiT-HyperRule.
        *(_transfer("M", *network, "-ILSVRC2012", 1000, 480) for network in _NETWORKS),
    )
}


def get(name: str) -> Published:
    """The published file called `name`.

    Raises:
      UserError: if the catalogue has no such file; suggests the nearest name.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    raise UserError(
        f"There are no published weights {name!r}.{suggestion(name, CATALOGUE)}\n"
        "The catalogue: python -m distill_bench.weights"
    )


def folder(cache: str | Path | None = None) -> Path:
    """The weights folder: `cache`, else $DISTILL_BENCH_CACHE, else `DEFAULT_CACHE`."""
    return Path(cache or os.environ.get(WEIGHTS_VARIABLE) or DEFAULT_CACHE).expanduser().absolute()


def path_of(name: str, cache: str | Path | None = None) -> Path:
    """The path of the file called `name` in the cache, whether it exists or not."""
    return folder(cache) / f"{get(name).name}.npz"


def fetch_command(name: str, cache: str | Path | None = None) -> str:
    """The command line that fetches the file called `name` into this cache.

    It works in any shell, even if $DISTILL_BENCH_CACHE is not set there.
    """
    command = f"python -m distill_bench.weights --name={name}"
    if cache or folder() != Path(DEFAULT_CACHE).expanduser().absolute():
        command += f" --cache={shlex.quote(str(folder(cache)))}"
    return command


def fetch(
    name: str,
    cache: str | Path | None = None,
    base_url: str = BASE_URL,
    progress: Progress | None = None,
    pauses: Sequence[float] = PAUSES,
) -> Path:
    """The path of the file called `name`, which is downloaded into the cache if necessary.

    Args:
      cache: see `folder`.
      base_url: URL of the server, or of a mirror with the same paths.
      progress, pauses: see `download`.

    Raises:
      UserError: if the name is unknown, or if the file cannot be downloaded or written, is not a
        whole .npz, or has changed since its first use.
    """
    return _fetch(name, cache, base_url, progress, pauses)[0]


def _fetch(
    name: str,
    cache: str | Path | None,
    base_url: str,
    progress: Progress | None,
    pauses: Sequence[float],
) -> tuple[Path, str]:
    path, url = path_of(name, cache), f"{base_url.rstrip('/')}/{get(name).path}"
    return path, obtain(path, url, fetch_command(name, cache), progress, pauses)


@dataclass(frozen=True)
class Weights:
    """A published network on the host.

    Attributes:
      path: path of its file.
      sha256: digest of the file.
      weight_format: format of the file.
      config: the network, with the padding that belongs to the format.
      params: parameters, float32.
    """

    path: Path
    sha256: str
    weight_format: WeightFormat
    config: bit.BiTConfig
    params: bit.Params


def load(
    name: str,
    cache: str | Path | None = None,
    base_url: str = BASE_URL,
    progress: Progress | None = None,
) -> Weights:
    """The network called `name`. Arguments are those of `fetch`.

    Raises:
      UserError: as `fetch` does, and if the file does not hold the catalogue's network.
    """
    from distill_bench.weights import files

    path, digest = _fetch(name, cache, base_url, progress or _LoggedProgress(name), PAUSES)
    try:
        params, weight_format = files.read(path, get(name).config("zero"))
    except UserError as error:
        raise UserError(
            f"{error}\nPut the published file there, or remove {path.name} and {path.name}.sha256 "
            f"and run: {fetch_command(name, cache)}"
        ) from None
    return Weights(
        path, digest, weight_format, get(name).config(POOL_PADDING[weight_format]), params
    )


LOG_INTERVAL = 10.0  # seconds


@dataclass
class _LoggedProgress:
    """Logs the progress of a download: at its start, every ten seconds, and at its end."""

    name: str
    last: float = -math.inf

    def __call__(self, received: int, total: int | None) -> None:
        if received == total or time.monotonic() - self.last >= LOG_INTERVAL:
            self.last = time.monotonic()
            LOG.info(f"{self.name}: {mebibytes(received, total)}")


def mebibytes(received: int, total: int | None) -> str:
    return f"{received / 2**20:,.0f}{f' of {total / 2**20:,.0f}' if total else ''} MiB"
