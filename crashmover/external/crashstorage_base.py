# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""CrashStorageBase: a store that has every role, and whose crashes can be removed.

The author of a backend writes `from_uri`, `load_crash`, `save_crash`, `remove` and
`new_crashes`; the rest stands on these.
"""

import datetime as dt
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

from crashmover.crash import Crash
from crashmover.errors import CrashChanged, CrashIDNotFound, CrashMoverError, StorageError
from crashmover.external.roles import ListedSource, ReadableDestination, results_of
from crashmover.external.socorro import SocorroAPI

Removed = tuple[str, Exception | None]
"""A crash id, and None or why the crash was not removed."""

_REMOVED_AT_ONCE = 128  # crashes


def never() -> bool:
    """Return False: nothing has asked to stop."""
    return False


class CrashStorageBase(ListedSource, ReadableDestination, SocorroAPI):
    """A store of crashes: a listed source, and a destination that can be read back."""

    @abstractmethod
    def remove(self, crash_id: str) -> None:
        """Remove all parts of this crash and nothing of any other.

        :raises CrashIDNotFound: there was nothing of it
        """

    def remove_loaded(self, crash: Crash) -> None:
        """Remove a crash that was loaded from here, if it is still what it was then: what was
        replaced or added since, and what no reader sees beside it, must stay.

        This default looks, and then removes: another process may come in between.  A store that
        can do better keeps it out.

        :param crash: with all parts, and read: before that, not every store knows what a part was
        :raises CrashChanged: there is something else, which stays
        :raises CrashIDNotFound: there is no raw crash any more
        """
        self._refuse_changed(crash)
        self.remove(crash.crash_id)

    def _refuse_changed(self, crash: Crash) -> None:
        if self.load_crash(crash.crash_id).versions() != crash.versions():
            raise CrashChanged(crash.crash_id, uri=self.uri)

    def remove_crashes(self, crash_ids: Sequence[str]) -> list[Exception | None]:
        """Remove several crashes; return for each None or what `remove` would raise.

        :param crash_ids: each once
        """
        return results_of(self.remove, crash_ids)

    def remove_days(
        self, since: dt.date, until: dt.date, is_stopped: Callable[[], bool] = never
    ) -> Iterator[Removed]:
        """Remove every crash of these days, also where only a processed crash is there; yield
        each, once, when that is final, ordered by `crashid.sort_key`.

        What other processes save into these days meanwhile is removed, and yielded, or stays
        whole.

        :param since: the first day, by the id's date
        :param until: the last day, which is included
        :param is_stopped: is asked, now and then, whether to begin with no further crash; all
            that was removed by then is still yielded
        :raises StorageError: a day could not be listed in full, and more may be there
        """
        crash_ids = self.all_crashes(since, until)
        batch: list[str] = []
        failure: StorageError | None = None
        while not failure and not is_stopped():
            try:
                batch.extend(islice(crash_ids, _REMOVED_AT_ONCE))
            except StorageError as error:  # what was listed before is well all the same
                failure = error
            if not batch:
                break
            for crash_id, reason in zip(batch, self.remove_crashes(batch), strict=True):
                if not isinstance(reason, CrashIDNotFound):  # another process was quicker
                    yield crash_id, reason
            batch.clear()
        if failure:
            raise failure

    def _take_back(self, crash_id: str) -> None:
        with suppress(CrashMoverError):
            self.remove(crash_id)
