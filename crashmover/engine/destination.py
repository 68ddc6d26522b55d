# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Destination: one store that crashes are copied to, each as far as it is lacking there."""

import logging
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import cast

from crashmover import crashid
from crashmover.comparison import Difference, Key, MeasuredCrash, compare
from crashmover.crash import COLLECTED, Crash, Kind, marker_of
from crashmover.engine.guard import Guard
from crashmover.engine.plan import CopyOptions, Existing
from crashmover.errors import (
    CorruptCrash,
    CrashConflict,
    CrashExists,
    CrashIDNotFound,
    StorageError,
)
from crashmover.external.roles import CrashDestination, ReadableDestination
from crashmover.retry import RetryPolicy, is_retryable, tries_again

logger = logging.getLogger(__name__)

_TURNS = 3  # others may save the same crash, or remove it, each time after it was looked at


@dataclass
class DestinationResult:
    """What became of a crash at one destination, once that is final.

    :param wanted: what is to be saved, was saved, or would be; None: nothing
    :param is_same: whether nothing is to be saved, as all of the crash is there: it was compared
    :param attempts: how often it was tried to save it
    """

    crash: MeasuredCrash
    wanted: Crash | None = None
    is_same: bool = False
    attempts: int = 1
    error: Exception | None = None

    @property
    def saved(self) -> Set[Key]:
        """The parts that were saved, or would be."""
        if self.error or not self.wanted:
            return set()
        return {part.key for part in self.wanted.parts} & self.crash.measured.keys()

    @property
    def is_whole(self) -> bool:
        """Whether all that the source has is now known to be there: because it was saved, or was
        compared; not because the commit marker was seen."""
        return self.is_same or (self.wanted is not None and not self.error)


