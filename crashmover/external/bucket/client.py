# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""BucketClient: what the code for crashes asks of one bucket, of any provider."""

import datetime as dt
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from crashmover import crashid
from crashmover.crash import Part
from crashmover.errors import StorageUnavailable
from crashmover.external.bucket.rounds import Rounds

SHA256 = "sha256"
"""The name, in an object's metadata, of the SHA-256 of its bytes, in hex."""


class ObjectExists(Exception):
    """The object that was to be created is there."""


class ObjectChanged(Exception):
    """The object that was to be replaced is missing, or is another one."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class StoredObject:
    """An object as it was found.

    :param size: in bytes
    :param version: the server's name for just these bytes: an ETag, a generation
    :param metadata: what was saved with it
    :param time: when it was put, by the server's clock
    :param body: its bytes, where they were few enough to come along
    :param crc32c: the CRC-32C of its bytes, in base64, where the server says it
    :param is_only_one: whether no other object ever has its version
    """

    key: str
    size: int
    version: str | None
    metadata: Mapping[str, str]
    time: dt.datetime | None = None
    body: bytes | None = field(default=None, repr=False)
    crc32c: str | None = None
    is_only_one: bool = False

    @property
    def state(self) -> tuple[object, ...]:
        """What tells it from any other object of its key."""
        return self.version, *(() if self.is_only_one else sorted(self.metadata.items()))

    def open_body(self) -> BinaryIO:
        """Open the body that came along."""
        return io.BytesIO(self.body or b"")


Listed = tuple[str, int, str]
"""An object as a listing shows it: its key; how many bytes it has; and a checksum of these, as the
provider tells it: the MD5 in hex or the CRC-32C in base64, or "".  Where a server encrypts objects,
the first may be another thing in the form of an MD5."""

Pages = Iterator[list[Listed]]


class BucketClient(Protocol):
    """The objects of one bucket below a prefix.  It knows keys and bytes, and nothing of crashes.

    Safe for use from many threads.  It raises `StorageError` of its `uri`; the last step of a key,
    where that is a crash id, is the error's.  A request that fails in passing is tried again here,
    and only here.  `crashmover.testing.BucketClientTests` holds the tests that every client passes.
    """

    uri: str

    rounds: Rounds
    """Sends requests that have no order among them."""

    @property
    def slowdowns(self) -> int:
        """How often, up to now, the server has asked for fewer requests, by 429 or 503."""

    def location(self, key: str) -> str:
        """Return where a key is, as its provider writes it: ``s3://bucket/prefix/key``."""

    def honours_conditions(self) -> bool | None:
        """Return whether the server honours `create` and `replaced`; None if that is unknown, and
        the first save has to find out."""

    def clock(self) -> dt.datetime | None:
        """Return the time by the server's clock, to the second; None if it does not say."""

    def verify_access(self) -> None:
        """Raise `StorageError` unless objects can be read.  One request."""

    def try_put(self, key: str) -> None:
        """Raise `StorageError` unless this key could be put.  No object is made of it."""

    def head(self, key: str) -> StoredObject | None:
        """Return what is known of an object; None if there is none."""

    def get_small(self, key: str) -> StoredObject | None:
        """As `head`, with the body if that is small: one request for both."""

    def get(self, key: str) -> tuple[StoredObject, BinaryIO] | None:
        """Open an object to be read; return None if there is none.

        Reading raises `StorageUnavailable` if the bytes end early or the object was replaced, and
        `CorruptCrash` if they have another SHA-256 than `SHA256` in the metadata.
        """

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
        """Save an object; return the SHA-256 of its bytes if it is in the metadata.

        :param body: a part that cannot be read raises what its reading raises
        :param create: only if there is none.  A server that knows no conditions saves it all the
            same, and so may any server an object that goes up in parts.
        :param replaced: only in the place of this object, with the same exceptions
        :raises ObjectExists: there is one, and `create` was asked for
        :raises ObjectChanged: the object to be replaced is no longer there
        """

    def delete(self, versions: Mapping[str, str | None]) -> list[str]:
        """Delete each key if it still has that version (None: any version); return the keys that
        were left because they have another.  A missing key is no error.  A server that knows no
        conditions deletes any version."""

    def list_objects(self, prefix: str, after: str = "", *, surely: bool = True) -> Pages:
        """Yield the objects below a prefix, page by page, in the order of their keys.

        :param prefix: whole steps of a key, without a slash at its end
        :param after: begin behind this key
        :param surely: whether to make sure that an answer which ends the listing is a listing, and
            no page of a proxy, for example, if that costs a further request
        """

    def list_keys(
        self, prefix: str, after: str = "", *, surely: bool = True
    ) -> Iterator[list[str]]:
        """As `list_objects`; yield the keys alone."""

    def has_key(self, prefix: str, after: str = "") -> bool:
        """Return True if `list_keys` would yield a key.  One request, surely answered."""

    def list_directory(self, prefix: str) -> tuple[list[str], list[str]]:
        """Return the names of the directories and of the objects directly below a prefix."""


def subject(key: str) -> str | None:
    """Return the crash id that an error about a key names: its last step, if that is one."""
    name = key.rpartition("/")[2]
    return name if crashid.is_valid(name) else None


def replaced(client: BucketClient, key: str) -> StorageUnavailable:
    """Return what to raise if an object is no longer what it was."""
    reason = "it was replaced or removed while it was read"
    return StorageUnavailable(reason, crash_id=subject(key), uri=client.uri)
