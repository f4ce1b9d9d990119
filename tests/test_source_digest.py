"""Which changes of the code change the source digest, and which do not.

Of this package's own files, words and layout leave it as it is; of a plug-in's, layout and
docstrings.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers.contract import used_files
from optimizers.contract.source_digest import digest, source_files, source_sha256
from support.paths import ROOT

PLUG_IN = '''\
"""A rule."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optimizers import Choice, Log, Schedule, optimizer
from optimizers.masks import kernels

if TYPE_CHECKING:
    from jax.sharding import Mesh


class State(NamedTuple):
    """count: steps taken."""

    count: jax.Array
    slow: float = 0.5


@dataclass(frozen=True)
class Cadence:
    every: int = 10  # steps
    "Steps between refreshes."


def scale(rate: float, *rest: Any, mesh: Mesh | None = None) -> optax.GradientTransformation:
    """Scales by `rate`."""
    if rate < 0:
        raise ValueError(f"rate={rate} is negative: use 0 or more.")
    assert rest == (), "nothing else"
    scaled: dict[str, float] = {"a": 1.0 * rate}
    return optax.scale(scaled["a"])


@optimizer(schedule="constant")
def mine(
    lr: Annotated[Schedule, Log(1e-3, 1e-1)] = 1e-2, *, b1: Annotated[float, Choice(0.9)] = 0.9
) -> optax.GradientTransformation:
    """Mine."""
    del functools
    return optax.chain(scale(b1), optax.add_decayed_weights(1e-3, kernels), optax.sgd(lr))
