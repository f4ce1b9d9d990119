"""Parts of a document that a command writes, between two marks."""

from __future__ import annotations

from pathlib import Path

from distill_bench.errors import UserError
from distill_bench.files import write_atomically


def replace(path: Path, begin: str, end: str, content: str) -> None:
    """Replaces what stands between the marks.

    Raises:
      UserError: if the file lacks the marks.
    """
    before, found, rest = path.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UserError(
            f"{path} has no place for what this command writes. Add these two lines where it "
            f"should be:\n{begin}\n{end}"
        )
    write_atomically(path, f"{before}{begin}\n\n{content}\n\n{end}{after}")
