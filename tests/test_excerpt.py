"""Excerpts of a script: they define what the whole script defines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.planning.excerpt import excerpt

NAMES = "abcd"


def value_of(source: str, name: str):
    namespace: dict = {}
    exec(source, namespace)
    return namespace[name]


SCRIPT = '''
from __future__ import annotations
import os; import math
from typing import Annotated as A

print("never", os.getcwd())
EPS = 1e-8
EPS = EPS * 2
table = {}
table["a"] = 3
unused = 1 / 1


def deco(f):
    return f


def helper(x):
    unused = x  # a local name
    return unused + EPS + table["a"] + late


@deco
def mine(x: A[float, 1] = EPS):
    """Doc."""
    return helper(x) + [math.floor(k) for k in (1.5,)][0]  # a comment


late = 5
result = mine(1)
'''


def test_it_holds_what_the_name_needs_and_nothing_else():
    found = excerpt(SCRIPT, "mine")
    assert value_of(found, "mine")(1) == value_of(SCRIPT, "mine")(1) == 1 + 2e-8 + 3 + 5 + 1
    assert "# a comment" in found
    assert '    """Doc."""' in found
    assert found.startswith("from __future__ import annotations\nimport math\n")
    for word in ("os", "print", "result", "1 / 1"):
        assert word not in found


def test_a_cell_that_ran_again_counts_as_it_ran_last():
    first = "def f():\n    return 1\n"
    again = "def f():\n    return 2\n"
    assert excerpt(first + again, "f") == again


def test_a_default_is_that_of_its_time():
    source = "rate = 1\ndef f(x=rate):\n    return x, rate\nrate = 2\n"
    assert value_of(excerpt(source, "f"), "f")() == (1, 2)


def test_a_block_that_defines_the_name_is_whole():
    source = "try:\n    import absent_module as m\nexcept ImportError:\n    m = None\nx = m\n"
    assert excerpt(source, "x") == source


def test_a_class_needs_what_its_body_reads():
    source = "size = 3\nother = 4\nclass C:\n    n = size\n    def f(self):\n        return other\n"
    assert value_of(excerpt(source, "C"), "C")().f() == 4
    assert value_of(excerpt(source, "C"), "C").n == 3


def test_imports_from_the_future_come_first_wherever_they_stood():
    source = "x = 1\nfrom __future__ import annotations\n"
    assert excerpt(source, "x") == "from __future__ import annotations\nx = 1\n"


def test_a_name_that_is_only_local_is_not_defined():
    with pytest.raises(LookupError):
        excerpt("def f():\n    g = 1\n", "g")


@st.composite
def scripts(draw):
    """Assignments from names that are known by then, with changes of items between them."""
    lines, known = ["import math"], []
    for _ in range(draw(st.integers(2, 12))):
        name = draw(st.sampled_from(NAMES))
        parts = draw(st.lists(st.sampled_from(known), max_size=2)) if known else []
        kind = draw(st.sampled_from(["plain", "item", "augmented", "nested"]))
        total = " + ".join([str(draw(st.integers(0, 99))), *(f"{part}[0]" for part in parts)])
        if kind == "plain" or name not in known:
            lines.append(f"{name} = [{total}]")
        elif kind == "item":
            lines.append(f"{name}[0] = {total}")
        elif kind == "augmented":
            lines.append(f"{name} += [{total}]")
        else:
            lines.append(f"if {name}[0] % 2:\n    {name} = [{total}]")
        known.append(name)
    return "\n".join(lines), sorted(set(known))


@given(scripts())
def test_every_name_has_the_value_that_the_script_gives_it(drawn):
    source, known = drawn
    for name in known:
        found = excerpt(source, name)
        assert value_of(found, name) == value_of(source, name)
        assert "math" not in found
