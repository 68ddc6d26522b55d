# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Roles: what a source, a listed source and a destination of crashes can do.

The author of a backend writes the one role that it has, or all: `CrashStorageBase`.
`crashmover.testing` holds a suite for each role.
"""

import datetime as dt
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from threading import Lock
from typing import Self, TypeVar

from crashmover import crashid
from crashmover.crash import ALL_KINDS, COLLECTED, MARKERS, Crash, Kind, marker_of
from crashmover.errors import CrashExists, CrashIDNotFound, StorageError
from crashmover.external.loading import Size, sizes_of
from crashmover.external.probing import unfinished_crash, verify_unfinished
from crashmover.external.socorro import SocorroReader
from crashmover.external.tuning import Tuning
from crashmover.uri import StorageURI

T = TypeVar("T")

_LOCKS = 64
_TURNS = 3  # another process may create or remove the crash meanwhile


class Store(ABC):
    """What every source and every destination has.  Safe for use from many threads; a context
    manager that closes it."""

    uri: str
    """Where it is, redacted: what messages call it."""

    tuning: Tuning = Tuning()
    """How it likes to be used."""

    @property
    def slowdowns(self) -> int:
        """How often, up to now, its server has asked for fewer requests: by 429 or 503 over HTTP.
        A run that sees this grow has fewer requests in flight from then on."""
        return 0

    @classmethod
    @abstractmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """Return the store there, contacting nothing.

        :raises InvalidURI: the URI says something that this store does not know
        """

    def verify_access(self, *, write: bool = False) -> None:
        """Raise `StorageUnavailable` or `StorageDenied` unless the store can be used.

        :param write: whether it is going to be changed: saved to, or removed from
        """

    def cautions(self) -> Iterable[str]:
        """Return what the user should know before crashes are saved here or removed.  Asks no
        server."""
        return ()

    def diagnose(self) -> Iterable[str]:
        """Yield what the owner of the store should mend, one line each.  May ask the server.

        :raises StorageError: the server does not answer
        """
        return ()

    def clock(self) -> dt.datetime | None:
        """Return the time by the store's own clock, where it has one that can be read."""
        return None

    @property
    def stores(self) -> tuple[Self, ...]:
        """The stores that this one is made of: itself, where it is one."""
        return (self,)

    def identity(self) -> object:
        """Return what is equal for two objects that stand for the same store, as far as is known
        without contacting anything.  One store may have two identities: `is_same_store` proves."""
        return self.uri

    def is_same_store(self, other: "Store", *, probe: bool = False) -> bool | None:
        """Return whether a crash that is removed from one of the two may be gone from the other.
        None: that is not known.

        A copy asks with ``probe=False``, and goes on unless the answer is True.  A copy that
        removes asks the source with ``probe=True``, before it changes anything, and goes on only
        if the answer is False.  The text of a URI proves nothing: one server has many addresses,
        one directory many paths.

        For a store of another class return None, unless your class wraps stores of others.  Two
        stores of unrelated classes that both have this method are two.  This default compares
        `identity`, and so never proves that two stores are two.

        :param other: any store but a `PolyCrashStorage`
        :param probe: whether a mark may be written into either store, to look for it in the
            other.  No reader and no listing notices the mark, and it is removed again.
        :raises StorageError: a store cannot be asked
        :raises NotTwoStores: that is not known, and the text says why
        """
        return True if self is other or self.identity() == other.identity() else None

    def close(self) -> None:
        """Let go of what is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.uri}>"


class CrashSource(Store, SocorroReader):
    """A store whose crashes can be read, by their ids."""

    @abstractmethod
    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        """Return the crash's parts of these kinds, reading no bodies.

        Opening or reading a part later raises `StorageError` too, and `StorageUnavailable`
        where the crash was replaced in the meantime.

        :raises CrashIDNotFound: there is no raw crash; or, where only the processed crash
            is asked for, none of that
        """

    def has_crash(self, crash_id: str, kind: Kind = Kind.RAW_CRASH) -> bool:
        """Return True if the part of the kind's `Kind.marker` is there."""
        try:
            self.load_crash(crash_id, {kind.marker})
        except CrashIDNotFound:
            return False
        return True

    def dumps_alone(self, crash_id: str) -> Sequence[str]:
        """Return the names of dumps that no reader sees, as their raw crash is missing: another
        process may be saving the crash, or its raw crash was lost.  A store that cannot hold such
        dumps, or does not look, returns none."""
        return ()

    def load_crashes(
        self, crash_ids: Sequence[str], kinds: Set[Kind] = ALL_KINDS
    ) -> Iterator[Crash | Exception]:
        """Load several crashes, lazily; yield for each, in this order, the crash or what
        `load_crash` would raise.

        :param crash_ids: each once
        """
        for crash_id in crash_ids:
            try:
                crash: Crash | Exception = self.load_crash(crash_id, kinds)
            except Exception as error:
                crash = error
            yield crash

    def passed_over(self) -> Iterable[str]:
        """Return one line for each store whose last listing, which has ended, met what looks like
        a crash and did not yield it, such as a crash id with an impossible date."""
        return ()

    def strangers(self) -> Iterable[str]:
        """Return one line for each store that has no crash of any day and holds something else,
        such as crashes in another layout.  Asked where a listing has found nothing.  Looks into a
        few directories, or one page of keys.

        :raises StorageError: the store cannot be read
        """
        return ()

    def reading_risks(self, *, removing: bool = False) -> Iterable[str]:
        """Yield why what is read here may not be what is there, one line each.  Asks no server,
        unless `removing`.

        :param removing: whether crashes are removed from here, too: then also what stays of them
        """
        return ()

    def require_marker(self, crash_id: str, kinds: Set[Kind], there: Container[Kind]) -> None:
        """For backends: raise what `load_crash` raises where the crash is not there.

        :param there: the kinds that the crash has a part of
        """
        marker = marker_of(kinds)
        if marker not in there:
            reason = "no such crash" if marker is Kind.RAW_CRASH else f"no {marker}"
            raise CrashIDNotFound(crash_id, uri=self.uri, reason=reason)


