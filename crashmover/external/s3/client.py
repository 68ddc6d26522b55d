# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3Client: a `BucketClient` over obstore, which does not hold the interpreter's lock."""

import datetime as dt
import hashlib
import io
import random
import secrets
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import obstore
import obstore.exceptions

from crashmover.crash import Part
from crashmover.errors import CorruptCrash, StorageDenied, StorageError, StorageUnavailable
from crashmover.external.bucket.bodies import PART_SIZE, Body, Check, Upload
from crashmover.external.bucket.client import (
    SHA256,
    ObjectChanged,
    ObjectExists,
    StoredObject,
    replaced,
    subject,
)
from crashmover.external.s3.calling import DRIVER_ERRORS, call_client
from crashmover.external.translating import translating

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, PutMode
    from obstore.store import ObjectStore

_UPLOAD = "upload"
"""The name, in a large object's metadata, of a word that no other upload has."""

_STREAM = 256 << 10
_MIDDLING = 1 << 20  # of bodies larger than this only a few are on their way at a time
_MIDDLING_AT_ONCE = 4
_LARGE_AT_ONCE = 2  # of those that go up in parts, of which each has some in memory
_KEPT_BODY = 256 << 10  # a smaller body is fetched along with the news that it is there ...
_KEPT_BODIES = 24 << 20  # ... while all that are kept for later come to less than this
_PROBE = "v1/dump_names/00000000-0000-0000-0000-000000000000"  # no crash has it

_TRIES = 5  # to replace an object that other processes replace as well
_PAUSES = (0.2, 0.4, 0.8, 1.6)  # seconds at most, before a put that met another is repeated


_UNMET = (
    obstore.exceptions.AlreadyExistsError,
    obstore.exceptions.PreconditionError,
    FileNotFoundError,
)


class _Conflict(Exception):
    """Another request changes the same object at this moment; nothing was put."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Connection(Protocol):
    """What is a provider's own: how to reach a bucket, and what its errors say."""

    @property
    def uri(self) -> str:
        """What messages call the store."""

    @property
    def location(self) -> str:
        """Where the bucket is: ``s3://bucket``."""

    def client(self) -> "ObjectStore":
        """Return obstore's client."""

    def honours_conditions(self) -> bool | None:
        """As `BucketClient.honours_conditions`."""

    def explain(self, error: Exception, crash_id: str | None = None) -> StorageError:
        """Return what to raise instead of what the client raised."""

    def wrong_server(self, crash_id: str | None) -> StorageUnavailable:
        """Return what to raise if another kind of server answers."""

    def is_missing(self, error: BaseException) -> bool:
        """Return True if there is no such object (and not: no such bucket)."""

    def is_conflict(self, error: BaseException) -> bool:
        """Return True if another request changes the same object at this moment."""

    def says_deleted(self, error: BaseException) -> bool:
        """Return True if the server has deleted everything after all."""


CREATE = "create"
OVERWRITE = "overwrite"
REPLACE = "replace"


class ConditionalRequests(Protocol):
    """What obstore cannot ask of a server.  Keys are whole keys, with the prefix of the store.

    Each method raises `StorageError`, of the bucket's `Connection`.
    """

    def deletes_unchanged(self, probe: str) -> bool:
        """Return True if the server deletes an object on the condition that it has not changed.

        :param probe: a key that no object ever has
        """

    def delete_unchanged(self, versions: Mapping[str, str], crash_id: str | None) -> list[str]:
        """Delete each key if it still has that version; return the keys that have another one.  A
        missing key is no error."""

    def upload(
        self,
        key: str,
        chunks: Iterable[bytes],
        part_size: int,
        *,
        attributes: Mapping[str, str],
        version: str | None,
        create: bool,
        before_end: Callable[[], None] | None,
        crash_id: str | None,
    ) -> None:
        """Put an object in parts, as far as the server honours that on a condition.  What goes
        wrong with reading `chunks` is raised as it is.

        :param attributes: Content-Type, Storage-Class and the metadata
        :param version: only in the place of this version; else `ObjectChanged`
        :param create: only if there is none; else `ObjectExists`
        :param before_end: is called when all parts have arrived, and the object is not made yet
        """

    def try_put(self, key: str, attributes: Mapping[str, str]) -> None:
        """Raise `StorageError` unless the key could be put where there is none.  No object is made
        of it."""

    def allowed_puts(self, key: str) -> Set[str]:
        """Return on which conditions permissions and policies allow to put this key: `CREATE`,
        `REPLACE`, and without any, `OVERWRITE`.  Nothing is put."""


