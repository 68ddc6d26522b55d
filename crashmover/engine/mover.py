# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Mover: the copy engine.  Crash ids in, outcomes out."""

import logging
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import ExitStack
from functools import partial
from typing import Self

from crashmover.crash import ALL_KINDS, Kind, marker_of
from crashmover.engine.batches import Batches
from crashmover.engine.copying import Copier, CrashCopy, Outcome, Status
from crashmover.engine.destination import Destination
from crashmover.engine.distinct import refuse_same_stores, require_two_stores
from crashmover.engine.guard import Guard, outage
from crashmover.engine.plan import CopyOptions, Existing, check_copy, is_listed
from crashmover.engine.workers import Workers, are_processes, pace_for
from crashmover.errors import CrashMoverError, WorkerKilled
from crashmover.external.roles import CrashDestination, CrashSource, ListedSource
from crashmover.pool import Pool, at_once
from crashmover.redaction import Redactor
from crashmover.retry import RetryPolicy

__all__ = ["Existing", "Mover", "Outcome", "Status"]

logger = logging.getLogger(__name__)

_AHEAD = 2  # batches in hand for each worker
_SOON = 0.1  # seconds until a source that had nothing for now is asked again
_MOST_PASSED = 1024  # crashes that are passed over before they are reported


class Mover:
    """Copies crashes from a store to one or more others.

    A context manager that starts its workers, which may be processes, before anything else is
    begun; `run` does so itself where that has not been done.

    :param source: the store to read from
    :param destination: the store to save to; each store of a `PolyCrashStorage` gets what
        it lacks
    :param kinds: the kinds of parts to copy
    :param existing: what to do about a crash that a destination has
    :param verify: read every part back and compare SHA-256; copy no crash of which the raw or
        processed crash is not a JSON object, or a dump is missing or differs by the checksums in
        the raw crash
    :param remove_source: remove a crash from the source once every destination has all of
        it: because it was saved there, or compared
    :param redactor: what to take out of processed crashes
    :param dry_run: change nothing
    :param limit: how many crashes at most; those that are skipped do not count
    :param workers: how many crashes or batches at a time, at most; None: as many as the stores
        allow, as long as more of them raise the rate
    :param retry: what to try again; each store knows a good policy
    :raises ValueError: what was asked for would lose data, or a store has not the role for it
    """

    def __init__(
        self,
        source: CrashSource,
        destination: CrashDestination,
        *,
        kinds: Set[Kind] = ALL_KINDS,
        existing: Existing = Existing.SKIP,
        verify: bool = False,
        remove_source: bool = False,
        redactor: Redactor | None = None,
        dry_run: bool = False,
        limit: int | None = None,
        workers: int | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        options = CopyOptions(frozenset(kinds), existing, verify, remove_source, redactor, dry_run)
        check_copy(source, destination, options)
        self._options = options
        self._limit = limit
        self._source = Guard(source, retry)
        stores = destination.stores
        self._destinations = [Destination(store, options, retry) for store in stores]
        everywhere = (*source.stores, *stores)
        self._in_processes = are_processes(everywhere)
        self._prefetch = max(store.tuning.prefetch for store in source.stores)
        default = max(
            *(store.tuning.workers for store in source.stores),
            *(store.tuning.savers or store.tuning.workers for store in stores),
        )
        self._pace = pace_for(everywhere, default, workers, self._batch_for)
        self._pool = Pool(max(default * len(stores), self._pace.most), "store")
        self._copier = Copier(self._source, self._destinations, options, self._pool)
        self._workers: Workers[list[CrashCopy], list[Outcome]] | None = None
        self._by_listing = existing is Existing.SKIP and not verify and self.marker in options.kinds
        self._are_two_stores = False  # until that is found out
        self._is_stopped = False
        self._killed: WorkerKilled | None = None
        self._unlisted: CrashMoverError | None = None  # why there may be more than was taken
        self._idle = False  # the source had nothing for now

    @property
    def batch_size(self) -> int:
        """How many crashes are begun at once, at most."""
        size = self._batch_for(self._pace.limit)
        return min(size, self._limit or size)

    def _batch_for(self, workers: int) -> int:
        """Return how many crashes a batch may have where so many workers work at once."""
        stores = [destination.store for destination in self._destinations]
        return max(self._prefetch, *(store.tuning.batch_for(workers) for store in stores))

    @property
    def marker(self) -> Kind:
        """The kind of part that says that a crash is there, for what is copied."""
        return marker_of(self._options.kinds)

    def stop(self) -> None:
        """Take no further crash; what is in hand is finished.  From any thread or signal."""
        self._is_stopped = True  # no Event: a signal may come while that holds its lock

    def verify_access(self) -> None:
        """Make sure that the source can be read, that a destination can be written to, and that
        they are two stores.

        :raises StorageError: none can
        :raises NotTwoStores: they are one; or, where the source is removed, that they are two
            cannot be proved
        """
        verify = partial(self._source.store.verify_access, write=self._options.remove_source)
        verify_source: Callable[[], None] = partial(self._source.retry.call, verify)
        at_once([verify_source, *(each.verify_access for each in self._destinations)])
        for destination in self._destinations:
            destination.try_saving()
        if failure := self._outage():
            raise failure
        self._refuse_same_stores()

    def _refuse_same_stores(self) -> None:
        if self._are_two_stores:
            return
        source = self._source.store
        # What is down gets nothing in this run, and then nothing is removed either.
        stores = [each.store for each in self._destinations if not each.guard.down]
        if self._options.remove_source:
            dry_run, retry = self._options.dry_run, self._source.retry
            require_two_stores(source, stores, dry_run=dry_run, retry=retry)
        else:
            refuse_same_stores(source, stores)
        self._are_two_stores = True

    def _guards(self) -> list[Guard[CrashDestination]]:
        return [destination.guard for destination in self._destinations]

    def _outage(self) -> CrashMoverError | None:
        """Return why the run cannot go on, if so."""
        return self._killed or outage(self._source, self._guards())

    def __enter__(self) -> Self:
        self._workers = Workers(
            self._copier.copy,
            self._pace,
            processes=self._in_processes,
            guards=[self._source, *self._guards()],
        )
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()
        if self._workers:
            self._workers.close()
            self._workers = None
        self._pool.shutdown()

    def run(
        self,
        crash_ids: Iterable[str | None],
        listings: Callable[[ListedSource], Iterator[str]] | None = None,
        *,
        ahead: int = _AHEAD,
    ) -> Iterator[Outcome]:
        """Copy these crashes; yield what became of each, in no particular order, as soon as
        it is final.

        :param crash_ids: a None among them means that the next crash id comes later: it is asked
            for soon, and the crashes that were begun go on
        :param listings: where `crash_ids` is a listing, ordered by `crashid.sort_key`: gives
            the same listing of a destination, so that what is there costs no requests
        :param ahead: batches in hand at most, for each worker
        :raises NotTwoStores: as `verify_access`, before anything is read or saved
        :raises CrashMoverError: at the end, when the source or every destination went down,
            or the listing or queue failed: some crashes were then not looked at
        """
        with ExitStack() as stack:
            if self._workers is None:
                stack.enter_context(self)
            assert self._workers
            self._refuse_same_stores()
            if listings and self._by_listing:
                for destination in self._destinations:
                    if is_listed(destination.store):
                        destination.use_listing(listings(destination.store))
            batches = stack.enter_context(Batches(self._workers))
            yield from self._outcomes(iter(crash_ids), batches, ahead)
            self._workers.tell()
        if failure := self._outage() or self._unlisted:
            raise failure

    def _outcomes(
        self,
        crash_ids: Iterator[str | None],
        batches: Batches[CrashCopy, list[Outcome]],
        ahead: int,
    ) -> Iterator[Outcome]:
        done_count = 0
        while True:
            if batches.have_room(ahead):
                room = self._pace.batch
                if self._limit is not None:
                    room = min(room, self._limit - done_count - batches.item_count)
                batch, passed = self._next_batch(crash_ids, room)
                yield from passed
                if batch:
                    batches.submit(batch)
                if batch or passed:
                    continue
            if self._is_stopped or self._outage():
                batches.drop_waiting()
            if not batches and not self._idle:
                return
            for batch, result in batches.finished(_SOON if self._idle else None):
                if isinstance(result, WorkerKilled):
                    self._killed, reason = result, str(result)
                    result = [Outcome(c.crash_id, Status.FAILED, error=reason) for c in batch]
                for outcome in result:
                    logger.debug("%s: %s", outcome.crash_id, outcome.status)
                    done_count += outcome.status is not Status.SKIPPED
                    yield outcome

    def _next_batch(
        self, crash_ids: Iterator[str | None], room: int
    ) -> tuple[list[CrashCopy], list[Outcome]]:
        """Return the next crashes to be copied, `room` at most, and those to be passed over."""
        self._idle = False
        batch: list[CrashCopy] = []
        passed: list[Outcome] = []
        if self._outage():
            return batch, passed
        while len(batch) < room and len(passed) < _MOST_PASSED:
            if self._is_stopped or self._unlisted:
                break
            try:
                crash_id = next(crash_ids)
            except StopIteration:
                break
            except CrashMoverError as error:  # what is in hand is well all the same
                self._unlisted = error
                break
            if crash_id is None:
                self._idle = True
                break
            lacking = {
                number: destination.is_complete
                for number, destination in enumerate(self._destinations)
                if not destination.is_listed(crash_id)
            }
            if lacking:
                batch.append(CrashCopy(crash_id, lacking))
            else:
                passed.append(Outcome(crash_id, Status.SKIPPED))
        return batch, passed
