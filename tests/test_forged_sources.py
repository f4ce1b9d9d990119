"""No two plug-ins that do different things have one source digest, however alike they look."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import py_compile
import sys
import zipfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from optimizers.contract import registry
from optimizers.contract.local_modules import decoded
from optimizers.contract.source_digest import digest
from support.forged_sources import DECLARATION, FILES, WORDS


@pytest.fixture
def resolved(tmp_path, monkeypatch):
    """A function that writes files to a folder of its own, goes there and resolves ./mine.py."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def resolve(files, folder="a"):
        for name, text in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.chdir(tmp_path / folder)
        return registry.resolve("./mine.py")

    return resolve


def scale(found):
    return found.optimizer.make.__globals__["SCALE"]


@pytest.mark.parametrize("name", WORDS | FILES)
def test_what_does_something_else_has_another_digest(resolved, name):
    first, second = (
        resolved(files, folder) for folder, files in zip("ab", (WORDS | FILES)[name], strict=True)
    )
    assert (scale(first), scale(second)) == (1.0, 9.0)
    assert first.source_sha256 != second.source_sha256
    for found in (first, second):  # as an entry carries it
        assert digest(found.sources) == found.source_sha256


@pytest.mark.parametrize("name", FILES)
def test_the_digest_does_not_depend_on_what_was_resolved_before(resolved, name):
    first, second = (WORDS | FILES)[name]
    alone = resolved(first, "a").source_sha256
    resolved(second, "b")
    assert resolved(first, "c").source_sha256 == alone


def test_helpers_of_one_name_belong_to_their_own_plug_in(resolved):
    first, second = FILES["a helper beside it"]
    found = [resolved(files, folder) for folder, files in zip("ab", (first, second), strict=True)]
    assert list(map(scale, found)) == [1.0, 9.0]
    assert [one.sources["helper.py"] for one in found] == ["SCALE = 1.0\n", "SCALE = 9.0\n"]


def test_a_plug_in_keeps_its_helper_when_others_are_resolved(resolved):
    again = "import helper as first\n" + DECLARATION.replace(
        "return None", "import helper\n    return helper is first"
    )
    first = resolved({"mine.py": again, "helper.py": "x = 1\n"}, "a")
    resolved({"mine.py": DECLARATION}, "b")
    assert first.optimizer.make() is True


def test_a_helper_beside_the_file_is_found_from_every_folder(resolved, tmp_path, monkeypatch):
    resolved(FILES["a helper beside it"][1])
    monkeypatch.chdir("/")
    assert scale(registry.resolve(str(tmp_path / "a" / "mine.py"))) == 9.0


def test_what_lies_beside_it_goes_before_other_folders(resolved, tmp_path, monkeypatch):
    first, second = FILES["a helper beside it"]
    resolved(first, "a")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "a"), *sys.path])
    assert scale(resolved(second, "b")) == 9.0


def test_a_file_beside_it_does_not_hide_an_installed_package(resolved):
    found = resolved({"mine.py": "import optax\n" + DECLARATION + "SCALE = 1.0\n", "optax.py": ""})
    assert found.optimizer.make.__globals__["optax"].__file__.endswith("optax/__init__.py")


@pytest.mark.parametrize("module", ["helper", "mine"])
def test_bytecode_of_another_text_is_not_used(resolved, tmp_path, module):
    text = FILES["a helper beside it"][0]["mine.py"] if module == "helper" else DECLARATION
    texts = {"mine.py": text, f"{module}.py": "SCALE = {S}\n" + (text if module == "mine" else "")}
    files = {name: one.replace("{S}", "1.0") for name, one in texts.items()}
    honest = resolved(files, "b").source_sha256
    resolved(files)
    lies = tmp_path / "lies.py"
    lies.write_text(texts[f"{module}.py"].replace("{S}", "9.0"))
    target = importlib.util.cache_from_source(str(tmp_path / "a" / f"{module}.py"))
    py_compile.compile(str(lies), target, invalidation_mode=py_compile.PycInvalidationMode(3))
    found = registry.resolve("./mine.py")
    assert (scale(found), found.source_sha256) == (1.0, honest)