class ListedSource(CrashSource):
    """A source that knows which crashes it has."""

    @abstractmethod
    def new_crashes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[str]:
        """Yield the ids of the crashes of these days, lazily, ordered by `crashid.sort_key`,
        each once.

        :param since: the first day, by the id's date
        :param until: the last day, which is included
        :param kind: of crashes that have this part: `RAW_CRASH` or `PROCESSED_CRASH`, or their
            values as strings
        :raises TypeError: a day is no `datetime.date`
        :raises ValueError: no listing is of this kind
        """

    def crash_sizes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[tuple[str, Size]]:
        """Yield the crashes that `new_crashes` yields, each with how many bytes its parts have in
        all; of a listing of processed crashes, only these count.  Where the size of a crash cannot
        be found out, the `StorageError` that says why stands in its place.  A crash that is removed
        meanwhile is passed over.

        This default loads each crash.  A store whose listings show sizes overrides this.

        :raises TypeError: as `new_crashes`
        :raises ValueError: as `new_crashes`
        """
        kind = check_listing(since, until, kind)
        return sizes_of(self, self.new_crashes(since, until, kind), kinds_of(kind))

    def all_crashes(self, since: dt.date, until: dt.date) -> Iterator[str]:
        """Yield, as `new_crashes` does, the crashes that have a raw or a processed crash."""
        yield from crashid.merged(*(self.new_crashes(since, until, kind) for kind in MARKERS))


class CrashDestination(Store):
    """A store that crashes can be saved to.

    What every destination promises of `save_crash`:

    - Bytes out are bytes in, for every kind of part.
    - Saving twice is saving once.  A crash with a raw crash replaces the raw crash and the
      whole set of dumps; dumps without a raw crash are added to it; a processed crash
      alone touches only that.
    - The raw crash becomes visible last: it is the commit marker.  A reader sees a whole
      crash or none, whatever was killed in between.  So a raw crash or dumps are found
      only where the raw crash is there; a processed crash is found by itself.
    - A save that fails leaves no visible crash, and none of its temporary files.
    - Large parts stream: a store holds no more than a few `CHUNK` of a part in memory.
    """

    @abstractmethod
    def save_crash(self, crash: Crash) -> None:
        """Save the crash; it is durable when this returns.

        :raises StorageError: it could not be saved (also `StorageError` of another store,
            whose part could not be read)
        """

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        """Save several crashes; return for each None or why it was not saved."""
        return results_of(self.save_crash, crashes)

    def durability_risks(self) -> Iterable[str]:
        """Yield why what is saved here may be lost when the power, the system or the server fails,
        one line each.  May ask the server.

        :raises StorageError: the server does not answer
        """
        return ()

    def try_saving(self) -> Iterable[str]:
        """Return what will be otherwise than was asked for when crashes are saved here, one line
        each.  Called once before a run that saves.  May write a probe that no reader sees, and
        remove it.

        :raises StorageDenied: what was asked for cannot be kept at all
        """
        return ()

    def probe_write(self) -> dt.datetime | None:
        """Write where a crash of today would be saved, and remove it again.  No reader sees any of
        it, even if this is killed.

        This default begins to save a crash that cannot be finished.  A store that reads all of
        a crash before it writes any of it has to do better.

        :return: when it was written by the store's own clock, where writing shows that
        :raises StorageError: it cannot be saved to, or has saved what cannot be read
        """
        crash = unfinished_crash()
        try:
            self.save_crash(crash)
        except Exception as error:
            verify_unfinished(error)
            return None
        self._take_back(crash.crash_id)
        raise StorageError("it says that it has saved what cannot be read", uri=self.uri)

    def _take_back(self, crash_id: str) -> None:
        """Remove, as far as can be, what a store has saved of a probe."""


