# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Destination: one store that crashes are brought to, each as far as it is lacking there."""

import logging
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from crashmover import crashid
from crashmover.comparison import Difference, Key, MeasuredCrash, compare
from crashmover.crash import COLLECTED, Crash, Kind, marker_of
from crashmover.errors import (
    CorruptCrash,
    CrashConflict,
    CrashExists,
    CrashIDNotFound,
    StorageDenied,
    StorageError,
)
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.retry import RetryPolicy, is_retryable

logger = logging.getLogger(__name__)

T = TypeVar("T")

_TURNS = 3  # others may save the same crash, or remove it, each time after it was looked at


class Existing(StrEnum):
    """What to do about a crash that a destination has."""

    SKIP = "skip"
    COMPARE = "compare"
    OVERWRITE = "overwrite"


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
class Delivery:
    """What became of a crash at one destination.

    :param saved: the parts that were saved, or would be
    :param is_whole: whether all that the source has is now known to be there: because it
        was saved, or was compared; not because the commit marker was seen
    """

    saved: set[Key] = field(default_factory=set)
    is_whole: bool = False
    attempts: int = 1
    error: Exception | None = None


@dataclass
class Wish:
    """What is to be saved of a crash at one destination; None: nothing."""

    crash: MeasuredCrash
    delivery: Delivery
    wanted: Crash | None


