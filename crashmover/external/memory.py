# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""InMemoryCrashStorage and InMemoryCrashQueue: for tests and for trying things out."""

import datetime as dt
import sqlite3
from collections.abc import Iterator, Set
from threading import Lock
from typing import Self

from crashmover import crashid
from crashmover.crash import ALL_KINDS, COLLECTED, Crash, Kind, Part
from crashmover.errors import CrashIDNotFound, CrashMoverError
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.roles import Store, check_listing
from crashmover.external.sqlite.crashqueue import MAX_DELIVERIES, SQLiteCrashQueue
from crashmover.external.sqlite.statements import SCHEMA
from crashmover.uri import StorageURI, count, refuse_tilde, seconds

Parts = dict[tuple[Kind, str], bytes]


class InMemoryCrashStorage(CrashStorageBase):
    """Keeps crashes as long as the object lives.  The reference for what a store does."""

    uri = "memory:"

    def __init__(self) -> None:
        self._crashes: dict[str, Parts] = {}
        self._lock = Lock()

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """``memory:``; each one is a store of its own."""
        uri.refuse("host", "path", "user", "password", "port")
        return cls(**uri.options())

    def identity(self) -> object:
        """Itself: two of them share nothing."""
        return id(self)

    def is_same_store(self, other: Store, *, probe: bool = False) -> bool | None:
        """Return whether both keep their crashes in the same dictionary."""
        if not isinstance(other, InMemoryCrashStorage):
            return None
        return self._crashes is other._crashes

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        crashid.validate(crash_id)
        parts = self._crashes.get(crash_id, {})
        self.require_marker(crash_id, kinds, {kind for kind, _ in parts})
        return Crash(
            crash_id,
            [
                Part.of_bytes(kind, data, name, version=data)
                for (kind, name), data in parts.items()
                if kind in kinds
            ],
        )

    def save_crash(self, crash: Crash) -> None:
        self._save(crash, replaced=COLLECTED if crash.raw_crash else set())

    def save_keeping_dumps(self, crash: Crash) -> None:
        self._save(crash, replaced=set())

    def _save(self, crash: Crash, *, replaced: Set[Kind]) -> None:
        if not crash.parts:
            raise CrashMoverError(f"{crash.crash_id}: nothing to save")
        new = {part.key: part.read() for part in crash.parts}
        with self._lock:
            old = self._crashes.get(crash.crash_id, {})
            needs_raw_crash = any(part.kind in COLLECTED for part in crash.parts)
            if needs_raw_crash and (Kind.RAW_CRASH, "") not in old | new:
                reason = "no raw crash to add dumps to"
                raise CrashIDNotFound(crash.crash_id, uri=self.uri, reason=reason)
            kept = {key: data for key, data in old.items() if key[0] not in replaced}
            # One assignment of a new dict: a reader sees the old crash or the new.
            self._crashes[crash.crash_id] = kept | new

    def _would_replace(self, crash: Crash) -> bool:
        there = self._crashes.get(crash.crash_id, {})
        return any(part.kind in COLLECTED and part.key in there for part in crash.parts)

    def remove(self, crash_id: str) -> None:
        crashid.validate(crash_id)
        with self._lock:
            if self._crashes.pop(crash_id, None) is None:
                raise CrashIDNotFound(crash_id, uri=self.uri)

    def new_crashes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[str]:
        kind = check_listing(since, until, kind)
        return self._listed(since, until, kind)

    def _listed(self, since: dt.date | None, until: dt.date | None, kind: Kind) -> Iterator[str]:
        with self._lock:
            found = [name for name, parts in self._crashes.items() if (kind, "") in parts]
        for crash_id in sorted(found, key=crashid.sort_key):
            day = crashid.date_of(crash_id)
            if (since is None or day >= since) and (until is None or day <= until):
                yield crash_id


class InMemoryCrashQueue(SQLiteCrashQueue):
    """Keeps crash ids as long as the object lives: an SQLite database that has no file.  The
    parameters are those of `SQLiteCrashQueue`."""

    def __init__(
        self,
        *,
        lease: float = 60.0,
        quarantine: str | None = None,
        max_deliveries: int = MAX_DELIVERIES,
    ) -> None:
        super().__init__(
            ":memory:", lease=lease, quarantine=quarantine, max_deliveries=max_deliveries
        )
        self.uri = "memory:"

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """``memory:``; each one is a queue of its own."""
        uri.refuse("host", "path", "user", "password", "port")
        return cls(**uri.options(lease=seconds, quarantine=refuse_tilde, max_deliveries=count))

    def create(self) -> list[str]:
        """There is nothing to be made."""
        return []

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        connection.executescript(SCHEMA)
        self._connection = connection
        return connection
