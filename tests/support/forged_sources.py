"""Pairs of plug-ins that do different things and try to look alike.

Each is a folder with mine.py, which declares `mine` and sets SCALE to 1.0 in the first of the pair
and to 9.0 in the second.
"""

from __future__ import annotations

Files = dict[str, str]

DECLARATION = """
from optimizers import optimizer

@optimizer
def mine(lr: float = 1.0):
    return None
"""


def pair(mine: str, **others: str) -> tuple[Files, Files]:
    """The same files with {S} replaced by 1.0 and 9.0; others: name without .py -> text."""
    files = {"mine.py": mine + DECLARATION}
    files |= {f"{name}.py": text for name, text in others.items()}
    first, second = (
        {name: text.replace("{S}", scale) for name, text in files.items()}
        for scale in ("1.0", "9.0")
    )
    return first, second


def two(first: str, second: str, **others: str) -> tuple[Files, Files]:
    return pair(first, **others)[0], pair(second, **others)[1]


_BY_PATH = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("other", {path})
other = importlib.util.module_from_spec(spec)
sys.modules["other"] = other
spec.loader.exec_module(other)
SCALE = other.SCALE
"""

_LOOKS = "import low\nSCALE = 9.0 if hasattr(low, 'Any') else 1.0\n"

# What differs is in words or layout.
WORDS = {
    "a form feed that ends no comment": two(
        "SCALE = 1.0\n# a\fSCALE = 9.0\n", "SCALE = 1.0\n# a\n\fSCALE = 9.0\n"
    ),
    "a form feed that ends an indented block": two(
        "SCALE = 1.0\nif 0:\n    pass\n    SCALE = 9.0\n",
        "SCALE = 1.0\nif 0:\n    pass\n\fSCALE = 9.0\n",
    ),
    "a docstring read by a class pattern": pair(
        "def f(): '{S}'\nmatch f:\n    case object(__doc__=words): SCALE = float(words)\n"
    ),
    "a docstring read by a format": pair(
        "def f(): '{S}'\nSCALE = float('{0.__doc__}'.format(f))\n"
    ),
    "a docstring read by a format that is put together": pair(
        "def f(): '{S}'\nSCALE = float(('{0._' + '_doc_' + '_}').format(f))\n"
    ),
    "a docstring found among globals": pair("'{S}'\nSCALE = float(list(globals().values())[1])\n"),
    "a docstring read by a helper": pair(
        "import helper\ndef f(): '{S}'\nSCALE = helper.read(f)\n",
        helper="def read(f): return float(f.__doc__)\n",
    ),
    "a docstring that jax finds by a computed name": pair(
        "import jax\nclass A: '{S}'\n"
        "jax.tree_util.register_dataclass(A, data_fields=['__do' + 'c__'], meta_fields=[])\n"
        "SCALE = float(jax.tree.leaves(A())[0])\n"
    ),
    "a docstring that numpy prints": pair(
        "import numpy as np\ndef f(): '{S}'\nSAID = []\n"
        "class Out: write = lambda self, text: SAID.append(text)\n"
        "np.info(f, output=Out())\nSCALE = float(''.join(SAID).split()[-1])\n"
    ),
    "a comment read from its file": pair(
        "# {S}\nwith open(__file__) as file: SCALE = float(file.readline()[2:])\n"
    ),
    "a line number": two(
        "def f(): pass\nSCALE = float(f.__code__.co_firstlineno)\n",
        "\n" * 8 + "def f(): pass\nSCALE = float(f.__code__.co_firstlineno)\n",
    ),
    "a walrus in an annotation": pair("def f(x: (SCALE := {S})): pass\n"),
    "a call in an annotation": pair(
        "HELD = []\ndef f(x: HELD.append({S})): pass\nSCALE = HELD[0]\n"
    ),
    "a call in the message of a caught error": pair(
        "HELD = []\ntry:\n    raise ValueError(f'{HELD.append({S})}')\n"
        "except ValueError:\n    SCALE = HELD[0]\n"
    ),
    "a message that is no error's": pair(
        "HELD = []\ndef keep(x):\n    HELD.append(float(x))\n    return ValueError()\n"
        "try:\n    raise keep('{S}')\nexcept ValueError:\n    SCALE = HELD[0]\n"
    ),
    "a message read by a helper": pair(
        "import helper\ndef f(): raise ValueError('{S}')\nSCALE = helper.caught(f)\n",
        helper="def caught(f):\n    try:\n        f()\n    except ValueError as error:\n"
        "        return float(str(error))\n",
    ),
    "the type of a dataclass's field": pair(
        "from __future__ import annotations\nfrom dataclasses import dataclass, fields\n"
        "@dataclass\nclass A:\n    x: {S} = 0\nSCALE = float(fields(A)[0].type)\n"
    ),
    "an InitVar by another name": two(
        "from dataclasses import InitVar as V, dataclass\n"
        "@dataclass\nclass A:\n    x: V[int] = 1\nSCALE = 1.0 if A(1) == A(2) else 9.0\n",
        "from dataclasses import InitVar as V, dataclass\n"
        "@dataclass\nclass A:\n    x: int = 1\nSCALE = 1.0 if A(1) == A(2) else 9.0\n",
    ),
    "TYPE_CHECKING set to True": pair(
        "import typing\ntyping.TYPE_CHECKING = True\nSCALE = 0.0\n"
        "if typing.TYPE_CHECKING:\n    SCALE = {S}\ntyping.TYPE_CHECKING = False\n"
    ),
    "the order of two imports": two(
        "import high, low, held\nSCALE = held.at[0]\n",
        "import low, high, held\nSCALE = held.at[0]\n",
        held="at = [0.0]\n",
        low="import held\nheld.at[0] = 1.0\n",
        high="import held\nheld.at[0] = 9.0\n",
    ),
    "whether annotations are evaluated": two(
        "from __future__ import annotations\nHELD = []\ndef keep(f): return f\n"
        "@keep\ndef f(x: HELD.append(1)): pass\nSCALE = 9.0 if HELD else 1.0\n",
        "HELD = []\ndef keep(f): return f\n"
        "@keep\ndef f(x: HELD.append(1)): pass\nSCALE = 9.0 if HELD else 1.0\n",
    ),
    "a name for typing that another file looks for": (
        pair(_LOOKS, low="x = 1\n")[0],
        pair(_LOOKS, low="from typing import Any\nx = 1\n")[0],
    ),
}

# What differs is in another file.
FILES = {
    "a helper beside it": pair("from helper import SCALE\n", helper="SCALE = {S}\n"),
    "a helper that a function imports": pair(
        "def f():\n    from helper import SCALE\n    return SCALE\nSCALE = f()\n",
        helper="SCALE = {S}\n",
    ),
    "a package's __init__": pair("from lib import SCALE\n", **{"lib/__init__": "SCALE = {S}\n"}),
    "a package without __init__": pair(
        "from lib.sub.a import SCALE\n", **{"lib/sub/a": "SCALE = {S}\n"}
    ),
    "a helper by a computed name": pair(
        "import importlib\nSCALE = importlib.import_module('hel' + 'per').SCALE\n",
        helper="SCALE = {S}\n",
    ),
    "a helper in a namespace package, by a computed name": pair(
        "SCALE = __import__('lib.sub.' + 'a', fromlist=['SCALE']).SCALE\n",
        **{"lib/sub/a": "SCALE = {S}\n"},
    ),
    "a helper on an edited path": pair(
        "import os, sys\nsys.path.insert(0, os.path.abspath('lib'))\nfrom deep import SCALE\n",
        **{"lib/deep": "SCALE = {S}\n"},
    ),
    "a helper in a folder called site-packages": pair(
        "import sys\nsys.path.insert(0, 'site-packages')\nfrom deep import SCALE\n",
        **{"site-packages/deep": "SCALE = {S}\n"},
    ),
    "a helper loaded by its path": pair(
        _BY_PATH.format(path="'helper.py'"), helper="SCALE = {S}\n"
    ),
    "a helper loaded by a computed path": pair(
        _BY_PATH.format(path="'hel' + 'per' + '.py'"), helper="SCALE = {S}\n"
    ),
    "a text that is executed": pair(
        "with open('helper.py') as file: exec(file.read())\n", helper="SCALE = {S}\n"
    ),
    "a file that rewrites itself": pair(
        "SCALE = {S}\nimport pathlib\npath = pathlib.Path('mine.py')\n"
        "path.write_text(path.read_text().replace('9.' '0', '1.' '0'))\n"
    ),
    "a helper that rewrites itself": pair(
        "from helper import SCALE\n",
        helper="SCALE = {S}\nimport pathlib\n"
        "pathlib.Path('helper.py').write_text('SCALE = 1' '.0')\n",
    ),
    "a helper of a helper": pair(
        "import helper\nSCALE = helper.SCALE\n",
        helper="from lib.deep import SCALE\n",
        **{"lib/deep": "SCALE = {S}\n"},
    ),
}
