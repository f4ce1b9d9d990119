"""What a worker reports to its supervisor: JSON lines [kind, value] on a pipe."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """The kinds of message. The first four are the calls of a `Display`, the others end the run."""

    BEGIN = "begin"  # [label, steps]
    ADVANCE = "advance"  # steps
    SAY = "say"  # text
    SUSPECT = "suspect"  # names of optimizers
    DONE = "done"  # folders of the studies
    MISUSE = "misuse"  # text of a UserError
    FAILED = "failed"  # text of a SweepFailed
