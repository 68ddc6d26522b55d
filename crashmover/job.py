# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Job: a crash on its way from its source to all of its destinations."""

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO, assert_never

from crashmover import documents
from crashmover.comparison import MeasuredCrash
from crashmover.crash import ALL_KINDS, COLLECTED, MARKERS, Crash, Kind, Part
from crashmover.delivery import Delivery, Destination, Outcome, Status
from crashmover.distinct import SAME
from crashmover.documents import json_object, json_part
from crashmover.errors import (
    CrashChanged,
    CrashIDNotFound,
    CrashMoverError,
    NotTwoStores,
    PolyCrashStorageError,
    StorageError,
    describe,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.roles import CrashSource
from crashmover.redactor import Redactor
from crashmover.retry import RetryPolicy
from crashmover.soundness import demand_soundness, note_lacking


@dataclass
class Job:
    """A crash on its way.

    :param lacking: the destinations that are not known to have it, by their number, and
        whether they are known not to have it
    """

    crash_id: str
    lacking: Mapping[int, bool]
    crash: MeasuredCrash | None = None
    error: Exception | None = None
    deliveries: list[Delivery] = field(default_factory=list)

    @property
    def errors(self) -> list[Exception]:
        """What went wrong at its source and at its destinations."""
        errors = [self.error, *(delivery.error for delivery in self.deliveries)]
        return [error for error in errors if error]

    def outcome(self, status: Status, error: str | None = None) -> Outcome:
        """Return what became of it."""
        saved = [delivery.saved for delivery in self.deliveries if not delivery.error]
        keys = set().union(*saved)
        return Outcome(
            self.crash_id,
            status,
            parts=len(keys),
            bytes=self.crash.bytes_of(keys) if self.crash else 0,
            attempts=max((delivery.attempts for delivery in self.deliveries), default=1),
            error=error,
            lacking_dumps=tuple(self.crash.lacking) if self.crash else (),
        )


@dataclass(frozen=True)
class Task:
    """Some crashes to be moved, and which destinations are down by now."""

    jobs: list[Job]
    downs: Sequence[StorageError | None]


@dataclass(frozen=True)
class Moved:
    """What became of some crashes, and of the stores meanwhile, which a worker that is a
    process cannot tell otherwise."""

    outcomes: list[Outcome]
    failure: CrashMoverError | None = None
    downs: Sequence[StorageError | None] = ()


def is_redacted(kind: Kind) -> bool:
    """Return True if a part of this kind is copied or shown without what is protected in it."""
    match kind:
        case Kind.PROCESSED_CRASH:
            return True
        case Kind.RAW_CRASH | Kind.DUMP:
            return False
        case _:
            assert_never(kind)


def redacted(crash: Crash, redactor: Redactor) -> Crash:
    """Return the crash with what `is_redacted` redacted whenever that is read."""

    def redacted_part(part: Part) -> Part:
        def open_redacted() -> AbstractContextManager[BinaryIO]:
            with documents.in_turn(part):
                redacted = json_part(part.kind, redactor.redact(json_object(part)))
                return documents.kept(redacted.read())

        return Part(part.kind, part.name, open_redacted)

    parts = [redacted_part(p) if is_redacted(p.kind) else p for p in crash.parts]
    return Crash(crash.crash_id, parts)


def explain(error: Exception, source: str) -> str:
    """Say what went wrong, and in which store.

    :param source: the URI of the source, which is meant where the error names no store: then
        something is wrong with a part as such
    """
    if not isinstance(error, StorageError):
        return describe(error)
    names_stores = error.uri or isinstance(error, PolyCrashStorageError)
    return error.brief() if names_stores else f"{source}: {error.brief()}"


def kinds_to_load(kinds: Set[Kind], *, verify: bool) -> frozenset[Kind]:
    """Return the kinds of parts that are read where these are copied or compared: dumps are held
    against the raw crash."""
    needs_raw_crash = verify and Kind.DUMP in kinds
    return frozenset({*kinds, Kind.RAW_CRASH} if needs_raw_crash else kinds)


def measured(
    crash: Crash, kinds: Set[Kind], *, verify: bool, redactor: Redactor | None = None
) -> MeasuredCrash:
    """Return a crash that is measured while it is copied.

    :param crash: with parts of `kinds_to_load`
    :param kinds: those that are copied
    :param verify: whether it has to be sound, see `demand_soundness`; else the dumps are noted
        that it lacks
    """
    raw_crash = crash.raw_crash
    if not all(part.kind in kinds for part in crash.parts):
        crash = Crash(crash.crash_id, [part for part in crash.parts if part.kind in kinds])
    if redactor:
        crash = redacted(crash, redactor)
    found = MeasuredCrash(crash, hashing=verify)
    if verify:
        as_stored = {k for k in kinds if not is_redacted(k)} if redactor else kinds
        demand_soundness(found, raw_crash, as_stored)
    elif kinds >= COLLECTED:
        note_lacking(found)
    return found


def load_alone(storage: CrashSource, crash_id: str) -> Crash:
    """Load what there is of a crash without a raw crash: its processed crash.

    :raises CrashIDNotFound: there is none either
    """
    *others, last = (marker for marker in MARKERS if marker is not Kind.RAW_CRASH)
    for marker in others:
        with suppress(CrashIDNotFound):
            return storage.load_crash(crash_id, {marker})
    return storage.load_crash(crash_id, {last})


def loading(
    storage: CrashSource, crash_id: str, found: Crash | Exception, kinds: Set[Kind]
) -> Callable[[], Crash]:
    """Return what gives the crash: as it was found, and loaded anew where that is called again.

    :param found: what `load_crashes` gave
    """
    first = [found]

    def load() -> Crash:
        crash = first.pop() if first else storage.load_crash(crash_id, kinds)
        if isinstance(crash, Exception):
            raise crash
        return crash

    return load


def remove_copied(
    source: CrashStorageBase, copied: Crash, destinations: Sequence[Destination], retry: RetryPolicy
) -> None:
    """Remove a crash from the source: as it was copied, or, where only its store can tell a
    difference (a link was made to a file, the very same was saved again), as it is now.

    :raises CrashChanged: not all that is there is at every destination
    """
    try:
        retry.call(_removal(source, copied))
    except CrashChanged as changed:
        try:
            there = retry.call(lambda: source.load_crash(copied.crash_id))
        except CrashIDNotFound:
            raise changed from None
        if not all(destination.has_all_of(there) for destination in destinations):
            raise
        retry.call(_removal(source, there))


def _removal(source: CrashStorageBase, crash: Crash) -> Callable[[], None]:
    """Return what removes a crash, as it was loaded, from its source; where it is gone when that is
    tried again, it was done, and only the answer was lost."""
    attempts = 0

    def remove() -> None:
        nonlocal attempts
        attempts += 1
        try:
            source.remove_loaded(crash)
        except CrashIDNotFound:
            if attempts == 1:
                raise

    return remove


def refuse_loss(
    source: CrashStorageBase,
    destination: CrashStorageBase,
    kinds: Set[Kind],
    remove_source: bool,
    redactor: Redactor | None,
) -> None:
    """Raise `ValueError` where the job as such would lose data, as far as that is known without
    contacting a store."""
    sources = {store.identity() for store in source.stores}
    destinations = {store.identity() for store in destination.stores}
    if sources == destinations or (remove_source and sources & destinations):
        raise NotTwoStores(SAME)
    if not kinds:
        raise ValueError("no kinds of parts to copy")
    if not remove_source:
        return
    if frozenset(kinds) != ALL_KINDS:
        raise ValueError("a source can be removed only when all kinds of parts are copied")
    if redactor:
        raise ValueError("a source cannot be removed when the copy is redacted")
    if len(source.stores) > 1:
        raise ValueError("a source can be removed only when it is one store")
