# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Uploads to Google's servers: in one request, or in pieces, of which what is lost is sent again.

Source: Google's documentation of Cloud Storage, "JSON API multipart uploads", "Resumable uploads".
"""

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import google_crc32c

from crashmover.errors import StorageError, StorageUnavailable
from crashmover.external.http_session import Answer, HTTPSession, status_of

T = TypeVar("T")

JSON = "application/json; charset=UTF-8"

_ANSWERS = (200, 201, 308, 404, 410, 412)


def multipart(resource: Mapping[str, object], data: bytes) -> tuple[str, bytes]:
    """Return the type and the body of a request with an object and what is said of it.

    :param resource: what is said of it, with its ``contentType``
    """
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: {JSON}\r\n\r\n{json.dumps(resource)}\r\n"
    head += f"--{boundary}\r\nContent-Type: {resource['contentType']}\r\n\r\n"
    body = b"".join((head.encode(), data, f"\r\n--{boundary}--\r\n".encode()))
    return f"multipart/related; boundary={boundary}", body


class ResumableUpload(Generic[T]):
    """An upload that was begun.

    :param begun: the answer that says where the pieces go to; `LookupError` if it does not
    :param made: returns what the upload has made, by its last answer; it raises what a refusal
        means, whichever piece that answers
    :param crash_id: what errors are about
    """

    def __init__(
        self,
        session: HTTPSession,
        begun: Answer,
        made: Callable[[Answer], T | None],
        crash_id: str | None,
    ) -> None:
        url = urlsplit(begun.headers["location"])
        # Without its host: no other server may see the token.
        self._path = f"{url.path}?{url.query}"
        self._session = session
        self._made = made
        self._crash_id = crash_id

    def send(self, pieces: Iterator[bytes]) -> tuple[T, int, str]:
        """Send all pieces; return what they have made, their size and their CRC-32C.

        :param pieces: all of one size, a multiple of 256 KiB, but for the last one
        """
        checksum, size, piece = google_crc32c.Checksum(), 0, next(pieces, b"")
        try:
            while following := next(pieces, b""):
                checksum.update(piece)
                self._put(piece, size)
                piece, size = following, size + len(piece)
            checksum.update(piece)
            crc32c = base64.b64encode(checksum.digest()).decode()
            made = self._put(piece, size, crc32c)
        except BaseException:
            self.break_off()
            raise
        if made is None:
            raise self._lost()
        return made, size + len(piece), crc32c

    def break_off(self) -> None:
        """Give up what has arrived.  Without this the server forgets it in a week."""
        with suppress(StorageError):
            self._session.ask("DELETE", self._path, allowed=range(600), read=status_of)

    def _put(self, piece: bytes, start: int, crc32c: str = "") -> T | None:
        """Send a piece, and again what has not arrived; return what the last piece has made.

        :param crc32c: of all pieces, with the last one
        """

        def read(answer: Answer) -> tuple[T | None, int]:
            made = self._made(answer)
            return made, int(answer.headers.get("range", "0--1").partition("-")[2]) + 1

        end = start + len(piece)
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{end if crc32c else '*'}"}
        headers |= {"X-Goog-Hash": f"crc32c={crc32c}"} if crc32c else {}
        made, arrived = self._session.ask(
            "PUT",
            self._path,
            headers=headers,
            body=piece,
            read=read,
            allowed=_ANSWERS,
            crash_id=self._crash_id,
        )
        if made is not None or arrived == end:
            return made
        if start < arrived < end:  # the server passes over bytes that it has
            return self._put(piece[arrived - start :], arrived, crc32c)
        raise self._lost()

    def _lost(self) -> StorageError:
        return self._session.error(StorageUnavailable, "a piece of it is lost", self._crash_id)
