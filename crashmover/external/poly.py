# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Several sources, destinations or stores as one, by the roles that all of them have."""

import datetime as dt
import heapq
import logging
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, Self, TypeVar

from crashmover import crashid
from crashmover.comparison import MeasuredCrash, compare
from crashmover.crash import ALL_KINDS, Crash, Kind
from crashmover.errors import (
    CrashChanged,
    CrashIDNotFound,
    CrashMoverError,
    InvalidURI,
    PolyCrashStorageError,
    StorageError,
)
from crashmover.external.crashstorage_base import CrashStorageBase, Removed, never
from crashmover.external.loading import Size
from crashmover.external.roles import (
    CrashDestination,
    CrashSource,
    ListedSource,
    Store,
    check_listing,
    results_of,
)
from crashmover.pool import Pool
from crashmover.uri import StorageURI

logger = logging.getLogger(__name__)

T = TypeVar("T")


class _Poly(Store):
    """Several stores.

    :param children: the stores, which it closes when it is closed
    """

    children: tuple[Store, ...]

    def __init__(self, children: Sequence[Store]) -> None:
        if not children:
            raise ValueError(f"a {type(self).__name__} needs a store")
        self.children = tuple(children)
        self.uri = ", ".join(child.uri for child in children)
        self._warned: set[Store] = set()
        # Its threads start when they are first needed.
        self._pool = Pool(self.tuning.workers * len(children), "poly")

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """There is no such URI: name several stores instead."""
        raise InvalidURI("several stores have no URI; name each")

    @property
    def stores(self) -> tuple[Any, ...]:
        """Every store below it, whatever the nesting."""
        return tuple(store for child in self.children for store in child.stores)

    def identity(self) -> object:
        return tuple(store.identity() for store in self.stores)

    def verify_access(self, *, write: bool = False) -> None:
        """To be read, one child that can be is enough; to be written, each must be."""
        errors = self._errors_of(lambda child: child.verify_access(write=write))
        if errors and (write or len(errors) == len(self.children)):
            raise PolyCrashStorageError(errors)

    def cautions(self) -> Iterator[str]:
        return chain.from_iterable(child.cautions() for child in self.children)

    def diagnose(self) -> Iterator[str]:
        for child in self.children:
            with suppress(StorageError):
                yield from child.diagnose()

    def close(self) -> None:
        errors = [
            error for error in results_of(lambda child: child.close(), self.children) if error
        ]
        self._pool.shutdown()
        if errors:
            raise PolyCrashStorageError(errors)

    def _errors_of(self, action: Callable[[Any], object]) -> list[Exception]:
        """Do it to every child at once, to each to its end; return what went wrong."""
        futures = [self._pool.submit(action, child) for child in self.children]
        errors = [future.exception() for future in futures]
        return [error for error in errors if isinstance(error, Exception)]

    def _everywhere(self, action: Callable[[Any], object], crash_id: str | None = None) -> None:
        if errors := self._errors_of(action):
            raise PolyCrashStorageError(errors, crash_id=crash_id)

    def _rows(
        self, things: Sequence[T], save: Callable[[Any], list[Exception | None]]
    ) -> Iterator[tuple[T, list[Exception]]]:
        """Give all of these to every child at once; yield each with what failed, in any child."""
        columns = self._pool.map(save, self.children)
        for thing, row in zip(things, zip(*columns, strict=True), strict=True):
            yield thing, [error for error in row if error]


