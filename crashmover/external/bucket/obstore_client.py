# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Objects: the bytes of one bucket, in and out, whole and checked."""

import hashlib
import io
import secrets
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, BinaryIO, cast

import obstore
import obstore.exceptions

from crashmover.crash import Part
from crashmover.errors import CorruptCrash, StorageError, StorageUnavailable
from crashmover.external.bucket import layouts as keys
from crashmover.external.bucket.bodies import PART_SIZE, Body, Check, Upload
from crashmover.external.bucket.calling import call_client
from crashmover.external.s3.connection_context import S3ConnectionContext
from crashmover.external.s3.s3errors import (
    AlreadyThere,
    NotTheSame,
    is_missing_object,
    may_be_complete,
    says_deleted,
)

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, PutMode

SHA256 = "sha256"
"""The name, in an object's metadata, of the SHA-256 of its bytes, in hex."""

RAW_CRASH_SHA256 = "raw-crash-sha256"
"""The name, in an object's metadata, of the SHA-256 of the raw crash that it was saved with."""

DUMPS = "dumps"
"""The name, in a raw crash's metadata, of the marks of the dumps that it was saved with."""

SAVE = "save"
"""The name, in the metadata of a list of dumps, of a word that no other save has."""

DUMPS_OF = "dumps-of"
"""The name, in a raw crash's metadata, of the SHA-256 of the raw crash that its dumps say they were
saved with, where that is an earlier one."""

ADDED = "added"
"""The name, in a dump's metadata, of what says that it came later than its raw crash."""

_UPLOAD = "upload"
"""The name, in a large object's metadata, of a word that no other upload has."""

_MIDDLING = 1 << 20  # of bodies larger than this only a few are on their way at a time
_MIDDLING_AT_ONCE = 4
_LARGE_AT_ONCE = 2  # of those that go up in parts, of which each has some in memory
_KEPT_BODY = 256 << 10  # a smaller body is fetched along with the news that it is there ...
_KEPT_BODIES = 24 << 20  # ... while all that are kept for later come to less than this
_NOBODYS = "00000000-0000-0000-0000-000000000101"  # a crash id that no crash is given


