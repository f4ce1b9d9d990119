"""Reads other people's JSON files: within bounds, strictly, and only if they fit their schema.

The schemas are leaderboard/*.schema.json; one may refer to another by its file's name.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.board.folder import FOLDER

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

MAX_BYTES = 4 << 20
MAX_DEPTH = 16  # of lists and objects in one another; an entry has 8
LARGEST = 2**53  # whole numbers up to it are exact in JSON, whoever reads it
_MAX_MESSAGE = 400


class BadFile(Exception):
    """The file is not what it should be; the message says why, in one line of printable text."""

    def __init__(self, message: str):
        super().__init__(printable(message[:_MAX_MESSAGE]))


def printable(text: str) -> str:
    """The text with all characters escaped that could upset a terminal or an encoding."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def not_counted(path: Path, why: BadFile) -> str:
    """The warning about a bad file."""
    return f"{printable(str(path))} is not counted: {why}."


def parse(path: Path) -> tuple[Any, bytes]:
    """The content of a JSON file, and its bytes.

    Raises:
      BadFile: if it is not a regular file, has more than MAX_BYTES, is not strict JSON (an object
        names something twice, a number is not finite or a whole number above LARGEST, text is not
        Unicode), or is nested deeper than MAX_DEPTH.
    """
    try:
        if path.is_symlink() or not path.is_file():
            raise BadFile("it is not a regular file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise BadFile(f"it has {size:,} bytes; at most {MAX_BYTES:,} are read")
        raw = path.read_bytes()
        content = json.loads(
            raw.decode(),
            parse_constant=_number,
            parse_float=_number,
            parse_int=_whole_number,
            object_pairs_hook=_unique_names,
        )
    except (OSError, ValueError) as error:
        raise BadFile(f"it cannot be read ({type(error).__name__}: {error})") from None
    except RecursionError:
        raise _too_deep() from None
    _check_depth_and_text(content)
    return content, raw


def _number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise BadFile(f"{text[:20]} is not a finite number")
    return number


def _whole_number(text: str) -> int:
    if len(text) > 20 or abs(number := int(text)) > LARGEST:
        raise BadFile(f"{text[:20]}, a whole number of {len(text):,} digits, is too large")
    return number


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadFile("an object in it has the same name twice")
    return found


def _check_depth_and_text(content: Any) -> None:
    level = [content]
    for _ in range(MAX_DEPTH + 1):
        level = [part for one in level for part in _parts(one)]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> BadFile:
    return BadFile(f"it is nested more than {MAX_DEPTH} levels deep")


def _parts(value: Any) -> Iterator[Any]:
    """What a list or an object holds. Text must be Unicode, without halves of surrogate pairs."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadFile("some of its text is not Unicode") from None
    elif isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value
        yield from value.values()


@functools.cache
def _schemas() -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in FOLDER.glob("*.schema.json")}


@functools.cache
def _validator(schema: str) -> Draft202012Validator:
    """Names what is wrong, in 0.4 s for a large entry."""
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    registry = Registry().with_resources(
        (name, Resource.from_contents(content)) for name, content in _schemas().items()
    )
    return Draft202012Validator({"$ref": schema}, registry=registry)


@functools.cache
def _fits(schema: str) -> Callable[[Any], Any]:
    """Raises an exception if its argument does not fit the schema, in a twentieth of the time.

    Compiled by draft 7, to which the keywords of our schemas belong.
    """
    import fastjsonschema

    def within(part: Any, name: str) -> Any:
        """A part of the schema called `name`, as a part of the whole one."""
        if isinstance(part, list):
            return [within(one, name) for one in part]
        if not isinstance(part, dict):
            return part
        rest = {key: within(one, name) for key, one in part.items() if key != "$schema"}
        if "$ref" not in rest:
            return rest
        # Draft 7 does not look at what stands beside a reference.
        reference = {"$ref": _in_whole(rest.pop("$ref"), name)}
        return {"allOf": [reference, rest]} if rest else reference

    whole = {name: within(content, name) for name, content in _schemas().items()}
    return fastjsonschema.compile(
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$ref": _in_whole(schema, schema),
            "definitions": whole,
        }
    )


def _in_whole(reference: str, name: str) -> str:
    """A reference within the schema called `name`, in a schema that holds all of them."""
    file, _, place = reference.partition("#")
    return f"#/definitions/{file or name}{place}"


def check(content: Any, schema: str) -> None:
    """Checks content against a schema of the leaderboard, such as "entry.schema.json".

    Raises:
      BadFile: names the first error. Later ones are not looked for: large files may have millions.
    """
    import fastjsonschema
    from jsonschema.exceptions import best_match

    with contextlib.suppress(fastjsonschema.JsonSchemaException):
        _fits(schema)(content)
        return
    errors = _validator(schema).iter_errors(content)
    if error := best_match(itertools.islice(errors, 1)):
        raise BadFile(f"{_shortened(error.json_path)}: {_reason(error)}")


def _reason(error: Any) -> str:
    instance = error.instance
    match error.validator:
        case "pattern":
            return f"{_shortened(repr(instance))} is not {error.schema['description']}"
        case "maxItems" | "maxProperties" | "maxLength":
            return f"it has {len(instance):,} parts; at most {error.validator_value:,} are allowed"
    return _shortened(error.message)


def _shortened(text: str, most: int = 150) -> str:
    """The text with its middle left out if it is long."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"
