"""A file server on loopback that can fail on purpose."""

from __future__ import annotations

import contextlib
import http.server
import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np


def archive(seed: int = 0, size: int = 600_000) -> bytes:
    """An .npz of random bytes, which do not compress: with this size, more than two chunks."""
    buffer = io.BytesIO()
    np.savez(buffer, a=np.random.default_rng(seed).integers(0, 256, size, np.uint8))
    return buffer.getvalue()


@dataclass
class Served:
    """How the server behaves, and the requests that it got.

    Attributes:
      content: the server's only file, at every path.
      headers: headers sent with the file, such as its ETag.
      ranges: whether the server supports ranges; "careless" ignores If-Range.
      faults: for each of the first requests, the status to answer, or the number of bytes after
        which to hang up.
      length: the Content-Length to announce; None for the true one, "" to announce none.
      gate: answers wait until it is set.
      asked: the Range header of each request so far; None if it asked for the whole file.
      url: URL of the folder that holds the file.
    """

    content: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"1"'})
    ranges: bool | str = True
    faults: list[int] = field(default_factory=list)
    length: str | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(content: bytes, port: int = 0, **how) -> Iterator[Served]:
    served = Served(content, **how)
    served.gate.set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            served.asked.append(asked)
            served.gate.wait()
            fault = served.faults.pop(0) if served.faults else None
            if fault is not None and 400 <= fault < 600:
                self.send_error(fault)
                return
            first, total = 0, len(served.content)
            # If-Range ignores weak ETags.
            strong = [value for value in served.headers.values() if not value.startswith("W/")]
            current = self.headers.get("If-Range") in strong or served.ranges == "careless"
            if served.ranges and asked and current:
                first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
                if first >= total:
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
            else:
                self.send_response(200)
            for name, value in served.headers.items():
                self.send_header(name, value)
            length = str(total - first) if served.length is None else served.length
            if length:
                self.send_header("Content-Length", length)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # a client may hang up, too
                self.wfile.write(served.content[first : None if fault is None else first + fault])

        def log_message(self, format, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/bit_models"
    try:
        yield served
    finally:
        served.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
