# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""HTTPSession: requests to one server, repeated as the one policy says.

pyreqwest sends them, and does not hold the interpreter's lock.  Measured for objects of 20 KB, 16
at a time, milliseconds of CPU for a create and a get: pyreqwest 0.09 and 0.08, obstore 0.25 and
0.26, urllib3 0.8 and 0.75, google-cloud-storage 2.3 and 2.7.
"""

import datetime as dt
import json
import re
import sys
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import import_module
from itertools import chain, islice
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from crashmover.errors import (
    NO_CERTIFICATES,
    NO_THREAD,
    NO_TRUST,
    UNKNOWN_HOST,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.hiding import hidden
from crashmover.pool import in_lasting_thread, off_main_thread, possible_threads
from crashmover.proxies import proxy_for, with_proxy
from crashmover.retry import RetryPolicy

# pyreqwest 0.15.1 ends the process some time after the end of the thread that has imported it: the
# memory that its allocator has taken there goes with the thread.  That allocator, mimalloc, has
# memory for each thread: without the variable, a copy by 16 threads takes twice as much of it.
with hidden(lambda _name: False, {"MIMALLOC_ARENA_EAGER_COMMIT": "0"}):
    in_lasting_thread(lambda: import_module("pyreqwest.client"))

from pyreqwest import exceptions
from pyreqwest.client import SyncClient, SyncClientBuilder

if TYPE_CHECKING:
    from pyreqwest.http import HeaderMap
    from pyreqwest.request import SyncStreamRequest
    from pyreqwest.response import SyncResponse

T = TypeVar("T")

Explanation = tuple[type[StorageError], str]
"""What to raise, and the reason."""

Asker = Callable[[Mapping[str, str] | None], Mapping[str, str]]
"""Returns the headers that say whose a request is; and others for those that the server has refused
(401)."""

_TIMES = 20  # read_timeout, which a request as a whole may take
_THREADS = 2  # of pyreqwest: one sends, another asks for the addresses of hosts
_SLOW_DOWN = (429, 503)  # the statuses by which a server asks for fewer requests
_PLAIN = ",()/:"  # in a query these need not be quoted, which takes time
_PIECE = 64 << 10  # bytes; with 256 KiB, a copy by 16 threads takes twice the memory
_SHORT = 1 << 20  # bytes: if any of a body up to this length is missing, it is asked for again
_LONGEST_ANSWER = 32 << 20  # bytes, of what is not read piece by piece

_TLS = re.compile(r"certificate|tls|InvalidContentType|handshake", re.IGNORECASE)
_OS_ERROR = re.compile(r"([A-Z][^()]{1,80}) \(os error [0-9]+\)")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server has answered.

    :param headers: by their names, in any case
    :param is_repeated: whether the request was sent before, and its answer may have been lost
    """

    status: int
    headers: "HeaderMap"
    body: bytes = field(repr=False)
    is_repeated: bool = False

    def object(self) -> dict[str, Any]:
        """Return the JSON object in the body; `ValueError` or `TypeError` if there is none."""
        try:
            return dict(json.loads(self.body))
        except RecursionError:
            raise ValueError("too deep") from None


def status_of(answer: Answer) -> int:
    """Return its status: for `HTTPSession.ask`, where nothing else is wanted."""
    return answer.status


