"""Every piece of Python in docs/optimizers.md runs as it stands."""

from __future__ import annotations

import re

import jax
import pytest

from support.paths import ROOT

SNIPPETS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs/optimizers.md").read_text(), re.M | re.S
)


@pytest.mark.parametrize("text", SNIPPETS, ids=range(len(SNIPPETS)))
def test_it_runs(text):
    with jax.numpy_rank_promotion("allow"):  # as for users
        exec(compile(text, "docs/optimizers.md", "exec"), {})
