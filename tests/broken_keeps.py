# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Stores that break what is promised of `save_keeping_dumps`, each in its own way."""

import time
from contextlib import suppress

from crashmover.crash import Crash, Kind, Part
from crashmover.errors import CrashChanged, CrashIDNotFound, StorageError
from crashmover.external.fs.crashstorage import FSPermanentStorage


class DropsDumps(FSPermanentStorage):
    """Takes None for no dumps."""

    def save_keeping_dumps(self, crash: Crash) -> None:
        self.save_crash(crash)


class DropsDumpsOfOthers(DropsDumps):
    """Saves when another has just created the crash."""

    def save_keeping_dumps(self, crash: Crash) -> None:
        end = time.monotonic() + 5
        while not self.has_crash(crash.crash_id) and time.monotonic() < end:
            time.sleep(0.001)
        super().save_keeping_dumps(crash)


class TakesNoDumpsForNone(FSPermanentStorage):
    """Keeps the dumps where an empty mapping is given."""

    def save_crash(self, crash: Crash) -> None:
        if crash.raw_crash and not crash.dumps:
            self.save_keeping_dumps(crash)
        else:
            super().save_crash(crash)


class KeepsOnlyWhatIsThere(FSPermanentStorage):
    def save_keeping_dumps(self, crash: Crash) -> None:
        if not self.has_crash(crash.crash_id):
            raise CrashIDNotFound(crash.crash_id)
        super().save_keeping_dumps(crash)


class RemovesFirst(FSPermanentStorage):
    """Reads the dumps, removes the crash, and then saves it with them."""

    def save_keeping_dumps(self, crash: Crash) -> None:
        dumps: list[Part] = []
        if self.has_crash(crash.crash_id):
            parts = self.load_crash(crash.crash_id, {Kind.DUMP}).parts
            dumps = [Part.of_bytes(part.kind, part.read(), part.name) for part in parts]
            self.remove(crash.crash_id)
        self.save_crash(Crash(crash.crash_id, [*crash.parts, *dumps]))


class AddsDumpsLater(FSPermanentStorage):
    """Saves the raw crash, and then the dumps that it had."""

    def save_keeping_dumps(self, crash: Crash) -> None:
        parts = self.load_crash(crash.crash_id, {Kind.DUMP}).parts
        dumps = [Part.of_bytes(part.kind, part.read(), part.name) for part in parts]
        self.save_crash(crash)
        time.sleep(0.05)
        if dumps:
            self.save_crash(Crash(crash.crash_id, dumps))


class KeepsOneDump(FSPermanentStorage):
    """Saves what it has found, as far as it knows its names, after all others."""

    def save_keeping_dumps(self, crash: Crash) -> None:
        time.sleep(0.3)
        super().save_keeping_dumps(crash)
        dumps = self.load_crash(crash.crash_id, {Kind.DUMP}).parts
        with suppress(StorageError):
            self.save_crash(Crash(crash.crash_id, [*crash.parts, *dumps[:1]]))


class KeepsForGood(FSPermanentStorage):
    """Refuses more dumps."""

    def save_crash(self, crash: Crash) -> None:
        if crash.dumps and not crash.raw_crash:
            raise StorageError("its dumps are kept")
        super().save_crash(crash)


class RemovesNothingLoaded(FSPermanentStorage):
    def remove_loaded(self, crash: Crash) -> None:
        raise CrashChanged(crash.crash_id)


BREAKS: dict[str, type[FSPermanentStorage]] = {
    "test_a_crash_that_is_missing_is_saved_without_dumps": KeepsOnlyWhatIsThere,
    "test_a_crash_with_kept_dumps_is_removed_whole": RemovesNothingLoaded,
    "test_a_large_dump_is_kept": DropsDumps,
    "test_a_raw_crash_that_cannot_be_read_changes_nothing": RemovesFirst,
    "test_a_reader_never_sees_a_crash_without_its_kept_dumps": AddsDumpsLater,
    "test_an_empty_mapping_removes_the_dumps": TakesNoDumpsForNone,
    "test_kept_dumps_can_be_replaced_and_added_to": KeepsForGood,
    "test_none_keeps_the_dumps": DropsDumps,
    "test_of_one_that_creates_and_one_that_keeps_the_dumps_stay": DropsDumpsOfOthers,
    "test_savers_that_race_lose_no_dump_and_mix_none": KeepsOneDump,
    "test_the_processed_crash_stays_where_none_is_given": RemovesFirst,
}
