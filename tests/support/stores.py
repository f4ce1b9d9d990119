"""Reading stores of results, and a display that shows nothing."""

from __future__ import annotations

import json


class Silent:
    """A display that shows nothing and keeps its messages in `said`."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def begin(self, label, steps):
        pass

    def advance(self, steps):
        pass

    def suspect(self, optimizers):
        pass

    def say(self, text):
        self.said.append(text)


def rows(script, *flags):
    """The rows of the table that sweeps/leaderboard.py prints."""
    done = script("leaderboard", "--format=json", *flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def contents(folder):
    """Records and results of a store, by file, without what depends on time or machine."""
    found = {}
    for path in sorted(folder.rglob("*.json*")):
        content = path.read_text()
        if path.name == "result.json":
            content = json.dumps(
                {k: v for k, v in json.loads(content).items() if k != "environment"}
            )
        found[str(path.relative_to(folder))] = content
    return found