def test_code_without_text_counts_by_its_bytes(resolved, tmp_path):
    digests = set()
    for folder, value in zip("ab", ("1.0", "9.0"), strict=True):
        (tmp_path / folder).mkdir()
        source = tmp_path / "source.py"
        source.write_text(f"SCALE = {value}\n")
        py_compile.compile(str(source), str(tmp_path / folder / "helper.pyc"))
        found = resolved({"mine.py": "from helper import SCALE\n" + DECLARATION}, folder)
        assert scale(found) == float(value)
        assert found.sources["helper.pyc"].startswith("sha256 ")
        digests.add(found.source_sha256)
    assert len(digests) == 2


def test_an_archive_counts_by_its_bytes(resolved, tmp_path):
    found = []
    for folder, value in zip("ab", ("1.0", "9.0"), strict=True):
        (tmp_path / folder).mkdir()
        with zipfile.ZipFile(tmp_path / folder / "lib.zip", "w") as archive:
            archive.writestr("deep/__init__.py", "")
            archive.writestr("deep/helper.py", f"SCALE = {value}\n")
        mine = "import sys\nsys.path.insert(0, 'lib.zip')\nfrom deep.helper import SCALE\n"
        found.append(resolved({"mine.py": mine + DECLARATION}, folder))
    assert list(map(scale, found)) == [1.0, 9.0]
    assert found[0].source_sha256 != found[1].source_sha256
    assert found[0].sources.keys() > {"lib.zip", "mine.py"}


def test_a_file_that_changes_and_is_loaded_again_is_refused(resolved):
    """Else its later text would stand for what ran first."""
    mine = "SCALE = 9.0\nimport pathlib\npath = pathlib.Path('mine.py')\n"
    mine += "if __name__ != 'mine':\n    path.write_text(path.read_text().replace('9.0', '1.0'))\n"
    mine += "    import mine as again\n"
    with pytest.raises(ImportError, match="changed while it was imported"):
        resolved({"mine.py": mine + DECLARATION})


