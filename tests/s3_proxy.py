# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A proxy before a real S3 server that counts the requests, and fails those that a test picks."""

import http.client
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from crashmover.external.s3.crashstorage import S3CrashStorage
from crashmover.retry import RetryPolicy
from tests.servers.buckets import BucketServer
from tests.servers.s3 import Ministack

CHECKED = "x-amz-sdk-checksum-algorithm"
"""The server for tests looks at checksums only where it is told this, as Amazon's clients do."""


@dataclass(frozen=True)
class Request:
    """What is asked for: ``PUT /bucket/key?query``."""

    method: str
    path: str

    def __contains__(self, text: str) -> bool:
        return text in f"{self.method} {self.path}"


class Fault:
    """What becomes of a request instead of an answer."""


class Reset(Fault):
    """The connection is reset before the request reaches the server."""


@dataclass(frozen=True)
class ResetWithin(Fault):
    """The connection is reset when so many bytes of the request's body have come."""

    after: int


class ResetAfter(Fault):
    """The request is carried out, and the connection reset instead of the answer."""


class Hang(Fault):
    """There is no answer until the proxy is closed."""


@dataclass(frozen=True)
class Says(Fault):
    """The answer is an error.

    :param detail: further elements of the answer
    """

    status: int
    code: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Replies(Fault):
    """The answer is this, and says that all is well, or what `status` says."""

    body: bytes
    status: int = 200


@dataclass(frozen=True)
class Cut(Fault):
    """The body of the answer ends early.

    :param length: whether its whole length is announced all the same
    :param hang: whether the connection stays open
    """

    after: int = 10
    length: bool = True
    hang: bool = False


@dataclass(frozen=True)
class Drip(Fault):
    """The body of the answer comes byte by byte.

    :param pause: seconds between two of them
    """

    pause: float


class Damaged(Fault):
    """A bit of the answer's body is another."""


class DamagedUpload(Fault):
    """A bit of the request's body is another."""


@dataclass
class Plan:
    """Which requests fail.

    :param fault: how; None: not at all
    :param when: which ones
    :param times: so many of them, then no more
    """

    fault: Fault | None = None
    when: Callable[[Request], bool] = lambda _: True
    times: int = 1_000_000
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pick(self, request: Request) -> Fault | None:
        """Return what becomes of this request."""
        with self._lock:
            if self.fault is None or self.times < 1 or not self.when(request):
                return None
            self.times -= 1
            return self.fault


Policy = Callable[[Request, dict[str, str], bytes], Fault | None]
"""Returns what becomes of a request, by its headers and body; None: what the server makes of it."""


class Proxy:
    """:param upstream: the URL of the server"""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.plan = Plan()
        self.headers: dict[str, str] = {}
        """To be added to each request on its way."""
        self.said: dict[str, str] = {}
        """To be in each answer, instead of what the server says there."""
        self.forgotten: set[str] = set()
        """The headers that never arrive, in small letters."""
        self.weakens = False
        """Whether it makes weak ETags of strong ones, as proxies do that compress."""
        self.policy: Policy = lambda _request, _head, _body: None
        """What a policy of the bucket makes of each request."""
        self.requests: list[Request] = []
        self.heads: list[dict[str, str]] = []
        """The headers of each request, by their names in small letters."""
        self.closed = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def endpoint_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def fail(
        self, fault: Fault, when: Callable[[Request], bool] | str = "", times: int = 1_000_000
    ) -> None:
        """Fail the requests that have this text in them, or for which this is true."""
        chosen = when if callable(when) else (lambda request: when in request)
        self.plan = Plan(fault, chosen, times)

    def count(self, text: str = "") -> int:
        """How many requests there were that have this text in them."""
        return sum(text in request for request in self.requests)

    def close(self) -> None:
        """Stop, and let go of whoever waits."""
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def proxy_of(upstream: str) -> Iterator[Proxy]:
    """Run a proxy before this server."""
    proxy = Proxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()


@dataclass(frozen=True)
class Place:
    """A server, as it is, and as it is seen through a network that fails."""

    server: Any  # a BucketServer
    proxy: Proxy

    def uri(self, bucket: str, **options: str) -> str:
        there: str = self.server.uri(bucket, **options)
        return there.replace(self.server.endpoint_url, self.proxy.endpoint_url)

    def fail_at(self, number: int, fault: Fault, *, lasting: bool = False) -> None:
        """Let the request of this number fail, and perhaps all that follow."""
        left = iter(range(number - 1))
        times = 1_000_000 if lasting else 1
        self.proxy.requests.clear()
        self.proxy.fail(fault, lambda _: next(left, None) is None, times)

    def heal(self) -> int:
        """Let nothing fail from now on; return how many requests there were."""
        self.proxy.fail(Reset(), times=0)
        return len(self.proxy.requests)


