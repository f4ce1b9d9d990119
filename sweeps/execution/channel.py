"""The worker's end of the pipe on which it reports to its supervisor."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Sequence
from typing import Any

from distill_bench.errors import clip
from sweeps.execution.messages import Kind, encode
from sweeps.execution.progress import Display

_EXIT_CODE = 70  # of a process that cannot report any more


class Channel(Display):
    """A display that sends everything to the supervisor.

    Optimizers run in this process, so that they may have closed the pipe, or made a copy of the
    process. A process that cannot report ends at once: its supervisor sees that it has.
    """

    def __init__(self, descriptor: int, token: str):
        """
        Args:
          descriptor: of the pipe.
          token: marks this worker's messages.
        """
        os.set_inheritable(descriptor, False)
        self._descriptor, self._token = descriptor, token
        self._pipe, self._process = os.fstat(descriptor), os.getpid()
        self._lock = threading.Lock()

    def send(self, kind: Kind, value: Any) -> None:
        if os.getpid() != self._process:  # a copy, which would write every result twice
            os._exit(_EXIT_CODE)
        content = encode(self._token, kind, value)
        with self._lock:
            while content:
                content = content[self._write(content) :]

    def _write(self, content: bytes) -> int:
        try:
            # Another file may have been opened under the number of a pipe that was closed.
            if not os.path.samestat(os.fstat(self._descriptor), self._pipe):
                raise OSError(f"file descriptor {self._descriptor} is not its pipe any more")
            return os.write(self._descriptor, content)
        except BlockingIOError:
            select.select([], [self._descriptor], [])
            return 0
        except OSError as error:
            print(f"This process cannot report any more: {error}", file=sys.stderr, flush=True)
            os._exit(_EXIT_CODE)

    def begin(self, label: str, steps: int) -> None:
        self.send(Kind.BEGIN, [label, steps])

    def advance(self, steps: int) -> None:
        self.send(Kind.ADVANCE, steps)

    def say(self, text: str) -> None:
        self.send(Kind.SAY, clip(text))

    def suspect(self, optimizers: Sequence[str]) -> None:
        self.send(Kind.SUSPECT, list(optimizers))
