# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Remover: crash ids or days in, and out what became of each crash."""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import islice, takewhile
from typing import Self

from crashmover.crash import Crash
from crashmover.engine.guard import Guard
from crashmover.engine.loading import each_loaded, given, load_alone
from crashmover.errors import CorruptCrash, CrashIDNotFound, in_brief
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.pool import Pool, at_once
from crashmover.retry import RetryPolicy, is_retryable

_AT_ONCE = 128  # crashes that are named


class Status(StrEnum):
    """What became of a crash."""

    REMOVED = "removed"
    WOULD_REMOVE = "would-remove"
    MISSING = "missing"
    FAILED = "failed"


@dataclass(frozen=True)
class RemovalResult:
    """What became of a crash, once that is final."""

    crash_id: str
    status: Status
    parts: Sequence[str] | None = None
    """The names of what there was of it; None, where that is not known."""
    error: str | None = None


class Remover:
    """Removes crashes from a store; from a `PolyCrashStorage`, from each of its stores.

    A context manager, whose threads look at crashes before these are removed.

    :param dry_run: change nothing
    :param retry: what to try again
    """

    def __init__(
        self, storage: CrashStorageBase, *, dry_run: bool = False, retry: RetryPolicy | None = None
    ) -> None:
        self._storage = storage
        self._dry_run = dry_run
        self._guard = Guard(storage, retry, write=True)
        self._threads = max(store.tuning.workers for store in storage.stores)
        self._is_stopped = False

    def __enter__(self) -> Self:
        self._pool = Pool(self._threads, "look")
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()
        self._pool.shutdown()

    def stop(self) -> None:
        """Begin with no further crash.  From any thread or signal."""
        self._is_stopped = True

    @property
    def _is_over(self) -> bool:
        """Whether no further crash is begun with: a store is down, or `stop` was called."""
        return self._is_stopped or self._guard.down is not None

    def verify_access(self) -> list[str]:
        """Make sure that each of the stores is there, and can be removed from; return what the user
        should know before that, as `CrashSource.reading_risks` yields it.

        :raises StorageError: one cannot
        """
        call, stores = self._guard.retry.call, self._storage.stores
        at_once([partial(call, store.verify_access) for store in stores])
        risks: list[str] = []

        def find_risks() -> None:
            risks.extend(self._storage.reading_risks(removing=not self._dry_run))

        verify: list[Callable[[], None]] = [
            partial(call, partial(store.verify_access, write=True)) for store in stores
        ]
        at_once([*verify, find_risks])
        return risks

    def crashes(self, crash_ids: Iterable[str]) -> Iterator[RemovalResult]:
        """Remove these crashes, each once among them; yield what became of each, in this order.

        :raises StorageError: at the end, when a store went down: some were then not tried
        """
        left = iter(crash_ids)
        while not self._is_over and (batch := list(islice(left, _AT_ONCE))):
            there = self._parts_of_each(batch)
            if self._dry_run:
                yield from map(self._would_remove, batch, there)
            elif not self._is_over:
                removed = self._storage.remove_crashes(batch)
                yield from map(self._removed, batch, removed, there)
        if self._guard.down:
            raise self._guard.down

    def days(self, since: dt.date, until: dt.date) -> Iterator[RemovalResult]:
        """Remove all crashes of these days; yield what became of each, ordered by
        `crashid.sort_key`.

        :raises StorageError: at the end, when a store went down, or days could not be listed
        """
        if self._dry_run:
            listed = self._storage.all_crashes(since, until)
            for crash_id in takewhile(lambda _: not self._is_stopped, listed):
                yield RemovalResult(crash_id, Status.WOULD_REMOVE)
            return
        for crash_id, error in self._storage.remove_days(since, until, lambda: self._is_over):
            yield self._removed(crash_id, error)
        if self._guard.down:
            raise self._guard.down

    # What is there

    def _parts_of_each(self, crash_ids: Sequence[str]) -> list[Sequence[str] | Exception]:
        """Return for each crash the names of its parts, or why they are not known."""

        def parts_of(piece: Sequence[str]) -> list[Sequence[str] | Exception]:
            return list(map(self._parts, piece, each_loaded(self._storage, piece)))

        size = -(-len(crash_ids) // self._threads)
        pieces = [crash_ids[at : at + size] for at in range(0, len(crash_ids), size)]
        return [found for piece in self._pool.map(parts_of, pieces) for found in piece]

    def _parts(self, crash_id: str, found: Crash | Exception) -> Sequence[str] | Exception:
        def load(found: Crash | Exception | None = None) -> Crash:
            try:
                return given(found or self._storage.load_crash(crash_id))
            except CrashIDNotFound:  # there may be a processed crash alone
                return load_alone(self._storage, crash_id)

        try:
            crash = self._guard.call(load, first=partial(load, found))
        except Exception as error:
            return error
        return [part.name or part.kind.value for part in crash.parts]

    # What became of it

    def _would_remove(self, crash_id: str, there: Sequence[str] | Exception) -> RemovalResult:
        if isinstance(there, CorruptCrash):  # it can be removed all the same
            return RemovalResult(crash_id, Status.WOULD_REMOVE)
        if isinstance(there, Exception):
            return self._not_removed(crash_id, there, None)
        return RemovalResult(crash_id, Status.WOULD_REMOVE, there)

    def _removed(
        self,
        crash_id: str,
        error: Exception | None,
        there: Sequence[str] | Exception | None = None,
    ) -> RemovalResult:
        parts = None if isinstance(there, Exception) else there
        if error and is_retryable(error) and not self._guard.down:
            error = self._remove_again(crash_id, error)
        if error:
            return self._not_removed(crash_id, error, parts)
        return RemovalResult(crash_id, Status.REMOVED, parts)

    def _not_removed(
        self, crash_id: str, error: Exception, parts: Sequence[str] | None
    ) -> RemovalResult:
        if isinstance(error, CrashIDNotFound):
            return RemovalResult(crash_id, Status.MISSING, error=error.brief())
        return RemovalResult(crash_id, Status.FAILED, parts, in_brief(error))

    def _remove_again(self, crash_id: str, first: Exception) -> Exception | None:
        """Go on with a removal that failed; return why it failed in the end."""

        def remove() -> None:
            with suppress(CrashIDNotFound):  # it was done, and only the answer was lost
                self._storage.remove(crash_id)

        try:
            self._guard.call(remove, first=partial(given, first))
        except Exception as error:
            return error
        return None