class HTTPSession:
    """Sends requests to one server.  Safe for use from many threads.

    :param url: of the server, without a slash at its end
    :param uri: what messages call the store
    :param explain: says what to raise where an answer says that a request has failed
    :param asker: says whose requests these are
    :param query: of every URL
    :param retry: how often a request is sent again
    :param connect_timeout: seconds
    :param read_timeout: seconds without an answer, or a further byte of one; a request as a whole
        may take 20 times as long
    """

    def __init__(
        self,
        url: str,
        uri: str,
        *,
        explain: Callable[[Answer], Explanation],
        asker: Asker,
        query: Mapping[str, str],
        connect_timeout: float,
        read_timeout: float,
        retry: RetryPolicy,
    ) -> None:
        self.url = url
        self.uri = uri
        self.query = query
        self._explain = explain
        self._asker = asker
        self._retry = retry
        self._timeouts = dt.timedelta(seconds=connect_timeout), dt.timedelta(seconds=read_timeout)
        self._secrets: set[str] = set()
        self._lock = Lock()
        self._client: SyncClient | None = None
        self.slowdowns = 0
        """How often the server has asked for fewer requests."""

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        read: Callable[[Answer], T],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        allowed: Collection[int] = (200,),
        crash_id: str | None = None,
    ) -> T:
        """Send a request, again if it fails in passing; return what `read` makes of the answer.

        :param path: of the URL
        :param read: its `ValueError`, `LookupError` and `TypeError` mean: wrong server
        :param allowed: the statuses that are no failure
        :raises StorageError: there is no answer, or a refusal
        """
        earlier = iter([False])

        def attempt() -> T:
            is_repeated = next(earlier, True)
            opened = self._open(method, path, query, headers, body, crash_id)
            answer = self._answer(*opened, crash_id, is_repeated=is_repeated)
            if answer.status not in allowed:
                raise self.refusal(answer, crash_id)
            try:
                return read(answer)
            except (ValueError, LookupError, TypeError):
                raise self.wrong_server(crash_id) from None

        return self._again(attempt)

    def stream(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str],
        allowed: Collection[int],
        crash_id: str | None,
    ) -> tuple[Answer, Iterator[bytes]]:
        """As `ask`; return the answer, and if its status is 200 or 206 the body piece by piece.

        A short body has arrived as a whole then, and of a longer one the first piece.
        """

        def attempt() -> tuple[Answer, Iterator[bytes]]:
            request, response = self._open("GET", path, query, headers, None, crash_id)
            if response.status in allowed and response.status in (200, 206):
                pieces = self._pieces(request, response, crash_id)
                arrived = [*islice(pieces, None if _length(response) <= _SHORT else 1)]
                return Answer(response.status, response.headers, b""), chain(arrived, pieces)
            answer = self._answer(request, response, crash_id)
            if answer.status not in allowed:
                raise self.refusal(answer, crash_id)
            return answer, iter(())

        return self._again(attempt)

    def clock(self, path: str) -> dt.datetime | None:
        """Return the time by the server's clock, to the second; None if it does not say.  It is in
        every answer, a refusal too."""
        from email.utils import parsedate_to_datetime  # 7 ms

        with suppress(StorageError, ValueError, KeyError):
            opened = self._open("GET", path, None, None, None, None)
            time = parsedate_to_datetime(self._answer(*opened, None).headers["date"])
            return time.replace(tzinfo=time.tzinfo or dt.UTC)
        return None

    def refusal(self, answer: Answer, crash_id: str | None) -> StorageError:
        """Return what to raise where this answer says that a request has failed."""
        is_of_server = answer.body.lstrip().startswith((b"{", b"<?xml"))
        return self.error(*self._explain(answer), crash_id, names_proxy=not is_of_server)

    def wrong_server(self, crash_id: str | None) -> StorageError:
        """Return what to raise if another kind of server answers."""
        return self.error(StorageUnavailable, "another kind of server answers", crash_id)

    def error(
        self,
        kind: type[StorageError],
        reason: str,
        crash_id: str | None,
        *,
        names_proxy: bool = True,
    ) -> StorageError:
        """Return an error of this store.  A server may repeat a token that it does not accept."""
        for secret in tuple(self._secrets):  # other threads add to them
            reason = reason.replace(secret, "***")
        reason = with_proxy(reason, proxy_for(self.url)) if names_proxy else reason
        return kind(reason, crash_id=crash_id, uri=self.uri)

    def _again(self, attempt: Callable[[], T]) -> T:
        try:
            return self._retry.call(attempt)
        except StorageUnavailable as error:
            error.was_retried = True
            raise

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: bytes | None,
        crash_id: str | None,
    ) -> "tuple[SyncStreamRequest, SyncResponse]":
        """Send a request once; and once more if the server says 401, as a token may have expired on
        its way."""
        asker = self._asker(None)
        url = self.url + path
        if added := {**(query or {}), **self.query}:
            url += f"{'&' if '?' in path else '?'}{_encoded(*added.items())}"
        for is_last in (not asker, True):
            self._secrets |= {word for text in asker.values() for word in text.split()[1:]}
            builder = self._connected().request(method, url).headers({**asker, **(headers or {})})
            request = (builder if body is None else builder.body_bytes(body)).build_streamed()
            response = self._call(request.__enter__, crash_id)
            if response.status in _SLOW_DOWN:
                with self._lock:
                    self.slowdowns += 1
            if response.status != 401 or is_last:
                break
            _close(request)
            asker = self._asker(asker)
        return request, response

    def _answer(
        self,
        request: "SyncStreamRequest",
        response: "SyncResponse",
        crash_id: str | None,
        *,
        is_repeated: bool = False,
    ) -> Answer:
        body = bytearray()
        with closing(self._pieces(request, response, crash_id)) as pieces:
            for piece in pieces:
                body += piece
                if len(body) > _LONGEST_ANSWER:
                    raise self.wrong_server(crash_id)
        return Answer(response.status, response.headers, bytes(body), is_repeated)

    def _pieces(
        self, request: "SyncStreamRequest", response: "SyncResponse", crash_id: str | None
    ) -> Generator[bytes, None, None]:
        try:
            left, read = _length(response), response.body_reader.read
            while left and (piece := self._call(partial(read, min(left, _PIECE)), crash_id)):
                left -= len(piece)
                yield bytes(piece)
        finally:
            _close(request)

    def _call(self, function: Callable[[], T], crash_id: str | None) -> T:
        """Call pyreqwest.  In the main thread the handler of a signal would end the whole process
        (pyreqwest 0.15.1)."""
        try:
            return off_main_thread(function, "http")
        except (exceptions.PyreqwestError, RuntimeError) as error:
            raise self.error(*_explanation(error), crash_id) from None

    def _connected(self) -> SyncClient:
        with self._lock:
            if self._client is None:
                if possible_threads(_THREADS) < _THREADS:
                    raise StorageUnavailable(NO_THREAD, uri=self.uri)
                try:
                    self._client = self._new_client()
                except exceptions.BuilderError as error:
                    raise self.error(*_explanation(error), None) from None
            return self._client

    def _new_client(self) -> SyncClient:
        """No answer is unpacked, and no redirect is followed: to Google, 308 is none."""
        connect_timeout, read_timeout = self._timeouts
        builder = SyncClientBuilder().follow_redirects(False).user_agent("crashmover")
        builder = builder.gzip(False).brotli(False).zstd(False).deflate(False)
        builder = builder.connect_timeout(connect_timeout).read_timeout(read_timeout)
        if self.url.startswith("http:"):  # no certificates are needed, and none may be installed
            builder = builder.danger_accept_invalid_certs(True)
        return builder.timeout(_TIMES * read_timeout).build()


