"""The cache of published weights, with a server on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.parse
import zipfile

import jax
import numpy as np
import pytest

from distill_bench.errors import UserError
from distill_bench.machine import WEIGHTS_VARIABLE
from distill_bench.networks import bit
from distill_bench.weights import formats, published
from distill_bench.weights.__main__ import main
from support.paths import ROOT
from support.servers import archive, serve

NAME = "R152x2_T_flowers128"
PARAMETERS = {
    "R50x1_224": 25_549_352,
    "R152x2_T_flowers128": 232_656_102,
    "R152x2_T_384": 236_335_208,
}


FILE = archive()


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)


def fetch(served, cache, **how):
    return published.fetch(NAME, cache, served.url, pauses=(0.0, 0.0, 0.0), **how)


def test_the_catalogue_names_networks_of_the_published_size():
    for name, parameters in PARAMETERS.items():
        config = published.get(name).config("zero")
        shapes = jax.eval_shape(lambda config=config: bit.init(config, jax.random.key(0)))
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters
    assert (
        len({entry.path for entry in published.CATALOGUE.values()})
        == len(published.CATALOGUE)
        == 26
    )
    assert published.get("BiT-M-R101x3").config("inf") == bit.BiTConfig(
        (3, 4, 23, 3), 192, 21_843, pool_padding="inf"
    )
    with pytest.raises(UserError, match="Did you mean 'R50x1_160'"):
        published.get("R50x1_16O")


def test_a_file_is_fetched_once_and_used_without_a_network_afterwards(tmp_path):
    calls = []
    with serve(FILE) as served:
        path = fetch(
            served, tmp_path, progress=lambda received, total: calls.append((received, total))
        )
    assert path == tmp_path / f"{NAME}.npz"
    assert path.read_bytes() == FILE
    received = [received for received, _ in calls]
    assert received == sorted(set(received))
    assert calls[-1] == (len(FILE), len(FILE))
    digest = hashlib.sha256(FILE).hexdigest()
    assert (tmp_path / f"{NAME}.npz.sha256").read_text() == f"{digest}  {NAME}.npz\n"
    assert fetch(served, tmp_path) == path  # the server is gone
    assert served.asked == [None]
    assert {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")} == {
        path.name,
        f"{path.name}.sha256",
    }


def test_the_cache_is_the_argument_else_the_variable_else_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert published.path_of(NAME) == tmp_path / ".cache/distill-bench/weights" / f"{NAME}.npz"
    monkeypatch.setenv(WEIGHTS_VARIABLE, "~/there")
    assert published.path_of(NAME) == tmp_path / "there" / f"{NAME}.npz"
    assert published.path_of(NAME, tmp_path) == tmp_path / f"{NAME}.npz"


def test_without_a_network_the_message_says_what_to_do(tmp_path):
    with serve(FILE) as served:
        pass
    with pytest.raises(UserError) as refused:
        fetch(served, tmp_path)
    for text in (
        f"{served.url}/distill/{NAME}.npz",
        str(tmp_path / f"{NAME}.npz"),
        f"--name={NAME} --cache={tmp_path}",
        "cannot be reached",
    ):
        assert text in str(refused.value)
    assert "attempts" not in str(refused.value)


def test_the_message_names_the_command_that_fetches_into_this_cache(tmp_path, monkeypatch):
    def command():
        with pytest.raises(UserError) as refused:
            published.fetch(NAME, base_url=served.url, pauses=())
        return re.search(r"^  command  (.*)$", str(refused.value), re.MULTILINE)[1]

    with serve(FILE) as served:
        pass
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command() == f"python -m distill_bench.weights --name={NAME}"
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "my weights"))
    assert shlex.split(command())[3:] == [f"--name={NAME}", f"--cache={tmp_path / 'my weights'}"]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    "headers",
    [{"ETag": '"1"'}, {"ETag": 'W/"1"', "Last-Modified": "Wed, 09 Jun 2021 00:00:00 GMT"}, {}],
)
def test_a_broken_download_is_resumed(tmp_path, ranges, headers):
    calls = []
    with serve(FILE, ranges=ranges, headers=headers, faults=[300_000, 503]) as served:
        assert (
            fetch(
                served, tmp_path, progress=lambda received, _: calls.append(received)
            ).read_bytes()
            == FILE
        )
    assert served.asked[0] is None
    assert served.asked[-1] == ("bytes=300000-" if headers else None)
    assert (calls == sorted(calls)) == bool(ranges and headers)


def test_a_partial_download_is_kept_for_the_next_command(tmp_path):
    with serve(FILE, faults=[300_000, 100_000, 503, 500]) as served:
        with pytest.raises(
            UserError, match=r"answered 500 .*4 attempts; the part that was downloaded is kept"
        ):
            fetch(served, tmp_path)
        assert (tmp_path / f"{NAME}.npz.part").read_bytes() == FILE[:400_000]
        assert fetch(served, tmp_path).read_bytes() == FILE
    assert served.asked[-1] == "bytes=400000-"


def test_a_partial_download_waits_for_the_network(tmp_path, monkeypatch):
    with (
        serve(FILE, faults=[300_000, 503, 503, 503]) as served,
        pytest.raises(UserError, match="503"),
    ):
        fetch(served, tmp_path)
    with contextlib.ExitStack() as later:
        back = []

        def sleep(seconds):
            if seconds == 2.0:
                back.append(
                    later.enter_context(serve(FILE, urllib.parse.urlsplit(served.url).port))
                )

        monkeypatch.setattr(time, "sleep", sleep)
        assert published.fetch(NAME, tmp_path, served.url, pauses=(1.0, 2.0)).read_bytes() == FILE
    assert back[0].asked == ["bytes=300000-"]


@pytest.mark.parametrize("ranges", [True, "careless"])
@pytest.mark.parametrize("size", [100_000, 600_000, 700_000])
def test_the_download_starts_over_if_the_file_changed_meanwhile(tmp_path, ranges, size):
    with serve(FILE, ranges=ranges, faults=[300_000, 503, 503, 503]) as served:
        with pytest.raises(UserError, match="503"):
            fetch(served, tmp_path)
        served.content, served.headers = archive(1, size), {"ETag": '"2"'}
        assert fetch(served, tmp_path).read_bytes() == served.content


def test_a_complete_part_is_not_fetched_again(tmp_path):
    with serve(FILE, faults=[len(FILE) - 1, 503, 503, 503]) as served:
        with pytest.raises(UserError, match="503"):
            fetch(served, tmp_path)
        with open(tmp_path / f"{NAME}.npz.part", "ab") as part:
            part.write(FILE[-1:])
        asked = len(served.asked)
        assert fetch(served, tmp_path).read_bytes() == FILE
    assert len(served.asked) == asked


@pytest.mark.parametrize("status", [403, 404])
def test_a_refused_request_is_not_repeated(tmp_path, status):
    with (
        serve(FILE, faults=[status]) as served,
        pytest.raises(UserError, match=f"answered {status}.*\n.*distill/{NAME}.npz"),
    ):
        fetch(served, tmp_path)
    assert served.asked == [None]
    assert not (tmp_path / f"{NAME}.npz").exists()


def test_a_file_that_is_not_an_npz_is_refused(tmp_path):
    with (
        serve(b"<html>please log in</html>") as served,
        pytest.raises(UserError, match=r"refused, because it cannot be read as an .npz"),
    ):
        fetch(served, tmp_path)
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == []
    with pytest.raises(UserError, match="unknown url type"):
        published.fetch(NAME, tmp_path, "bit_models")


def test_a_file_put_there_by_hand_is_used_if_it_is_complete(tmp_path):
    path = tmp_path / f"{NAME}.npz"
    path.write_bytes(FILE[:-100])
    with pytest.raises(UserError, match=r"cannot be read .*\nPut the whole file there, or remove"):
        published.fetch(NAME, tmp_path)
    path.write_bytes(FILE)
    assert published.fetch(NAME, tmp_path) == path
    assert hashlib.sha256(FILE).hexdigest() in (tmp_path / f"{NAME}.npz.sha256").read_text()


def test_a_file_that_changed_since_its_first_use_is_refused(tmp_path):
    with serve(FILE) as served:
        path = fetch(served, tmp_path)
    path.write_bytes(changed := archive(1))
    with pytest.raises(
        UserError, match=r"remove R152x2_T_flowers128.npz.sha256 next to it; otherwise remove both"
    ) as refused:
        fetch(served, tmp_path)
    for content in (FILE, changed):
        assert hashlib.sha256(content).hexdigest() in str(refused.value)
    (tmp_path / f"{NAME}.npz.sha256").unlink()
    assert fetch(served, tmp_path) == path


def test_a_cache_that_is_not_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="must be a folder"):
        published.fetch(NAME, tmp_path / "file")


FETCH = f"""
import sys
from distill_bench.weights import published
print("ready", flush=True)
published.fetch({NAME!r}, sys.argv[1], sys.argv[2], pauses=())
"""


def start(served, cache, code=FETCH):
    return subprocess.Popen(
        [sys.executable, "-c", code, str(cache), served.url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.process
def test_two_processes_at_once_fetch_only_once(tmp_path):
    with serve(FILE) as served:
        served.gate.clear()
        processes = [start(served, tmp_path) for _ in range(2)]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)  # time for a second request, which must not come
        served.gate.set()
        for process in processes:
            _, output = process.communicate(timeout=60)
            assert process.returncode == 0, output
    assert served.asked == [None]
    assert (tmp_path / f"{NAME}.npz").read_bytes() == FILE


@pytest.mark.process
def test_a_full_disk_loses_nothing(tmp_path):
    limit = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
"""
    with serve(FILE) as served:
        process = start(served, tmp_path, limit + FETCH)
        _, output = process.communicate(timeout=60)
        assert re.search(
            r"UserError: .*part cannot be written: File too large.\n"
            r"The part that was downloaded is kept there. Make room",
            output,
        ), output
        assert (tmp_path / f"{NAME}.npz.part").read_bytes() == FILE[:300_000]
        assert fetch(served, tmp_path).read_bytes() == FILE
    assert served.asked[-1] == "bytes=300000-"


