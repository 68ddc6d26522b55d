# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""BucketClientBase: how every client reads and sends bodies: checked, and in bounded memory."""

import hashlib
import io
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, NamedTuple, cast

from crashmover.crash import Part
from crashmover.errors import CorruptCrash, StorageError, StorageUnavailable
from crashmover.external.bucket.bodies import PART_SIZE, Body, Check, Upload
from crashmover.external.bucket.budget import Budget
from crashmover.external.bucket.client import (
    SHA256,
    BucketClient,
    ObjectChanged,
    ObjectExists,
    StoredObject,
    replaced,
)
from crashmover.external.bucket.rounds import Rounds

PROBE = "v1/dump_names/00000000-0000-0000-0000-000000000000"
"""A key that no object has: no crash has this id."""

IN_PARTS = 3 * PART_SIZE
"""Bytes in memory of a body that goes up in parts."""

_UPLOAD = "upload"
"""The name, in a large object's metadata, of a word that no other upload has."""

_WHOLE = 1 << 20  # bytes of a body that is read or sent at once
_EXPECTED = 256 << 10  # bytes of a body, as long as none was read
_REMEMBERED = 16  # bodies, by whose sizes the next one is judged
_PATIENCE = 5.0  # seconds, as a caller that waits to read a body may hold others

# Bytes in memory, whatever threads hold them:
_KEPT_BODY = 256 << 10  # of a body that is fetched along with the news that it is there ...
_KEPT_BODIES = 10 << 20  # ... and of all those
_READING = 6 << 20  # of bodies that are read
_SMALL = 8 << 20  # of bodies up to `_WHOLE` that are sent
_LARGE = 32 << 20  # of larger ones that are sent


class Condition(NamedTuple):
    """On which condition an object is put; without any it is replaced.

    :param create: only if there is none
    :param version: only in the place of this version
    """

    create: bool = False
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """An object that the server has begun to send.  One of both functions is called, or none.

    :param read: return all of its bytes
    :param chunks: return its bytes, chunk by chunk
    """

    stored: StoredObject
    read: Callable[[], bytes]
    chunks: Callable[[], Iterator[bytes]]