class Destination:
    """Copies crashes to a store, batch by batch, from any thread.

    :param retry: what to try again; None: as the store's own `Tuning` says
    """

    def __init__(
        self, store: CrashDestination, options: CopyOptions, retry: RetryPolicy | None = None
    ) -> None:
        self.store = store
        # Read from only where the plan has made sure that it can be.
        self._readable = cast(ReadableDestination, store)
        self.guard = Guard(store, retry, write=True)
        self._options = options
        # Whether a crash that is there is compared, and not only looked for.
        self._compares = options.existing is Existing.COMPARE or (
            options.existing is Existing.SKIP and options.verify
        )
        self._listed: Iterator[str] | None = None
        self._next: str | None = None

    def verify_access(self) -> None:
        """Take note when the store cannot be written to."""
        try:
            self.guard.retry.call(lambda: self.store.verify_access(write=True))
        except StorageError as error:
            self.guard.down = error

    def try_saving(self) -> None:
        """Log what the store will keep otherwise than was asked for; take note when it cannot keep
        that at all."""
        if self._options.dry_run or self.guard.down:
            return
        try:
            for difference in self.guard.retry.call(self.store.try_saving):
                logger.warning("%s", difference)
        except StorageError as error:
            self.guard.down = error

    # What is there, from a listing

    def use_listing(self, listed: Iterator[str]) -> None:
        """From now on `is_listed` asks this listing of the store, in the order of the ids."""
        if not self.guard.down:
            self._listed = listed
            self._advance()

    @property
    def is_complete(self) -> bool:
        """Whether `is_listed` knows what is not there, and not only what is."""
        return self._listed is not None and not self.guard.down

    def is_listed(self, crash_id: str) -> bool:
        """Return True if the listing has the crash; to be asked in the order of
        `crashid.sort_key`."""
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
                self.guard.down = error
            else:  # of one directory, perhaps: if so, each crash is asked for from now on
                self.guard.check_after(error)

    # Copying

    def copy(self, crashes: Sequence[tuple[MeasuredCrash, bool]]) -> list[DestinationResult]:
        """Save what the store lacks of these crashes.

        :param crashes: each with whether it is known not to be there
        """
        saves = [DestinationResult(crash) for crash, _ in crashes]
        for save, (_, is_lacking) in zip(saves, crashes, strict=True):
            self._decide(save, is_lacking)
        if not self._options.dry_run:
            wanted = [save for save in saves if save.wanted]
            self._save_and_settle(wanted)
            if self._options.verify:
                self._verify_saved(wanted)
        return saves

    # What is to be saved

    def _decide(self, save: DestinationResult, is_lacking: bool) -> None:
        save.wanted, save.is_same, save.error = None, False, None
        try:
            save.wanted = self._wanted(save.crash, is_lacking)
            save.is_same = save.wanted is None and self._compares
        except Exception as error:
            save.error = error

    def _wanted(self, crash: MeasuredCrash, is_lacking: bool) -> Crash | None:
        """Return what must be saved of the crash; None if nothing.

        :raises CrashConflict: something would have to be overwritten that must not be
        """
        if self.guard.down:
            raise self.guard.down
        if self._options.existing is Existing.OVERWRITE:
            return self._with_dumps_there(crash.crash)
        if not self._compares:
            return crash.crash if is_lacking else self._lacking(crash)
        try:
            difference = self._compare(crash)
        except CrashIDNotFound:
            return crash.crash
        return self._mending(crash, difference)

    def _with_dumps_there(self, crash: Crash) -> Crash:
        """A raw crash replaces all dumps: where these are not copied, they are kept."""
        kept = COLLECTED - self._options.kinds
        if Kind.RAW_CRASH in kept or not kept:
            return crash
        try:
            there = self._load(crash.crash_id, kept)
        except CrashIDNotFound:
            return crash
        return Crash(crash.crash_id, [*crash.parts, *there.parts])

    def _load(self, crash_id: str, kinds: Set[Kind]) -> Crash:
        return self.guard.call(lambda: self._readable.load_crash(crash_id, kinds))

    def _lacking(self, crash: MeasuredCrash) -> Crash | None:
        """Return what the destination has not, by the commit marker of what is copied."""
        crash_id = crash.crash.crash_id
        marker = marker_of(self._options.kinds)
        if marker in self._options.kinds:
            is_there = self.guard.call(lambda: self._readable.has_crash(crash_id, marker))
            return None if is_there else crash.crash
        try:  # dumps without the raw crash have no marker: by their names
            there = self._load(crash_id, self._options.kinds)
        except CrashIDNotFound:
            return crash.crash
        keys = crash.measured.keys() - {part.key for part in there.parts}
        return crash.only(keys) if keys else None

    def _compare(self, crash: MeasuredCrash) -> Difference:
        crash_id, kinds = crash.crash.crash_id, self._options.kinds
        load = partial(self._readable.load_crash, crash_id, kinds)
        return self.guard.call(lambda: compare(crash, load()))

    def has_all_of(self, crash: Crash) -> bool:
        """Return True if all of a crash is in the store, to the byte."""
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
        if conflict or (difference and self._options.existing is Existing.SKIP):
            raise CrashConflict(str(difference), crash_id=crash.crash.crash_id, uri=self.store.uri)
        keys = difference.missing | difference.differing
        return crash.only(keys) if keys else None

    # Saving it

    def _save_and_settle(self, saves: Sequence[DestinationResult]) -> None:
        """Save these; look again where another process saved a crash since it was looked at."""
        self._save(saves)
        for _ in range(_TURNS):
            taken = [save for save in saves if isinstance(save.error, CrashExists)]
            saves = [save for save in taken if self._is_wanted_again(save)]
            self._save(saves)

    def _is_wanted_again(self, save: DestinationResult) -> bool:
        """Return True if a crash has to be saved again, which is there now or was a moment ago.

        If it is the same it counts as saved: this process may have saved it, and only the answer
        was lost.
        """
        try:
            is_same = not self._compare(save.crash)
        except CrashIDNotFound:  # it has been removed again
            is_same = False
        except Exception as error:
            save.error = error
            return False
        if is_same:
            save.error = None
            return False
        self._decide(save, is_lacking=False)
        return save.wanted is not None

    def _save(self, saves: Sequence[DestinationResult]) -> None:
        """Save them, those again that failed in passing.

        Nothing is replaced, if that is not asked for: what was not there may be by now.
        """
        overwrite = self._options.existing is Existing.OVERWRITE
        save_all = self.store.save_crashes if overwrite else self._readable.create_crashes
        todo = [(save, save.wanted) for save in saves if save.wanted]
        attempts = 0

        def attempt() -> None:
            nonlocal attempts
            attempts += 1
            errors = save_all([wanted for _, wanted in todo])
            for (save, _), error in zip(todo, errors, strict=True):
                save.attempts, save.error = attempts, error
            todo[:] = [item for item in todo if item[0].error and tries_again(item[0].error)]
            if todo:
                raise todo[0][0].error or AssertionError

        try:
            if todo:
                self.guard.retry.call(attempt)
        except Exception as error:
            for save, _ in todo:
                save.error = save.error or error
            self.guard.check()
        else:
            self.guard.check_after(*(save.error for save in saves))

    # Reading it back

    def _verify_saved(self, saves: Sequence[DestinationResult]) -> None:
        for save in saves:
            try:
                if not save.error and save.wanted and (difference := self._compare(save.crash)):
                    raise CorruptCrash(
                        f"read back and not the same: {difference}",
                        crash_id=save.crash.crash.crash_id,
                        uri=self.store.uri,
                    )
            except Exception as error:
                save.error = error
