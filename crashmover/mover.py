# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Mover: the copy engine.  Crash ids in, outcomes out."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from queue import SimpleQueue
from typing import Self

from crashmover.comparison import MeasuredCrash
from crashmover.crash import ALL_KINDS, Crash, Kind, marker_of
from crashmover.delivery import Delivery, Destination, Existing, Outcome, Status
from crashmover.distinct import refuse_same_stores, require_two_stores
from crashmover.errors import (
    CorruptCrash,
    CrashChanged,
    CrashConflict,
    CrashIDNotFound,
    CrashMoverError,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.job import (
    Job,
    Moved,
    Task,
    explain,
    kinds_to_load,
    loading,
    measured,
    refuse_loss,
    remove_copied,
)
from crashmover.pool import Pool
from crashmover.redactor import Redactor
from crashmover.retry import RetryPolicy, is_retryable
from crashmover.workers import WorkerKilled, Workers, drop_what_waits, next_of

__all__ = ["Existing", "Mover", "Outcome", "Status"]

logger = logging.getLogger(__name__)

_AHEAD = 2  # batches in flight for each worker
_SOON = 0.1  # seconds until a source that had nothing for now is asked again
_LOOK = 1024  # crashes looked at in listings before anything is reported


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
    :param workers: how many crashes or batches at a time; the stores know a good number
    :param retry: what to try again
    :raises ValueError: what was asked for would lose data
    """

    def __init__(
        self,
        source: CrashStorageBase,
        destination: CrashStorageBase,
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
        refuse_loss(source, destination, kinds, remove_source, redactor)
        self._source = source
        self._kinds = frozenset(kinds)
        self._verify = verify
        self._remove_source = remove_source
        self._redactor = redactor
        self._dry_run = dry_run
        self._limit = limit
        self._retry = retry or RetryPolicy()
        stores = destination.stores
        self._destinations = [
            Destination(
                store,
                kinds=self._kinds,
                existing=existing,
                verify=verify,
                dry_run=dry_run,
                retry=self._retry,
            )
            for store in stores
        ]
        everywhere = (*source.stores, *stores)
        self._worker_count = workers or max(
            *(store.tuning.workers for store in source.stores),
            *(store.tuning.savers or store.tuning.workers for store in stores),
        )
        self._in_processes = all(store.tuning.processes for store in everywhere)
        self._workers: Workers[Task, Moved] | None = None
        self._batch_size = max(store.tuning.batch_for(self._worker_count) for store in stores)
        self._by_listing = existing is Existing.SKIP and not verify
        self._are_two_stores = False  # until that is found out
        self._is_stopped = False
        self._failure: CrashMoverError | None = None
        self._unlisted: CrashMoverError | None = None  # why there may be more than was taken
        self._idle = False  # the source had nothing for now

    @property
    def batch_size(self) -> int:
        """How many crashes are begun at once."""
        return min(self._batch_size, self._limit or self._batch_size)

    @property
    def marker(self) -> Kind:
        """The kind of part that says that a crash is there, for what is copied."""
        return marker_of(self._kinds)

    def stop(self) -> None:
        """Take no further crash; what is in hand is finished.  From any thread or signal."""
        self._is_stopped = True  # no Event: a signal may come while that holds its lock

    def verify_access(self) -> None:
        """Make sure that the source can be read, and a destination be written to, and that they
        are two stores.

        :raises StorageError: none can
        :raises NotTwoStores: they are one; or, where the source is removed, that they are two
            cannot be proved
        """
        self._retry.call(lambda: self._source.verify_access(write=self._remove_source))
        for destination in self._destinations:
            destination.verify_access()
        self._stop_if_all_down()
        if self._failure:
            raise self._failure
        self._refuse_same_stores()

    def _refuse_same_stores(self) -> None:
        if self._are_two_stores:
            return
        # What is down gets nothing in this run, and then nothing is removed either.
        stores = [each.store for each in self._destinations if not each.down]
        if self._remove_source:
            require_two_stores(self._source, stores, dry_run=self._dry_run, retry=self._retry)
        else:
            refuse_same_stores(self._source, stores)
        self._are_two_stores = True

    def __enter__(self) -> Self:
        stores = self._worker_count * len(self._destinations)
        self._stores_pool = Pool(stores, "store")
        self._workers = Workers(self._move, self._worker_count, processes=self._in_processes)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()
        if self._workers:
            self._workers.close()
            self._workers = None
        self._stores_pool.shutdown()

    def run(
        self,
        crash_ids: Iterable[str | None],
        listings: Callable[[CrashStorageBase], Iterator[str]] | None = None,
        *,
        ahead: int = _AHEAD,
    ) -> Iterator[Outcome]:
        """Copy these crashes; yield what became of each, in no particular order, as soon as
        it is final.

        :param crash_ids: a None among them means that there is none for now: what is in hand
            goes on, and the next is asked for soon
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
            self._refuse_same_stores()
            if listings and self._by_listing and self.marker in self._kinds:
                for destination in self._destinations:
                    destination.follow(listings(destination.store))
            yield from self._run(iter(crash_ids), ahead * self._worker_count)
        if failure := self._failure or self._unlisted:
            raise failure

    def _run(self, crash_ids: Iterator[str | None], most: int) -> Iterator[Outcome]:
        flight: dict[Future[Moved], list[Job]] = {}
        finished: SimpleQueue[Future[Moved]] = SimpleQueue()
        done_count = 0
        while True:
            if len(flight) < most:
                room = self._batch_size
                if self._limit is not None:
                    room = min(room, self._limit - done_count - sum(map(len, flight.values())))
                jobs, passed = self._take(crash_ids, room)
                yield from passed
                if jobs:
                    assert self._workers
                    future = self._workers.submit(Task(jobs, self._downs()))
                    flight[future] = jobs
                    future.add_done_callback(finished.put)
                if jobs or passed:
                    continue
            if self._is_stopped:
                drop_what_waits(flight)
            if not flight and not self._idle:
                return
            is_ahead = len(flight) > self._worker_count
            for future in next_of(finished, _SOON if self._idle else None, is_ahead):
                if future not in flight:
                    continue
                for outcome in self._result(future, flight.pop(future)):
                    logger.debug("%s: %s", outcome.crash_id, outcome.status)
                    done_count += outcome.status is not Status.SKIPPED
                    yield outcome

    def _result(self, future: "Future[Moved]", jobs: list[Job]) -> list[Outcome]:
        """Return what became of a batch, and take note of stores that are down."""
        try:
            moved = future.result()
        except WorkerKilled as error:
            self._fail(CrashMoverError(str(error)))
            return [Outcome(job.crash_id, Status.FAILED, error=str(error)) for job in jobs]
        self._take_down(moved.downs)
        self._stop_if_all_down()
        if moved.failure:
            self._fail(moved.failure)
        return moved.outcomes

    def _downs(self) -> list[StorageError | None]:
        return [destination.down for destination in self._destinations]

    def _take_down(self, downs: Sequence[StorageError | None]) -> None:
        """Take note of what another worker, or whoever hands out the work, has found out."""
        for destination, down in zip(self._destinations, downs, strict=True):
            destination.down = destination.down or down

    def _take(self, crash_ids: Iterator[str | None], room: int) -> tuple[list[Job], list[Outcome]]:
        """Return the next crashes to be moved, `room` at most, and those to be passed over."""
        self._idle = False
        jobs: list[Job] = []
        passed: list[Outcome] = []
        while len(jobs) < room and len(passed) < _LOOK:
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
                number: destination.lists
                for number, destination in enumerate(self._destinations)
                if not destination.has(crash_id)
            }
            if lacking:
                jobs.append(Job(crash_id, lacking))
            else:
                passed.append(Outcome(crash_id, Status.SKIPPED))
        return jobs, passed

    # In a worker, which never raises for a crash

    def _move(self, task: Task) -> Moved:
        jobs = task.jobs
        self._take_down(task.downs)
        self._load_and_bring(jobs)
        # A crash that was replaced at the source while it was read must be loaded anew.
        replaced = [job for job in jobs if self._is_replaced(job)]
        for job in replaced:
            job.deliveries.clear()
        self._load_and_bring(replaced)
        self._notice_outage(jobs)
        outcomes = [self._finish(job) for job in jobs]
        return Moved(outcomes, self._failure, self._downs())

    def _load_and_bring(self, jobs: list[Job]) -> None:
        self._load(jobs)
        loaded = [job for job in jobs if not job.error and job.crash and job.crash.crash.parts]
        for deliveries in self._at_each_destination(loaded):
            for job, delivery in deliveries:
                job.deliveries.append(delivery)

    def _is_replaced(self, job: Job) -> bool:
        sources = {store.uri for store in self._source.stores}
        errors = (delivery.error for delivery in job.deliveries)
        return any(isinstance(e, StorageUnavailable) and e.uri in sources for e in errors)

    def _load(self, jobs: list[Job]) -> None:
        kinds = kinds_to_load(self._kinds, verify=self._verify)
        found = self._source.load_crashes([job.crash_id for job in jobs], kinds)
        for job in jobs:
            try:
                if self._failure:
                    raise self._failure
                load = loading(self._source, job.crash_id, next(found), kinds)
                job.crash = self._retry.call(partial(self._measured, load))
            except Exception as error:
                job.error = error
                if is_retryable(error):  # the others of its batch need not find out as slowly
                    self._probe_source()

    def _measured(self, load: Callable[[], Crash]) -> MeasuredCrash:
        found = measured(load(), self._kinds, verify=self._verify, redactor=self._redactor)
        if found.fault:
            raise CorruptCrash(found.fault)
        return found

    def _at_each_destination(self, jobs: list[Job]) -> Iterator[list[tuple[Job, Delivery]]]:
        def bring(number: int) -> list[tuple[Job, Delivery]]:
            lacking = [job for job in jobs if number in job.lacking]
            crashes = [(job.crash, job.lacking[number]) for job in lacking if job.crash]
            return list(zip(lacking, self._destinations[number].bring(crashes), strict=True))

        numbers = range(len(self._destinations))
        return map(bring, numbers) if len(numbers) == 1 else self._stores_pool.map(bring, numbers)

    def _notice_outage(self, jobs: list[Job]) -> None:
        """Stop when the source, or every destination, is down as a whole."""
        self._stop_if_all_down()
        errors = [error for job in jobs for error in job.errors]
        # A disk that is not mounted any more has none of the crashes that it had.
        if any(is_retryable(e) or isinstance(e, CrashIDNotFound) for e in errors):
            self._probe_source()

    def _probe_source(self) -> None:
        if not self._failure:
            try:
                self._source.verify_access()
            except StorageError as error:
                self._fail(error)

    def _stop_if_all_down(self) -> None:
        downs = self._downs()
        if all(downs) and downs[0]:
            self._fail(downs[0])

    def _fail(self, error: CrashMoverError) -> None:
        self._failure = self._failure or error
        self.stop()

    def _finish(self, job: Job) -> Outcome:
        if isinstance(job.error, CrashIDNotFound):
            return Outcome(job.crash_id, Status.MISSING, error=job.error.brief())
        if job.crash is None or job.errors:
            return self._failed(job, job.errors)
        try:
            if fault := job.crash.find_fault() if self._verify else None:
                raise CorruptCrash(fault)
            self._remove_if_whole(job, job.crash)
        except Exception as error:
            return self._failed(job, [error])
        return job.outcome(self._status(job))

    def _status(self, job: Job) -> Status:
        if not any(delivery.saved for delivery in job.deliveries):
            return Status.SKIPPED
        return Status.WOULD_COPY if self._dry_run else Status.COPIED

    def _failed(self, job: Job, errors: list[Exception]) -> Outcome:
        conflict = all(isinstance(error, CrashConflict) for error in errors)
        text = "; ".join(dict.fromkeys(explain(error, self._source.uri) for error in errors))
        return job.outcome(Status.CONFLICT if conflict else Status.FAILED, text)

    def _remove_if_whole(self, job: Job, crash: MeasuredCrash) -> None:
        """Remove the crash from the source, if all of it is at every destination."""
        whole = [delivery for delivery in job.deliveries if delivery.is_whole]
        if not self._remove_source or self._dry_run or len(whole) < len(self._destinations):
            return
        copied = Crash(job.crash_id, [measured.part for measured in crash.measured.values()])
        [source] = self._source.stores
        try:
            remove_copied(source, copied, self._destinations, self._retry)
        except CrashChanged as error:
            reason = f"copied, not removed: {error.reason}"
            raise StorageError(reason, uri=source.uri) from None
