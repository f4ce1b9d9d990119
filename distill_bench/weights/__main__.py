"""The command `python -m distill_bench.weights`: lists the published weights, fetches and describes one.

python -m distill_bench.weights                             # the catalogue, and what is in the cache
python -m distill_bench.weights --name=R152x2_T_flowers128  # fetches or finds a file and reads it
"""

from __future__ import annotations

import sys

from absl import flags

from distill_bench.errors import UserError
from distill_bench.log import listen, to_stderr
from distill_bench.machine import WEIGHTS_VARIABLE
from distill_bench.weights.published import (
    BASE_URL,
    CATALOGUE,
    DEFAULT_CACHE,
    Weights,
    folder,
    load,
    mebibytes,
    path_of,
)


def _catalogue(cache: str | None) -> str:
    lines = [f"{'name':27} {'network':>8} {'classes':>8} {'pixels':>7}  cached"]
    for name, published in CATALOGUE.items():
        path = path_of(name, cache)
        cached = f"{path.stat().st_size / 2**20:,.1f} MiB" if path.exists() else "-"
        lines.append(
            f"{name:27} {f'R{published.depth}x{published.factor}':>8} {published.classes:8,} {published.resolution:7}  {cached}"
        )
    return "\n".join([*lines, f"\nCache: {folder(cache)}"])


def _description(weights: Weights) -> str:
    import jax

    config = weights.config
    rows = {
        "file": weights.path,
        "layout": f"{weights.weight_format} (pool_padding={config.pool_padding!r})",
        "architecture": f"depths {config.depths}, width {config.width}",
        "classes": f"{config.classes:,}",
        "parameters": f"{sum(leaf.size for leaf in jax.tree.leaves(weights.params)):,}",
        "sha256": weights.sha256,
    }
    return "\n".join(f"{key:13} {value}" for key, value in rows.items())


def _show(there: int, total: int | None) -> None:
    print(
        f"\r{mebibytes(there, total)}",
        end="\n" if there == total else "",
        file=sys.stderr,
        flush=True,
    )


def main(argv: list[str]) -> int:
    # Values of its own: this module is imported by scripts with flags of the same names.
    values = flags.FlagValues()
    flags.DEFINE_string(
        "name",
        None,
        "Which file to fetch or find, and to read; none: the catalogue.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "cache",
        None,
        f"The folder for the files; default ${WEIGHTS_VARIABLE}, else {DEFAULT_CACHE}.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "base_url", BASE_URL, "The server, or a mirror with the same paths.", flag_values=values
    )
    if any(argument in ("--help", "-h", "-help", "--helpshort") for argument in argv[1:]):
        print(f"{__doc__}\n{values.get_help(include_special_flags=False)}")
        return 0
    listen(to_stderr)
    try:
        if extra := values(argv)[1:]:
            raise UserError(
                f"Unexpected argument {extra[0]!r}: flags are written --name=value. See --help."
            )
        if values.name is None:
            print(_catalogue(values.cache))
        else:
            print(
                _description(
                    load(
                        values.name,
                        values.cache,
                        values.base_url,
                        _show if sys.stderr.isatty() else None,
                    )
                )
            )
    except (flags.Error, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on with what came.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
