# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Signed requests: asking an S3 server what obstore has no words for.

urllib3 sends them.  boto3 would take more time for a request, and read more of the environment.
"""

import datetime as dt
import hashlib
import html
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from crashmover.errors import (
    NO_TRUST,
    UNKNOWN_HOST,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.s3.connection_context import TIMES, S3ConnectionContext
from crashmover.external.s3.s3errors import NOT_S3, TROUBLE, Refused
from crashmover.external.s3.signing import signed_headers
from crashmover.proxies import proxy_for, with_proxy

if TYPE_CHECKING:
    import ssl

    import urllib3

_CONNECTIONS = 64  # kept open at most; further ones are closed after their request
_PIECE = 64 << 10  # of a body: urllib3 allows as long for each piece as for connecting
_LONGEST_ANSWER = 8 << 20
_CONFLICT = 409  # another request changes the same object at this moment
_PASSING = (408, 429, 500)
_SLOW = (429, 503)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server has answered, an error too.

    :param headers: by their names in small letters
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def code(self) -> str:
        """The server's word for the error; "" where it says none."""
        return self.text("Code").strip()

    def text(self, name: str) -> str:
        """Return the text of the first element of this name; "" where there is none.

        No parser is asked: servers put into their messages what no parser takes.
        """
        match = re.search(rf"<{name}>([^<]*)</{name}>", self.body.decode(errors="replace"))
        return html.unescape(match.group(1)) if match else ""


