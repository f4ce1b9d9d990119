"""A server that lies, and a cache that was damaged: nothing wrong is kept, each message helps."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile

import numpy as np
import pytest

from distill_bench.data import download
from distill_bench.errors import UserError
from distill_bench.weights import published
from support.servers import archive, serve

NAME = "R152x2_T_flowers128"
FILE = archive()
PATIENCE = (0.0, 0.0, 0.0)


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def fetch(served, cache):
    return published.fetch(NAME, cache, served.url, pauses=PATIENCE)


def kept(folder):
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def refused(served, cache, reason):
    """Fetches, expects a refusal that says what to do, and that nothing was kept."""
    with pytest.raises(UserError, match=reason) as caught:
        fetch(served, cache)
    message = str(caught.value)
    assert f"--name={NAME} --cache={cache}" in message
    assert str(cache / f"{NAME}.npz") in message
    assert len(message.splitlines()) <= 5
    assert kept(cache) == set()
    return message


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def bomb(size=1 << 30):
    """An .npz of 1 MB that unpacks to a gigabyte of zeros."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("a.npy", "w", force_zip64=True) as member,
    ):
        header = {"descr": "<f4", "fortran_order": False, "shape": (size // 4,)}
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(size >> 24):
            member.write(bytes(1 << 24))
    return buffer.getvalue()


def overstated():
    """FILE, whose directory claims that its array has four gigabytes."""
    at = FILE.rindex(b"PK\1\2") + 24
    return FILE[:at] + struct.pack("<I", 2**32 - 2) + FILE[at + 4 :]


LIES = {
    "a flipped byte": (flipped(FILE, 300_000), "Bad CRC-32 for file 'a.npy'"),
    "a flipped byte in the array's header": (flipped(FILE, 100), "Bad CRC-32 for file 'a.npy'"),
    "a flipped CRC": (flipped(FILE, FILE.rindex(b"PK\1\2") + 16), "Bad CRC-32"),
    "a size that the file does not have": (overstated(), "claims to hold 4,294,967,294"),
    "a page": (b"<html>please log in</html>", "cannot be read as an .npz"),
    "half of the file": (FILE[: len(FILE) // 2], "cannot be read as an .npz"),
    "nothing": (b"", "cannot be read as an .npz"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_damaged_file_is_not_kept(tmp_path, lie):
    content, reason = LIES[lie]
    with serve(content) as served:
        refused(served, tmp_path, reason)
        served.content = FILE
        assert fetch(served, tmp_path).read_bytes() == FILE


def test_a_small_file_that_claims_a_gigabyte_is_refused_without_unpacking_it(tmp_path):
    content = bomb()
    assert len(content) < 2_000_000
    with serve(content) as served:
        refused(served, tmp_path, r"claims to hold 1,073,741,\d+, which is more than 20 times")
    (tmp_path / f"{NAME}.npz").write_bytes(content)  # by hand
    with pytest.raises(UserError, match=r"claims to hold .*\nPut the whole file there, or remove"):
        fetch(served, tmp_path)
    assert kept(tmp_path) == {f"{NAME}.npz"}


def test_two_halves_of_different_files_with_one_etag_are_not_kept(tmp_path):
    with serve(FILE, faults=[300_000, 503, 503, 503]) as served:
        with pytest.raises(UserError, match="503"):
            fetch(served, tmp_path)
        served.content = archive(1)
        assert len(served.content) == len(FILE)
        refused(served, tmp_path, "Bad CRC-32 for file 'a.npy'")
        assert served.asked[-1] == "bytes=300000-"
        assert fetch(served, tmp_path).read_bytes() == served.content
    assert served.asked[-1] is None


def test_another_file_than_the_one_used_before_is_not_kept(tmp_path):
    digest = tmp_path / f"{NAME}.npz.sha256"
    line = f"{hashlib.sha256(FILE).hexdigest()}  {NAME}.npz\n"
    with serve(archive(1)) as served:
        digest.write_text(line)
        with pytest.raises(UserError, match=f"If it may be another file now, remove {digest.name}"):
            fetch(served, tmp_path)
        assert kept(tmp_path) == {digest.name}
        served.content = FILE
        assert fetch(served, tmp_path).read_bytes() == FILE
    assert digest.read_text() == line


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe\0", b"", b"no digest\n", b"0" * 63 + b" x", b"0" * 65, b"\n" * 2**20]
)
def test_a_damaged_digest_is_one_message_with_the_remedy(tmp_path, damage):
    digest = tmp_path / f"{NAME}.npz.sha256"
    with serve(FILE) as served:
        digest.write_bytes(damage)
        for _ in range(2):  # before the download, and at a later use
            with pytest.raises(UserError, match=f"{digest.name} is damaged.*\nRemove it, and"):
                fetch(served, tmp_path)
            assert served.asked == []
            (tmp_path / f"{NAME}.npz").write_bytes(FILE)
        digest.unlink()
        assert fetch(served, tmp_path).read_bytes() == FILE


def test_an_endless_answer_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LARGEST", 500_000)
    with serve(FILE, length="") as served:
        refused(served, tmp_path, "the server sent more than 500,000 bytes")
        served.length = str(10**13)
        refused(served, tmp_path, r"announces 10,000,000,000,000 bytes, but at most 500,000")
        served.length = "many"
        refused(served, tmp_path, "the server sent more than 500,000 bytes")


@pytest.mark.parametrize(
    "notes", ["[" * 100_000, "\xff", '{"version": [1], "length": 2}', '{"version": null}', "[]"]
)
def test_damaged_notes_on_a_partial_download_start_it_over(tmp_path, notes):
    with serve(FILE) as served:
        (tmp_path / f"{NAME}.npz.part").write_bytes(b"x" * 1000)
        (tmp_path / f"{NAME}.npz.part.json").write_text(notes, encoding="latin-1")
        assert fetch(served, tmp_path).read_bytes() == FILE
    assert served.asked == [None]
