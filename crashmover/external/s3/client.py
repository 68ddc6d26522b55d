# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3Client: a `BucketClient` over obstore, which does not hold the interpreter's lock.

obstore has no words for a delete on a condition, nor for a large upload on one: these requests are
sent by `SignedClient`.
"""

import datetime as dt
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from posixpath import basename
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from crashmover.errors import StorageError, StorageUnavailable
from crashmover.external.bucket.bodies import PART_SIZE
from crashmover.external.bucket.client import (
    ObjectChanged,
    ObjectExists,
    StoredObject,
    replaced,
    subject,
)
from crashmover.external.bucket.client_base import PROBE, BucketClientBase, Condition, Download
from crashmover.external.s3.calling import DRIVER_ERRORS, call_client
from crashmover.external.s3.connection_context import S3ConnectionContext
from crashmover.external.s3.deleting import ConditionalDelete
from crashmover.external.s3.s3errors import is_conflict, is_missing_object, says_deleted
from crashmover.external.s3.signed import SignedClient
from crashmover.external.s3.uploading import LargeUpload, headers_of
from crashmover.external.translating import translating

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, PutMode

_STREAM = 256 << 10
_PAGE = 1000  # keys, of a listing
_PAUSES = (0.2, 0.4, 0.8, 1.6)  # seconds at most, before a put that met another is repeated

_UNMET = (AlreadyExistsError, PreconditionError, FileNotFoundError)


class S3Client(BucketClientBase):
    """The objects of a bucket below a prefix.  Safe for use from many threads.

    :param context: how to reach the bucket
    :param prefix: ``""``, or without a slash at its ends
    :param attributes: of each object that is put, such as a storage class
    """

    def __init__(
        self,
        context: S3ConnectionContext,
        prefix: str = "",
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(context.uri, context.location, prefix, attributes)
        self._context = context
        self._signed = SignedClient(context)
        self._delete_unchanged = ConditionalDelete(self._signed)
        self._bucket_is_there = False

    def honours_conditions(self) -> bool | None:
        self._context.client()  # raises `StorageDenied` without credentials
        return True if self._context.is_aws else None

    # Of the whole bucket

    def verify_access(self) -> None:
        if self._get(PROBE):
            raise self._context.wrong_server(None)

    def keeps_versions(self) -> bool:
        """Return True if what is deleted stays as a version; False if the server does not say."""
        with suppress(StorageError):
            answer = self._signed.send("GET", query={"versioning": ""})
            return bool(answer.status == 200 and answer.text("Status"))
        return False

    def clock(self) -> dt.datetime | None:
        """Return the time by the server's clock, to the second; None if it does not say, to a
        single request.  It is in every answer, a refusal too.  obstore shows it of none."""
        from email.utils import parsedate_to_datetime  # 7 ms

        try:
            answer = self._signed.send("HEAD", once=True)
            time = parsedate_to_datetime(answer.headers["date"])
        except (StorageError, KeyError, ValueError):
            return None
        return time.replace(tzinfo=time.tzinfo or dt.UTC)

    # Reading

    def head(self, key: str) -> StoredObject | None:
        result = self._get(key, head=True)
        if result is None and not self._bucket_is_there:
            # The answer to this kind of request cannot say that the bucket is missing.
            self.verify_access()
        return _stored(key, result) if result else None

    def _ask(self, key: str, at_most: int = sys.maxsize) -> Download | None:
        result = self._get(key)
        if result is None:
            return None
        stored = _stored(key, result)
        read, chunks = partial(self._read_all, key, result), partial(self._chunks, key, result)
        return Download(stored, read, chunks)

    def _get(self, key: str, *, head: bool = False) -> "GetResult | None":
        client = self._context.client()
        result = None
        try:
            result = call_client(
                lambda: obstore.get(client, self._prefix + key, options={"head": head})
            )
        except Exception as error:
            if not is_missing_object(error):
                explained = self._context.explain(error, subject(key))
                if head and not isinstance(explained, StorageUnavailable):
                    self.verify_access()  # whose answer has a body, and says why
                raise explained from error
        if result and not _e_tag(result):  # a page to log in, perhaps
            raise self._context.wrong_server(subject(key))
        self._bucket_is_there |= result is not None or not head
        return result

    def _read_all(self, key: str, result: "GetResult") -> bytes:
        with self._translating(key):
            return bytes(call_client(result.bytes))

    def _chunks(self, key: str, result: "GetResult") -> Iterator[bytes]:
        stream = iter(result.stream(min_chunk_size=_STREAM))
        while True:
            with self._translating(key):
                data = bytes(call_client(lambda: next(stream, b"")))
            if not data:
                return
            yield data

    def _ask_from(self, stored: StoredObject, start: int) -> Iterator[bytes]:
        client, key = self._context.client(), stored.key
        options: GetOptions = {"range": {"offset": start}, "if_match": stored.version}
        with self._translating(key):
            try:
                result = call_client(
                    lambda: obstore.get(client, self._prefix + key, options=options)
                )
            except (PreconditionError, FileNotFoundError) as error:
                raise replaced(self, key) from error
        if _e_tag(result) != stored.version:  # not every server knows the condition
            raise replaced(self, key)
        return self._chunks(key, result)

    # Putting

    def try_put(self, key: str) -> None:
        attributes = {"Content-Type": "application/octet-stream", **self._attributes}
        self._upload(key).try_to_begin(attributes)

    def _put_small(
        self, key: str, data: bytes, attributes: Mapping[str, str], condition: Condition
    ) -> None:
        mode: PutMode = "create" if condition.create else "overwrite"
        if condition.version:
            mode = {"e_tag": condition.version}
        client, path = self._context.client(), self._prefix + key
        put = partial(obstore.put, client, path, data, attributes=dict(attributes))
        for pause in (*_PAUSES, 0.0):
            with self._translating(key):
                try:
                    call_client(lambda: put(mode=mode, use_multipart=False))
                    return
                except _UNMET as error:
                    # obstore takes "another request changes it at this moment" for "it is there".
                    is_final = not is_conflict(error)
                    if is_final and condition.create and isinstance(error, AlreadyExistsError):
                        raise ObjectExists from error
                    if is_final and condition.version:
                        raise ObjectChanged from error
                    if is_final or not pause:
                        raise
            time.sleep(random.uniform(pause / 2, pause))

    def _put_large(
        self,
        key: str,
        chunks: Iterable[bytes],
        attributes: Mapping[str, str],
        *,
        condition: Condition,
        before_end: Callable[[], None] | None = None,
    ) -> None:
        self._upload(key)(
            chunks,
            PART_SIZE,
            attributes=attributes,
            condition=headers_of(condition),
            before_end=before_end,
        )

    def _upload(self, key: str) -> LargeUpload:
        return LargeUpload(self._signed, self._prefix + key, subject(key))

    # Deleting

    def delete(self, versions: Mapping[str, str | None]) -> list[str]:
        if not versions:
            return []
        if not self._delete_unchanged.is_honoured(self._prefix + PROBE):
            self._delete_any(list(versions))
            return []
        unknown = [key for key, version in versions.items() if not version]
        found = self.rounds.together(*(partial(self._version, key) for key in unknown))
        seen = {**versions, **dict(zip(unknown, found, strict=True))}
        known = {self._prefix + key: version for key, version in seen.items() if version}
        left = self._delete_unchanged(known, subject(next(iter(versions))))
        return [path.removeprefix(self._prefix) for path in left]

    def _version(self, key: str) -> str | None:
        found = self.head(key)
        return found.version if found else None

    def _delete_any(self, keys: list[str]) -> None:
        client = self._context.client()
        paths = [self._prefix + key for key in keys]
        with self._translating(keys[0]):
            try:
                call_client(lambda: obstore.delete(client, paths))
            except BaseError as error:
                if not says_deleted(error):
                    raise

    # Listing

    # To obstore, an answer that is no listing is the end of it, a page to log in for example
    # (findings/obstore-page-for-a-listing.sh).  So where a listing ends with a whole page, or has
    # begun with its end, the server is asked whether that is the end.

    def list_keys(
        self, prefix: str, after: str = "", *, surely: bool = True
    ) -> Iterator[list[str]]:
        was_empty = False
        while True:
            keys: list[str] = []
            for keys in self._pages(prefix, after):
                yield keys
            if not surely or len(keys) % _PAGE:
                return
            after = keys[-1] if keys else after
            if not self.has_key(prefix, after):
                return
            if was_empty and not keys:  # only some requests get such an answer, again and again
                raise self._context.wrong_server(None)
            was_empty = not keys

    def _pages(self, prefix: str, after: str) -> Iterator[list[str]]:
        client = self._context.client()
        offset = self._prefix + after if after else None
        with self._translating():
            pages = obstore.list(client, self._prefix + prefix, offset=offset, chunk_size=_PAGE)
            while page := call_client(lambda: next(pages, None)):
                yield [meta["path"][len(self._prefix) :] for meta in page]

    def list_directory(self, prefix: str) -> tuple[list[str], list[str]]:
        for _ in range(2):
            with self.rounds() as begin:
                ask_names = begin(partial(self._names_in, prefix))
                ask_any = begin(partial(self.has_key, prefix))
                directories, objects = ask_names()
                # Behind a directory's keys is its name with the sign that comes after the slash.
                found = [*objects, *(f"{each}0" for each in directories)]
                if not found:
                    has_more = ask_any()
                elif has_more := len(found) % _PAGE == 0:
                    has_more = self.has_key(prefix, max(found).removeprefix(self._prefix))
            if not has_more:
                return [*map(basename, directories)], [*map(basename, objects)]
        raise self._context.wrong_server(None)

    def _names_in(self, prefix: str) -> tuple[Sequence[str], list[str]]:
        """Return the paths of the directories and of the objects directly below a prefix, as far
        as the client sees any."""
        client, path = self._context.client(), self._prefix + prefix
        with self._translating():
            found = call_client(lambda: obstore.list_with_delimiter(client, path))
        return found["common_prefixes"], [meta["path"] for meta in found["objects"]]

    def has_key(self, prefix: str, after: str = "") -> bool:
        query = {"list-type": "2", "max-keys": "1"}
        if path := (self._prefix + prefix).rstrip("/"):
            query["prefix"] = f"{path}/"
        if after:
            query["start-after"] = self._prefix + after
        answer = self._signed.send("GET", query=query)
        if answer.status != 200 or answer.code:
            raise self._signed.refusal(answer)
        if b"<ListBucketResult" not in answer.body:
            raise self._context.wrong_server(None)
        return b"<Key>" in answer.body

    def _translating(self, key: str = "") -> translating:
        """Raise what the client raises as a `StorageError` of this store."""
        explain = self._context.explain
        return translating(DRIVER_ERRORS, lambda error: explain(error, subject(key)))


def _e_tag(result: "GetResult") -> str:
    """Return the ETag; "" if there is none.

    S3 has only strong ones.  A proxy that compresses makes weak ones of them, and no condition of a
    weak one is ever met (RFC 9110, 8.8.3.2).
    """
    return (result.meta["e_tag"] or "").removeprefix("W/")


def _stored(key: str, result: "GetResult") -> StoredObject:
    meta = result.meta
    time: dt.datetime = meta["last_modified"]
    return StoredObject(key, meta["size"], _e_tag(result), dict(result.attributes), time)