@contextmanager
def behind_proxy(server: BucketServer) -> Iterator[Place]:
    """Put a proxy before this server, which looks at checksums, if it ever does."""
    with proxy_of(server.endpoint_url) as proxy:
        if isinstance(server, Ministack):
            proxy.headers = {CHECKED: "SHA256"}
        yield Place(server, proxy)


def shorten_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let S3 stores that are opened now wait for milliseconds before they try again."""
    use_retry(monkeypatch, RetryPolicy(wait=0.01, wait_max=0.02))


def use_retry(monkeypatch: pytest.MonkeyPatch, retry: RetryPolicy) -> None:
    """Let S3 stores that are opened now try again as this policy says."""
    monkeypatch.setattr(S3CrashStorage, "tuning", replace(S3CrashStorage.tuning, retry=retry))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # or else many who connect at once have to wait for a second
    proxy: Proxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the head and the body of an answer are sent one by one

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        with suppress(OSError):  # the client may have gone away
            super().handle()

    def _relay(self) -> None:
        assert isinstance(self.server, _Server)
        proxy = self.server.proxy
        request = Request(self.command, self.path)
        proxy.requests.append(request)
        head = {name.lower(): value for name, value in self.headers.items()}
        proxy.heads.append(head)
        fault = proxy.plan.pick(request)
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(size, fault.after) if isinstance(fault, ResetWithin) else size)
        fault = fault or proxy.policy(request, head, body)
        if isinstance(fault, Hang):
            proxy.closed.wait(60)
        if isinstance(fault, Hang | Reset | ResetWithin):
            self._reset()
        elif isinstance(fault, Says):
            error = f"<Error><Code>{fault.code}</Code>{fault.detail}</Error>"
            self._answer(fault.status, [], error.encode())
        elif isinstance(fault, Replies):
            self._answer(fault.status, [], fault.body)
        else:
            damaged = isinstance(fault, DamagedUpload)
            self._forward(proxy, _flipped(body) if damaged else body, fault)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _relay

    def _forward(self, proxy: Proxy, body: bytes, fault: Fault | None) -> None:
        upstream = http.client.HTTPConnection(proxy.upstream.netloc, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in [*self.headers.items(), *proxy.headers.items()]:
                if name.lower() not in proxy.forgotten:
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            data = answer.read()
            headers = answer.getheaders()
        finally:
            upstream.close()
        if isinstance(fault, ResetAfter):
            self._reset()
        elif isinstance(fault, Cut):
            self._cut(proxy, answer.status, headers, data, fault)
        elif isinstance(fault, Drip):
            self._drip(proxy, answer.status, headers, data, fault)
        elif isinstance(fault, Damaged):
            self._answer(answer.status, headers, _flipped(data))
        else:
            self._answer(answer.status, headers, data)

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        length = dict(headers).get("Content-Length", "") if self.command == "HEAD" else ""
        self._head(status, headers, length or str(len(data)))
        if self.command != "HEAD":
            self.wfile.write(data)

    def _cut(
        self, proxy: Proxy, status: int, headers: list[tuple[str, str]], data: bytes, cut: Cut
    ) -> None:
        self._head(status, headers, str(len(data)) if cut.length else None)
        self.wfile.write(data[: cut.after])
        self.wfile.flush()
        if cut.hang:
            proxy.closed.wait(60)
        self.close_connection = True

    def _drip(
        self, proxy: Proxy, status: int, headers: list[tuple[str, str]], data: bytes, drip: Drip
    ) -> None:
        self._head(status, headers, str(len(data)))
        for start in range(len(data)):
            self.wfile.write(data[start : start + 1])
            self.wfile.flush()
            if proxy.closed.wait(drip.pause):
                break
        self.close_connection = True

    def _head(self, status: int, headers: list[tuple[str, str]], length: str | None) -> None:
        assert isinstance(self.server, _Server)
        said = self.server.proxy.said
        ours = {"content-length", "transfer-encoding", "connection", *map(str.lower, said)}
        self.send_response_only(status)
        weakens = self.server.proxy.weakens and self.command in ("GET", "HEAD")
        for name, value in headers:
            if name.lower() not in ours:
                weak = "W/" if weakens and name.lower() == "etag" else ""
                self.send_header(name, weak + value)
        for name, value in said.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", length)
        else:
            self.send_header("Connection", "close")
        self.end_headers()

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data


class RefusingProxy:
    """:param port: where it listens"""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[bytes] = []
        """The first line of each request."""


@contextmanager
def refusing_proxy(status: str = "403 Forbidden") -> Iterator[RefusingProxy]:
    """Run a proxy that refuses every request."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            proxy.asked.append(self.rfile.readline())
            while self.rfile.readline().strip():
                pass
            self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy = RefusingProxy(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield proxy
        server.shutdown()
        thread.join()
