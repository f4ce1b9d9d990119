"""Writes an entry again with a part of it changed, but no run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from distill_bench.errors import UserError
from distill_bench.files import write_atomically
from sweeps.board import entries, tune_checks, verdicts, write_entry
from sweeps.board.entries import Entry
from sweeps.board.untrusted import BadFile
from sweeps.board.verdicts import Verdict


def rewritten(entry: Entry, change: Callable[[dict[str, Any]], None]) -> Entry:
    """Writes the entry's file with its content changed in place by `change`, and reads it again.

    The check of its tuning counts on.

    Raises:
      BadEntry: if the changed content would not be valid; the file stays as it was.
      UserError: if the file has another layout than this version writes, or its tune check cannot
        be read.
    """
    try:
        check = tune_checks.load(entry)
    except BadFile as error:
        raise UserError(f"{tune_checks.path_of(entry)}: {error}. Mend it or remove it.") from None
    text = entry.path.read_text()
    content = json.loads(text)
    if write_entry.as_text(content) != text:
        raise UserError(f"{entry.path} is not laid out as this version writes entries.")
    change(content)
    entries.validate(content)
    write_atomically(entry.path, write_entry.as_text(content))
    now = entries.read(entry.path)
    if check:
        tune_checks.record(now, dataclasses.replace(check, entry_sha256=now.sha256))
    return now


def with_verdict(
    entry: Entry,
    change: Callable[[dict[str, Any]], None],
    judged: Callable[[Verdict], Verdict] = lambda kept: kept,
) -> Entry:
    """The same, and its reruns count on.

    judged: the kept verdict -> what of it still holds.
    """
    kept = verdicts.of(entry)
    now = rewritten(entry, change)
    if kept:
        verdicts.write(now, dataclasses.replace(judged(kept), entry_sha256=now.sha256))
    return now
