# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Stores that fail as real ones do, at the moment that a test chooses."""

import datetime as dt
from collections.abc import Iterator, Sequence, Set
from threading import Lock

from crashmover.crash import ALL_KINDS, Crash, Kind
from crashmover.errors import StorageDenied, StorageError, StorageUnavailable
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.memory import InMemoryCrashStorage


def unavailable(uri: str = "memory:faulty") -> StorageUnavailable:
    return StorageUnavailable("connection refused", uri=uri)


def denied(uri: str = "memory:faulty") -> StorageDenied:
    return StorageDenied("access denied", uri=uri)


class FaultyStorage(InMemoryCrashStorage):
    """A store of which some calls fail.

    :param failing: the names of the methods that raise `error`, all or the first `times`
    """

    uri = "memory:faulty"

    def __init__(
        self,
        *failing: str,
        error: StorageError | None = None,
        times: int | None = None,
    ) -> None:
        super().__init__()
        self.failing = set(failing)
        self.error = error or unavailable()
        self.times = times
        self.calls: list[str] = []
        self.closed = False
        self._counting = Lock()

    def _call(self, name: str) -> None:
        with self._counting:
            self.calls.append(name)
            fails = name in self.failing and (self.times is None or self.times > 0)
            if fails and self.times is not None:
                self.times -= 1
        if fails:
            raise self.error

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        self._call("load_crash")
        return super().load_crash(crash_id, kinds)

    def save_crash(self, crash: Crash) -> None:
        self._call("save_crash")
        super().save_crash(crash)

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        self._call("save_crashes")
        return super().save_crashes(crashes)

    def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        self._call("create_crashes")
        return super().create_crashes(crashes)

    def has_crash(self, crash_id: str, kind: Kind = Kind.RAW_CRASH) -> bool:
        self._call("has_crash")
        return super().has_crash(crash_id, kind)

    def remove(self, crash_id: str) -> None:
        self._call("remove")
        super().remove(crash_id)

    def new_crashes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[str]:
        self._call("new_crashes")
        for crash_id in super().new_crashes(since, until, kind):
            yield crash_id
            self._call("new_crashes, after one")

    def verify_access(self, *, write: bool = False) -> None:
        self._call("verify_access")
        if write:
            self._call("verify_access, to write")

    def close(self) -> None:
        self.closed = True
        self._call("close")


def all_down(error: StorageError | None = None) -> FaultyStorage:
    """A store that does not answer at all."""
    saving = ("save_crash", "save_crashes", "create_crashes")
    others = ("load_crash", "has_crash", "remove", "new_crashes", "verify_access")
    return FaultyStorage(*saving, *others, error=error)


def fill(storage: CrashStorageBase, crashes: Sequence[Crash]) -> None:
    """Save some crashes, whatever the store is told to do later."""
    for crash in crashes:
        storage.save_crash(crash)
