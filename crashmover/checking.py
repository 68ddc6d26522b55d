# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Checker: whether stores have what another has.  Crash ids in, findings out."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import Self, assert_never

from crashmover.comparison import (
    Difference,
    MeasuredCrash,
    compare,
    has_same_size,
)
from crashmover.crash import ALL_KINDS, Crash, Kind, marker_of
from crashmover.errors import (
    CorruptCrash,
    CrashIDNotFound,
    CrashMoverError,
    StorageUnavailable,
    in_brief,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.job import kinds_to_load, loading, measured
from crashmover.retry import RetryPolicy, is_retryable
from crashmover.workers import WorkerKilled, Workers

_AHEAD = 3  # batches in hand, for each worker: so the slowest holds up nobody for long


class Verdict(StrEnum):
    """What was found of a crash in a store; of several things that are wrong the first of these,
    from `MISSING` on."""

    OK = "ok"
    MISSING = "missing"
    DIFFERS = "differs"
    MISSING_DUMP = "missing dump"
    PROCESSED_MISSING = "processed missing"
    FAILED = "failed"  # it could not be found out
    GONE = "gone"  # the source does not have it, or no longer


@dataclass(frozen=True)
class Finding:
    """How a crash in a store compares with the same in the source.

    :param store: the URI of the store, redacted
    :param difference: which parts are not the same
    :param bytes: how many were read of the source
    :param error: what was wrong, in words; None where `difference` says it all
    """

    crash_id: str
    store: str
    status: Verdict
    difference: Difference
    bytes: int = 0
    error: str | None = None


@dataclass(frozen=True)
class _Checked:
    """What a worker found, and whether a store is down."""

    findings: list[Finding]
    failure: CrashMoverError | None = None


class Checker:
    """Compares crashes in a source with the same in other stores; all are only read.

    Without `digest` it looks which parts are there and how long they are, as far as the stores
    tell that without reading: bytes that changed and not their number are found by `digest`
    alone.  What only another store has, of whole crashes and of processed crashes, is not
    looked for.

    :param source: the crashes as they should be
    :param destination: the stores that should have them, each of which is checked
    :param kinds: which parts to look at
    :param digest: read every part on both sides and compare SHA-256; a crash also differs where
        the source's raw or processed crash is not a JSON object, or where its dumps are missing or
        differ by the checksums in its own raw crash
    :param workers: how many batches of crashes at a time; the stores know a good number
    """

    def __init__(
        self,
        source: CrashStorageBase,
        destination: CrashStorageBase,
        *,
        kinds: Set[Kind] = ALL_KINDS,
        digest: bool = False,
        workers: int | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._source = source
        self._stores = destination.stores
        self._kinds = frozenset(kinds)
        self._digest = digest
        self._retry = retry or RetryPolicy()
        everywhere = (*source.stores, *self._stores)
        self._worker_count = workers or max(store.tuning.workers for store in everywhere)
        self._in_processes = all(store.tuning.processes for store in everywhere)
        self._batch_size = max(store.tuning.batch for store in everywhere)
        self._is_stopped = False
        self._workers: Workers[list[str], _Checked] | None = None

    @property
    def marker(self) -> Kind:
        """The kind of part that says that a crash is there, for what is checked."""
        return marker_of(self._kinds)

    def stop(self) -> None:
        """Begin no further crash.  From any thread or signal."""
        self._is_stopped = True

    def verify_access(self) -> None:
        """Make sure that every store can be read.

        :raises StorageError: one cannot
        """
        for store in (self._source, *self._stores):
            self._retry.call(store.verify_access)

    def __enter__(self) -> Self:
        self._workers = Workers(self._check, self._worker_count, processes=self._in_processes)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()
        if self._workers:
            self._workers.close()
            self._workers = None

    def run(self, crash_ids: Iterable[str]) -> Iterator[Finding]:
        """Check these crashes; yield for each, in this order, what was found in each store.

        :raises CrashMoverError: a store went down, or the listing failed: the rest was not
            looked at
        """
        with ExitStack() as stack:
            if self._workers is None:
                stack.enter_context(self)
            yield from self._run(iter(crash_ids))

    def _run(self, crash_ids: Iterator[str]) -> Iterator[Finding]:
        assert self._workers
        flight: deque[Future[_Checked]] = deque()
        failure: CrashMoverError | None = None
        try:
            while True:
                while len(flight) < _AHEAD * self._worker_count and not self._is_stopped:
                    batch, unlisted = self._batch(crash_ids)
                    failure = failure or unlisted
                    if not batch:
                        break
                    flight.append(self._workers.submit(batch))
                if self._is_stopped:
                    flight = deque(future for future in flight if not future.cancel())
                if not flight:
                    break
                yield from _findings(flight.popleft())
        finally:
            for future in flight:
                future.cancel()
        if failure:
            raise failure

    def _batch(self, crash_ids: Iterator[str]) -> tuple[list[str], CrashMoverError | None]:
        """Return the next crashes, and why there may be more that are not listed."""
        batch: list[str] = []
        try:
            batch.extend(islice(crash_ids, self._batch_size))
        except CrashMoverError as error:  # what was listed before is well all the same
            return batch, error
        return batch, None

    # In a worker, which never raises for a crash

    def _check(self, crash_ids: list[str]) -> _Checked:
        kinds = kinds_to_load(self._kinds, verify=self._digest)
        found = self._source.load_crashes(crash_ids, kinds)
        there = [store.load_crashes(crash_ids, self._kinds) for store in self._stores]
        findings: list[Finding] = []
        for crash_id in crash_ids:
            load = loading(self._source, crash_id, next(found), kinds)
            check = _Check(crash_id, self._source, load, self._kinds, self._digest)
            for store, listed in zip(self._stores, there, strict=True):
                load = loading(store, crash_id, next(listed), self._kinds)
                try:
                    findings.append(self._retry.call(partial(check, store, load)))
                except Exception as error:
                    if is_retryable(error) and (failure := self._outage()):
                        return _Checked(findings, failure)
                    findings.append(check.finding(store, Verdict.FAILED, error=in_brief(error)))
        return _Checked(findings)

    def _outage(self) -> CrashMoverError | None:
        """Return why a store as a whole cannot be read, if that is so."""
        for store in (self._source, *self._stores):
            try:
                store.verify_access()
            except CrashMoverError as error:
                return error
        return None


class _Check:
    """One crash, which is looked at in one store after the other; its source is read once.

    :param load: gives it as the source has it
    """

    def __init__(
        self,
        crash_id: str,
        source: CrashStorageBase,
        load: Callable[[], Crash],
        kinds: Set[Kind],
        digest: bool,
    ) -> None:
        self._crash_id = crash_id
        self._source = source
        self._load = load
        self._kinds = kinds
        self._digest = digest
        self._measured: MeasuredCrash | None = None
        self._refuted: str | None = None  # in what it is damaged by its own word

    def __call__(self, store: CrashStorageBase, load: Callable[[], Crash]) -> Finding:
        """Return what there is to say of it in a store.

        :param load: gives it as that store has it
        """
        try:
            return self._compare(store, load)
        except StorageUnavailable:
            self._measured = None  # it may have been replaced at the source
            raise

    def finding(
        self, store: CrashStorageBase, status: Verdict, *, error: str | None = None
    ) -> Finding:
        """Return what is to be said where nothing was compared."""
        return Finding(self._crash_id, store.uri, status, Difference(), error=error)

    def _compare(self, store: CrashStorageBase, load: Callable[[], Crash]) -> Finding:
        try:
            source = self._measure()
        except CrashIDNotFound as error:
            return self.finding(store, Verdict.GONE, error=error.brief())
        try:
            there = load()
        except CrashIDNotFound:
            difference = Difference(missing=set(source.measured))
            return Finding(self._crash_id, store.uri, _verdict(difference), difference)
        try:
            difference = compare(source, there, None if self._digest else has_same_size)
        except CorruptCrash as error:  # the source was looked at before
            return self.finding(store, Verdict.DIFFERS, error=in_brief(error))
        read = source.bytes_of(set(source.measured)) if self._digest else 0
        status = Verdict.DIFFERS if self._refuted else _verdict(difference)
        return Finding(self._crash_id, store.uri, status, difference, read, self._refuted)

    def _measure(self) -> MeasuredCrash:
        """Return the crash of the source, once all of it has been looked at."""
        if self._measured is None:
            found = measured(self._load(), self._kinds, verify=self._digest)
            try:
                for part in found.measured.values():
                    if self._digest:
                        part.sha256()
                    else:
                        part.look()
                fault = found.find_fault() if self._digest else None
            except CorruptCrash as error:
                error.uri = error.uri or self._source.uri
                raise
            self._refuted = f"{self._source.uri}: {fault}" if fault else None
            self._measured = found
        return self._measured


def _verdict(difference: Difference) -> Verdict:
    kinds = {kind for kind, _ in difference.missing}
    if Kind.RAW_CRASH in kinds:
        return Verdict.MISSING
    if difference.differing or difference.extra:
        return Verdict.DIFFERS
    return next((_without(kind) for kind in Kind if kind in kinds), Verdict.OK)


def _without(kind: Kind) -> Verdict:
    """Return what is said of a crash that lacks a part of this kind."""
    match kind:
        case Kind.RAW_CRASH:
            return Verdict.MISSING
        case Kind.DUMP:
            return Verdict.MISSING_DUMP
        case Kind.PROCESSED_CRASH:
            return Verdict.PROCESSED_MISSING
        case _:
            assert_never(kind)


def _findings(future: "Future[_Checked]") -> Iterator[Finding]:
    try:
        checked = future.result()
    except WorkerKilled as error:
        raise CrashMoverError(str(error)) from error
    yield from checked.findings
    if checked.failure:
        raise checked.failure
