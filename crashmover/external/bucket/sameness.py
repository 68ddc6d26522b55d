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
same size and time there.  Its version is no proof: two servers may have two names for the same
bytes, as Google's two APIs have.  What crashmover saved twice has two words in its metadata.

The mark goes into the source, which a copy that removes may delete from.  It needs no right in
the destination that saving does not need.  Where the source refuses to be put to, the mark goes
into the destination.
"""

import datetime as dt
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from crashmover.errors import NotTwoStores, StorageDenied, StorageError
from crashmover.external.bucket.client import BucketClient, StoredObject
from crashmover.external.bucket.layouts import DUMP_NAMES, MARKS, PROCESSED_CRASHES, RAW_CRASHES
from crashmover.external.bucket.stamps import SAVE

logger = logging.getLogger(__name__)

_SECOND = dt.timedelta(seconds=1)
_OLD = dt.timedelta(hours=1)  # after which a mark was left behind by a process that was killed


def is_same_bucket(source: BucketClient, destination: BucketClient) -> bool:
    """Return True if two clients are of one place: the same bucket and prefix.

    :raises StorageError: a mark cannot be put, looked for or deleted
    :raises NotTwoStores: neither store takes a mark, or they share an object all the same
    """
    if _shows_mark(source, destination):
        return True
    if (key := _first(source)) and (there := destination.head(key)):
        here = source.head(key)
        if here and _may_be_one(here, there):
            raise NotTwoStores(
                f"{key} has the same size and time in both; one may be a replica of the other, or"
                " its server may go by names that it has kept"
            )
    return False


def _first(client: BucketClient) -> str | None:
    """Return the key of some object of a crash; None if there is none."""
    folders = (DUMP_NAMES, RAW_CRASHES, PROCESSED_CRASHES)
    return next((page[0] for folder in folders for page in client.list_keys(folder)), None)


def _may_be_one(here: StoredObject, there: StoredObject) -> bool:
    """Return True if both may be one object, which a server may show without its metadata, and
    with its time in whole seconds."""
    saves = {each.metadata.get(SAVE) for each in (here, there)} - {None}
    times = [each.time for each in (here, there) if each.time]
    is_one_time = not times or max(times) - min(times) < _SECOND
    return len(saves) < 2 and here.size == there.size and is_one_time


def _shows_mark(source: BucketClient, destination: BucketClient) -> bool:
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
def _marked(client: BucketClient, *, may_leave: bool = False) -> Iterator[str]:
    """Put a mark into a store, give its key, and delete it in the end.

    :param may_leave: where the store refuses to delete, leave the mark, and log a warning
    """
    key, text = f"{MARKS}/{secrets.token_hex(16)}", b"crashmover puts this here for a moment\n"
    try:
        client.put(key, text, content_type="text/plain", metadata={})
    except StorageDenied as error:
        raise _PutDenied(error.reason, uri=error.uri) from error
    except StorageError:  # the answer may have been lost on the way
        with suppress(StorageError):
            _delete(client, key)
        raise
    try:
        yield key
    finally:
        try:
            _delete(client, key)
        except StorageDenied as error:
            if not may_leave:
                raise
            logger.warning("%s; the object %s, which no reader looks at, stays", error, key)


def _delete(client: BucketClient, mark: str) -> None:
    """Delete a mark, and those that processes left behind which were killed."""
    client.delete({mark: None})
    with suppress(StorageError):  # this is only for tidiness
        before = dt.datetime.now(dt.UTC) - _OLD
        for other in next(client.list_keys(MARKS, surely=False), []):
            found = client.head(other)
            if found and found.time and found.time < before:
                client.delete({other: found.version})