def test_a_linked_helper_goes_by_the_name_of_its_module(resolved, tmp_path):
    (tmp_path / "real.py").write_text("SCALE = 1.0\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "helper.py").symlink_to(tmp_path / "real.py")
    found = resolved({"mine.py": "from helper import SCALE\n" + DECLARATION})
    assert found.sources["helper.py"] == "SCALE = 1.0\n"


@pytest.mark.parametrize("folder", ["optimizers", "optimizers/contract"])
def test_files_that_pass_for_those_of_this_package_are_refused(resolved, folder):
    first, _ = FILES["a helper loaded by a computed path"]
    mine = first["mine.py"].replace("'hel'", f"'{folder}/' + 'hel'")
    made = {f"{folder}/__init__.py": "", "optimizers/__init__.py": ""}
    with pytest.raises(registry.UnknownOptimizer, match="rename the file or its folder"):
        resolved({"mine.py": mine, f"{folder}/helper.py": "SCALE = 1.0\n"} | made)


def test_two_files_of_one_name_are_refused(resolved):
    load = FILES["a helper loaded by a computed path"][0]["mine.py"]
    with pytest.raises(registry.UnknownOptimizer, match=r"helper\.py have the same name"):
        resolved(
            {
                "mine.py": "import helper\n" + load.replace("'hel'", "'lib/' + 'hel'"),
                "helper.py": "SCALE = 2.0\n",
                "lib/helper.py": "SCALE = 1.0\n",
            }
        )


def test_an_entrys_files_give_the_same_optimizer_elsewhere(resolved, tmp_path, monkeypatch):
    for name in ("a helper beside it", "a package without __init__", "a helper on an edited path"):
        found = resolved(FILES[name][1], "a")
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir("/")
        again = registry.resolve_carried(found.sources, "mine.py", "mine", elsewhere)
        assert (scale(again), again.source_sha256) == (9.0, found.source_sha256)
        for path in sorted((tmp_path).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()


def test_an_installed_package_counts_as_a_whole(tmp_path, monkeypatch):
    """Its modules import each other relatively, and by names that cannot be read."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    package = tmp_path / "some_rules"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mine.py").write_text("from .near import SCALE\n" + DECLARATION)
    (package / "near.py").write_text(
        "import importlib\nSCALE = importlib.import_module('some_rules.' + 'far').SCALE\n"
    )
    found = []
    for value in ("1.0", "9.0"):
        (package / "far.py").write_text(f"SCALE = {value}\n")
        found.append(registry.resolve("some_rules.mine:mine"))
    assert list(map(scale, found)) == [1.0, 9.0]
    assert found[0].source_sha256 != found[1].source_sha256
    own = {"some_rules/far.py", "some_rules/mine.py", "some_rules/near.py"}
    assert own <= found[0].sources.keys()
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (package / "far.py").unlink()  # as if it was not installed
    (package / "near.py").unlink()
    (package / "mine.py").unlink()
    (package / "__init__.py").unlink()
    again = registry.resolve_carried(found[1].sources, "some_rules/mine.py", "mine", folder)
    assert (scale(again), again.source_sha256) == (9.0, found[1].source_sha256)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("# coding: latin-1", "declares the encoding iso-8859-1: remove that line"),
        ("# -*- coding: utf-7 -*-", "declares the encoding utf-7"),
        ("x = 'caf\xe9'  # in latin-1", "not UTF-8|invalid or missing encoding"),
    ],
)
def test_a_file_that_is_not_utf_8_is_refused(tmp_path, line, message):
    path = tmp_path / "mine.py"
    path.write_bytes((line + "\n" + DECLARATION).encode("latin-1"))
    with pytest.raises(SyntaxError, match=message):
        registry.resolve(str(path))


ATOMS = st.sampled_from(
    ["SCALE = 1.0", "SCALE = 9.0", "if 1:", "if 0:", "pass", "#", "'", '"""', "\\", "f()"]
)
ODD = st.sampled_from(["'+AGE-'", "+AGE-", "é", "\ufeff", "\xa0", "\x1c", "\x85", "\u2028", "\x1a"])
SPACES = st.sampled_from(
    ["\n", "\r", "\r\n", "\f", "\n\f", "\v", "\t", " ", "    ", "\n    ", "\r\t", ";", "\\\n", "\0"]
)
COOKIES = st.sampled_from(["", *(f"# coding: {code}" for code in ("utf-7", "latin-1", "utf-8"))])
TEXTS = st.lists(st.one_of(ATOMS, SPACES, ODD, COOKIES), max_size=12).map("".join)


@settings(max_examples=400)
@given(TEXTS, st.sampled_from(["utf-8", "utf-8-sig", "latin-1"]))
@example("#\r#\r# coding: utf-7\rSCALE = len('+AGE-')\r", "utf-8")
@example("# coding: latin-1\nSCALE = len('\xe9')", "utf-8")
@example("\r# coding: utf-7\rSCALE = len('+AGE-')", "utf-8")
def test_python_runs_the_text_that_is_read(text, encoding):
    try:
        data = text.encode(encoding)
        shown = decoded(data, "a.py")
    except (SyntaxError, UnicodeEncodeError):
        return  # refused
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError):
        return
    assert ast.dump(tree) == ast.dump(ast.parse(shown))


@settings(max_examples=400)
@given(st.lists(st.tuples(ATOMS | ODD, SPACES | ODD, SPACES | ODD), max_size=6))
def test_texts_with_one_digest_do_the_same(parts):
    """The same atoms between other white space."""
    done = {}
    for which in (1, 2):
        text = "SCALE = 0.0\n" + "".join(part[0] + part[which] for part in parts)
        held = {"f": lambda: None}
        with contextlib.suppress(SyntaxError, ValueError):
            found = digest({"mine.py": text})
            code = compile(text, "mine.py", "exec", dont_inherit=True)
            with contextlib.suppress(Exception):
                exec(code, held)
            assert done.setdefault(found, held.get("SCALE")) == held.get("SCALE")
