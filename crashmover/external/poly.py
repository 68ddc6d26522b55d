# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Several sources, destinations or stores as one, by the roles that all of them have."""

import datetime as dt
import heapq
import logging
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import Any, NoReturn, Self, TypeVar

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
    """Several stores, asked one after the other or all at once.

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

    def identity(self) -> object:
        """Equal for the same stores in the same order."""
        return tuple(store.identity() for store in self.stores)

    def verify_access(self, *, write: bool = False) -> None:
        """To be read, one child that can be is enough; to be written, each must be."""
        errors = self._outcomes(lambda child: child.verify_access(write=write))
        if errors and (write or len(errors) == len(self.children)):
            raise PolyCrashStorageError(errors)

    def cautions(self) -> Iterator[str]:
        """Those of every child."""
        for child in self.children:
            yield from child.cautions()

    def diagnose(self) -> Iterator[str]:
        """Yield those of every child that answers."""
        for child in self.children:
            with suppress(StorageError):
                yield from child.diagnose()

    def close(self) -> None:
        """Close every child, whatever happens to the others."""
        errors: list[Exception] = []
        for child in self.children:
            try:
                child.close()
            except Exception as error:
                errors.append(error)
        self._pool.shutdown()
        if errors:
            raise PolyCrashStorageError(errors)

    def _outcomes(self, action: Callable[[Any], object]) -> list[Exception]:
        """Do it to every child at once and to its end; return what went wrong."""
        futures = [self._pool.submit(action, child) for child in self.children]
        errors = [future.exception() for future in futures]
        return [error for error in errors if isinstance(error, Exception)]


class PolySource(_Poly, CrashSource):
    """Reads come from the first child that has the crash.

    A read goes on past a child that is down; if no other has the crash, the failure is raised: it
    is then not known that the crash does not exist.
    """

    children: tuple[CrashSource, ...]

    @property
    def stores(self) -> tuple[CrashSource, ...]:
        """Every store below it, whatever the nesting."""
        return tuple(store for child in self.children for store in child.stores)

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        """As the base class says."""
        crashid.validate(crash_id)
        errors: list[Exception] = []
        for child in self.children:
            try:
                return child.load_crash(crash_id, kinds)
            except CrashIDNotFound:
                continue
            except StorageError as error:
                self._warn_once(child, error)
                errors.append(error)
        self._not_found(crash_id, errors)

    def has_crash(self, crash_id: str, kind: Kind = Kind.RAW_CRASH) -> bool:
        """Whether any child has it."""
        crashid.validate(crash_id)
        errors: list[Exception] = []
        for child in self.children:
            try:
                if child.has_crash(crash_id, kind):
                    return True
            except StorageError as error:
                errors.append(error)
        if errors:
            raise PolyCrashStorageError(errors, crash_id=crash_id)
        return False

    def dumps_alone(self, crash_id: str) -> Sequence[str]:
        """Return those of every child, each name once."""
        found = [name for child in self.children for name in child.dumps_alone(crash_id)]
        return list(dict.fromkeys(found))

    def passed_over(self) -> Iterator[str]:
        """As the base class says, of every child."""
        for child in self.children:
            yield from child.passed_over()

    def strangers(self) -> Iterator[str]:
        """As the base class says, of every child."""
        for child in self.children:
            yield from child.strangers()

    def reading_risks(self, *, removing: bool = False) -> Iterator[str]:
        """Yield those of every child."""
        for child in self.children:
            yield from child.reading_risks(removing=removing)

    def _warn_once(self, child: Store, error: StorageError) -> None:
        if child not in self._warned:
            self._warned.add(child)
            logger.warning("going on without a store: %s", error)

    def _not_found(self, crash_id: str, errors: list[Exception]) -> NoReturn:
        if errors:
            raise PolyCrashStorageError(errors, crash_id=crash_id)
        raise CrashIDNotFound(crash_id, uri=self.uri)


class PolyListedSource(PolySource, ListedSource):
    """Lists every crash of every child."""

    children: tuple[ListedSource, ...]

    @property
    def stores(self) -> tuple[ListedSource, ...]:
        """Every store below it, whatever the nesting."""
        return tuple(store for child in self.children for store in child.stores)

    def new_crashes(
        self,
        since: dt.date | None = None,
        until: dt.date | None = None,
        kind: Kind = Kind.RAW_CRASH,
    ) -> Iterator[str]:
        """Every crash of every child.

        A child that fails ends its own listing only; at the end its failure is raised, for
        the listing is then not known to be complete.
        """
        kind = check_listing(since, until, kind)
        return self._listed(since, until, kind)

    def _listed(self, since: dt.date | None, until: dt.date | None, kind: Kind) -> Iterator[str]:
        errors: list[Exception] = []
        listings = [
            _collecting(child.new_crashes(since, until, kind), errors) for child in self.children
        ]
        last = None
        for crash_id in heapq.merge(*listings, key=crashid.sort_key):
            if crash_id != last:
                yield crash_id
            last = crash_id
        if errors:
            raise PolyCrashStorageError(errors)


class PolyDestination(_Poly, CrashDestination):
    """Saves go to every child.

    A save is carried out on all children at the same time, on each to its end; then whatever
    failed is raised as one `PolyCrashStorageError`.
    """

    children: tuple[CrashDestination, ...]

    @property
    def stores(self) -> tuple[CrashDestination, ...]:
        """Every store below it, whatever the nesting."""
        return tuple(store for child in self.children for store in child.stores)

    def save_crash(self, crash: Crash) -> None:
        """As the base class says; `PolyCrashStorageError` of what failed."""
        self._everywhere(lambda child: child.save_crash(crash), crash.crash_id)

    def save_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        """As the base class says, each child given the whole batch."""
        return self._in_rows(crashes, lambda child: child.save_crashes(crashes))

    def durability_risks(self) -> Iterator[str]:
        """Yield those of every child that answers."""
        for child in self.children:
            with suppress(StorageError):
                yield from child.durability_risks()

    def try_saving(self) -> list[str]:
        """Try every child."""
        lines: list[str] = []
        if errors := self._outcomes(lambda child: lines.extend(child.try_saving())):
            raise PolyCrashStorageError(errors)
        return lines

    def probe_write(self) -> None:
        """Each child must be one that can be written to; their clocks are not one clock."""
        if errors := self._outcomes(lambda child: child.probe_write()):
            raise PolyCrashStorageError(errors)

    def _in_rows(
        self,
        crashes: Sequence[Crash],
        save: Callable[[Any], list[Exception | None]],
    ) -> list[Exception | None]:
        """Save to every child at once; return for each crash None or what failed in any."""
        columns = self._pool.map(save, self.children)
        results: list[Exception | None] = []
        for crash, row in zip(crashes, zip(*columns, strict=True), strict=True):
            errors = [error for error in row if error is not None]
            failed = PolyCrashStorageError(errors, crash_id=crash.crash_id) if errors else None
            results.append(failed)
        return results

    def _everywhere(self, action: Callable[[Any], object], crash_id: str) -> None:
        if errors := self._outcomes(action):
            raise PolyCrashStorageError(errors, crash_id=crash_id)


class PolyCrashStorage(PolyListedSource, PolyDestination, CrashStorageBase):
    """Several stores as one: reads come from the first child that has the crash, saves and
    removals go to every child.  Children may be `PolyCrashStorage` themselves.

    :param children: the stores, which it closes when it is closed
    """

    children: tuple[CrashStorageBase, ...]

    def __init__(self, children: Sequence[CrashStorageBase]) -> None:
        super().__init__(children)

    @property
    def stores(self) -> tuple[CrashStorageBase, ...]:
        """Every store below it, whatever the nesting."""
        return tuple(store for child in self.children for store in child.stores)

    def save_keeping_dumps(self, crash: Crash) -> None:
        """Each child keeps the dumps that it has itself."""
        self._everywhere(lambda child: child.save_keeping_dumps(crash), crash.crash_id)

    def create_crashes(self, crashes: Sequence[Crash]) -> list[Exception | None]:
        """As the base class says, in each child by itself: those that have none get theirs."""
        return self._in_rows(crashes, lambda child: child.create_crashes(crashes))

    def remove(self, crash_id: str) -> None:
        """Remove it from every child that has it."""
        crashid.validate(crash_id)
        if error := self._not_removed(crash_id, self._remove_everywhere(crash_id)):
            raise error

    def remove_loaded(self, crash: Crash) -> None:
        """As the base class says, from every store below it that has the same, to the byte.

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
        """As `remove`, each child given all of them."""
        columns = self._pool.map(lambda child: child.remove_crashes(crash_ids), self.children)
        return [
            self._not_removed(crash_id, [error for error in row if error])
            for crash_id, row in zip(crash_ids, zip(*columns, strict=True), strict=True)
        ]

    def remove_days(
        self, since: dt.date, until: dt.date, is_stopped: Callable[[], bool] = never
    ) -> Iterator[Removed]:
        """As the base class says, from every child; of one that fails altogether, it is not known
        of any crash that comes later whether it has it."""
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

    def _remove_everywhere(self, crash_id: str) -> list[Exception]:
        return self._outcomes(lambda child: child.remove(crash_id))

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