@lru_cache(maxsize=64)  # all that create an object have the same, and all that look for one
def _encoded(*query: tuple[str, str]) -> str:
    return urlencode(query, safe=_PLAIN)


def _length(response: "SyncResponse") -> int:
    """Return the most bytes that the body has.  To ask once more than that takes as long as to ask
    for those that are there."""
    length = response.headers.get("content-length", "")
    return int(length) if length.isdecimal() else sys.maxsize


def _close(request: "SyncStreamRequest") -> None:
    off_main_thread(lambda: request.__exit__(None, None, None), "http")


def _explanation(error: Exception) -> Explanation:
    """Return what to raise where there is no answer, or only the beginning of one.  The client's
    own text is not shown: addresses are in it."""
    if isinstance(error, RuntimeError):
        return StorageUnavailable, NO_THREAD
    text = str(getattr(error, "details", ""))
    if "No CA certificates" in text:
        return StorageDenied, NO_CERTIFICATES
    if isinstance(error, exceptions.ConnectError) and _TLS.search(text):
        return StorageDenied, NO_TRUST
    if "dns error" in text:
        return StorageUnavailable, UNKNOWN_HOST
    if found := _OS_ERROR.search(text):
        return StorageUnavailable, found[1].lower()
    if isinstance(error, exceptions.RequestTimeoutError):
        return StorageUnavailable, "no answer in time"
    return StorageUnavailable, "the connection broke off"