class PolySource(_Poly, CrashSource):
    """Reads come from the first child that has the crash.

    A read goes on past a child that is down; if no other has the crash, the failure is raised: it
    is then not known that the crash does not exist.
    """

    children: tuple[CrashSource, ...]

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        found = self._first(crash_id, lambda child: child.load_crash(crash_id, kinds))
        if not found:
            raise CrashIDNotFound(crash_id, uri=self.uri)
        return found

    def has_crash(self, crash_id: str, kind: Kind = Kind.RAW_CRASH) -> bool:
        return bool(self._first(crash_id, lambda child: child.has_crash(crash_id, kind)))

    def _first(self, crash_id: str, ask: Callable[[CrashSource], T]) -> T | None:
        """Return the first answer that is not empty; None if no child has the crash."""
        crashid.validate(crash_id)
        errors: list[Exception] = []
        for child in self.children:
            try:
                if answer := ask(child):
                    return answer
            except CrashIDNotFound:
                continue
            except StorageError as error:
                errors.append(error)
                if child not in self._warned:
                    self._warned.add(child)
                    logger.warning("going on without a store: %s", error)
        if errors:
            raise PolyCrashStorageError(errors, crash_id=crash_id)
        return None

    def dumps_alone(self, crash_id: str) -> Sequence[str]:
        """Return each name once, whatever children have it."""
        found = [name for child in self.children for name in child.dumps_alone(crash_id)]
        return list(dict.fromkeys(found))

    def passed_over(self) -> Iterator[str]:
        return chain.from_iterable(child.passed_over() for child in self.children)

    def strangers(self) -> Iterator[str]:
        return chain.from_iterable(child.strangers() for child in self.children)

    def reading_risks(self, *, removing: bool = False) -> Iterator[str]:
        return chain.from_iterable(
            child.reading_risks(removing=removing) for child in self.children
        )


class PolyListedSource(PolySource, ListedSource):
    """Lists every crash of every child.  A child that fails ends its own listing only; at the end
    its failure is raised, for the listing is then not known to be complete."""

    children: tuple[ListedSource, ...]

    def new_crashes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[str]:
        kind = check_listing(since, until, kind)
        return self._listed(since, until, kind)

    def crash_sizes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[tuple[str, Size]]:
        """The size is that of the crash in the first child that can tell it."""
        kind = check_listing(since, until, kind)
        return self._sized(since, until, kind)

    def _sized(
        self, since: dt.date | None, until: dt.date | None, kind: Kind
    ) -> Iterator[tuple[str, Size]]:
        errors: list[Exception] = []
        sized = [
            _collecting(child.crash_sizes(since, until, kind), errors) for child in self.children
        ]
        in_order = heapq.merge(*sized, key=lambda each: crashid.sort_key(each[0]))
        for crash_id, found in groupby(in_order, key=itemgetter(0)):
            sizes = [size for _, size in found]
            known = [size for size in sizes if isinstance(size, int)]
            failed = [size for size in sizes if not isinstance(size, int)]
            yield crash_id, known[0] if known else PolyCrashStorageError(failed, crash_id=crash_id)
        if errors:
            raise PolyCrashStorageError(errors)

    def _listed(self, since: dt.date | None, until: dt.date | None, kind: Kind) -> Iterator[str]:
        errors: list[Exception] = []
        listings = [
            _collecting(child.new_crashes(since, until, kind), errors) for child in self.children
        ]
        yield from crashid.merged(*listings)
        if errors:
            raise PolyCrashStorageError(errors)


class PolyDestination(_Poly, CrashDestination):
    """Saves go to every child.

    A save is carried out on all children at the same time, on each to its end; then whatever
    failed is raised as one `PolyCrashStorageError`.
    """

    children: tuple[CrashDestination, ...]

    def save_crash(self, crash: Crash) -> None:
        self._everywhere(lambda child: child.save_crash(crash), crash.crash_id)

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        return self._in_rows(crashes, lambda child: child.save_crashes(crashes))

    def durability_risks(self) -> Iterator[str]:
        for child in self.children:
            with suppress(StorageError):
                yield from child.durability_risks()

    def try_saving(self) -> list[str]:
        lines: list[str] = []
        self._everywhere(lambda child: lines.extend(child.try_saving()))
        return lines

    def probe_write(self) -> None:
        """Return no time: the children's clocks are not one clock."""
        self._everywhere(lambda child: child.probe_write())

    def _in_rows(
        self, crashes: Sequence[Crash], save: Callable[[Any], list[Exception | None]]
    ) -> list[Exception | None]:
        return [
            PolyCrashStorageError(errors, crash_id=crash.crash_id) if errors else None
            for crash, errors in self._rows(crashes, save)
        ]


