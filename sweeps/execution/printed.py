"""What a worker prints: its start and its end, however much it is."""

from __future__ import annotations

import errno
from pathlib import Path

from distill_bench.errors import clip

HEAD, TAIL = 1 << 16, 1 << 18  # bytes
LOG_SIZE = 1 << 22  # bytes of worker.log, at which it starts anew
LAST_LINES, LAST_CHARACTERS = 30, 8_000


class Printed:
    """Keeps the first HEAD and the last TAIL bytes, and counts the others."""

    def __init__(self) -> None:
        self._head, self._tail, self._size = bytearray(), bytearray(), 0

    def add(self, content: bytes) -> None:
        self._size += len(content)
        room = HEAD - len(self._head)
        self._head += content[:room]
        self._tail += content[room:]
        if len(self._tail) > 2 * TAIL:
            del self._tail[:-TAIL]

    def content(self) -> bytes:
        tail = self._tail[-TAIL:]
        left_out = self._size - len(self._head) - len(tail)
        gap = f"\n... {left_out} bytes left out ...\n".encode() if left_out else b""
        return bytes(self._head + gap + tail)

    def last_lines(self) -> str:
        lines = self.content().decode(errors="replace").splitlines()[-LAST_LINES:]
        return clip("\n".join(lines), LAST_CHARACTERS)

    def append_to(self, path: Path) -> None:
        """Appends it to the log, which starts anew if it is long.

        Raises:
          OSError: if the file cannot be written.
        """
        if not self._size:
            return
        if path.exists() and not path.is_file():  # such as a pipe, which might block
            raise OSError(errno.EINVAL, "not a file")
        fresh = path.exists() and path.stat().st_size > LOG_SIZE
        with open(path, "wb" if fresh else "ab") as log:
            log.write(self.content())