class ReadableDestination(CrashSource, CrashDestination):
    """A destination whose crashes can be read back: so what is there need not be replaced."""

    def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        """Save crashes, but replace no raw crash and no dump.  Where the raw crash is there,
        or one of the dumps that are to be added to it, nothing of that crash is saved, and its
        result is `CrashExists`.  A processed crash is replaced: it can be made again.

        This default looks and then saves, and keeps out the other threads of this process.  A
        store that can do better keeps out other processes, too: then only one of two copies that
        race reports the crash as copied.
        """

        def create(crash: Crash) -> None:
            with self._lock_to_create(crash.crash_id):
                if self._would_replace(crash):
                    raise CrashExists(crash.crash_id, uri=self.uri)
                self.save_crash(crash)

        return results_of(create, crashes)

    def save_keeping_dumps(self, crash: Crash) -> None:
        """Save a raw crash, and perhaps a processed crash, and keep the dumps that are there.  A
        crash that is missing is created without dumps.

        In a race with another save, the result is that of one after the other.  A dump that
        another process saves meanwhile is kept, or this raises `StorageUnavailable`.  When a dump
        cannot be read, nothing is changed.

        This default loads the dumps and saves the crash with them.  It can lose a dump in one
        case: another process adds the first dump between the load and the save.  After a failed
        save, the crash is as `save_crash` leaves it.  A store that can replace the raw crash alone
        overrides this.

        :param crash: with a raw crash and without dumps
        """
        for _ in range(_TURNS):
            with self._lock_to_create(crash.crash_id), suppress(CrashIDNotFound):
                kept = COLLECTED - {part.kind for part in crash.parts}
                there = self.load_crash(crash.crash_id, kept)
                self.save_crash(Crash(crash.crash_id, [*crash.parts, *there.parts]))
                return
            [error] = self.create_crashes([crash])
            if not isinstance(error, CrashExists):
                break
        if error:
            raise error

    def _lock_to_create(self, crash_id: str) -> Lock:
        """Return the lock of this crash id, which others share."""
        locks = vars(self).get("_locks_to_create")
        if locks is None:  # made here, as a backend need not call our ``__init__``
            locks = vars(self).setdefault("_locks_to_create", [Lock() for _ in range(_LOCKS)])
        found: Lock = locks[zlib.crc32(crash_id.encode()) % _LOCKS]
        return found

    def _would_replace(self, crash: Crash) -> bool:
        if crash.raw_crash:
            return self.has_crash(crash.crash_id)
        added = [part.key for part in crash.parts if part.kind in COLLECTED]
        if not added:
            return False
        try:
            there = self.load_crash(crash.crash_id, {kind for kind, _ in added})
        except CrashIDNotFound:
            return False
        return any(there.part(*key) for key in added)


def check_listing(since: object, until: object, kind: Kind | str) -> Kind:
    """Return the kind of crashes that `ListedSource.new_crashes` is asked for.

    :raises TypeError: a day is neither a `datetime.date` nor None; a string or a time is not
    :raises ValueError: no listing is of this kind
    """
    for name, day in (("since", since), ("until", until)):
        if day is not None and (not isinstance(day, dt.date) or isinstance(day, dt.datetime)):
            raise TypeError(f"{name} is a datetime.date or None, not {type(day).__name__}")
    if kind not in MARKERS:
        raise ValueError(f"a listing is of {' or '.join(MARKERS)}, not of {str(kind)!r}")
    return Kind(kind)


def kinds_of(listing: Kind) -> Set[Kind]:
    """Return the kinds of parts whose bytes count in a listing of this kind."""
    return ALL_KINDS if listing is Kind.RAW_CRASH else {listing}


def results_of(do: Callable[[T], None], things: Sequence[T]) -> list[Exception | None]:
    """Do it with one after the other; return for each None or what `do` raised."""
    results: list[Exception | None] = []
    for thing in things:
        try:
            do(thing)
            results.append(None)
        except Exception as error:
            results.append(error)
    return results
