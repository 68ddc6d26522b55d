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
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from crashmover.errors import StorageError, StorageUnavailable
from crashmover.external.bucket.bodies import PART_SIZE
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
from crashmover.external.s3.calling import DRIVER_ERRORS, call_client
from crashmover.external.s3.connection_context import S3ConnectionContext
from crashmover.external.s3.deleting import ConditionalDelete
from crashmover.external.s3.repeating import Repeater
from crashmover.external.s3.s3errors import is_conflict, is_missing_object, says_deleted
from crashmover.external.s3.signed import SignedClient
from crashmover.external.s3.uploading import LargeUpload, headers_of
from crashmover.external.translating import translating

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta, PutMode

T = TypeVar("T")

_STREAM = 256 << 10
_PAGE = 1000  # keys, of a listing
_MD5_TAG = 34  # characters of an ETag that is an MD5: 32 and the quotes
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
        self._repeat = Repeater(context)
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

    @property
    def slowdowns(self) -> int:
        return self._context.slowdowns

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
        found = self._get(key, head=True)
        if found is None and not self._bucket_is_there:
            # The answer to this kind of request cannot say that the bucket is missing.
            self.verify_access()
        return found and found[0]

    def _ask(self, key: str, at_most: int = sys.maxsize) -> Download | None:
        if found := self._get(key):
            return Download(
                found[0], partial(self._read_all, *found), partial(self._chunks, *found)
            )
        return None

    def _get(self, key: str, *, head: bool = False) -> "tuple[StoredObject, GetResult] | None":
        client = self._context.client()
        found = None
        try:
            result = self._repeat(
                lambda: obstore.get(client, self._prefix + key, options={"head": head}), key
            )
            found = _stored(key, result), result
        except StorageError:
            raise
        except Exception as error:
            if not is_missing_object(error):
                explained = self._context.explain(error, subject(key))
                if head and not isinstance(explained, StorageUnavailable):
                    self.verify_access()  # whose answer has a body, and says why
                raise explained from error
        if found and not found[0].version:  # a page to log in, perhaps
            raise self._context.wrong_server(subject(key))
        self._bucket_is_there |= found is not None or not head
        return found

    def _read_all(self, stored: StoredObject, result: "GetResult") -> bytes:
        return self._begun(stored, result, lambda found: bytes(found.bytes()))

    def _chunks(
        self, stored: StoredObject, result: "GetResult | None", start: int = 0
    ) -> Iterator[bytes]:
        stream, data = self._begun(stored, result, _begin, start)
        while data:
            yield data
            with self._translating(stored.key):
                data = bytes(call_client(lambda: next(stream, b"")))

    def _ask_from(self, stored: StoredObject, start: int) -> Iterator[bytes]:
        return self._chunks(stored, None, start)

    def _begun(
        self,
        stored: StoredObject,
        result: "GetResult | None",
        read: "Callable[[GetResult], T]",
        start: int = 0,
    ) -> T:
        """Return what is read of an answer; if that fails in passing, of a further one.

        :param result: the answer; None: the object is asked for
        :param start: the first byte that is asked for
        :raises StorageUnavailable: as `replaced`, if the object is no longer there
        """
        client, path = self._context.client(), self._prefix + stored.key
        options: GetOptions = {"if_match": stored.version}
        if start:
            options["range"] = {"offset": start}
        first = iter([result])

        def attempt() -> T:
            if found := next(first, None):
                return read(found)
            found = obstore.get(client, path, options=options)
            if _e_tag(found.meta) != stored.version:  # not every server knows the condition
                raise FileNotFoundError(path)
            return read(found)

        with self._translating(stored.key):
            try:
                return self._repeat(attempt, stored.key)
            except (PreconditionError, FileNotFoundError) as error:
                raise replaced(self, stored.key) from error

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
                    once_at_most = mode != "overwrite"
                    self._repeat(
                        lambda: put(mode=mode, use_multipart=False), key, once_at_most=once_at_most
                    )
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
                self._repeat(lambda: obstore.delete(client, paths), keys[0], once_at_most=True)
            except BaseError as error:
                if not says_deleted(error):
                    raise

    # Listing

    # To obstore, an answer that is no listing is the end of it, a page to log in for example
    # (findings/obstore-page-for-a-listing.sh).  So where a listing ends with a whole page, or has
    # begun with its end, the server is asked whether that is the end.

    def list_objects(self, prefix: str, after: str = "", *, surely: bool = True) -> Pages:
        was_empty = False
        while True:
            page: list[Listed] = []
            for page in self._pages(prefix, after):
                yield page
            if not surely or len(page) % _PAGE:
                return
            after = page[-1][0] if page else after
            if not self.has_key(prefix, after):
                return
            if was_empty and not page:  # only some requests get such an answer, again and again
                raise self._context.wrong_server(None)
            was_empty = not page

    def _pages(self, prefix: str, after: str) -> Pages:
        client, path = self._context.client(), self._prefix + prefix
        offset = self._prefix + after if after else None
        pages: Iterator[Sequence[ObjectMeta]] | None = None

        def ask() -> "Sequence[ObjectMeta] | None":
            nonlocal pages
            asked, pages = pages, None  # once a page has failed, no further one comes
            asked = asked or obstore.list(client, path, offset=offset, chunk_size=_PAGE)
            page = next(asked, None)
            pages = asked
            return page

        with self._translating():
            while page := self._repeat(ask):
                offset = page[-1]["path"]
                yield [
                    (meta["path"][len(self._prefix) :], meta["size"], _md5(meta["e_tag"]))
                    for meta in page
                ]

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
            found = self._repeat(lambda: obstore.list_with_delimiter(client, path))
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


def _e_tag(meta: "ObjectMeta") -> str:
    """Return the ETag; "" if there is none.

    S3 has only strong ones.  A proxy that compresses makes weak ones of them, and no condition of a
    weak one is ever met (RFC 9110, 8.8.3.2).
    """
    return (meta["e_tag"] or "").removeprefix("W/")


def _begin(result: "GetResult") -> tuple[Iterator[bytes], bytes]:
    """Return the pieces of a body, and the first one, which is asked for already."""
    stream = iter(result.stream(min_chunk_size=_STREAM))
    return stream, bytes(next(stream, b""))


def _md5(e_tag: str | None) -> str:
    """Return what as a rule is the MD5, of an ETag; "" where it is none, as after an upload in
    parts."""
    return e_tag[1:-1] if e_tag and len(e_tag) == _MD5_TAG else ""


def _stored(key: str, result: "GetResult") -> StoredObject:
    meta = result.meta
    time: dt.datetime = meta["last_modified"]
    return StoredObject(key, meta["size"], _e_tag(meta), dict(result.attributes), time)
