# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Finder: which objects of a crash there are."""

import hashlib
from collections.abc import Iterable
from functools import partial
from itertools import compress
from math import inf
from threading import Lock
from time import monotonic
from typing import BinaryIO

from crashmover import comparison, crashid
from crashmover.crash import MAIN_DUMP, Kind, Part
from crashmover.documents import LargeDocument
from crashmover.errors import CorruptCrash, StorageError, StorageUnavailable
from crashmover.external.bucket.client import SHA256, BucketClient, StoredObject, replaced
from crashmover.external.bucket.layouts import (
    LONGEST_DUMP_NAMES,
    OLD_RAW_CRASHES,
    PAST_ALL_DAYS,
    RAW_CRASHES,
    BucketLayout,
    parse_dump_names,
)
from crashmover.external.bucket.stamps import is_of, sha256_of_dumps
from crashmover.parts import CHUNK
from crashmover.soundness import read_dump_checksums

_BELIEVED = 60.0  # seconds for which no raw crash is looked for under the older keys


class Finder:
    """Looks for the objects of crashes, one by one.  Safe for use from many threads.

    :param client: of the bucket
    :param layout: which keys they have
    """

    def __init__(self, client: BucketClient, layout: BucketLayout) -> None:
        self.client = client
        self.layout = layout
        self._older = OlderKeys(client)

    # Raw crashes

    def raw_crash(
        self, crash_id: str, *, body: bool = False, surely: bool = False
    ) -> StoredObject | None:
        """Look for the raw crash: the first that is there, in the order of its keys.

        :param body: whether to bring the body along, if that is small
        :param surely: whether to look under the older keys although a listing has just found that
            none is used
        """
        look = self.client.get_small if body else self.client.head
        written, *older = self.layout.raw_crash_keys(crash_id)
        with self.client.rounds() as begin:
            ask = begin(partial(look, written))
            if older and not body and not self._older.are_known:
                begin(self._older.are_used)  # in vain if it is there, which is not likely
            found = ask()
        if found or not older or not (surely or self._older.are_used()):
            return found
        with self.client.rounds() as begin:
            answers = [begin(partial(look, key)) for key in older]
            return next(filter(None, (answer() for answer in answers)), None)

    def raw_crashes_behind(self, crash_id: str, first: StoredObject) -> list[StoredObject]:
        """Look for further raw crashes under the older keys, which the first one hides.

        :param first: the first, as `raw_crash` found it
        """
        keys = self.layout.raw_crash_keys(crash_id)
        behind = keys[keys.index(first.key) + 1 :]
        return self.those_there(behind) if behind and self._older.are_used() else []

    def those_there(self, keys: Iterable[str]) -> list[StoredObject]:
        """Return what is known of those of these objects that are there."""
        found = self.client.rounds.together(*(partial(self.client.head, key) for key in keys))
        return list(filter(None, found))

    # Dumps

    def list_of_dumps(self, crash_id: str) -> StoredObject | None:
        """Look for the list of dumps."""
        return self.client.head(self.layout.dump_names_key(crash_id))

    def listed_dumps(self, crash_id: str) -> set[str] | None:
        """Return the names in the list of dumps, none if it is damaged; None without a list."""
        found = self.read_list(crash_id)
        return found and found[1]

    def read_list(self, crash_id: str) -> tuple[StoredObject, set[str]] | None:
        """As `listed_dumps`, with the list as it was found."""
        found = self.client.get(self.layout.dump_names_key(crash_id))
        if found is None:
            return None
        with found[1] as file:
            try:
                return found[0], set(parse_dump_names(file.read(LONGEST_DUMP_NAMES + 1)))
            except CorruptCrash:
                return found[0], set()

    def unlisted_dumps(self, raw: StoredObject) -> list[str]:
        """Return the names of the dumps that are beside a raw crash without a list: the main dump
        and those that the raw crash has checksums of, as far as they are there.  A dump that says
        that it was saved with another raw crash is left out.

        Other programs leave such crashes: Mozilla Socorro puts the raw crash, then the list, then
        the dumps (``socorro/external/boto/crashstorage.py``).  Its reader finds a dump by its key,
        listed or not.

        :raises LargeDocument: the raw crash is too large to be read as JSON
        """
        crash_id = raw.key.rpartition("/")[2]
        names = dict.fromkeys([MAIN_DUMP, *self._named(raw)])
        are_beside = self.client.rounds.together(
            *(partial(self._is_beside, raw, crash_id, name) for name in names)
        )
        return list(compress(names, are_beside))

    def _named(self, raw: StoredObject) -> list[str]:
        open_raw = partial(self.open_as_found, raw)
        try:
            return list(read_dump_checksums(Part(Kind.RAW_CRASH, "", open_raw, raw.size)))
        except LargeDocument:  # the dumps that it names must not be left behind
            raise
        except CorruptCrash:  # it names no dumps
            return []

    def _is_beside(self, raw: StoredObject, crash_id: str, name: str) -> bool:
        dump = self.dump(crash_id, name)
        return dump is not None and is_of(dump, sha256_of_dumps(raw.metadata))

    def dump(self, crash_id: str, name: str) -> StoredObject | None:
        """Look for a dump."""
        return self.client.head(self.layout.dump_key(crash_id, name))

    def has(self, dump: Part, crash_id: str) -> bool:
        """Return True if the dump is there, to the byte.  A dump that went up in parts is read."""
        there = self.dump(crash_id, dump.name)
        if there is None or dump.size not in (None, there.size):
            return False
        return self._sha256(there) == comparison.sha256(dump).hex()

    def _sha256(self, there: StoredObject) -> str | None:
        if SHA256 in there.metadata:
            return there.metadata[SHA256]
        found = self.client.get(there.key)
        if found is None:
            return None
        digest = hashlib.sha256()
        with found[1] as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    # Any

    def open_as_found(self, stored: StoredObject) -> BinaryIO:
        """Open an object as it was found.

        :raises StorageUnavailable: it was replaced or removed since
        """
        if stored.body is not None:
            return stored.open_body()
        found = self.client.get(stored.key)
        if found is None:
            raise replaced(self.client, stored.key)
        if found[0].version != stored.version:
            found[1].close()
            raise replaced(self.client, stored.key)
        return found[1]


