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
from crashmover.engine.batches import Batches
from crashmover.engine.guard import Guard
from crashmover.engine.loading import load_alone
from crashmover.engine.workers import Workers, pace_for
from crashmover.errors import CorruptCrash, CrashIDNotFound, in_brief
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.loading import each_loaded, given
from crashmover.pool import at_once
from crashmover.retry import RetryPolicy, is_retryable

_IN_HAND = 128  # crashes that are named, where the number of workers is fixed
_AHEAD = 2  # batches in hand for each worker


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

    A context manager, whose threads look at crashes and remove them.

    :param dry_run: change nothing
    :param retry: what to try again
    """

    def __init__(
        self, storage: CrashStorageBase, *, dry_run: bool = False, retry: RetryPolicy | None = None
    ) -> None:
        self._storage = storage
        self._dry_run = dry_run
        self._guard = Guard(storage, retry, write=True)
        default = max(store.tuning.workers for store in storage.stores)
        size = -(-_IN_HAND // default)
        self._pace = pace_for(storage.stores, default, None, lambda _workers: size)
        self._is_stopped = False

    def __enter__(self) -> Self:
        guards = [self._guard]
        self._workers = Workers(self._remove, self._pace, processes=False, guards=guards)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()
        self._workers.close()

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
        with Batches(self._workers) as batches:
            while True:
                while batches.have_room(_AHEAD) and (batch := self._next_batch(left)):
                    batches.submit(batch)
                if self._is_over:
                    batches.drop_waiting()
                if not batches:
                    break
                yield from batches.oldest()
        self._workers.tell()
        if self._guard.down:
            raise self._guard.down

    def _next_batch(self, crash_ids: Iterator[str]) -> list[str]:
        return [] if self._is_over else list(islice(crash_ids, self._pace.batch))

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

    # In a worker

    def _remove(self, crash_ids: list[str]) -> list[RemovalResult]:
        """Look at these crashes, and remove them; return what became of each, or none, if the store
        has gone down before any was removed."""
        there = list(map(self._parts, crash_ids, each_loaded(self._storage, crash_ids)))
        if self._dry_run:
            return list(map(self._would_remove, crash_ids, there))
        if self._is_over:
            return []
        return list(map(self._removed, crash_ids, self._storage.remove_crashes(crash_ids), there))

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