_UNMET = (
    obstore.exceptions.AlreadyExistsError,
    obstore.exceptions.PreconditionError,
    FileNotFoundError,
)
_REFUSALS = (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class StoredObject:
    """An object as it was found.

    :param size: in bytes
    :param e_tag: the server's name for just these bytes
    :param metadata: what was saved with it
    :param body: its bytes, where they were few enough to come along
    """

    key: str
    size: int
    e_tag: str | None
    metadata: Mapping[str, str]
    body: bytes | None = field(default=None, repr=False)

    @property
    def sha256_of_dumps(self) -> str | None:
        """What the dumps of this raw crash have as `RAW_CRASH_SHA256`."""
        return self.metadata.get(DUMPS_OF, self.metadata.get(SHA256))

    @property
    def state(self) -> tuple[object, ...]:
        """What tells it from any other object of its key."""
        return self.e_tag, *sorted(self.metadata.items())

    def open_body(self) -> BinaryIO:
        """Open the body that came along."""
        return io.BytesIO(self.body or b"")


class Objects:
    """The objects of a bucket below a prefix.  Safe for use from many threads.

    :param context: how to reach the bucket
    :param prefix: ``""``, or without a slash at its ends
    """

    def __init__(self, context: S3ConnectionContext, prefix: str) -> None:
        self._context = context
        self._prefix = f"{prefix}/" if prefix else ""
        self._bucket_is_there = False
        self._middling = BoundedSemaphore(_MIDDLING_AT_ONCE)
        self._large = BoundedSemaphore(_LARGE_AT_ONCE)
        self._kept = _Allowance(_KEPT_BODIES)

    @property
    def is_aws(self) -> bool:
        """Whether the server is Amazon's own."""
        self._context.client()
        return self._context.is_aws

    # Reading

    def verify_access(self) -> None:
        """Raise `StorageError` unless objects can be read."""
        if self._get(keys.dump_names_key(_NOBODYS), None):
            raise self._context.not_s3(None)

    def look(self, key: str, crash_id: str) -> StoredObject | None:
        """Return what is known of an object without its body, or None where there is none."""
        result = self._get(key, crash_id, head=True)
        if result is None and not self._bucket_is_there:
            # The answer to this kind of request cannot say that the bucket is missing.
            self.verify_access()
        return _stored(key, result) if result else None

    def find_raw_crash(self, crash_id: str, *, body: bool = False) -> StoredObject | None:
        """Return the raw crash from the first of its keys that has one.

        :param body: as `fetch`
        """
        find = self.fetch if body else self.look
        found = (find(key, crash_id) for key in keys.raw_crash_keys(crash_id))
        return next(filter(None, found), None)

    def fetch(self, key: str, crash_id: str) -> StoredObject | None:
        """As `look`, with the body where it is small: one request for both."""
        if not self._kept.has(_KEPT_BODY):
            return self.look(key, crash_id)
        result = self._get(key, crash_id)
        if result is None:
            return None
        if result.meta["size"] > _KEPT_BODY:
            return _stored(key, result)
        stored = _stored(key, result)
        stored = replace(stored, body=self._read_now(stored, result, crash_id))
        self._kept.lend(stored, stored.size)
        return stored

    def open(self, key: str, crash_id: str) -> tuple[StoredObject, BinaryIO] | None:
        """Open an object to be read; None where there is none.

        :raises StorageError: when reading, where its bytes are fewer than announced, or not
            those that were saved
        """
        result = self._get(key, crash_id)
        if result is None:
            return None
        stored = _stored(key, result)
        if stored.size > _MIDDLING:
            check = Check(stored.size, stored.metadata.get(SHA256))
            rest = partial(self._rest, stored, crash_id)
            return stored, cast(BinaryIO, Body(result, check, self._context, crash_id, rest))
        return stored, io.BytesIO(self._read_now(stored, result, crash_id))

    def _get(self, key: str, crash_id: str | None, *, head: bool = False) -> "GetResult | None":
        client = self._context.client()
        result = None
        try:
            result = call_client(
                lambda: obstore.get(client, self._prefix + key, options={"head": head})
            )
        except Exception as error:
            if not is_missing_object(error):
                if head and crash_id and isinstance(error, _REFUSALS):
                    self.verify_access()  # whose answer has a body, and says why
                raise self._context.explain(error, crash_id) from error
        if result and not result.meta["e_tag"]:  # a page to log in, perhaps
            raise self._context.not_s3(crash_id)
        self._bucket_is_there |= result is not None or not head
        return result

    def _rest(self, stored: StoredObject, crash_id: str, start: int) -> "GetResult":
        """Ask for the bytes of an object from `start` on, if it is still the same."""
        client = self._context.client()
        options: GetOptions = {"range": {"offset": start}, "if_match": stored.e_tag}
        with self._context.translating(crash_id):
            try:
                result = call_client(
                    lambda: obstore.get(client, self._prefix + stored.key, options=options)
                )
            except (obstore.exceptions.PreconditionError, FileNotFoundError) as error:
                raise self.replaced(crash_id) from error
        if result.meta["e_tag"] != stored.e_tag:  # not every server knows the condition
            raise self.replaced(crash_id)
        return result

    def replaced(self, crash_id: str) -> StorageUnavailable:
        """Return what to raise where two objects are not of one save."""
        reason = "it was replaced or removed while it was read"
        return StorageUnavailable(reason, crash_id=crash_id, uri=self._context.uri)

    def _read_now(self, stored: StoredObject, result: "GetResult", crash_id: str) -> bytes:
        """Return the bytes of a small object.

        Some servers replace the bytes and the metadata one after the other, and a reader may meet
        the bytes of one object and the metadata of the next.  So a damaged object is read again.

        :raises CorruptCrash: it is damaged
        :raises StorageUnavailable: it was replaced while it was read
        """
        try:
            return self._read(result, crash_id)
        except CorruptCrash:
            if self._is_damaged(stored, crash_id):
                raise
        raise self.replaced(crash_id)

    def _is_damaged(self, stored: StoredObject, crash_id: str) -> bool:
        """Return True if the same object is damaged when it is read again."""
        again = self._get(stored.key, crash_id)
        if again is None or _stored(stored.key, again).state != stored.state:
            return False
        try:
            self._read(again, crash_id)
        except CorruptCrash:
            return True
        return False

    def _read(self, result: "GetResult", crash_id: str) -> bytes:
        with self._context.translating(crash_id):
            data = bytes(call_client(result.bytes))
        check = Check(result.meta["size"], result.attributes.get(SHA256))
        check.update(data)
        check.finish(self._context.uri, crash_id)
        return data

    # Writing

    def put(
        self,
        key: str,
        body: bytes | Part,
        crash_id: str,
        *,
        content_type: str,
        metadata: Mapping[str, str],
        create: bool = False,
        replaced: StoredObject | None = None,
    ) -> str | None:
        """Save an object; return the SHA-256 of its bytes, where it goes with them.

        :param body: what cannot be read of it raises what its reading raises
        :param create: only where there is none; servers that do not know this save it all the
            same, and so does every server what is larger than `PART_SIZE`
        :param replaced: only in the place of this object, with the same exceptions
        :raises AlreadyThere: there is one, where `create` was asked for
        :raises NotTheSame: that object is no longer there
        """
        mode: PutMode = "create" if create else "overwrite"
        if replaced:
            mode = {"e_tag": replaced.e_tag}
        attributes = {**metadata, "Content-Type": content_type}
        if self._context.options.storage_class:
            attributes["Storage-Class"] = self._context.options.storage_class
        if isinstance(body, bytes):
            return self._put_small(key, body, crash_id, attributes, mode)
        sha256 = attributes.pop(SHA256, None)
        if body.size is not None and body.size <= _MIDDLING and not sha256:
            return self._put_small(key, body.read(), crash_id, attributes, mode)
        upload = Upload(body, sha256=sha256)
        said = {SHA256: sha256} if sha256 else {}
        if upload.read_ahead(_MIDDLING):
            return self._put_small(key, upload.data(), crash_id, attributes, mode)
        if upload.size and upload.size > PART_SIZE:
            self._put_large(key, upload, crash_id, attributes | said)
            return sha256
        with self._middling:
            if upload.read_ahead(PART_SIZE):
                return self._put_small(key, upload.data(), crash_id, attributes, mode)
            self._put_large(key, upload, crash_id, attributes | said)
        return sha256

    def _put_small(
        self, key: str, data: bytes, crash_id: str, attributes: dict[str, str], mode: "PutMode"
    ) -> str:
        client = self._context.client()
        sha256 = attributes.get(SHA256) or hashlib.sha256(data).hexdigest()
        attributes[SHA256] = sha256
        with self._context.translating(crash_id):
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
                if mode == "create" and isinstance(error, obstore.exceptions.AlreadyExistsError):
                    raise AlreadyThere from error
                if isinstance(mode, dict):
                    raise NotTheSame from error
                raise
        return sha256

    def _put_large(
        self, key: str, upload: Upload, crash_id: str, attributes: dict[str, str]
    ) -> None:
        client = self._context.client()
        word = secrets.token_hex(8)
        try:
            with self._large, self._context.translating(crash_id):
                # Aborts the upload when its source or a request fails.
                call_client(
                    lambda: obstore.put(
                        client,
                        self._prefix + key,
                        upload,
                        attributes={**attributes, _UPLOAD: word},
                        use_multipart=True,
                        chunk_size=PART_SIZE,
                        max_concurrency=2,
                    )
                )
        except StorageError as error:
            if upload.error:
                raise upload.error from None
            if not may_be_complete(error.__cause__) or not self._has_arrived(key, crash_id, word):
                raise

    def _has_arrived(self, key: str, crash_id: str, word: str) -> bool:
        """Whether an object is there that went up by this word."""
        with suppress(StorageError):
            there = self._get(key, crash_id, head=True)
            return there is not None and there.attributes.get(_UPLOAD) == word
        return False

    def delete(self, keys: Sequence[str], crash_id: str) -> None:
        """Delete objects; that there is none is no error."""
        client = self._context.client()
        with self._context.translating(crash_id):
            paths = [self._prefix + key for key in keys]
            try:
                call_client(lambda: obstore.delete(client, paths))
            except obstore.exceptions.BaseError as error:
                if not says_deleted(error):
                    raise

    # Listing

    # To the client, an answer that is no listing is one of nothing: so where there should be
    # something, or usually is, it is asked for twice.

    def pages(self, prefix: str, after: str = "", *, twice: bool = False) -> Iterator[list[str]]:
        """Yield the keys below a prefix, page by page, in their order.

        :param prefix: whole steps of a key, without a slash at its end
        :param after: begin behind this key
        :param twice: where there are none, ask again
        """
        client = self._context.client()
        with self._context.translating():
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
            yield from self.pages(prefix, after)

    def children(self, prefix: str) -> tuple[list[str], list[str]]:
        """Return the names of the directories and of the objects directly below a prefix."""
        client = self._context.client()
        for _ in range(2):
            with self._context.translating():
                found = call_client(
                    lambda: obstore.list_with_delimiter(client, self._prefix + prefix)
                )
            if found["common_prefixes"] or found["objects"]:
                break
        directories = [path.rpartition("/")[2] for path in found["common_prefixes"]]
        return directories, [meta["path"].rpartition("/")[2] for meta in found["objects"]]


class _Allowance:
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


def _stored(key: str, result: "GetResult", body: bytes | None = None) -> StoredObject:
    meta = result.meta
    return StoredObject(key, meta["size"], meta["e_tag"], dict(result.attributes), body)