class OlderKeys:
    """Whether a bucket has raw crashes under older keys: asked by listings, and not for each crash.

    No program of today puts raw crashes there.  So if there are none, that is believed for a
    minute.  If there are, or the bucket cannot be listed, each crash is looked for.  A listing that
    fails in passing is repeated a minute later, and not for each crash: all threads wait for it.
    """

    def __init__(self, client: BucketClient) -> None:
        self._client = client
        self._lock = Lock()
        self._are_used = False
        self._believed_until = 0.0

    @property
    def are_known(self) -> bool:
        """Whether `are_used` sends no request."""
        return monotonic() < self._believed_until

    def are_used(self) -> bool:
        """Return True unless a listing of the last minute has found no raw crash there."""
        with self._lock:
            if monotonic() >= self._believed_until:
                self._are_used, self._believed_until = self._find_out()
            return self._are_used

    def _find_out(self) -> tuple[bool, float]:
        """Return whether they are used, and until when that is believed."""
        until = monotonic() + _BELIEVED
        try:
            return (True, inf) if self._are_found() else (False, until)
        except StorageUnavailable:
            return True, monotonic() + _BELIEVED  # it may have taken longer than that
        except StorageError:
            return True, inf

    def _are_found(self) -> bool:
        with self._client.rounds() as begin:
            answers = [
                begin(partial(self._client.has_key, RAW_CRASHES, PAST_ALL_DAYS)),
                begin(partial(self._client.has_key, OLD_RAW_CRASHES)),
                begin(self._has_undated),
            ]
            return any(answer() for answer in answers)

    def _has_undated(self) -> bool:
        _, names = self._client.list_directory(RAW_CRASHES)
        return any(map(crashid.is_valid, names))
