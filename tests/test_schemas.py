"""Files are judged by the leaderboard's schemas exactly as the reference implementation does."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from support.paths import ROOT
from sweeps.board import untrusted
from sweeps.board.untrusted import BadFile

FOLDER = ROOT / "leaderboard"
FILES = {
    "entry.schema.json": "fashion/shampoo.json",
    "verdict.schema.json": "fashion/verdicts/shampoo.json",
    "check.schema.json": "digits/checks/adamw.json",
}
SCHEMAS = {name: json.loads((FOLDER / name).read_text()) for name in FILES}
REGISTRY = Registry().with_resources(
    (name, Resource.from_contents(content)) for name, content in SCHEMAS.items()
)
WITHOUT_TRIALS = {name: json.loads((FOLDER / file).read_text()) for name, file in FILES.items()}
for _rung in WITHOUT_TRIALS["entry.schema.json"]["rungs"]:  # the reference is slow
    for _kind in ("tuning", "finals"):
        _rung[_kind] = _rung[_kind][:2]

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**53 + 1, 1.0, 0.5, -1e300, 10**6]),
    st.text(max_size=3),
    st.sampled_from(["Log", "ok", "diverged", "a\n", "f" * 16, "f" * 64, "x" * 2000]),
    st.just([]),
    st.just({}),
    st.lists(st.integers(0, 2), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(0, 2), max_size=2),
)


def parts(content, path=()):
    """The paths of everything that a file holds."""
    yield path
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from parts(value, (*path, key))


@pytest.mark.parametrize("schema", FILES)
def test_a_committed_file_fits(schema):
    untrusted.check(json.loads((FOLDER / FILES[schema]).read_text()), schema)


@pytest.mark.parametrize("schema", FILES)
@settings(max_examples=150)
@given(data=st.data())
def test_an_altered_file_fits_exactly_if_jsonschema_says_so(schema, data):
    content = copy.deepcopy(WITHOUT_TRIALS[schema])
    path = data.draw(st.sampled_from([path for path in parts(content) if path]))
    *before, last = path
    place = content
    for key in before:
        place = place[key]
    match data.draw(st.sampled_from(["replace", "remove", "add", "repeat"])):
        case "remove":
            del place[last]
        case "add" if isinstance(place, dict):
            place[data.draw(st.text(max_size=3))] = data.draw(VALUES)
        case "repeat" if isinstance(place, list):
            place.extend([place[last]] * data.draw(st.sampled_from([1, 40, 3000])))
        case _:
            place[last] = data.draw(VALUES)
    reference = Draft202012Validator({"$ref": schema}, registry=REGISTRY)
    if reference.is_valid(content):
        untrusted.check(content, schema)
    else:
        with pytest.raises(BadFile):
            untrusted.check(content, schema)
