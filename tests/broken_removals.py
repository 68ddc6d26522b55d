# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Stores that break what is promised of removing many crashes, each in its own way."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence

from crashmover.crash import Crash
from crashmover.errors import CrashIDNotFound
from crashmover.external.crashstorage_base import Removed, never
from crashmover.external.fs.crashstorage import FSPermanentStorage

IsStopped = Callable[[], bool]


class RemovesWhateverIsThere(FSPermanentStorage):
    """Does not look again."""

    def remove_loaded(self, crash: Crash) -> None:
        self.remove(crash.crash_id)


class KeepsWhatWasLoaded(FSPermanentStorage):
    """Only looks."""

    def remove_loaded(self, crash: Crash) -> None:
        self._refuse_changed(crash)


class RemovesSeveralGladly(FSPermanentStorage):
    """Never looked whether they were there."""

    def remove_crashes(self, crash_ids: Sequence[str]) -> list[Exception | None]:
        results = super().remove_crashes(crash_ids)
        return [None if isinstance(error, CrashIDNotFound) else error for error in results]


class KeepsProcessedOfDays(FSPermanentStorage):
    """Goes by the raw crashes: a processed crash alone stays."""

    def remove_days(
        self, since: dt.date, until: dt.date, is_stopped: IsStopped = never
    ) -> Iterator[Removed]:
        crash_ids = list(self.new_crashes(since, until))
        yield from zip(crash_ids, self.remove_crashes(crash_ids), strict=True)


class RemovesFromMonday(FSPermanentStorage):
    """Drops the whole week in which the first day is."""

    def remove_days(
        self, since: dt.date, until: dt.date, is_stopped: IsStopped = never
    ) -> Iterator[Removed]:
        monday = since - dt.timedelta(days=since.weekday())
        return super().remove_days(monday, until, is_stopped)


class MindsEmptyDays(FSPermanentStorage):
    def remove_days(
        self, since: dt.date, until: dt.date, is_stopped: IsStopped = never
    ) -> Iterator[Removed]:
        removed = list(super().remove_days(since, until, is_stopped))
        if not removed and not is_stopped():
            raise CrashIDNotFound("", uri=self.uri)
        yield from removed


class SaysLessThanItRemoves(FSPermanentStorage):
    """Who is stopped says no more, and has gone on."""

    def remove_days(
        self, since: dt.date, until: dt.date, is_stopped: IsStopped = never
    ) -> Iterator[Removed]:
        for removed in list(super().remove_days(since, until)):
            if is_stopped():
                return
            yield removed


BREAKS: dict[str, type[FSPermanentStorage]] = {
    "test_a_crash_is_removed_that_is_as_it_was_loaded": KeepsWhatWasLoaded,
    "test_a_crash_that_has_changed_since_it_was_loaded_stays": RemovesWhateverIsThere,
    "test_a_day_is_removed_with_all_its_crashes_and_no_other": KeepsProcessedOfDays,
    "test_both_ends_of_a_range_are_removed_and_nothing_beside_them": RemovesFromMonday,
    "test_days_without_crashes_are_removed_without_a_word": MindsEmptyDays,
    "test_several_crashes_are_removed_and_each_has_its_own_result": RemovesSeveralGladly,
    "test_who_is_told_to_stop_removes_no_more_and_says_all_that_is_gone": SaysLessThanItRemoves,
}
