# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Stores that break what is promised of `create_crashes`, each in its own way."""

from collections.abc import Sequence
from threading import Barrier
from typing import Any

from crashmover.crash import Crash, Kind
from crashmover.errors import CrashExists
from crashmover.external.fs.crashstorage import FSPermanentStorage

Results = list[Exception | None]


class CreatesNothing(FSPermanentStorage):
    def create_crashes(self, crashes: Sequence[Crash]) -> Results:
        return [None] * len(crashes)


class Replaces(FSPermanentStorage):
    """Saves as ever."""

    def create_crashes(self, crashes: Sequence[Crash]) -> Results:
        return self.save_crashes(crashes)


class LooksAtAllFirst(FSPermanentStorage):
    """Looks at all of a batch, and then saves it."""

    def create_crashes(self, crashes: Sequence[Crash]) -> Results:
        there = {crash.crash_id for crash in crashes if self.has_crash(crash.crash_id)}
        return [self._save_or_refuse(crash, crash.crash_id in there) for crash in crashes]

    def _save_or_refuse(self, crash: Crash, exists: bool) -> Exception | None:
        return CrashExists(crash.crash_id) if exists else self.save_crashes([crash])[0]


class LooksAndThenSaves(LooksAtAllFirst):
    """Lets others come in between: here they always do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._between = Barrier(8, timeout=20)

    def _save_or_refuse(self, crash: Crash, exists: bool) -> Exception | None:
        self._between.wait()
        return super()._save_or_refuse(crash, exists)


class Refuses(FSPermanentStorage):
    """Refuses what it had better not."""

    def create_crashes(self, crashes: Sequence[Crash]) -> Results:
        results = super().create_crashes([each for each in crashes if not self._minds(each)])
        return results or [CrashExists(crash.crash_id) for crash in crashes]

    def _minds(self, crash: Crash) -> bool:
        raise NotImplementedError


class RefusesDumps(Refuses):
    """A crash that is there gets no dump any more."""

    def _minds(self, crash: Crash) -> bool:
        return self.has_crash(crash.crash_id)


class KeepsProcessed(Refuses):
    """The first processed crash is the last."""

    def _minds(self, crash: Crash) -> bool:
        return self.has_crash(crash.crash_id, Kind.PROCESSED_CRASH)


class TriesOnce(Refuses):
    """What failed counts as there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tried: set[str] = set()

    def _minds(self, crash: Crash) -> bool:
        was_tried = crash.crash_id in self._tried
        self._tried.add(crash.crash_id)
        return was_tried


class CreatesNothingGladly(FSPermanentStorage):
    def create_crashes(self, crashes: Sequence[Crash]) -> Results:
        results = super().create_crashes(crashes)
        return [e if crash.parts else None for crash, e in zip(crashes, results, strict=True)]


BREAKS: dict[str, type[FSPermanentStorage]] = {
    "test_a_crash_of_nothing_is_not_created": CreatesNothingGladly,
    "test_a_crash_that_could_not_be_created_can_be_created_later": TriesOnce,
    "test_a_processed_crash_is_replaced_all_the_same": KeepsProcessed,
    "test_dumps_alone_are_created_beside_those_that_are_there": RefusesDumps,
    "test_of_many_that_create_one_crash_one_does": LooksAndThenSaves,
    "test_of_two_by_one_id_in_a_batch_the_first_is_created": LooksAtAllFirst,
    "test_what_is_not_there_is_created": CreatesNothing,
    "test_what_is_there_is_not_replaced": Replaces,
}
