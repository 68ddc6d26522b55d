# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Copying: one batch of crashes, in a worker.  Crash ids in, `Outcome` of each out."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import cast

from crashmover.comparison import MeasuredCrash
from crashmover.crash import Crash
from crashmover.engine.destination import Destination, DestinationResult
from crashmover.engine.guard import Guard, outage
from crashmover.engine.loading import kinds_to_load, measured
from crashmover.engine.plan import CopyOptions
from crashmover.errors import (
    CorruptCrash,
    CrashChanged,
    CrashConflict,
    CrashIDNotFound,
    PolyCrashStorageError,
    StorageError,
    StorageUnavailable,
    describe,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.loading import each_loaded, given
from crashmover.external.roles import CrashSource
from crashmover.retry import is_retryable


class Status(StrEnum):
    """What became of a crash."""

    COPIED = "copied"
    SKIPPED = "skipped"
    CONFLICT = "conflict"
    MISSING = "missing"
    FAILED = "failed"
    WOULD_COPY = "would-copy"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a crash, finally.

    :param parts: how many of its parts were copied, or would be
    :param bytes: how many bytes these have; counted once, however many destinations
    :param attempts: how often it was tried
    :param error: one line, where `status` is conflict, missing or failed
    :param lacking_dumps: the names of dumps that its raw crash names and the source did not have
        when it was copied, in their order; with ``verify`` such a crash fails
    """

    crash_id: str
    status: Status
    parts: int = 0
    bytes: int = 0
    attempts: int = 1
    error: str | None = None
    lacking_dumps: tuple[str, ...] = ()


@dataclass
class CrashCopy:
    """A crash that is being copied.

    :param lacking: the numbers of the destinations that are not known to have it, each with
        whether it is known not to have it
    """

    crash_id: str
    lacking: Mapping[int, bool]
    crash: MeasuredCrash | None = None
    error: Exception | None = None
    results: list[DestinationResult] = field(default_factory=list)

    @property
    def errors(self) -> list[Exception]:
        """What went wrong at its source and at its destinations."""
        errors = [self.error, *(result.error for result in self.results)]
        return [error for error in errors if error]

    def outcome(self, status: Status, error: str | None = None) -> Outcome:
        """Return what became of it."""
        keys = set().union(*(result.saved for result in self.results))
        return Outcome(
            self.crash_id,
            status,
            parts=len(keys),
            bytes=self.crash.bytes_of(keys) if self.crash else 0,
            attempts=max((result.attempts for result in self.results), default=1),
            error=error,
            lacking_dumps=tuple(self.crash.lacking) if self.crash else (),
        )


@dataclass(frozen=True)
class Copier:
    """Copies a batch of crashes from the source to the destinations.  Never raises for a crash.

    Safe for use from many threads, and in processes that were forked.

    :param pool: lets several destinations be copied to at the same time
    """

    source: Guard[CrashSource]
    destinations: Sequence[Destination]
    options: CopyOptions
    pool: Executor

    def copy(self, batch: Sequence[CrashCopy]) -> list[Outcome]:
        """Copy these crashes; return what became of each."""
        self._load_and_save(batch)
        # A crash that was replaced at the source while it was read must be loaded anew.
        replaced = [copy for copy in batch if self._is_replaced(copy)]
        for copy in replaced:
            copy.results.clear()
        if replaced:
            self._load_and_save(replaced)
        self._check_source(batch)
        return [self._finish(copy) for copy in batch]

    def _load_and_save(self, batch: Sequence[CrashCopy]) -> None:
        self._load(batch)
        loaded = [
            copy for copy in batch if not copy.error and copy.crash and copy.crash.crash.parts
        ]
        for results in self._at_each_destination(loaded):
            for copy, result in results:
                copy.results.append(result)

    def _is_replaced(self, copy: CrashCopy) -> bool:
        sources = {store.uri for store in self.source.store.stores}
        errors = (result.error for result in copy.results)
        return any(isinstance(e, StorageUnavailable) and e.uri in sources for e in errors)

    def _check_source(self, batch: Sequence[CrashCopy]) -> None:
        errors = [error for copy in batch for error in copy.errors]
        # A disk that is not mounted any more has none of the crashes that it had.
        if any(is_retryable(e) or isinstance(e, CrashIDNotFound) for e in errors):
            self.source.check()

    # Loading

    def _load(self, batch: Sequence[CrashCopy]) -> None:
        ids = [copy.crash_id for copy in batch]
        kinds = kinds_to_load(self.options.kinds, verify=self.options.verify)
        found = each_loaded(self.source.store, ids, kinds)
        for copy in batch:
            try:
                if failure := outage(self.source, [each.guard for each in self.destinations]):
                    raise failure
                load = partial(self._loaded, copy.crash_id)
                copy.crash = self.source.call(load, first=partial(load, found))
            except Exception as error:
                copy.error = error

    def _loaded(
        self, crash_id: str, among: Iterator[Crash | Exception] | None = None
    ) -> MeasuredCrash:
        """Return a crash, which is the next of some that are loaded together, or loaded alone."""
        kinds, verify = self.options.kinds, self.options.verify
        if among is None:
            loaded = kinds_to_load(kinds, verify=verify)
            crash = self.source.store.load_crash(crash_id, loaded)
        else:
            crash = given(next(among))
        found = measured(crash, kinds, verify=verify, redactor=self.options.redactor)
        if found.fault:
            raise CorruptCrash(found.fault)
        return found

    # Saving

    def _at_each_destination(
        self, batch: Sequence[CrashCopy]
    ) -> Iterator[list[tuple[CrashCopy, DestinationResult]]]:
        def save(number: int) -> list[tuple[CrashCopy, DestinationResult]]:
            lacking = [copy for copy in batch if number in copy.lacking]
            crashes = [(copy.crash, copy.lacking[number]) for copy in lacking if copy.crash]
            return list(zip(lacking, self.destinations[number].copy(crashes), strict=True))

        numbers = range(len(self.destinations))
        return map(save, numbers) if len(numbers) == 1 else self.pool.map(save, numbers)

    # What became of it

    def _finish(self, copy: CrashCopy) -> Outcome:
        if isinstance(copy.error, CrashIDNotFound):
            return Outcome(copy.crash_id, Status.MISSING, error=copy.error.brief())
        if copy.crash is None or copy.errors:
            return self._failed(copy, copy.errors)
        try:
            if fault := copy.crash.find_fault() if self.options.verify else None:
                raise CorruptCrash(fault)
            self._remove_if_whole(copy, copy.crash)
        except Exception as error:
            return self._failed(copy, [error])
        return copy.outcome(self._status(copy))

    def _status(self, copy: CrashCopy) -> Status:
        if not any(result.saved for result in copy.results):
            return Status.SKIPPED
        return Status.WOULD_COPY if self.options.dry_run else Status.COPIED

    def _failed(self, copy: CrashCopy, errors: list[Exception]) -> Outcome:
        conflict = all(isinstance(error, CrashConflict) for error in errors)
        text = "; ".join(dict.fromkeys(self._explain(error) for error in errors))
        return copy.outcome(Status.CONFLICT if conflict else Status.FAILED, text)

    def _explain(self, error: Exception) -> str:
        """Say what went wrong, and in which store.

        An error that names no store is about a part as such, and so about the source.
        """
        if not isinstance(error, StorageError):
            return describe(error)
        names_stores = error.uri or isinstance(error, PolyCrashStorageError)
        return error.brief() if names_stores else f"{self.source.store.uri}: {error.brief()}"

    # Removing the source

    def _remove_if_whole(self, copy: CrashCopy, crash: MeasuredCrash) -> None:
        whole = [result for result in copy.results if result.is_whole]
        removes = self.options.remove_source and not self.options.dry_run
        if not removes or len(whole) < len(self.destinations):
            return
        copied = Crash(copy.crash_id, [part.part for part in crash.measured.values()])
        try:
            self._remove_copied(copied)
        except CrashChanged as error:
            raise StorageError(f"copied, not removed: {error.reason}") from None

    def _remove_copied(self, copied: Crash) -> None:
        """Remove a crash from the source: as it was copied, or as it is now, where only its store
        can tell a difference (a link was made to a file, the very same was saved again).

        :raises CrashChanged: not all that is there is at every destination
        """
        try:
            self._remove(copied)
        except CrashChanged as changed:
            try:
                load = partial(self.source.store.load_crash, copied.crash_id)
                there = self.source.call(load)
            except CrashIDNotFound:
                raise changed from None
            if not all(destination.has_all_of(there) for destination in self.destinations):
                raise
            self._remove(there)

    def _remove(self, crash: Crash) -> None:
        [store] = self.source.store.stores
        source = cast(CrashStorageBase, store)  # as the plan has made sure

        def remove_again() -> None:
            with suppress(CrashIDNotFound):  # it was done, and only the answer was lost
                source.remove_loaded(crash)

        self.source.call(remove_again, first=partial(source.remove_loaded, crash))
