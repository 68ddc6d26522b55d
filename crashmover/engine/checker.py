# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Checker: whether stores have what another has.  Crash ids in, findings out."""

from collections.abc import Iterable, Iterator, Set
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import Self, assert_never

from crashmover.comparison import Difference, MeasuredCrash, compare, has_same_size
from crashmover.crash import ALL_KINDS, Crash, Kind, marker_of
from crashmover.engine.batches import Batches
from crashmover.engine.guard import Guard
from crashmover.engine.loading import kinds_to_load, measured
from crashmover.engine.workers import Workers, are_processes, pace_for
from crashmover.errors import CorruptCrash, CrashIDNotFound, CrashMoverError, in_brief
from crashmover.external.loading import each_loaded, given
from crashmover.external.roles import CrashSource
from crashmover.pool import at_once
from crashmover.retry import RetryPolicy, is_retryable

_AHEAD = 3  # batches in hand, for each worker: so the slowest holds up the others for no long


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


_Checked = tuple[list[Finding], CrashMoverError | None]
"""What a worker found, and the failure of a store as a whole."""


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
    :param workers: how many batches of crashes at a time, at most; None: as many as the stores
        allow, as long as more of them raise the rate
    """

    def __init__(
        self,
        source: CrashSource,
        destination: CrashSource,
        *,
        kinds: Set[Kind] = ALL_KINDS,
        digest: bool = False,
        workers: int | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._kinds = frozenset(kinds)
        self._digest = digest
        self._source = Guard(source, retry)
        self._stores = [Guard(store, retry) for store in destination.stores]
        everywhere = (*source.stores, *destination.stores)
        self._in_processes = are_processes(everywhere)
        default = max(store.tuning.workers for store in everywhere)
        size = max(store.tuning.batch for store in everywhere)
        self._pace = pace_for(everywhere, default, workers, lambda _workers: size)
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
        guards = (self._source, *self._stores)
        at_once([partial(guard.retry.call, guard.store.verify_access) for guard in guards])

    def __enter__(self) -> Self:
        guards = [self._source, *self._stores]
        processes = self._in_processes
        self._workers = Workers(self._check, self._pace, processes=processes, guards=guards)
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
            assert self._workers
            batches = stack.enter_context(Batches(self._workers))
            yield from self._findings(iter(crash_ids), batches)
            self._workers.tell()

    def _findings(
        self, crash_ids: Iterator[str], batches: Batches[str, _Checked]
    ) -> Iterator[Finding]:
        unlisted: CrashMoverError | None = None
        while True:
            while batches.have_room(_AHEAD) and not self._is_stopped:
                batch: list[str] = []
                try:
                    batch.extend(islice(crash_ids, self._pace.batch))
                except CrashMoverError as error:  # what was listed before is well all the same
                    unlisted = error
                if not batch:
                    break
                batches.submit(batch)
            if self._is_stopped:
                batches.drop_waiting()
            if not batches:
                break
            findings, failure = batches.oldest()
            yield from findings
            if failure:
                raise failure
        if unlisted:
            raise unlisted

    # In a worker, which never raises for a crash

    def _check(self, crash_ids: list[str]) -> _Checked:
        kinds = kinds_to_load(self._kinds, verify=self._digest)
        found = each_loaded(self._source.store, crash_ids, kinds)
        there = [each_loaded(guard.store, crash_ids, self._kinds) for guard in self._stores]
        findings: list[Finding] = []
        for crash_id in crash_ids:
            check = _Check(crash_id, self._source.store, next(found), self._kinds, self._digest)
            for guard, listed in zip(self._stores, there, strict=True):
                compare_again = partial(check.compare, guard.store)
                first = partial(compare_again, next(listed))
                try:
                    findings.append(guard.retry.call(compare_again, first=first))
                except Exception as error:
                    if failure := self._outage(error):
                        return findings, failure
                    failed = check.finding(guard.store, Verdict.FAILED, error=in_brief(error))
                    findings.append(failed)
        return findings, None

    def _outage(self, error: Exception) -> CrashMoverError | None:
        """Return why a store as a whole cannot be read, if this error comes from that."""
        if is_retryable(error):
            for guard in (self._source, *self._stores):
                guard.check()
                if guard.down:
                    return guard.down
        return None


@dataclass
class _Check:
    """One crash, which is looked at in one store after the other; its source is read once.

    :param found: the crash as the source has it, as `load_crashes` gave it
    :param refuted: in what it is damaged by its own word
    """

    crash_id: str
    source: CrashSource
    found: Crash | Exception | None
    kinds: Set[Kind]
    digest: bool
    measured: MeasuredCrash | None = None
    refuted: str | None = None

    def compare(self, store: CrashSource, found: Crash | Exception | None = None) -> Finding:
        """Return what there is to say of it in a store.

        :param found: the crash as that store has it, as `load_crashes` gave it; None: it is loaded
            anew, and so is the source's, which may have been replaced
        """
        if found is None:
            self.found = self.measured = None
        try:
            source = self._measure()
        except CrashIDNotFound as error:
            return self.finding(store, Verdict.GONE, error=error.brief())
        try:
            there = given(found or store.load_crash(self.crash_id, self.kinds))
        except CrashIDNotFound:
            difference = Difference(missing=set(source.measured))
            return Finding(self.crash_id, store.uri, _verdict(difference), difference)
        try:
            difference = compare(source, there, None if self.digest else has_same_size)
        except CorruptCrash as error:  # the source was looked at before
            return self.finding(store, Verdict.DIFFERS, error=in_brief(error))
        read = source.bytes_of(set(source.measured)) if self.digest else 0
        status = Verdict.DIFFERS if self.refuted else _verdict(difference)
        return Finding(self.crash_id, store.uri, status, difference, read, self.refuted)

    def finding(self, store: CrashSource, status: Verdict, *, error: str | None = None) -> Finding:
        """Return what is to be said where nothing was compared."""
        return Finding(self.crash_id, store.uri, status, Difference(), error=error)

    def _measure(self) -> MeasuredCrash:
        """Return the crash of the source, once all of it has been looked at."""
        if self.measured is None:
            kinds = kinds_to_load(self.kinds, verify=self.digest)
            crash = given(self.found or self.source.load_crash(self.crash_id, kinds))
            found = measured(crash, self.kinds, verify=self.digest)
            try:
                for part in found.measured.values():
                    if self.digest:
                        part.sha256()
                    else:
                        part.check()
                fault = found.find_fault() if self.digest else None
            except CorruptCrash as error:
                error.uri = error.uri or self.source.uri
                raise
            self.refuted = f"{self.source.uri}: {fault}" if fault else None
            self.measured = found
        return self.measured


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