class Destination:
    """Brings crashes to a store, batch by batch, from any thread.

    :param store: the store
    :param kinds: the kinds of parts that are brought
    :param existing: what to do about a crash that is there
    :param verify: whether to read back and compare whatever is there or was saved
    :param dry_run: whether to save nothing
    """

    def __init__(
        self,
        store: CrashStorageBase,
        *,
        kinds: Set[Kind],
        existing: Existing,
        verify: bool,
        dry_run: bool,
        retry: RetryPolicy,
    ) -> None:
        self.store = store
        self.down: StorageError | None = None
        """Why it is not used any more, once it is found to be out of reach as a whole."""
        self._kinds = kinds
        self._existing = existing
        self._verify = verify
        self._dry_run = dry_run
        self._retry = retry
        self._listed: Iterator[str] | None = None
        self._next: str | None = None

    def verify_access(self) -> None:
        """Take note when the store cannot be written to; log what it will keep otherwise than was
        asked for."""
        try:
            self._retry.call(lambda: self.store.verify_access(write=True))
            if not self._dry_run:
                for difference in self._retry.call(self.store.try_saving):
                    logger.warning("%s", difference)
        except StorageError as error:
            self.down = error

    # What is there, from a listing

    def follow(self, listed: Iterator[str]) -> None:
        """From now on `has` asks this listing of the store, in the order of the ids."""
        if not self.down:
            self._listed = listed
            self._advance()

    @property
    def lists(self) -> bool:
        """Whether `has` knows what is not there, and not only what is."""
        return self._listed is not None and not self.down

    def has(self, crash_id: str) -> bool:
        """Whether the listing has the crash; to be asked in the order of `crashid.sort_key`."""
        key = crashid.sort_key(crash_id)
        while self._next is not None and crashid.sort_key(self._next) < key:
            self._advance()
        return self._next == crash_id

    def _advance(self) -> None:
        try:
            self._next = next(self._listed, None) if self._listed else None
        except StorageError as error:
            self._next = self._listed = None
            if is_retryable(error):
                self.down = error
            else:  # of one directory, perhaps: if so, each crash is asked for from now on
                self._probe_after(error)

    # Bringing

    def bring(self, crashes: Sequence[tuple[MeasuredCrash, bool]]) -> list[Delivery]:
        """Bring to the store what it lacks of these crashes.

        :param crashes: each with whether it is known not to be there
        """
        deliveries = [Delivery() for _ in crashes]
        wishes = [
            Wish(crash, delivery, self._choose(crash, is_lacking, delivery))
            for (crash, is_lacking), delivery in zip(crashes, deliveries, strict=True)
        ]
        if not self._dry_run:
            saved = [wish for wish in wishes if wish.wanted]
            self._save_and_settle(saved)
            if self._verify:
                self._verify_saved(saved)
        return deliveries

    def _choose(self, crash: MeasuredCrash, is_lacking: bool, delivery: Delivery) -> Crash | None:
        """Return what must be saved of the crash, and take note in its delivery as if it were;
        None if nothing, or if that cannot be told."""
        delivery.saved, delivery.is_whole, delivery.error = set(), False, None
        try:
            wanted = self._wanted(crash, is_lacking, delivery)
        except Exception as error:
            delivery.error = error
            self._probe_after(error)
            return None
        if wanted:
            delivery.saved = {part.key for part in wanted.parts} & crash.measured.keys()
            delivery.is_whole = True
        return wanted

    def _wanted(self, crash: MeasuredCrash, is_lacking: bool, delivery: Delivery) -> Crash | None:
        """Return what must be saved of the crash; None if nothing."""
        if self.down:
            raise self.down
        if self._existing is Existing.OVERWRITE:
            return self._with_dumps_there(crash.crash)
        if self._existing is Existing.SKIP and not self._verify:
            return crash.crash if is_lacking else self._lacking(crash)
        try:
            difference = self._compare(crash)
        except CrashIDNotFound:
            return crash.crash
        wanted = self._mending(crash, difference)
        delivery.is_whole = wanted is None
        return wanted

    def _with_dumps_there(self, crash: Crash) -> Crash:
        """A raw crash replaces all dumps: where these are not brought, they are kept."""
        kept = COLLECTED - self._kinds
        if Kind.RAW_CRASH in kept or not kept:
            return crash
        try:
            there = self._call(lambda: self.store.load_crash(crash.crash_id, kept))
        except CrashIDNotFound:
            return crash
        return Crash(crash.crash_id, [*crash.parts, *there.parts])

    def _lacking(self, crash: MeasuredCrash) -> Crash | None:
        """Return what the destination has not, by the commit marker of what is brought."""
        crash_id = crash.crash.crash_id
        marker = marker_of(self._kinds)
        if marker in self._kinds:
            is_there = self._call(lambda: self.store.has_crash(crash_id, marker))
            return None if is_there else crash.crash
        try:  # dumps without the raw crash have no marker: by their names
            there = self._call(lambda: self.store.load_crash(crash_id, self._kinds))
        except CrashIDNotFound:
            return crash.crash
        keys = crash.measured.keys() - {part.key for part in there.parts}
        return crash.only(keys) if keys else None

    def _compare(self, crash: MeasuredCrash) -> Difference:
        crash_id = crash.crash.crash_id
        return self._call(lambda: compare(crash, self.store.load_crash(crash_id, self._kinds)))

    def has_all_of(self, crash: Crash) -> bool:
        """Whether all of a crash is in the store, to the byte."""
        try:
            difference = self._compare(MeasuredCrash(crash, hashing=True))
        except CrashIDNotFound:
            return False
        return not difference.missing and not difference.differing

    def _mending(self, crash: MeasuredCrash, difference: Difference) -> Crash | None:
        """Return what to save so that the difference goes away.

        :raises CrashConflict: something would have to be overwritten that must not be
        """
        collected = {key for key in difference.differing if key[0] in COLLECTED}
        conflict = collected | difference.extra
        if conflict or (difference and self._existing is Existing.SKIP):
            raise CrashConflict(str(difference), crash_id=crash.crash.crash_id, uri=self.store.uri)
        keys = difference.missing | difference.differing
        return crash.only(keys) if keys else None

    def _save_and_settle(self, wishes: list[Wish]) -> None:
        """Save them; where somebody else has saved a crash since it was looked at, look again."""
        self._save(wishes)
        for _ in range(_TURNS):
            wishes = [wish for wish in wishes if isinstance(wish.delivery.error, CrashExists)]
            for wish in wishes:
                wish.wanted = self._choose_again(wish.crash, wish.delivery)
            self._save(wishes)

    def _choose_again(self, crash: MeasuredCrash, delivery: Delivery) -> Crash | None:
        """As `_choose`, of a crash that is there now.  If it is the same it counts as saved: it
        may well be ours, and only the answer was lost."""
        try:
            if self.down:
                raise self.down
            is_same = not self._compare(crash)
        except CrashIDNotFound:  # it has been removed again
            is_same = False
        except Exception as error:
            delivery.error = error
            self._probe_after(error)
            return None
        if is_same:
            delivery.error = None
            return None
        return self._choose(crash, False, delivery)

    def _save(self, wishes: list[Wish]) -> None:
        """Save them, those again that failed in passing; notice when the whole store is down.

        Nothing is replaced, if that is not asked for: what was not there may be by now.
        """
        overwrite = self._existing is Existing.OVERWRITE
        save = self.store.save_crashes if overwrite else self.store.create_crashes
        todo = [(wish.delivery, wish.wanted) for wish in wishes if wish.wanted]
        attempts = 0

        def attempt() -> None:
            nonlocal attempts
            attempts += 1
            errors = save([crash for _, crash in todo])
            for (delivery, _), error in zip(todo, errors, strict=True):
                delivery.attempts, delivery.error = attempts, error
            todo[:] = [item for item in todo if item[0].error and is_retryable(item[0].error)]
            if todo:
                raise todo[0][0].error or AssertionError

        asked = [delivery for delivery, _ in todo]
        try:
            if todo:
                self._retry.call(attempt)
            if refused := [each.error for each in asked if isinstance(each.error, StorageDenied)]:
                self._probe_after(refused[0])
        except Exception as error:
            for delivery, _ in todo:
                delivery.error = delivery.error or error
            self._probe()

    def _probe_after(self, error: Exception) -> None:
        """Find out whether an error is about one crash or about the whole store."""
        if not self.down and (is_retryable(error) or isinstance(error, StorageDenied)):
            self._probe()

    def _probe(self) -> None:
        try:
            self.store.verify_access(write=True)
        except StorageError as error:
            self.down = error

    def _verify_saved(self, saved: list[Wish]) -> None:
        for wish in saved:
            crash, delivery = wish.crash, wish.delivery
            if delivery.error:
                continue
            try:
                if self.down:
                    raise self.down
                if difference := self._compare(crash):
                    raise CorruptCrash(
                        f"read back and not the same: {difference}",
                        crash_id=crash.crash.crash_id,
                        uri=self.store.uri,
                    )
            except Exception as error:
                delivery.error = error
                self._probe_after(error)

    def _call(self, function: Callable[[], T]) -> T:
        return self._retry.call(function)