class S3Client:
    """The objects of a bucket below a prefix.  Safe for use from many threads.

    :param connection: how to reach the bucket
    :param prefix: ``""``, or without a slash at its ends
    :param requests: what obstore cannot ask
    :param attributes: of each object that is put, such as a storage class
    """

    def __init__(
        self,
        connection: Connection,
        prefix: str,
        requests: ConditionalRequests,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        self.uri = connection.uri
        self._connection = connection
        self._prefix = f"{prefix}/" if prefix else ""
        self._requests = requests
        self._policy: Set[str] = frozenset()  # what a policy allows that demands conditions
        self._attributes = attributes or {}
        self._bucket_is_there = False
        self._middling = BoundedSemaphore(_MIDDLING_AT_ONCE)
        self._large = BoundedSemaphore(_LARGE_AT_ONCE)
        self._kept = _MemoryBudget(_KEPT_BODIES)

    def location(self, key: str) -> str:
        return f"{self._connection.location}/{self._prefix}{key}"

    def honours_conditions(self) -> bool | None:
        return self._connection.honours_conditions()

    # Reading

    def verify_access(self) -> None:
        if self._get(_PROBE):
            raise self._connection.wrong_server(None)

    def head(self, key: str) -> StoredObject | None:
        result = self._get(key, head=True)
        if result is None and not self._bucket_is_there:
            # The answer to this kind of request cannot say that the bucket is missing.
            self.verify_access()
        return _stored(key, result) if result else None

    def get_small(self, key: str) -> StoredObject | None:
        if not self._kept.has(_KEPT_BODY):
            return self.head(key)
        result = self._get(key)
        if result is None:
            return None
        stored = _stored(key, result)
        if stored.size <= _KEPT_BODY:
            stored = replace(stored, body=self._read_now(stored, result))
            self._kept.lend(stored, stored.size)
        return stored

    def get(self, key: str) -> tuple[StoredObject, BinaryIO] | None:
        result = self._get(key)
        if result is None:
            return None
        stored = _stored(key, result)
        if stored.size > _MIDDLING:
            check = Check(stored, self.uri)
            body = Body(self._chunks(result, key), check, partial(self._resume, stored))
            return stored, cast(BinaryIO, body)
        return stored, io.BytesIO(self._read_now(stored, result))

    def _get(self, key: str, *, head: bool = False) -> "GetResult | None":
        client = self._connection.client()
        result = None
        try:
            result = call_client(
                lambda: obstore.get(client, self._prefix + key, options={"head": head})
            )
        except Exception as error:
            if not self._connection.is_missing(error):
                explained = self._connection.explain(error, subject(key))
                if head and not isinstance(explained, StorageUnavailable):
                    self.verify_access()  # whose answer has a body, and says why
                raise explained from error
        if result and not result.meta["e_tag"]:  # a page to log in, perhaps
            raise self._connection.wrong_server(subject(key))
        self._bucket_is_there |= result is not None or not head
        return result

    def _chunks(self, result: "GetResult", key: str) -> Iterator[bytes]:
        stream = iter(result.stream(min_chunk_size=_STREAM))
        while True:
            with self._translating(key):
                data = bytes(call_client(lambda: next(stream, b"")))
            if not data:
                return
            yield data

    def _resume(self, stored: StoredObject, start: int) -> Iterator[bytes]:
        """Ask for the bytes of an object from `start` on, if it is still the same."""
        client, key = self._connection.client(), stored.key
        options: GetOptions = {"range": {"offset": start}, "if_match": stored.version}
        with self._translating(key):
            try:
                result = call_client(
                    lambda: obstore.get(client, self._prefix + key, options=options)
                )
            except (obstore.exceptions.PreconditionError, FileNotFoundError) as error:
                raise replaced(self, key) from error
        if result.meta["e_tag"] != stored.version:  # not every server knows the condition
            raise replaced(self, key)
        return self._chunks(result, key)

    def _read_now(self, stored: StoredObject, result: "GetResult") -> bytes:
        """Return the bytes of a small object.

        Some servers replace the bytes and the metadata one after the other, and a reader may meet
        the bytes of one object and the metadata of the next.  So a damaged object is read again.

        :raises CorruptCrash: it is damaged
        :raises StorageUnavailable: it was replaced while it was read
        """
        try:
            return self._read(stored, result)
        except CorruptCrash:
            if self._is_damaged(stored):
                raise
        raise replaced(self, stored.key)

    def _is_damaged(self, stored: StoredObject) -> bool:
        """Return True if the same object is damaged when it is read again."""
        again = self._get(stored.key)
        if again is None or _stored(stored.key, again).state != stored.state:
            return False
        try:
            self._read(stored, again)
        except CorruptCrash:
            return True
        return False

    def _read(self, stored: StoredObject, result: "GetResult") -> bytes:
        with self._translating(stored.key):
            data = bytes(call_client(result.bytes))
        check = Check(stored, self.uri)
        check.update(data)
        check.finish()
        return data

    # Writing

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
        mode: PutMode = "create" if create else "overwrite"
        if replaced:
            mode = {"e_tag": replaced.version}
        attributes = {**metadata, "Content-Type": content_type, **self._attributes}
        if not self._policy:
            try:
                return self._put(key, body, attributes, mode)
            except StorageDenied:
                if create or not self._find_policy(key):
                    raise
        return self._put_by_policy(key, body, attributes, mode)

    def _find_policy(self, key: str) -> bool:
        """Return True if a policy of the bucket demands conditions, and remember which."""
        allowed = self._requests.allowed_puts(self._prefix + key)
        if CREATE in allowed and OVERWRITE not in allowed:
            self._policy = allowed
        return bool(self._policy)

    def _put_by_policy(
        self, key: str, body: bytes | Part, attributes: dict[str, str], mode: "PutMode"
    ) -> str | None:
        """Put an object on the conditions that the policy demands.  If it allows to create only,
        what is there is deleted before."""
        if mode == "create":
            return self._put(key, body, attributes, mode)
        for _ in range(_TRIES):
            version = mode["e_tag"] if isinstance(mode, dict) else self._version(key)
            try:
                if version and REPLACE in self._policy:
                    return self._put(key, body, attributes, {"e_tag": version})
                if version:
                    return self._put_anew(key, body, attributes, version)
                return self._put(key, body, attributes, "create")
            except (ObjectExists, ObjectChanged):
                if isinstance(mode, dict):
                    raise ObjectChanged from None
        reason = "other processes replace it at this moment"
        raise StorageUnavailable(reason, crash_id=subject(key), uri=self.uri)

    def _put_anew(
        self, key: str, body: bytes | Part, attributes: dict[str, str], version: str
    ) -> str | None:
        """Put an object where this version is, which is deleted at the last moment: all bytes have
        been sent by then, and may come from there."""

        def make_room() -> None:
            if self.delete({key: version}):
                raise ObjectChanged

        said = attributes.get(SHA256)
        chunks: Iterable[bytes] = [body] if isinstance(body, bytes) else Upload(body, sha256=said)
        if isinstance(chunks, Upload) and chunks.read_ahead(PART_SIZE):
            chunks = [chunks.data()]
        if isinstance(chunks, list):
            said = hashlib.sha256(chunks[0]).hexdigest()
        known = {SHA256: said} if said else {}
        self._put_large(key, chunks, attributes | known, "create", make_room)
        return said

    def _version(self, key: str) -> str | None:
        found = self.head(key)
        return found.version if found else None

    def _put(
        self, key: str, body: bytes | Part, attributes: dict[str, str], mode: "PutMode"
    ) -> str | None:
        attributes = dict(attributes)
        if isinstance(body, bytes):
            return self._put_small(key, body, attributes, mode)
        sha256 = attributes.pop(SHA256, None)
        if body.size is not None and body.size <= _MIDDLING and not sha256:
            return self._put_small(key, body.read(), attributes, mode)
        upload = Upload(body, sha256=sha256)
        said = {SHA256: sha256} if sha256 else {}
        if upload.read_ahead(_MIDDLING):
            return self._put_small(key, upload.data(), attributes, mode)
        if upload.size and upload.size > PART_SIZE:
            self._put_large(key, upload, attributes | said, mode)
            return sha256
        with self._middling:
            if upload.read_ahead(PART_SIZE):
                return self._put_small(key, upload.data(), attributes, mode)
            self._put_large(key, upload, attributes | said, mode)
        return sha256

    def _put_small(self, key: str, data: bytes, attributes: dict[str, str], mode: "PutMode") -> str:
        sha256 = attributes.get(SHA256) or hashlib.sha256(data).hexdigest()
        attributes[SHA256] = sha256
        for pause in (*_PAUSES, None):
            try:
                self._put_once(key, data, attributes, mode)
                break
            except _Conflict as conflict:
                if pause is None:
                    raise self._connection.explain(conflict.error, subject(key)) from conflict.error
                time.sleep(random.uniform(pause / 2, pause))
        return sha256

    def _put_once(self, key: str, data: bytes, attributes: dict[str, str], mode: "PutMode") -> None:
        client = self._connection.client()
        with self._translating(key):
            try:
                call_client(
                    lambda: obstore.put(
                        client,
                        self._prefix + key,
                        data,
                        attributes=attributes,
                        mode=mode,
                        use_multipart=False,
                    )
                )
            except _UNMET as error:
                # obstore takes "another request changes it at this moment" for "it is there".
                if self._connection.is_conflict(error):
                    raise _Conflict(error) from error
                if mode == "create" and isinstance(error, obstore.exceptions.AlreadyExistsError):
                    raise ObjectExists from error
                if isinstance(mode, dict):
                    raise ObjectChanged from error
                raise

    def _put_large(
        self,
        key: str,
        chunks: Iterable[bytes],
        attributes: dict[str, str],
        mode: "PutMode",
        before_end: Callable[[], None] | None = None,
    ) -> None:
        word = secrets.token_hex(8)
        try:
            with self._large:
                self._requests.upload(
                    self._prefix + key,
                    chunks,
                    PART_SIZE,
                    attributes={**attributes, _UPLOAD: word},
                    version=mode["e_tag"] if isinstance(mode, dict) else None,
                    create=mode == "create",
                    before_end=before_end,
                    crash_id=subject(key),
                )
        except (ObjectExists, ObjectChanged, StorageUnavailable):
            # An answer may have been lost: then this is what the object says to the next request.
            if not self._has_arrived(key, word):
                raise

    def _has_arrived(self, key: str, word: str) -> bool:
        """Return True if an object is there that went up by this word."""
        with suppress(StorageError):
            there = self._get(key, head=True)
            return there is not None and there.attributes.get(_UPLOAD) == word
        return False

    def try_put(self, key: str) -> None:
        attributes = {"Content-Type": "application/octet-stream", **self._attributes}
        self._requests.try_put(self._prefix + key, attributes)

    def delete(self, versions: Mapping[str, str | None]) -> list[str]:
        if not versions:
            return []
        if not self._requests.deletes_unchanged(self._prefix + _PROBE):
            self._delete_any(list(versions))
            return []
        seen = {self._prefix + key: versions[key] or self._version(key) for key in versions}
        known = {path: version for path, version in seen.items() if version}
        left = self._requests.delete_unchanged(known, subject(next(iter(versions))))
        return [path.removeprefix(self._prefix) for path in left]

    def _delete_any(self, keys: list[str]) -> None:
        client = self._connection.client()
        paths = [self._prefix + key for key in keys]
        with self._translating(keys[0]):
            try:
                call_client(lambda: obstore.delete(client, paths))
            except obstore.exceptions.BaseError as error:
                if not self._connection.says_deleted(error):
                    raise

    # Listing

    # To the client, an answer that is no listing is one of nothing: so where there should be
    # something, or usually is, it is asked for twice.

    def list_keys(
        self, prefix: str, after: str = "", *, twice: bool = False
    ) -> Iterator[list[str]]:
        client = self._connection.client()
        with self._translating():
            pages = obstore.list(
                client,
                self._prefix + prefix,
                offset=self._prefix + after if after else None,
                chunk_size=1000,
            )
            is_empty = True
            while page := call_client(lambda: next(pages, None)):
                is_empty = False
                yield [meta["path"][len(self._prefix) :] for meta in page]
        if is_empty and twice:
            yield from self.list_keys(prefix, after)

    def list_directory(self, prefix: str) -> tuple[list[str], list[str]]:
        client = self._connection.client()
        for _ in range(2):
            with self._translating():
                found = call_client(
                    lambda: obstore.list_with_delimiter(client, self._prefix + prefix)
                )
            if found["common_prefixes"] or found["objects"]:
                break
        directories = [path.rpartition("/")[2] for path in found["common_prefixes"]]
        return directories, [meta["path"].rpartition("/")[2] for meta in found["objects"]]

    def _translating(self, key: str = "") -> translating:
        """Raise what the client raises as a `StorageError` of this store."""
        explain = self._connection.explain
        return translating(DRIVER_ERRORS, lambda error: explain(error, subject(key)))


class _MemoryBudget:
    """How many bytes of bodies may be kept, over all."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._lock = Lock()

    def has(self, count: int) -> bool:
        return self._left >= count

    def lend(self, to: StoredObject, count: int) -> None:
        """Count these bytes until `to` is no more."""
        self._add(-count)
        weakref.finalize(to, self._add, count).atexit = False

    def _add(self, count: int) -> None:
        with self._lock:
            self._left += count


def _stored(key: str, result: "GetResult") -> StoredObject:
    meta = result.meta
    time: dt.datetime = meta["last_modified"]
    return StoredObject(key, meta["size"], meta["e_tag"], dict(result.attributes), time)