class PolyCrashStorage(PolyListedSource, PolyDestination, CrashStorageBase):
    """Several stores as one: reads come from the first child that has the crash, saves and
    removals go to every child.  Children may be `PolyCrashStorage` themselves."""

    children: tuple[CrashStorageBase, ...]

    def __init__(self, children: Sequence[CrashStorageBase]) -> None:
        super().__init__(children)

    def save_keeping_dumps(self, crash: Crash) -> None:
        """Each child keeps the dumps that it has itself."""
        self._everywhere(lambda child: child.save_keeping_dumps(crash), crash.crash_id)

    def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        """Create them in each child by itself: those that have none get theirs."""
        return self._in_rows(crashes, lambda child: child.create_crashes(crashes))

    def remove(self, crash_id: str) -> None:
        crashid.validate(crash_id)
        errors = self._errors_of(lambda child: child.remove(crash_id))
        if error := self._not_removed(crash_id, errors):
            raise error

    def remove_loaded(self, crash: Crash) -> None:
        """Remove it from every store below this one that has the same, to the byte.

        :raises CrashChanged: one has another by that id
        :raises PolyCrashStorageError: it could not be removed from some
        """
        self._refuse_changed(crash)
        loaded = MeasuredCrash(crash, hashing=True)
        found: list[tuple[CrashStorageBase, Crash]] = []
        for store in self.stores:
            with suppress(CrashIDNotFound):
                there = store.load_crash(crash.crash_id)
                found.append((store, there))
                same = {part.key for part in there.parts} <= loaded.measured.keys()
                if not same or compare(loaded, there).differing:
                    raise CrashChanged(crash.crash_id, uri=store.uri)
        errors = results_of(lambda each: each[0].remove_loaded(each[1]), found)
        if failed := [error for error in errors if error]:
            raise PolyCrashStorageError(failed, crash_id=crash.crash_id)

    def remove_crashes(self, crash_ids: Sequence[str]) -> list[Exception | None]:
        rows = self._rows(crash_ids, lambda child: child.remove_crashes(crash_ids))
        return [self._not_removed(crash_id, errors) for crash_id, errors in rows]

    def remove_days(
        self, since: dt.date, until: dt.date, is_stopped: Callable[[], bool] = never
    ) -> Iterator[Removed]:
        """Of a child that fails altogether, it is not known of any later crash whether it has
        it."""
        lost: list[Exception] = []
        removals = [
            _collecting(child.remove_days(since, until, is_stopped), lost)
            for child in self.children
        ]
        late: list[Removed] = []
        in_order = heapq.merge(*removals, key=lambda removal: crashid.sort_key(removal[0]))
        for crash_id, found in groupby(in_order, key=itemgetter(0)):
            lost_before = list(lost)  # a store that is lost meanwhile has done this one
            errors = lost_before + [error for _, error in found if error]
            failed = PolyCrashStorageError(errors, crash_id=crash_id) if errors else None
            if is_stopped():
                late.append((crash_id, failed))
            else:
                yield crash_id, failed
        yield from self._completed(late)
        if lost:
            raise PolyCrashStorageError(lost)

    def _completed(self, removals: list[Removed]) -> Iterator[Removed]:
        """Remove what a child has removed from those that have stopped sooner and still have it."""
        unsure = [crash_id for crash_id, failed in removals if failed is None]
        results = dict(zip(unsure, self.remove_crashes(unsure), strict=True))
        for crash_id, failed in removals:
            result = failed or results[crash_id]
            yield crash_id, None if isinstance(result, CrashIDNotFound) else result

    def _not_removed(self, crash_id: str, errors: list[Exception]) -> StorageError | None:
        """Return why a crash was not removed, by what the children have said."""
        failed = [error for error in errors if not isinstance(error, CrashIDNotFound)]
        if failed:
            return PolyCrashStorageError(failed, crash_id=crash_id)
        if len(errors) == len(self.children):
            return CrashIDNotFound(crash_id, uri=self.uri)
        return None


def _collecting(listing: Iterator[T], errors: list[Exception]) -> Iterator[T]:
    try:
        yield from listing
    except CrashMoverError as error:
        errors.append(error)
