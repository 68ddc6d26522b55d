# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""GCSClient: a `BucketClient` over Google's JSON API, with a generation in what changes something.

Source: its documentation, with "Resumable uploads" and "Request preconditions".
"""

import datetime as dt
import json
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import google_crc32c

from crashmover.errors import StorageError, StorageUnavailable
from crashmover.external.bucket.bodies import PART_SIZE, crc32c_text, joined
from crashmover.external.bucket.client import (
    ObjectChanged,
    ObjectExists,
    StoredObject,
    replaced,
    subject,
)
from crashmover.external.bucket.client_base import PROBE, BucketClientBase, Condition, Download
from crashmover.external.gcs.gcserrors import DAMAGED
from crashmover.external.google_api import is_forbidden, own_status
from crashmover.external.http_session import Answer, HTTPSession, status_of

T = TypeVar("T")
Read = Callable[[Answer], T]

_OBJECT = "size,generation,crc32c,timeCreated,metadata"
_PAGE = "kind,prefixes,items(name),nextPageToken"
_JSON = "application/json; charset=UTF-8"
_DELETED = (200, 204, 404, 412)


class GCSClient(BucketClientBase):
    """The objects of a bucket below a prefix.  Safe for use from many threads.

    :param session: sends the requests
    :param prefix: ``""``, or without a slash at its ends
    :param storage_class: of each object that is put
    :param kms_key: that encrypts it
    """

    def __init__(
        self,
        session: HTTPSession,
        bucket: str,
        prefix: str,
        storage_class: str | None = None,
        kms_key: str | None = None,
    ) -> None:
        super().__init__(session.uri, f"gs://{bucket}", prefix)
        self._session = session
        self._bucket = f"/storage/v1/b/{bucket}"
        self._storage_class = storage_class
        self._kms_key = kms_key
        self._bucket_is_there = False

    def verify_access(self) -> None:
        if self.head(PROBE):
            raise self._session.wrong_server(None)

    # Reading

    def head(self, key: str) -> StoredObject | None:
        found = self._session.ask(
            "GET",
            self._path(key),
            {"fields": _OBJECT},
            read=lambda answer: None if own_status(answer) == 404 else _stored(key, answer),
            allowed=(200, 404),
            crash_id=subject(key),
        )
        if found is None and not self._bucket_is_there:
            next(self._pages("", maxResults="1"))  # the answer may not say that it is missing
        self._bucket_is_there = True
        return found

    def _ask(self, key: str, at_most: int = sys.maxsize) -> Download | None:
        """The metadata comes first: Google says none along with the bytes."""
        for _ in range(5):  # other processes may replace it at the same time
            stored = self.head(key)
            if stored is None:
                return None
            if stored.size > at_most:
                return Download(stored, bytes, lambda: iter(()))
            if chunks := self._bytes_of(stored, 0):
                return Download(stored, partial(b"".join, chunks), partial(iter, chunks))
        raise replaced(self, key)

    def _ask_from(self, stored: StoredObject, start: int) -> Iterator[bytes]:
        if chunks := self._bytes_of(stored, start):
            return chunks
        raise replaced(self, stored.key)

    def _bytes_of(self, stored: StoredObject, start: int) -> Iterator[bytes] | None:
        """Ask for the stored bytes of an object from `start` on; return None if it was replaced."""
        status, chunks = self._session.stream(
            self._path(stored.key),
            {"alt": "media", "generation": stored.version or ""},
            headers={"Accept-Encoding": "gzip"} | ({"Range": f"bytes={start}-"} if start else {}),
            allowed=(200, 206, 404),
            whole=stored.size <= 1 << 20,  # bytes
            crash_id=subject(stored.key),
        )
        if start and status == 200:  # to ask for a part once more is no use
            raise self._session.wrong_server(subject(stored.key))
        return None if status == 404 else chunks

    # Putting

    def _put_small(
        self, key: str, data: bytes, attributes: Mapping[str, str], condition: Condition
    ) -> None:
        crc32c = crc32c_text(google_crc32c.value(data))
        resource = {**self._resource(key, attributes), "crc32c": crc32c}
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: {_JSON}\r\n\r\n{json.dumps(resource)}\r\n"
        head += f"--{boundary}\r\nContent-Type: {resource['contentType']}\r\n\r\n"

        def read(answer: Answer) -> None:
            # If an answer was lost, what is there may be what was sent before.
            may_be_ours = answer.status == 412 and answer.is_repeated
            if not (may_be_ours and self._is_there(key, len(data), resource["metadata"])):
                self._check_met(key, condition, answer)
                self._hold(_stored(key, answer), len(data), crc32c)

        body = b"".join((head.encode(), data, f"\r\n--{boundary}--\r\n".encode()))
        kind = f"multipart/related; boundary={boundary}"
        self._insert("multipart", key, condition, (kind, body), read)

    def _put_large(
        self,
        key: str,
        chunks: Iterable[bytes],
        attributes: Mapping[str, str],
        *,
        condition: Condition,
    ) -> None:
        upload = self._begin(key, attributes, condition)
        checksum, size = google_crc32c.Checksum(), 0
        try:
            pieces = joined(chunks, PART_SIZE)
            piece = next(pieces, b"")
            while following := next(pieces, b""):
                checksum.update(piece)
                self._put_piece(key, condition, upload, piece, size)
                piece, size = following, size + len(piece)
            checksum.update(piece)
            crc32c = crc32c_text(int.from_bytes(checksum.digest()))
            made = self._put_piece(key, condition, upload, piece, size, crc32c)
        except BaseException:
            self._break_off(upload)
            raise
        if made:
            self._hold(made, size + len(piece), crc32c)

    def try_put(self, key: str) -> None:
        with suppress(ObjectExists):
            self._break_off(self._begin(key, {}, Condition(create=True)))

    def _begin(self, key: str, attributes: Mapping[str, str], condition: Condition) -> str:
        """Begin an upload in pieces; return the path that these go to, which is secret."""

        def read(answer: Answer) -> str:
            self._check_met(key, condition, answer)
            url = urlsplit(answer.headers["location"])
            return f"{url.path}?{url.query}"  # without its host: no other server may see the token

        body = json.dumps(self._resource(key, attributes)).encode()
        return self._insert("resumable", key, condition, (_JSON, body), read)

    def _put_piece(
        self, key: str, condition: Condition, path: str, piece: bytes, start: int, crc32c: str = ""
    ) -> StoredObject | None:
        """Send a piece, and again what has not arrived; return what the last piece has made.

        :param crc32c: of the whole object, with its last piece
        """

        def read(answer: Answer) -> tuple[StoredObject | None, int]:
            self._check_met(key, condition, answer)
            made = _stored(key, answer) if answer.status in (200, 201) else None
            return made, int(answer.headers.get("range", "0--1").partition("-")[2]) + 1

        end = start + len(piece)
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{end if crc32c else '*'}"}
        headers |= {"X-Goog-Hash": f"crc32c={crc32c}"} if crc32c else {}
        allowed, about = (200, 201, 308, 404, 410, 412), subject(key)
        made, arrived = self._session.ask(
            "PUT", path, headers=headers, body=piece, read=read, allowed=allowed, crash_id=about
        )
        if made or (arrived == end and not crc32c):
            return made
        if start < arrived < end:
            rest = piece[arrived - start :]  # it passes over bytes that it has
            return self._put_piece(key, condition, path, rest, arrived, crc32c)
        raise self._session.error(StorageUnavailable, "a piece of it is lost", about)

    def _break_off(self, upload: str) -> None:
        with suppress(StorageError):  # the server forgets the pieces in a week by itself
            self._session.ask("DELETE", upload, allowed=range(600), read=status_of)

    def _check_met(self, key: str, condition: Condition, answer: Answer) -> int:
        """Return the status, as `own_status`; raise as `put` if the condition is not met."""
        if answer.status == 412:
            if not any(condition) or is_forbidden(answer):
                raise self._session.refusal(answer, subject(key))
            raise ObjectExists() if condition.create else ObjectChanged()
        return own_status(answer)

    def _hold(self, made: StoredObject, size: int, crc32c: str) -> None:
        """Hold what the server has made against what was sent; remove what is damaged."""
        if (made.size, made.crc32c or crc32c) != (size, crc32c):
            self._delete(made.key, made.version)
            raise self._session.error(StorageUnavailable, DAMAGED, subject(made.key))

    def _insert(
        self, how: str, key: str, condition: Condition, content: tuple[str, bytes], read: Read[T]
    ) -> T:
        generation = "0" if condition.create else condition.version
        said = {"ifGenerationMatch": generation, "kmsKeyName": self._kms_key, "fields": _OBJECT}
        return self._session.ask(
            "POST",
            f"/upload{self._bucket}/o",
            {"uploadType": how, **{name: text for name, text in said.items() if text}},
            headers={"Content-Type": content[0]},
            body=content[1],
            allowed=(200, 412),
            read=read,
            crash_id=subject(key),
        )

    def _resource(self, key: str, attributes: Mapping[str, str]) -> dict[str, Any]:
        metadata = dict(attributes)
        kind = metadata.pop("Content-Type", "application/octet-stream")
        resource = {"name": self._prefix + key, "contentType": kind, "metadata": metadata}
        return resource | ({"storageClass": self._storage_class} if self._storage_class else {})

    # Deleting

    def delete(self, versions: Mapping[str, str | None]) -> list[str]:
        """One request for each object, and one more where the version is not said."""
        return self._left(versions, self._delete)

    def _delete(self, key: str, version: str | None) -> bool:
        """Delete an object; return False if it has another version."""
        if version is None or not version.isdecimal():  # no object has a version like the latter
            there = self.head(key)
            if there is None or there.version is None or version:
                return there is None
            version = there.version
        read = partial(self._check_met, key, Condition(version=version))
        query, path, about = {"ifGenerationMatch": version}, self._path(key), subject(key)
        with suppress(ObjectChanged):
            self._session.ask("DELETE", path, query, read=read, allowed=_DELETED, crash_id=about)
            return True
        return self.head(key) is None

    # Listing

    def list_keys(
        self, prefix: str, after: str = "", *, surely: bool = True
    ) -> Iterator[list[str]]:
        start = {"startOffset": self._prefix + after} if after else {}
        for names, _ in self._pages(prefix, **start):
            if keys := [name for name in names if name != after]:
                yield keys

    def list_directory(self, prefix: str) -> tuple[list[str], list[str]]:
        pages = list(self._pages(prefix, delimiter="/"))
        names = [name.rpartition("/")[2] for names, _ in pages for name in names]
        return [name for _, found in pages for name in found], [*filter(None, names)]

    def _pages(self, prefix: str, **options: str) -> Iterator[tuple[list[str], list[str]]]:
        """Yield the names and the directories on each page of a listing."""
        path = self._prefix + (f"{prefix}/" if prefix else "")
        query = {"prefix": path, "fields": _PAGE, "maxResults": "1000", **options}
        page = None
        while page is None or page[2] not in (None, query.get("pageToken")):
            query |= {"pageToken": page[2] or ""} if page else {}
            page = self._session.ask("GET", f"{self._bucket}/o", query, read=_page)
            yield [name[len(self._prefix) :] for name in page[0]], page[1]

    def _path(self, key: str) -> str:
        return f"{self._bucket}/o/{quote(self._prefix + key).replace('/', '%2F')}"


def _page(answer: Answer) -> tuple[list[str], list[str], str | None]:
    """Return the names and the directories on a page of a listing, and which one comes next."""
    page = answer.object()
    if page["kind"] != "storage#objects":  # which every page says, whatever is on it
        raise ValueError(page["kind"])
    names = [str(item["name"]) for item in page.get("items", [])]
    directories = [str(path).split("/")[-2] for path in page.get("prefixes", [])]
    return names, directories, page.get("nextPageToken")


def _stored(key: str, answer: Answer) -> StoredObject:
    found = answer.object()
    size, generation = int(found.get("size") or 0), str(int(found["generation"]))
    time, crc32c = dt.datetime.fromisoformat(found["timeCreated"]), str(found.get("crc32c", ""))
    metadata = {name: str(text) for name, text in dict(found.get("metadata") or {}).items()}
    return StoredObject(key, size, generation, metadata, time, None, crc32c)