'''


def replaced(old: str, new: str, text: str = PLUG_IN) -> str:
    assert old in text
    return text.replace(old, new)


def same(one: str, other: str, name: str = "optimizers/a.py") -> bool:
    return digest({name: one}) == digest({name: other})


def test_the_digest_of_a_source_is_the_same_on_every_python():
    """If this fails on your Python only, its parsed trees differ: mend tree_text.py.

    If it fails everywhere, the digest has changed: all stored results and entries lose their names.
    """
    found = [digest({name: PLUG_IN + SYNTAX}) for name in ("optimizers/a.py", "a.py")]
    assert found == [
        "f330b48ae9e4033004390e6a6eb03b005f179769c7f9814c6f14bbb56b3334ff",
        "2815c40b62d9452540a5b5a4b391f723b13fff82309d3c8f469604ad809ecce0",
    ]


# What the versions of Python parse into different trees, or print differently.
SYNTAX = """
def odd(x, y, *, width=3):
    strings = (u"a", b"b", "\\u00e9\\U0001fae8", f"{x:}", f"{x=}", f"")
    merged = f"a" "b" f"{x!r:>{width}}" "c"
    numbers = (0xFF, 1_000, 1.0, 1e5, 2j, True, None, ...)
    match x:
        case None | True | 0:
            return strings
        case {"a": [first, *others], **rest}:
            return first, others, rest
        case Point(x=0) as point:
            return point
    return {**y, "k": [*numbers, *(i for i in y if i)]}[1:2, ..., *x]


async def later(x: int) -> int:
    async with x as y:
        return [z async for z in y]
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A rule."""', '"""A rule, in other words."""'),
        ('"""A rule."""\n', ""),
        ("    every: int = 10  # steps", "    every: int = 10"),
        ('"Steps between refreshes."', '"Steps from one refresh to the next."'),
        ("from __future__ import annotations\n", ""),
        ("use 0 or more.", "it must be 0 or more."),
        ('f"rate={rate} is negative: use 0 or more."', '"rate is negative" + ": use 0 or more"'),
        (', "nothing else"', ""),
        ("count: jax.Array", "count: jnp.ndarray"),
        ("every: int = 10", "every: Any = 10"),
        ("rate: float, *rest: Any", "rate: Rate, *rest"),
        (") -> optax.GradientTransformation:", "):"),
        ("scaled: dict[str, float] =", "scaled ="),
        ("from jax.sharding import Mesh", "from jax.sharding import Mesh, NamedSharding"),
        ("Annotated, Any,", "Annotated, Any, Callable, Protocol,"),
        ("Log(1e-3, 1e-1)", "Log(1e-4, 1.0)"),
        ("import jax\nimport jax.numpy as jnp\n", "import jax.numpy as jnp\nimport jax\n"),
        (
            "from optimizers import Choice, Log, Schedule, optimizer\n",
            "from optimizers import optimizer\nfrom optimizers import (Log, Choice, Schedule)\n",
        ),
        ('"constant"', "'constant'"),
        ("1.0 * rate", "(1.00 * (rate))"),
        ("del functools", "del (functools)"),
        ("    if rate < 0:", "    # Never below zero.\n\n    if (rate < 0):"),
    ],
)
def test_words_layout_and_types_leave_the_digest_of_our_own_files(old, new):
    assert same(PLUG_IN, replaced(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A rule."""', '"""A rule, in other words."""'),
        ('    """count: steps taken."""\n\n', ""),
        ("    every: int = 10  # steps", "    every: int = 10"),
        ('"constant"', "'constant'"),
        ("1.0 * rate", "(1.00 * (rate))"),
        ("    if rate < 0:", "    # Never below zero.\n\n    if (rate < 0):"),
    ],
)
def test_layout_and_docstrings_leave_the_digest_of_a_plug_in(old, new):
    assert same(PLUG_IN, replaced(old, new), "a.py")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("use 0 or more.", "it must be 0 or more."),
        ("rate: float,", "rate: Rate,"),
        (") -> optax.GradientTransformation:", "):"),
        ("from __future__ import annotations\n", ""),
        ("import jax\nimport jax.numpy as jnp\n", "import jax.numpy as jnp\nimport jax\n"),
        ("    from jax.sharding import Mesh", "    pass"),
    ],
)
def test_what_a_plug_in_might_depend_on_changes_its_digest(old, new):
    """Annotations, messages and the order of imports can act; nobody reviewed these."""
    assert not same(PLUG_IN, replaced(old, new), "a.py")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1e-3, kernels", "2e-3, kernels"),
        ("1.0 * rate", "1 * rate"),
        ("1.0 * rate", "1.0 + rate"),
        ("1.0 * rate", "rate * 1.0"),
        ("= 1e-2", "= 2e-2"),
        ("= 0.9\n", "= 0.8\n"),
        ("Annotated[Schedule,", "Annotated[float,"),
        ('schedule="constant"', 'schedule="warmup_cosine"'),
        ('schedule="constant"', 'schedule="constant", evaluations=2'),
        ('@optimizer(schedule="constant")\n', ""),
        ("ValueError", "TypeError"),
        ("rate < 0", "rate <= 0"),
        ('assert rest == (), "nothing else"', "pass"),
        ("slow: float = 0.5", "slow: float = 0.25"),
        ("    slow: float = 0.5\n", ""),
        ("slow: float = 0.5", "slow = 0.5"),
        ("frozen=True", "frozen=False"),
        ("every: int = 10", "every: ClassVar[int] = 10"),
        ("class State(NamedTuple):", "class State(NamedTuple, total=False):"),
        ("masks import kernels", "masks import not_empty as kernels"),
        ("def scale(rate", "async def scale(rate"),
        ("if TYPE_CHECKING:", "if not TYPE_CHECKING:"),
        ("import optax\n", "import optax\nimport registers_things\n"),
    ],
)
def test_whatever_may_change_a_number_changes_the_digest(old, new):
    for name in ("optimizers/a.py", "a.py"):
        assert not same(PLUG_IN, replaced(old, new), name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # A name that only looks like typing's.
        ("TYPE_CHECKING = 1\nif TYPE_CHECKING:\n    x = 1\n", "TYPE_CHECKING = 1\n"),
        (
            "from typing import TYPE_CHECKING\nTYPE_CHECKING = 1\nif TYPE_CHECKING:\n    x = 1\n",
            "from typing import TYPE_CHECKING\nTYPE_CHECKING = 1\n",
        ),
        # The order of imports decides which x is meant.
        ("from a import x\nfrom b import x\n", "from b import x\nfrom a import x\n"),
        ("import a\nx = 1\n", "x = 1\nimport a\n"),
        ("import a\nrun()\nimport b\n", "import b\nrun()\nimport a\n"),
        # Annotations that something reads.
        ("@register\ndef f(x: int): pass\n", "@register\ndef f(x: str): pass\n"),
        ("class A(Model):\n    x: int\n", "class A(Model):\n    x: float\n"),
        ("@check\nclass A:\n    x: int\n", "@check\nclass A:\n    x: float\n"),
        (
            "from pydantic.dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n",
            "from pydantic.dataclasses import dataclass\n@dataclass\nclass A:\n    x: float\n",
        ),
        (
            "def f(x: int): pass\nf.__annotations__\n",
            "def f(x: str): pass\nf.__annotations__\n",
        ),
        (
            "from optimizers import Schedule, optimizer\n"
            "def f(lr: Schedule = 1.0): pass\ng = optimizer(f)\n",
            "from optimizers import Schedule, optimizer\n"
            "def f(lr: float = 1.0): pass\ng = optimizer(f)\n",
        ),
        (
            "import optimizers as o\n@o.optimizer\ndef f(lr: o.Schedule = 1.0): pass\n",
            "import optimizers as o\n@o.optimizer\ndef f(lr: float = 1.0): pass\n",
        ),
        # Words that something reads.
        ('def f(): "0.1"\nx = float(f.__doc__)\n', 'def f(): "0.2"\nx = float(f.__doc__)\n'),
        (
            'try:\n    raise ValueError("1")\nexcept ValueError as e:\n    x = float(str(e))\n',
            'try:\n    raise ValueError("2")\nexcept ValueError as e:\n    x = float(str(e))\n',
        ),
        # Arguments of exceptions that are not words.
        ("raise Found(1)\n", "raise Found(2)\n"),
        ('raise Found(f"{(x := 1)}")\n', 'raise Found(f"{(x := 2)}")\n'),
        ("assert y, (x := 1)\n", "assert y, (x := 2)\n"),
        # Defaults, and what only looks alike.
        ("f = lambda x=1: x\n", "f = lambda x=2: x\n"),
        ("x = 1\n", "x = True\n"),
        ("x = 'a'\n", "x = b'a'\n"),
        ("x = (1)\n", "x = (1,)\n"),
        ("x = f'{y}'\n", "x = f'{y:>3}'\n"),
        ("x = f'{y}'\n", "x = f'{y!r}'\n"),
        ("from .a import x\n", "from a import x\n"),
        ("def f():\n    return 1\n", "def f():\n    yield 1\n"),
    ],
)
def test_when_in_doubt_a_difference_stays(one, other):
    for name in ("optimizers/a.py", "a.py"):
        assert not same(one, other, name)


def test_names_of_files_and_their_borders_are_in_the_digest():
    assert digest({"a.py": "x = 1\n"}) != digest({"b.py": "x = 1\n"})
    assert digest({"a.py": "x = 1\ny = 2\n"}) != digest({"a.py": "x = 1\n", "b.py": "y = 2\n"})


@pytest.mark.parametrize("length", [40, 320])
def test_the_formatter_leaves_the_digests_of_all_files(tmp_path, length):
    """With another line length, other quotes, and sorted imports on one line each."""
    ruff = shutil.which("ruff") or str(Path(sys.executable).with_name("ruff"))
    if not Path(ruff).is_file():
        pytest.skip("ruff is not installed")
    files = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sources()}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    settings = f"line-length = {length}\n[format]\nquote-style = 'single'\n"
    settings += "[lint.isort]\nforce-single-line = true\norder-by-type = false\n"
    (tmp_path / "ruff.toml").write_text(settings)
    for arguments in (["check", "--select=I", "--fix"], ["format"]):
        subprocess.run([ruff, *arguments, "--no-cache", "-q", "."], cwd=tmp_path, check=True)
    for name, text in files.items():
        formatted = (tmp_path / name).read_text()
        assert digest({name: formatted}) == digest({name: text}), name
    assert (tmp_path / "optimizers/soap.py").read_text() != files["optimizers/soap.py"]


@pytest.mark.parametrize("path", ["optimizers/shampoo.py", "optimizers/contract/schedules.py"])
def test_unparsing_leaves_the_digest(path):
    text = (ROOT / path).read_text()
    assert same(text, ast.unparse(ast.parse(text)))


def sources() -> list[Path]:
    return sorted((ROOT / "optimizers").rglob("*.py"))


EXPRESSIONS = st.recursive(
    st.one_of(
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=4),
        st.sampled_from([ast.Name("x", ast.Load()), ast.Name("y", ast.Load())]),
    ).map(lambda leaf: leaf if isinstance(leaf, ast.AST) else ast.parse(repr(leaf)).body[0].value),
    lambda inner: st.one_of(
        st.builds(
            lambda a, op, b: ast.BinOp(a, op(), b),
            inner,
            st.sampled_from([ast.Add, ast.Sub, ast.Mult, ast.Pow]),
            inner,
        ),
        st.lists(inner, max_size=3).map(lambda items: ast.Tuple(items, ast.Load())),
        st.builds(lambda a, b: ast.IfExp(a, a, b), inner, inner),
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(one=EXPRESSIONS, other=EXPRESSIONS)
def test_expressions_share_a_digest_only_if_they_are_the_same(one, other):
    texts = [f"def f(x, y):\n    return {ast.unparse(it)}\n" for it in (one, other)]
    trees = [ast.dump(ast.parse(text)) for text in texts]
    for name in ("optimizers/a.py", "a.py"):
        assert same(*texts, name) == (trees[0] == trees[1])
        assert same(texts[0], texts[0].replace("return ", "return (  # why\n") + ")", name)
        assert not same(texts[0], texts[0].replace("return ", "return 0, "), name)


def test_files_that_are_used_are_in_the_digest(tmp_path, monkeypatch):
    package = tmp_path / "optimizers"
    shutil.copytree(ROOT / "optimizers", package)
    monkeypatch.setattr(used_files, "PACKAGE", package)
    shampoo = package / "shampoo.py"
    before = source_sha256(shampoo)

    def after(name: str, addition: str = "\nEXTRA = 1\n") -> str:
        path = package / name
        text = path.read_text()
        path.write_text(text + addition)
        try:
            return source_sha256(shampoo)
        finally:
            path.write_text(text)

    for used in (
        "shampoo.py",
        "masks.py",
        "kronecker/roots.py",
        "kronecker/__init__.py",
        "contract/schedules.py",
    ):
        assert after(used) != before, used
        assert after(used, "\n# Words.\n") == before, used
    for other in (
        "soap.py",
        "contract/api.py",
        "contract/domains.py",
        "contract/registry.py",
        "conformance/checks.py",
        "__init__.py",
    ):
        assert after(other) == before, other
    assert source_sha256(shampoo) == before


@pytest.mark.parametrize(
    "line",
    [
        "from optimizers import kernels",
        "from optimizers import masks",
        "from optimizers import *",
        "from optimizers.masks import kernels",
        "import optimizers",
        "import optimizers as o",
        "import optimizers.masks",
        "import importlib; m = importlib.import_module('optimizers.masks')",
        "def f():\n    from optimizers.masks import kernels",
    ],
)
def test_every_way_of_importing_a_helper_of_this_package_is_followed(tmp_path, line):
    path = tmp_path / "mine.py"
    path.write_text(line + "\n")
    assert "optimizers/masks.py" in source_files(path)


def test_helpers_of_a_plug_in_are_followed(tmp_path):
    package = tmp_path / "mylib"
    (package / "rules").mkdir(parents=True)
    files = {
        "mylib/__init__.py": '"""Words only."""\n',
        "mylib/rules/__init__.py": "START = 1\n",
        "mylib/rules/mine.py": "from . import near\nfrom ..far import x\n"
        "import mylib.named\nimport json\n",
        "mylib/rules/near.py": "from .nearer import x\n",
        "mylib/rules/nearer.py": "x = 1\n",
        "mylib/far.py": "x = 1\n",
        "mylib/named.py": "x = 1\n",
        "mylib/unused.py": "x = 1\n",
        "loose.py": "import beside\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import typed\n",
        "beside.py": "x = 1\n",
        "typed.py": "x = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    ours = ["optimizers/contract/schedules.py"]
    assert sorted(source_files(package / "rules" / "mine.py")) == sorted(
        [
            *ours,
            "mine.py",
            "mylib/far.py",
            "mylib/named.py",
            "mylib/rules/__init__.py",
            "mylib/rules/near.py",
            "mylib/rules/nearer.py",
        ]
    )
    assert sorted(source_files(tmp_path / "loose.py")) == sorted([*ours, "beside.py", "loose.py"])


def test_what_is_not_python_is_refused():
    with pytest.raises(SyntaxError):
        digest({"a.py": "x = ("})
    for text in ("x = 1\0", "x = " + "-" * 50_000 + "1"):
        with pytest.raises((SyntaxError, ValueError)):
            digest({"a.py": text})
