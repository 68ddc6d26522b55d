# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""GCSClient: a `BucketClient` over Google's JSON API, with a generation in what changes something.

It reads by the XML API.  Source: Google's documentation of both APIs, with "Request preconditions".
"""

import datetime as dt
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import google_crc32c

from crashmover.errors import StorageUnavailable
from crashmover.external.bucket.bodies import PART_SIZE, crc32c_text, joined
from crashmover.external.bucket.client import (
    Listed,
    ObjectChanged,
    ObjectExists,
    Pages,
    StoredObject,
    replaced,
    subject,
)
from crashmover.external.bucket.client_base import PROBE, BucketClientBase, Condition, Download
from crashmover.external.gcs.gcserrors import DAMAGED
from crashmover.external.google_api import is_forbidden, own_status
from crashmover.external.google_upload import JSON, ResumableUpload, multipart
from crashmover.external.google_xml import ANSWERS, resource_of, says_missing
from crashmover.external.http_session import Answer, HTTPSession

T = TypeVar("T")
Read = Callable[[Answer], T]

_OBJECT = "size,generation,crc32c,timeCreated,metadata"
_PAGE = "kind,prefixes,items(name,size,crc32c),nextPageToken"
_FOUND = (200, 404)
_DELETED = (200, 204, 404, 412)
_AS_STORED = {"Accept-Encoding": "gzip", "Cache-Control": "no-cache"}  # and from no cache


class GCSClient(BucketClientBase):
    """The objects of a bucket below a prefix.  Safe for use from many threads.

    :param session: sends the requests
    :param prefix: ``""``, or without a slash at its ends
    :param kms_key: that encrypts each object that is put
    :param sends_metadata: whether the server's XML API sends the metadata; None: not known yet
    :param storage_class: of each object that is put
    """

    def __init__(
        self,
        session: HTTPSession,
        bucket: str,
        prefix: str,
        kms_key: str | None,
        sends_metadata: bool | None,
        storage_class: str | None = None,
    ) -> None:
        super().__init__(session.uri, f"gs://{bucket}", prefix)
        self._session = session
        self._name = bucket
        self._bucket = f"/storage/v1/b/{bucket}"
        self._sends_metadata = sends_metadata
        self._storage_class = storage_class
        self._kms_key = kms_key
        self._bucket_is_there = False

    @property
    def slowdowns(self) -> int:
        return self._session.slowdowns

    def clock(self) -> dt.datetime | None:
        return self._session.clock("/")

    def verify_access(self) -> None:
        if self.head(PROBE):
            raise self._session.wrong_server(None)

    # Reading

    def head(self, key: str) -> StoredObject | None:
        def read(answer: Answer) -> StoredObject | None:
            if own_status(answer) != 404:
                return _stored(key, answer.object())
            self._bucket_is_there |= b"No such object" in answer.body  # as Google says it
            return None

        path, fields, about = self._path(key), {"fields": _OBJECT}, subject(key)
        found = self._session.ask("GET", path, fields, read=read, allowed=_FOUND, crash_id=about)
        if found is None and not self._bucket_is_there:
            next(self._pages("", maxResults="1"))  # the answer may not say that it is missing
        self._bucket_is_there = True
        return found

    def _ask(self, key: str, at_most: int = sys.maxsize) -> Download | None:
        is_sure, found = self._ask_once(key, at_most)
        return found if is_sure else self._ask_twice(key, at_most, found)

    def _ask_once(self, key: str, at_most: int) -> tuple[bool, Download | None]:
        """Ask the XML API; return whether the answer says all, and then what `_ask` returns.

        Where a server is not known to send metadata, an answer without any says nothing.
        """
        if self._sends_metadata is False:
            return False, None
        payer = self._session.query.get("userProject")
        headers = _AS_STORED | ({"X-Goog-User-Project": payer} if payer else {})
        headers |= {"Range": f"bytes=0-{at_most - 1}"} if at_most < sys.maxsize else {}
        path = f"/{self._name}/{self._quoted(key)}"
        send, about = self._session.stream, subject(key)
        answer, chunks = send(path, headers=headers, allowed=ANSWERS, crash_id=about)
        if answer.status == 416 and at_most < sys.maxsize:  # of nothing there is no first byte
            return self._ask_once(key, sys.maxsize)
        if says_missing(answer):
            return bool(self._sends_metadata and self._bucket_is_there), None
        try:
            stored = _stored(key, resource_of(answer))
        except (LookupError, ValueError):
            return False, None
        self._bucket_is_there = True
        self._sends_metadata = self._sends_metadata or bool(stored.metadata) or None
        download = Download(stored, partial(b"".join, chunks), partial(iter, chunks))
        return bool(self._sends_metadata), download

    def _ask_twice(self, key: str, at_most: int, sent: Download | None) -> Download | None:
        """Ask the JSON API for the metadata, then for the bytes, unless these were sent already."""
        for _ in range(5):  # other processes may replace it at the same time
            stored = self.head(key)
            if stored is None:
                return None
            if stored.metadata and self._sends_metadata is None:
                self._sends_metadata = False
            if sent and sent.stored.version == stored.version:
                return replace(sent, stored=stored)
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
        answer, chunks = self._session.stream(
            self._path(stored.key),
            {"alt": "media", "generation": stored.version or ""},
            headers=_AS_STORED | ({"Range": f"bytes={start}-"} if start else {}),
            allowed=(200, 206, 404),
            crash_id=subject(stored.key),
        )
        if start and answer.status == 200:  # to ask for a part once more is no use
            raise self._session.wrong_server(subject(stored.key))
        return None if answer.status == 404 else chunks

    # Putting

    def _put_small(
        self, key: str, data: bytes, attributes: Mapping[str, str], condition: Condition
    ) -> None:
        crc32c = crc32c_text(google_crc32c.value(data))
        resource = {**self._resource(key, attributes), "crc32c": crc32c}

        def read(answer: Answer) -> None:
            # If an answer was lost, what is there may be what was sent before.
            may_be_ours = answer.status == 412 and answer.is_repeated
            if not (may_be_ours and self._is_there(key, len(data), resource["metadata"])):
                self._check_met(key, condition, answer)
                self._hold(_stored(key, answer.object()), len(data), crc32c)

        self._insert("multipart", key, condition, multipart(resource, data), read)

    def _put_large(
        self,
        key: str,
        chunks: Iterable[bytes],
        attributes: Mapping[str, str],
        *,
        condition: Condition,
    ) -> None:
        upload = self._begin(key, attributes, condition)
        self._hold(*upload.send(joined(chunks, PART_SIZE)))

    def try_put(self, key: str) -> None:
        with suppress(ObjectExists):
            self._begin(key, {}, Condition(create=True)).break_off()

    def _begin(
        self, key: str, attributes: Mapping[str, str], condition: Condition
    ) -> ResumableUpload[StoredObject]:
        def made(answer: Answer) -> StoredObject | None:
            self._check_met(key, condition, answer)
            return _stored(key, answer.object()) if answer.status in (200, 201) else None

        def read(answer: Answer) -> ResumableUpload[StoredObject]:
            self._check_met(key, condition, answer)
            return ResumableUpload(self._session, answer, made, subject(key))

        body = json.dumps(self._resource(key, attributes)).encode()
        return self._insert("resumable", key, condition, (JSON, body), read)

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

    def list_objects(self, prefix: str, after: str = "", *, surely: bool = True) -> Pages:
        start = {"startOffset": self._prefix + after} if after else {}
        pages = ([x for x in page if x[0] != after] for page, _ in self._pages(prefix, **start))
        yield from filter(None, pages)

    def list_directory(self, prefix: str) -> tuple[list[str], list[str]]:
        pages = list(self._pages(prefix, delimiter="/"))
        names = [key.rpartition("/")[2] for objects, _ in pages for key, *_ in objects]
        return [name for _, found in pages for name in found], [*filter(None, names)]

    def _pages(self, prefix: str, **options: str) -> Iterator[tuple[list[Listed], list[str]]]:
        """Yield the objects and the directories on each page of a listing."""
        path = self._prefix + (f"{prefix}/" if prefix else "")
        query = {"prefix": path, "fields": _PAGE, "maxResults": "1000", **options}
        page = None
        while page is None or page[2] not in (None, query.get("pageToken")):
            query |= {"pageToken": page[2] or ""} if page else {}
            page = self._session.ask("GET", f"{self._bucket}/o", query, read=_page)
            yield [(key[len(self._prefix) :], size, crc) for key, size, crc in page[0]], page[1]

    def _path(self, key: str) -> str:
        return f"{self._bucket}/o/{self._quoted(key)}"

    def _quoted(self, key: str) -> str:
        return quote(self._prefix + key).replace("/", "%2F")


def _page(answer: Answer) -> tuple[list[Listed], list[str], str | None]:
    """Return the objects and the directories on a page of a listing, and which one comes next."""
    page = answer.object()
    if page["kind"] != "storage#objects":  # which every page says, whatever is on it
        raise ValueError(page["kind"])
    items = page.get("items", [])
    found = [(str(x["name"]), int(x.get("size", 0)), str(x.get("crc32c", ""))) for x in items]
    directories = [str(path).split("/")[-2] for path in page.get("prefixes", [])]
    return found, directories, str(page.get("nextPageToken", "")) or None


def _stored(key: str, said: Mapping[str, Any]) -> StoredObject:
    size, generation = int(said.get("size") or 0), str(int(said["generation"]))
    time = dt.datetime.fromisoformat(said["timeCreated"]) if "timeCreated" in said else None
    metadata = {name: str(text) for name, text in dict(said.get("metadata") or {}).items()}
    crc32c = str(said.get("crc32c", ""))
    return StoredObject(key, size, generation, metadata, time, None, crc32c, is_only_one=True)