def zeros(config):
    """A published file of the network `config`, all zeros."""
    shapes = jax.eval_shape(lambda: bit.init(config, jax.random.key(0)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for path, leaf in jax.tree.leaves_with_path(shapes):
            key = "/".join(str(part.key) for part in path)
            with file.open(f"{formats.stored_key('published', key)}.npy", "w") as member:
                np.lib.format.write_array(
                    member,
                    np.zeros(formats.stored_shapes("published", key, leaf.shape)[0], np.float32),
                )
    return buffer.getvalue()


def test_the_command_fetches_and_describes(tmp_path, capsys):
    content = zeros(published.get("R50x1_224").config("zero"))
    with serve(content) as served:
        command = [
            "published",
            "--name=R50x1_224",
            f"--cache={tmp_path}",
            f"--base_url={served.url}",
        ]
        assert main(command) == 0
    output = capsys.readouterr().out
    for line in (
        "layout        published (pool_padding='zero')",
        "architecture  depths (3, 4, 6, 3), width 64",
        "classes       1,000",
        "parameters    25,549,352",
        f"sha256        {hashlib.sha256(content).hexdigest()}",
    ):
        assert line in output.splitlines()
    assert main(["published", f"--cache={tmp_path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"R50x1_224 +R50x1 +1,000 +224  \d.* MiB", "\n".join(lines))
    assert sum(line.endswith("  -") for line in lines) == len(published.CATALOGUE) - 1
    (tmp_path / "R50x1_224.npz").rename(tmp_path / f"{NAME}.npz")
    assert main(["published", f"--name={NAME}", f"--cache={tmp_path}"]) == 2
    refused = capsys.readouterr().err
    assert "another architecture: depths (3, 4, 6, 3), width 64" in refused
    assert f"or remove {NAME}.npz and {NAME}.npz.sha256 and run: python -m" in refused


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--nane=x", "Unknown flag --nane. Did you mean '--name'?"),
        ("x", "Unexpected argument 'x'"),
        ("--name=x", "no published weights"),
    ],
)
def test_a_mistyped_command_is_one_message(flag, message, capsys):
    assert main(["published", flag]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.process
def test_help_and_catalogue_need_no_jax(tmp_path):
    code = """
import sys
from distill_bench.weights.__main__ import main
main(["", sys.argv[1]])
assert "jax" not in sys.modules
"""
    for flag, text in (("--help", "DISTILL_BENCH_CACHE"), (f"--cache={tmp_path}", NAME)):
        done = subprocess.run(
            [sys.executable, "-c", code, flag], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert text in done.stdout