class SignedClient:
    """Sends requests to one bucket, and again if they fail in passing: none does harm that is
    carried out twice.  Safe for many threads, and after a fork.

    :param context: how to reach the bucket, and whose credentials to use
    """

    def __init__(self, context: S3ConnectionContext) -> None:
        self.context = context
        self._lock = Lock()
        self._pool: urllib3.PoolManager | None = None
        self._owner = 0  # the process whose connections these are

    def send(
        self,
        method: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        sha256: str | None = None,
        again_after_conflict: bool = True,
        once: bool = False,
        crash_id: str | None = None,
    ) -> Answer:
        """Send a request; return the answer, a refusal too.

        :param key: with the prefix of the store; "": the bucket is asked
        :param query: of the URL
        :param headers: further ones
        :param sha256: of the body, in hex, where it is known
        :param again_after_conflict: whether to send it again if it meets another (409)
        :param once: whether to send it a single time, however it fails
        :raises StorageUnavailable: there was no answer, or the server asks to come again
        :raises StorageDenied: there are no credentials, or no trusted connection
        """
        url = self.context.object_url(quote(key, safe="/-_.~"))
        if query:
            url += f"?{urlencode(query, quote_via=quote, safe='-_.~')}"
        sha256 = sha256 or hashlib.sha256(body).hexdigest()
        passing = (*_PASSING, _CONFLICT) if again_after_conflict else _PASSING

        def attempt() -> Answer:
            signed = self._signed(method, url, dict(headers or {}), sha256)
            answer = self._answer(method, url, signed, body, crash_id)
            if answer.status in _SLOW:
                self.context.note_slowdown()
            if answer.status in passing or answer.status > 501:
                raise self.refusal(answer, crash_id)
            return answer

        if once:
            return attempt()
        try:
            return self.context.retry.call(attempt)
        except StorageUnavailable as error:
            error.was_retried = True
            raise

    def refusal(self, answer: Answer, crash_id: str | None = None) -> StorageError:
        """Return what to raise where this answer says that the request has failed."""
        text = answer.body.decode(errors="replace")
        error = Refused(f"status code: {answer.status}: {text}")
        return self.context.explain(error, crash_id)

    def _signed(
        self, method: str, url: str, headers: dict[str, str], sha256: str
    ) -> dict[str, str]:
        if self.context.options.request_payer:
            headers["x-amz-request-payer"] = self.context.options.request_payer
        if self.context.options.anonymous:
            return headers
        return signed_headers(
            method,
            url,
            headers,
            sha256,
            credentials=self.context.credentials(),
            region=self.context.place.region,
            time=dt.datetime.now(dt.UTC),
        )

    def _answer(
        self, method: str, url: str, headers: dict[str, str], body: bytes, crash_id: str | None
    ) -> Answer:
        try:
            return self._exchange(method, url, headers, body)
        except StorageError:
            raise
        except Exception as error:
            kind, reason = _explanation(error)
            reason = with_proxy(reason, proxy_for(url))
            raise kind(reason, crash_id=crash_id, uri=self.context.uri) from None

    def _exchange(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Answer:
        ends = time.monotonic() + TIMES * self.context.options.read_timeout
        if body:
            headers["Content-Length"] = str(len(body))
        answer = self._connections().urlopen(
            method,
            url,
            body=_pieces(body) if body else None,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )
        with answer:
            data = bytearray()
            while chunk := answer.read1(_PIECE):
                data += chunk
                if time.monotonic() > ends or len(data) > _LONGEST_ANSWER:
                    answer.close()
                    raise TimeoutError
            answer.release_conn()
        names = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status, names, bytes(data))

    def _connections(self) -> "urllib3.PoolManager":
        if self._pool is None or self._owner != os.getpid():
            with self._lock:
                if self._pool is None or self._owner != os.getpid():
                    self._pool, self._owner = self._open_pool(), os.getpid()
        return self._pool

    def _open_pool(self) -> "urllib3.PoolManager":
        import urllib3

        options = self.context.options
        timeout = urllib3.Timeout(connect=options.connect_timeout, read=options.read_timeout)
        settings: dict[str, Any] = {"timeout": timeout, "maxsize": _CONNECTIONS}
        url = self.context.object_url("")
        if url.startswith("https:"):
            settings["ssl_context"] = tls_of(self.context)
            if not options.verify_ssl:
                settings["assert_hostname"] = False
                urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        proxy = proxy_for(url)
        if proxy is None:
            return urllib3.PoolManager(**settings)
        parts = urlsplit(proxy.url)
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            settings["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=user)
        return urllib3.ProxyManager(f"{parts.scheme}://{proxy.address}", **settings)


def tls_of(context: S3ConnectionContext) -> "ssl.SSLContext":
    """Return which certificates are trusted.

    :raises StorageDenied: the bundle of the URI or the environment cannot be read
    """
    import ssl

    tls = ssl.create_default_context()
    if bundle := context.place.ca_bundle:
        try:
            tls.load_verify_locations(bundle)
        except OSError as error:
            reason = f"ca_bundle {bundle} cannot be read: {error.strerror or 'no certificate'}"
            raise StorageDenied(reason, uri=context.uri) from error
    if not context.options.verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


def _pieces(body: bytes) -> Iterator[memoryview]:
    view = memoryview(body)
    return (view[start : start + _PIECE] for start in range(0, len(view), _PIECE))


def _explanation(error: BaseException) -> tuple[type[StorageError], str]:
    """Return what to raise where there was no answer: its kind, and the reason."""
    import ssl
    from http.client import BadStatusLine

    from urllib3 import exceptions

    chain = list(_causes(error))
    if any(isinstance(each, (ssl.SSLError, exceptions.SSLError)) for each in chain):
        return StorageDenied, NO_TRUST
    if any(isinstance(each, exceptions.NameResolutionError) for each in chain):
        return StorageUnavailable, UNKNOWN_HOST
    for each in chain:
        if isinstance(each, OSError) and each.strerror:
            return StorageUnavailable, each.strerror.lower()
    if any(isinstance(each, (TimeoutError, exceptions.TimeoutError)) for each in chain):
        return StorageUnavailable, TROUBLE["Timeout"]
    if any(type(each) is BadStatusLine for each in chain):
        return StorageUnavailable, NOT_S3
    return StorageUnavailable, TROUBLE["Request"]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it comes from; urllib3 puts it into the arguments, too."""
    while error is not None:
        yield error
        yield from (each for each in error.args if isinstance(each, BaseException))
        error = error.__cause__ or error.__context__
