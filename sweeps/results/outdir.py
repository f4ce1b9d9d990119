"""The folder given as --outdir: who holds it, and how it is tidied.

Whatever is damaged, or stands where a file or folder of the store belongs, is moved to a folder
`damaged` beside it, and told on one line. Nothing of it is deleted.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from distill_bench.errors import UserError
from distill_bench.files import FileInUse, locked_file, remove_abandoned
from sweeps.planning.study import cut
from sweeps.results import trial_files

Say = Callable[[str], None]


def open_folder(path: str, flag: str = "outdir") -> Path:
    """Returns the folder given as --flag and creates it if missing.

    Raises:
      UserError: if it is a file or cannot be written.
    """
    root = Path(path)
    if root.exists() and not root.is_dir():
        raise UserError(f"--{flag}={path} is a file. Name a folder; it is created if missing.")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UserError(
            f"--{flag}={path} cannot be written: {error.strerror}.\nName another folder."
        ) from None
    return root


@contextmanager
def locked(root: Path, say: Say, shard: str = "", patience: float = 5.0) -> Iterator[None]:
    """Holds the output folder for one sweep, or for one shard of it; other shards may hold it too.

    Removes what processes that were killed have left in it.

    Args:
      root: the folder.
      say: shows a message.
      shard: which one, "i/n"; "" for a whole sweep.
      patience: seconds to wait for another process: one that was just killed may not be gone yet.

    Raises:
      UserError: if another process holds the folder; says which one.
    """
    with ExitStack() as stack:
        whole = expect_file(root / ".lock", say)
        try:
            own = stack.enter_context(locked_file(whole, shared=bool(shard), patience=patience))
            if shard:
                part = expect_file(root / f".lock-{shard.replace('/', '-of-')}", say)
                own = stack.enter_context(locked_file(part, patience=patience))
        except FileInUse as owner:
            raise UserError(
                f"{root} is in use by {owner}.\n"
                "Wait for it to end, stop it, or name another --outdir."
            ) from None
        own.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        own.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        own.flush()
        _tidy(root)
        yield
        own.truncate(0)


def study_folders(root: Path) -> list[Path]:
    """The folders below `root` that hold a study.json, readable or not; ordered by name."""
    return [path for path in sorted(root.glob("*/*/")) if os.path.lexists(path / "study.json")]


def _tidy(root: Path) -> None:
    """Removes the temporary files of processes that were killed, and checkpoints of trials that
    have finished. A file that a live process is writing stays."""
    remove_abandoned(root, {"writable"})  # of earlier versions
    for study in study_folders(root):
        remove_abandoned(study, {"study.json"})
        for folder in study.iterdir():
            if folder.is_dir():
                trial_files.tidy(folder)


def set_aside(path: Path, reason: str, say: Say) -> None:
    """Moves a damaged file or folder to the folder `damaged` beside it, and says why."""
    aside = path.parent / "damaged"
    aside.mkdir(exist_ok=True)
    name = cut(path.name, 240)  # a number follows
    number = next(n for n in range(10**6) if not os.path.lexists(aside / f"{name}.{n}"))
    path.rename(aside / f"{name}.{number}")
    say(f"Damaged: {reason}. Set aside as {aside / f'{name}.{number}'}; it is made again.")


def expect_file(path: Path, say: Say) -> Path:
    """Returns the path of a file to write, after moving aside what is there but is not a file."""
    if os.path.lexists(path) and not path.is_file():
        set_aside(path, f"{path} is not a file", say)
    return path


def make_folder(root: Path, path: Path, say: Say) -> Path:
    """Creates a folder below `root`, after moving aside what is in its way; returns its path."""
    for part in reversed([path, *path.parents]):
        if root in part.parents and os.path.lexists(part) and not part.is_dir():
            set_aside(part, f"{part} is not a folder", say)
    path.mkdir(parents=True, exist_ok=True)
    return path