class BucketClientBase(BucketClient, ABC):
    """A `BucketClient` whose requests a provider adds.

    :param uri: what messages call the store
    :param place: where the bucket is, as its provider writes it: ``s3://bucket``
    :param prefix: ``""``, or without a slash at its ends
    :param attributes: of each object that is put, such as a storage class
    """

    def __init__(
        self, uri: str, place: str, prefix: str, attributes: Mapping[str, str] | None = None
    ) -> None:
        self.uri = uri
        self.rounds = Rounds()
        self._place = place
        self._prefix = f"{prefix}/" if prefix else ""
        self._attributes = attributes or {}
        self._kept = Budget(_KEPT_BODIES)
        # A thread that holds some of one of these may wait for one further down, and never the
        # other way.
        self._reading = Budget(_READING)
        self._expected = _EXPECTED
        self._small = Budget(_SMALL)
        self._large = Budget(_LARGE)

    @property
    def slowdowns(self) -> int:
        return 0

    def honours_conditions(self) -> bool | None:
        return True

    def list_keys(
        self, prefix: str, after: str = "", *, surely: bool = True
    ) -> Iterator[list[str]]:
        for page in self.list_objects(prefix, after, surely=surely):
            yield [key for key, _, _ in page]

    # The requests.  All raise `StorageError`, but for what reading a part raises.

    @abstractmethod
    def _ask(self, key: str, at_most: int = sys.maxsize) -> Download | None:
        """Ask for an object; return None if there is none.

        :param at_most: of an object with more bytes than these none are needed
        """

    @abstractmethod
    def _ask_from(self, stored: StoredObject, start: int) -> Iterator[bytes]:
        """Ask for the bytes of the same object from `start` on.

        :raises StorageUnavailable: as `replaced`, if it is no longer there
        """

    @abstractmethod
    def _put_small(
        self, key: str, data: bytes, attributes: Mapping[str, str], condition: Condition
    ) -> None:
        """Put an object by one request.

        :param attributes: Content-Type and the metadata
        :raises ObjectExists: as `put`
        :raises ObjectChanged: as `put`
        """

    @abstractmethod
    def _put_large(
        self,
        key: str,
        chunks: Iterable[bytes],
        attributes: Mapping[str, str],
        *,
        condition: Condition,
    ) -> None:
        """As `_put_small`, in parts of `PART_SIZE`, as far as the server honours that on a
        condition.  The object is not made if the chunks raise an error."""

    # Reading

    def get_small(self, key: str) -> StoredObject | None:
        if not self._kept.has(_KEPT_BODY):
            return self.head(key)
        found = self._ask(key, _KEPT_BODY)
        if found is None:
            return None
        share = self._kept.take_now(found.stored.size) if found.stored.size <= _KEPT_BODY else None
        if share is None:
            return found.stored
        with ExitStack() as unless_all_is_well:
            unless_all_is_well.enter_context(share)
            stored = replace(found.stored, body=self._read_now(found))
            unless_all_is_well.pop_all()
        share.end_with(stored)
        return stored

    def get(self, key: str) -> tuple[StoredObject, BinaryIO] | None:
        """What the server sends is in memory before it is read.  So room for it is waited for
        before it is asked for; by how much that was with the last ones."""
        with ExitStack() as unless_all_is_well:
            share = self._reading.take(self._expected, _PATIENCE)
            unless_all_is_well.enter_context(share)
            found = self._ask(key)
            if found is None:
                return None
            size = min(found.stored.size, _WHOLE)
            self._expected += (size - self._expected) // _REMEMBERED
            share.resize(size)
            body = self._whole(found) if found.stored.size <= _WHOLE else self._stream(found)
            unless_all_is_well.pop_all()
        share.end_with(body)
        return found.stored, body

    def _whole(self, found: Download) -> BinaryIO:
        return io.BytesIO(self._read_now(found))

    def _stream(self, found: Download) -> BinaryIO:
        check = Check(found.stored, self.uri)
        body = Body(found.chunks(), check, partial(self._ask_from, found.stored))
        return cast(BinaryIO, body)

    def _read_now(self, found: Download) -> bytes:
        """Return the bytes of a small object.

        Some servers replace the bytes and the metadata one after the other, and a reader may meet
        the bytes of one object and the metadata of the next.  So a damaged object is read again.

        :raises CorruptCrash: it is damaged
        :raises StorageUnavailable: it was replaced while it was read
        """
        key, state = found.stored.key, found.stored.state
        try:
            return self._read(found)
        except CorruptCrash:
            again = self._ask(key)
            if again and again.stored.state == state:
                self._read(again)
        raise replaced(self, key)

    def _read(self, found: Download) -> bytes:
        data = found.read()
        check = Check(found.stored, self.uri)
        check.update(data)
        check.finish()
        return data

    def has_key(self, prefix: str, after: str = "") -> bool:
        return any(self.list_keys(prefix, after))

    def location(self, key: str) -> str:
        return f"{self._place}/{self._prefix}{key}"

    # Sending

    def put(
        self,
        key: str,
        body: bytes | Part,
        *,
        content_type: str,
        metadata: Mapping[str, str],
        create: bool = False,
        replaced: StoredObject | None = None,
    ) -> str | None:
        condition = Condition(create, replaced.version if replaced else None)
        attributes = {**metadata, "Content-Type": content_type, **self._attributes}
        return self._send(key, body, attributes, condition)

    def _send(
        self, key: str, body: bytes | Part, attributes: Mapping[str, str], condition: Condition
    ) -> str | None:
        """As `put`.  What is large goes up in parts.  A thread waits until there is memory for its
        body."""
        sha256 = attributes.get(SHA256)
        if isinstance(body, bytes):
            return self._send_small(key, body, attributes, condition, sha256)
        if body.size is not None and body.size <= _WHOLE and not sha256:
            with self._small.take(body.size):
                return self._send_small(key, body.read(), attributes, condition)
        upload = Upload(body, sha256=sha256)
        upload.read_ahead(0)  # a chunk: so the source has answered before memory is held
        with self._small.take(_WHOLE) as share:
            if upload.read_ahead(_WHOLE):
                share.resize(upload.count_ahead)
                return self._send_small(key, b"".join(upload), attributes, condition)
            with self._large.take(IN_PARTS) as share_of_large:
                is_large = upload.size is not None and upload.size > PART_SIZE
                if not is_large and upload.read_ahead(PART_SIZE):
                    share_of_large.resize(upload.count_ahead)
                    return self._send_small(key, b"".join(upload), attributes, condition)
                put = partial(self._put_large, key, upload, condition=condition)
                self._send_large(key, attributes, put)
        return sha256

    def _send_small(
        self,
        key: str,
        data: bytes,
        attributes: Mapping[str, str],
        condition: Condition,
        sha256: str | None = None,
    ) -> str:
        sha256 = sha256 or hashlib.sha256(data).hexdigest()
        self._put_small(key, data, {**attributes, SHA256: sha256}, condition)
        return sha256

    def _send_large(
        self, key: str, attributes: Mapping[str, str], put: Callable[[Mapping[str, str]], None]
    ) -> None:
        """Put an object by a function that is given the attributes.  The caller holds memory for
        its parts, or for all of it."""
        word = secrets.token_hex(8)
        try:
            put({**attributes, _UPLOAD: word})
        except (ObjectExists, ObjectChanged, StorageUnavailable):
            # An answer may have been lost: then this is what the object says to the next request.
            if not self._has_arrived(key, word):
                raise

    def _left(
        self, versions: Mapping[str, str | None], delete: Callable[[str, str | None], bool]
    ) -> list[str]:
        """Delete each object by its key and version, by a function that says whether it is gone;
        return the keys of those that are not."""
        calls = (partial(delete, key, version) for key, version in versions.items())
        are_gone = self.rounds.together(*calls)
        return [key for key, is_gone in zip(versions, are_gone, strict=True) if not is_gone]

    def _is_there(self, key: str, size: int, metadata: Mapping[str, str]) -> bool:
        """Return True if an object is there of this size and with this metadata, in which its
        SHA-256 is."""
        there = self.head(key)
        if there is None or there.size != size:
            return False
        return metadata.items() <= there.metadata.items()

    def _has_arrived(self, key: str, word: str) -> bool:
        """Return True if an object is there that went up by this word."""
        with suppress(StorageError):
            there = self.head(key)
            return there is not None and there.metadata.get(_UPLOAD) == word
        return False
