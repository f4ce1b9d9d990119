"""Messages of a worker are told apart from whatever else arrives on its pipe."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.execution.messages import LONGEST, Kind, Reader, encode
from sweeps.execution.printed import HEAD, LOG_SIZE, TAIL, Printed

TOKEN = "0123456789abcdef"
VALUES = {
    Kind.BEGIN: st.tuples(st.text(), st.integers()).map(list),
    Kind.ADVANCE: st.integers(),
    Kind.SAY: st.text(),
    Kind.SUSPECT: st.lists(st.text()),
    Kind.IMPORTING: st.text(),
    Kind.PLANNED: st.lists(st.tuples(st.text(), st.text()).map(list)),
    Kind.DONE: st.lists(st.text()),
    Kind.BLAMED: st.tuples(st.text(), st.text()).map(list),
    Kind.MISUSE: st.text(),
    Kind.FAILED: st.text(),
}
MESSAGES = st.one_of([st.tuples(st.just(kind), values) for kind, values in VALUES.items()])
FORGED = st.sampled_from(
    [b'["done", []]\n', b'\n["failed", "forged"]', b"\n\n\n", b'{"', b"\xff\0"]
)


def read(content, sizes=(1 << 16,)):
    """What a reader finds in the content, fed in pieces of these sizes in turn; and the reader."""
    reader, found = Reader(TOKEN), []
    while content:
        for size in sizes:
            found += reader.feed(content[:size])
            content = content[size:]
    return found, reader


def test_every_kind_of_message_has_a_form():
    assert VALUES.keys() == set(Kind)


@settings(max_examples=50)
@given(
    st.lists(st.one_of(MESSAGES, FORGED, st.binary(max_size=50)), max_size=8),
    st.lists(st.integers(1, 100), min_size=1, max_size=3),
)
def test_messages_arrive_whole_among_foreign_bytes(parts, sizes):
    sent = [part for part in parts if isinstance(part, tuple)]
    foreign = [part for part in parts if isinstance(part, bytes)]
    content = b"".join(encode(TOKEN, *part) if isinstance(part, tuple) else part for part in parts)
    found, reader = read(content, sizes)
    assert found == sent
    assert reader.foreign == sum(map(len, foreign))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '["done", "a folder"]',
        '["advance", "many"]',
        '["begin", ["label"]]',
        '["planned", [["name"]]]',
        '["explode", 1]',
        '[["done"], []]',
        '{"kind": "done", "value": []}',
        "7",
        "",
    ],
)
def test_a_message_of_another_form_is_none(text):
    assert read(f"\n{TOKEN}{text}\n".encode())[0] == []


def test_a_line_without_end_takes_no_memory():
    reader = Reader(TOKEN)
    for _ in range(4 * LONGEST // (1 << 16)):
        assert not list(reader.feed(b"x" * (1 << 16)))
    assert len(reader._rest) <= LONGEST
    assert list(reader.feed(encode(TOKEN, Kind.ADVANCE, 3))) == [(Kind.ADVANCE, 3)]


def test_a_log_keeps_start_and_end_of_what_was_printed(tmp_path):
    printed, log = Printed(), tmp_path / "worker.log"
    printed.append_to(log)
    assert not log.exists()
    lines = b"".join(b"line %d\n" % n for n in range(1_000_000))
    for start in range(0, len(lines), 1 << 16):
        printed.add(lines[start : start + (1 << 16)])
    printed.append_to(log)
    content = log.read_bytes()
    assert content.startswith(lines[:HEAD])
    assert content.endswith(lines[-TAIL:])
    assert b" bytes left out ..." in content
    assert len(content) < HEAD + TAIL + 100
    assert printed.last_lines().splitlines()[-1] == "line 999999"
    for _ in range(LOG_SIZE // len(content) + 2):
        printed.append_to(log)
    assert log.stat().st_size < LOG_SIZE + len(content)


def test_a_short_log_is_whole():
    printed = Printed()
    for text in ("a\n", "bc\n"):
        printed.add(text.encode())
    assert printed.content() == b"a\nbc\n"
    assert json.dumps(printed.last_lines()) == '"a\\nbc"'
