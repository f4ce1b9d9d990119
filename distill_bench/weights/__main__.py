"""The command `python -m distill_bench.weights`: lists, downloads, describes and checks weights."""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from distill_bench import machine
from distill_bench.command import FAILED, OK, Flags, run
from distill_bench.errors import UserError
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

USAGE = """Lists the published weights and which are in the cache; downloads, checks and
describes one of them; or measures an exported student again.

python -m distill_bench.weights
python -m distill_bench.weights --name=R152x2_T_flowers128
python -m distill_bench.weights --check=students/digits-adamw-h250-seed1-3f2a1b.npz"""


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit code, see distill_bench.command."""
    values = _flags()
    return run(
        lambda: _run(values),
        values,
        USAGE,
        argv,
        after_interrupt="The same command continues the download.",
    )


def _flags() -> Flags:
    values = Flags()
    with values.group("Flags"):
        flags.DEFINE_string(
            "name",
            None,
            "The file to download, unless it is in the cache, and to describe. Default: list all.",
            flag_values=values,
        )
        flags.DEFINE_string(
            "cache",
            None,
            f"Folder of the files. Default: ${WEIGHTS_VARIABLE}, else {DEFAULT_CACHE}.",
            flag_values=values,
        )
        flags.DEFINE_string(
            "base_url", BASE_URL, "The server, or a mirror with the same paths.", flag_values=values
        )
    with values.group("To check a student"):
        flags.DEFINE_string(
            "check",
            None,
            "An .npz that sweeps/run.py --export has written: measure it again and compare the "
            "figures with its card's.",
            flag_values=values,
        )
        flags.DEFINE_string(
            "task",
            None,
            "The student's task, if it is not built in, such as module:NAME. Its code is run.",
            flag_values=values,
        )
        flags.DEFINE_string(
            "data_dir",
            None,
            "Folder of the prepared data sets. Default: $TFDS_DATA_DIR, else "
            "~/tensorflow_datasets.",
            flag_values=values,
        )
    return values


def _run(values: Flags) -> int:
    if values.check is not None:
        if values.name is not None:
            raise UserError("--name and --check are about different files: leave one of them out.")
        machine.choose_folders(values.data_dir, values.cache)
        return _check(Path(values.check).expanduser(), values.task)
    if values.name is None:
        print(_catalogue(values.cache))
    else:
        progress = _show_progress if sys.stderr.isatty() else None
        print(_description(load(values.name, values.cache, values.base_url, progress)))
    return OK


def _catalogue(cache: str | None) -> str:
    lines = [f"{'name':27} {'network':>8} {'classes':>8} {'pixels':>7}  cached"]
    for name, published in CATALOGUE.items():
        path = path_of(name, cache)
        cached = f"{path.stat().st_size / 2**20:,.1f} MiB" if path.exists() else "-"
        network = f"R{published.depth}x{published.factor}"
        lines.append(
            f"{name:27} {network:>8} {published.classes:8,} {published.resolution:7}  {cached}"
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


def _check(path: Path, task_name: str | None) -> int:
    """Measures the student at `path` and prints its figures beside its card's."""
    from distill_bench import machine
    from distill_bench.export import check

    machine.pin_threads()
    student = check.load(path)
    metrics = check.measure(student, check.task_of(student.card, task_name))
    print(check.describe(student, metrics), flush=True)
    if why := check.differences(student.card, metrics):
        print(f"error: {why}", file=sys.stderr)
        return FAILED
    print("All figures agree with the card's to the last digit.")
    return OK


def _show_progress(received: int, total: int | None) -> None:
    end = "\n" if received == total else ""
    print(f"\r{mebibytes(received, total)}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
