# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Whether two stores in buckets are one, by a mark: an object put below the prefix of one, and
looked for below the prefix of the other.

Every key of a crash is the prefix and then what only the crash decides.  So two stores share
crashes where the same key below both prefixes is one object: the mark's key as much as any.  Two
prefixes of one bucket share nothing, even where one lies within the other: what a crash adds to a
prefix is never a crash's key below a shorter one.

A server may go by a list of names that it has kept for minutes, as ``rclone serve s3`` does, and
so not show the mark.  A replica shows it late, and may repeat what is deleted.  So where there is
no mark, an object of the source is looked for in the destination, too.  The same object has the
same ETag and time there; what crashmover saved twice also has two words in its metadata.

The mark goes into the source, which a copy that removes may delete from.  It needs no right in
the destination that saving does not need.  Where the source refuses to be put to, the mark goes
into the destination.
"""

import datetime as dt
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import obstore

from crashmover.errors import NotTwoStores, StorageDenied, StorageError, StorageUnavailable
from crashmover.external.bucket import layouts as keys
from crashmover.external.bucket.calling import call_client
from crashmover.external.bucket.obstore_client import SAVE
from crashmover.external.s3.connection_context import S3ConnectionContext
from crashmover.external.s3.s3errors import DRIVER_ERRORS, NOT_S3, is_missing_object

logger = logging.getLogger(__name__)

_OLD = dt.timedelta(hours=1)  # after which a mark was left behind by a process that was killed


@dataclass(frozen=True)
class Place:
    """Where a store is.

    :param context: how to reach the bucket
    :param prefix: ``""``, or without a slash at its ends
    """

    context: S3ConnectionContext
    prefix: str

    def put(self, key: str, data: bytes) -> None:
        """Put a small object.

        :raises StorageError: it is refused, or fails
        """
        client, path = self.context.client(), self._path(key)
        with self.context.translating():
            call_client(lambda: obstore.put(client, path, data, use_multipart=False))

    def get(self, key: str) -> bytes | None:
        """Return the bytes of an object; None where there is none.

        :raises StorageError: it cannot be read
        """
        client, path = self.context.client(), self._path(key)
        try:
            result = call_client(lambda: obstore.get(client, path))
            if not result.meta["e_tag"]:  # a page to log in, perhaps
                raise StorageUnavailable(NOT_S3, uri=self.context.uri)
            return bytes(call_client(result.bytes))
        except StorageError:
            raise
        except Exception as error:
            if is_missing_object(error):
                return None
            raise self.context.explain(error) from error

    def first(self) -> str | None:
        """Return the key of some object of a crash; None where there is none.

        :raises StorageError: the bucket cannot be listed
        """
        client = self.context.client()
        with self.context.translating():
            for folder in ("v1/dump_names", keys.RAW_CRASHES, keys.PROCESSED_CRASHES):
                pages = obstore.list(client, self._path(folder), chunk_size=1)
                for meta in call_client(partial(next, pages, [])):
                    return folder + str(meta["path"]).removeprefix(self._path(folder))
        return None

    def state(self, key: str) -> "_State | None":
        """Return what an object is known by; None where there is none.

        :raises StorageError: it cannot be asked for
        """
        client, path = self.context.client(), self._path(key)
        try:
            result = call_client(lambda: obstore.get(client, path, options={"head": True}))
        except Exception as error:
            if is_missing_object(error):
                return None
            raise self.context.explain(error) from error
        meta = result.meta
        return _State(meta["e_tag"], meta["last_modified"], dict(result.attributes).get(SAVE))

    def delete_mark(self, key: str) -> None:
        """Delete a mark, and those that processes left behind which were killed.

        :raises StorageError: it is refused, or fails
        """
        client, folder = self.context.client(), self._path(keys.MARKS)
        paths = [self._path(key)]
        with suppress(*DRIVER_ERRORS):  # listing is only for tidiness
            before = dt.datetime.now(dt.UTC) - _OLD
            page = call_client(lambda: next(obstore.list(client, folder), []))
            paths += [meta["path"] for meta in page if meta["last_modified"] < before]
        with self.context.translating():
            for path in paths:
                call_client(partial(obstore.delete, client, path))

    def _path(self, key: str) -> str:
        return "/".join([*filter(None, self.prefix.split("/")), key])


@dataclass(frozen=True)
class _State:
    """What an object is known by.

    :param save: the word of the save that put it, if crashmover did
    """

    e_tag: str | None
    time: dt.datetime
    save: str | None

    def may_be(self, other: "_State") -> bool:
        """Return whether both may be one object, which a server may show without its metadata."""
        is_known = None not in (self.save, other.save)
        is_same_save = not is_known or self.save == other.save
        return is_same_save and (self.e_tag, self.time) == (other.e_tag, other.time)


def is_same_bucket(source: Place, destination: Place) -> bool:
    """Return whether two places are one.

    :raises StorageError: a mark cannot be put, looked for or deleted
    :raises NotTwoStores: neither store takes a mark, or they share an object all the same
    """
    if _shows_mark(source, destination):
        return True
    if (key := source.first()) and (there := destination.state(key)):
        state = source.state(key)
        if state and state.may_be(there):
            raise NotTwoStores(
                f"{key} has the same ETag and time in both; one may be a replica of the other, or"
                " its server may go by names that it has kept"
            )
    return False


def _shows_mark(source: Place, destination: Place) -> bool:
    try:
        with _marked(source) as key:
            return destination.get(key) is not None
    except _PutDenied as denied:
        reason = f"neither takes a mark that could be looked for in the other ({denied})"
    try:
        with _marked(destination, may_leave=True) as key:
            return source.get(key) is not None
    except _PutDenied:
        raise NotTwoStores(reason) from None


class _PutDenied(StorageDenied):
    """A store refuses to be put to."""


@contextmanager
def _marked(place: Place, *, may_leave: bool = False) -> Iterator[str]:
    """Put a mark into a store, give its key, and delete it in the end.

    :param may_leave: where the store refuses to delete, leave the mark, and log a warning
    """
    key = f"{keys.MARKS}/{secrets.token_hex(16)}"
    try:
        place.put(key, b"crashmover puts this here for a moment\n")
    except StorageDenied as error:
        raise _PutDenied(error.reason, uri=error.uri) from error
    except StorageError:  # the answer may have been lost on the way
        with suppress(StorageError):
            place.delete_mark(key)
        raise
    try:
        yield key
    finally:
        try:
            place.delete_mark(key)
        except StorageDenied as error:
            if not may_leave:
                raise
            logger.warning("%s; the object %s, which no reader looks at, stays", error, key)
