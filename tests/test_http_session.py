# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The bodies of answers: read to their end and not past it, and the connection is used again."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from crashmover.errors import StorageUnavailable
from crashmover.external.http_session import Answer, HTTPSession
from crashmover.retry import RetryPolicy

BODY = bytes(range(256)) * 1000  # of several pieces


class Handler(BaseHTTPRequestHandler):
    """Answers ``/length/N`` with N bytes, ``/chunked`` without a length, ``/cut`` with too few."""

    protocol_version = "HTTP/1.1"
    connections = 0

    def setup(self) -> None:
        super().setup()
        Handler.connections += 1

    def do_GET(self) -> None:
        how, _, size = self.path.strip("/").partition("/")
        body = BODY[: int(size or len(BODY))]
        self.send_response(200)
        if how == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        else:
            self.send_header("Content-Length", str(len(body) + (how == "cut")))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = how == "cut"

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@contextmanager
def session() -> Iterator[HTTPSession]:
    Handler.connections = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever).start()
        yield HTTPSession(
            f"http://127.0.0.1:{server.server_port}",
            "gs://crashes",
            explain=lambda answer: (StorageUnavailable, str(answer.status)),
            asker=lambda _refused: {},
            query={},
            connect_timeout=5,
            read_timeout=5,
            retry=RetryPolicy(attempts=1),
        )
        server.shutdown()


def body_of(answer: Answer) -> bytes:
    return answer.body


def streamed(http: HTTPSession, path: str) -> bytes:
    answer, pieces = http.stream(path, {}, headers={}, allowed=(200,), crash_id=None)
    assert answer.status == 200
    return b"".join(pieces)


@pytest.mark.parametrize("path", ["/length/0", "/length/1", "/length/65536", "/length", "/chunked"])
def test_a_body_is_read_to_its_end_and_its_connection_is_used_again(path: str) -> None:
    with session() as http:
        bodies = [http.ask("GET", path, read=body_of) for _ in range(5)]
        bodies += [streamed(http, path) for _ in range(5)]
        size = int(path.rpartition("/")[2]) if path.count("/") > 1 else len(BODY)
        assert set(bodies) == {BODY[:size]}
        assert Handler.connections == 1


def test_a_body_that_is_cut_short_is_no_body() -> None:
    with session() as http:
        with pytest.raises(StorageUnavailable):
            http.ask("GET", "/cut", read=body_of)
        with pytest.raises(StorageUnavailable):
            streamed(http, "/cut")
