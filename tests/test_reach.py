"""What is said of code that reaches beyond arrays, and where."""

from __future__ import annotations

import json
import sys

import pytest

from optimizers.conformance.code import loads_its_code_when_imported
from optimizers.contract import registry
from optimizers.contract.reach import HARMLESS, beyond
from optimizers.contract.source_digest import digest
from support.paths import BRISK, CALM
from sweeps.board import build, entries, markdown, tables


def reached(text):
    return beyond({"mine.py": text}).get("mine.py", [])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import os", ["os"]),
        ("import os.path as p", ["os.path"]),
        ("from ctypes import CDLL", ["ctypes"]),
        ("def f():\n    import gc", ["gc"]),
        ("try:\n    import torch\nexcept ImportError:\n    pass", ["torch"]),
        ("import distill_bench.training.train", ["distill_bench.training.train"]),
        ("from sweeps import cli", ["sweeps"]),
        ("m = __import__('os')", ["__import__"]),
        ("import importlib", ["importlib"]),
        ("exec('x = 1')", ["exec"]),
        ("f = eval", ["eval"]),
        ("with open('x') as file: pass", ["open"]),
        ("compile('1', 'a', 'eval')", ["compile"]),
        ("globals()['x']", ["globals"]),
        ("vars(f), locals(), dir()", ["dir", "locals", "vars"]),
        ("getattr(f, 'na' + 'me')", ["getattr"]),
        ("list(map(getattr, a, b))", ["getattr"]),
        ("getattr(f, '__globals__')", ["__globals__"]),
        ("setattr(f, 'x', 1)", ["setattr"]),
        ("__builtins__['open']", ["__builtins__"]),
        ("f.__closure__", ["__closure__"]),
        ("().__class__.__base__.__subclasses__()", ["__base__", "__subclasses__"]),
        ("match f:\n    case object(__doc__=d): pass", ["__doc__"]),
        ("'{0.__globals__}'.format(f)", ["__globals__"]),
        ("import operator\noperator.attrgetter('x')", ["attrgetter"]),
        ("import jax\njax.config.update('jax_enable_x64', True)", ["jax.config"]),
        ("from jax import config as c\nc.x = 1", ["changes jax.config.x", "jax.config"]),
        ("import jax as j\nj.pure_callback(f, 1, 2)", ["pure_callback"]),
        ("import jax\njax.debug.callback(f, 1)", ["jax.debug.callback"]),
        ("from jax._src import core", ["jax._src"]),
        ("import optax\noptax._src.base", ["optax._src"]),
        ("import jax.numpy as jnp\njnp.load('w.npy')", ["jax.numpy.load"]),
        ("import numpy as np\nnp.random.rand()", ["numpy.random"]),
        ("import numpy as np\nnp.fromfile('w')", ["fromfile"]),
        ("import jax.numpy as jnp\njnp.dot = f", ["changes jax.numpy.dot"]),
        ("import optax\ndel optax.adam", ["changes optax.adam"]),
        ("import optax\noptax.adam.x += 1", ["changes optax.adam.x"]),
        (
            "from optimizers.contract.schedules import SCHEDULES\nSCHEDULES['x'] = f",
            ["changes optimizers.contract.schedules.SCHEDULES"],
        ),
        ("import jax\nj = jax", ["jax as a value"]),
        ("import jax, optax as jax\njax.config", ["jax.config"]),
        ("from optimizers.contract import registry", ["optimizers.contract.registry"]),
        ("import jax\njax.make_jaxpr(value_fn)", ["make_jaxpr"]),
        ("mark = 'loss_pass'", ["loss_pass"]),
        ("def f(x: '(open(1), float)[1]'): pass", ["open"]),
        ("from typing import Any\ndef f(x: Any) -> 'Any | eval(1)': pass", ["eval"]),
        ("ｅｘｅｃ('x')", ["exec"]),  # Python reads these letters as plain ones
        ("f.ſetattr", []),
    ],
)
def test_what_reading_finds(text, found):
    assert reached(text) == found


def test_plain_code_reaches_nothing():
    for path in (CALM, BRISK):
        assert reached(path.read_text()) == []
    for name in registry.builtins():
        found = registry.resolve(name)
        assert beyond(found.sources) == {}, name
    assert reached(f"import {', '.join(sorted(HARMLESS - {'__future__'}))}\n") == []
    assert (
        reached(
            '"""Says open, __doc__ and exec."""\n'
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
            "class A:\n    def __init__(self, *args): self.x = getattr(args, 'x', None)\n"
            "    def __add__(self, other): return self.__class__(self.x + other.x)\n"
        )
        == []
    )


def test_files_of_one_plug_in_may_import_each_other():
    files = {
        "mine.py": "import beside, lib.deep\nfrom lib import sub\nfrom . import x",
        "beside.py": "import mine",
        "lib/deep.py": "from lib.sub import y",
        "lib/sub/__init__.py": "from ..deep import z",
    }
    assert beyond(files) == {}
    assert beyond(files | {"lib/deep.py": "import lib2, os"}) == {"lib/deep.py": ["lib2", "os"]}


def entry_with(board_folder, line):
    path = board_folder / "tiny" / "calm.json"
    content = json.loads(path.read_text())
    content["sources"]["calm.py"] += line
    content["study"]["source_sha256"] = digest(content["sources"])
    path.write_text(json.dumps(content))
    return build.make(*entries.load(board_folder, ["tiny"]))


def test_the_board_shows_what_code_reaches(board_folder, capsys):
    board = entry_with(board_folder, "\nimport os, ctypes\nexec('')\n")
    assert {entry["optimizer"]: entry["reaches"] for entry in board["entries"]} == {
        "calm": ["calm.py: ctypes, exec, os"],
        board["baseline"]: [],
    }
    said = "calm reaches beyond jax, optax and numpy (calm.py: ctypes, exec, os)"
    assert f"- Code to read: {said}." in markdown.render(board)
    tables.print_board(board)
    assert f"Code to read: {said}." in " ".join(capsys.readouterr().out.split())


def test_a_board_of_plain_code_says_nothing(board_folder):
    board = build.make(*entries.load(board_folder, ["tiny"]))
    assert [entry["reaches"] for entry in board["entries"]] == [[], []]
    assert "Code to read" not in markdown.render(board)


RULE = """
import importlib
import optax
from optimizers import Schedule, optimizer

@optimizer
def mine(lr: Schedule = 0.1):
    {line}
    return optax.sgd(lr)
"""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("importlib.import_module('late' + '_code')", "late_code is loaded while the optimizer"),
        ("import late_code", None),  # read in the file, and so in the digest
        ("1 / 0", None),  # other checks find this
    ],
)
def test_code_that_is_loaded_late_fails_a_check(tmp_path, monkeypatch, line, reason):
    monkeypatch.delitem(sys.modules, "late_code", raising=False)  # an earlier plug-in's
    (tmp_path / "late_code.py").write_text("SCALE = 1.0\n")
    path = tmp_path / "mine.py"
    path.write_text(RULE.format(line=line))
    found = loads_its_code_when_imported(registry.resolve(str(path)).optimizer)
    assert found is None if reason is None else reason in found
