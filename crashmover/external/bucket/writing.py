# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Writing: the order in which the objects of a crash are put.

The list of dumps is put first, the raw crash last.  Both are put on the condition that there is
none (``If-None-Match``).  So the list of dumps is a reservation: of two processes that save one
crash, one notices the other before it touches anything; and a new crash costs one request for each
of its objects.

A server may not honour conditions, and what is replaced cannot be put on them.  Then each process
looks for the other one after it has put everything.  The list of dumps has a token of its save.  A
process that finds its own token has begun after all others, and these will find it.  A process
that finds another token begins again.
"""

from contextlib import suppress
from functools import partial

from crashmover.crash import Crash
from crashmover.errors import CorruptCrash, CrashExists, StorageUnavailable
from crashmover.external.bucket import stamps
from crashmover.external.bucket.client import SHA256
from crashmover.external.bucket.finding import Finder
from crashmover.external.bucket.putting import OVERWRITE, Putter
from crashmover.external.bucket.reading import Reader
from crashmover.external.bucket.removing import Remover
from crashmover.external.bucket.stamps import SAVE, SaveAttempt, is_of


class Writer:
    """Saves whole crashes, one at a time for each crash id.

    :param finder: of the bucket
    :param putter: of the same
    :param reader: of the same
    :param remover: of the same
    """

    def __init__(self, finder: Finder, putter: Putter, reader: Reader, remover: Remover) -> None:
        self._finder = finder
        self._client = finder.client
        self._layout = finder.layout
        self._putter = putter
        self._reader = reader
        self._remover = remover
        self._begun: dict[str, str | None] = {}  # what `create` has reserved, and not finished

    # Saving: what is there is replaced

    def save(self, attempt: SaveAttempt) -> None:
        """Save a crash in the place of what is there.

        A crash that is there with another raw crash is removed before its dumps are replaced; for
        that moment a reader finds none.
        """
        putter = self._putter
        is_new = not putter.is_reserved(attempt.crash_id) and putter.reserve(attempt)
        is_put = is_new and self._put_all(attempt, create=True)
        if not (is_put and putter.is_still_reserved(attempt)):
            self._replace(attempt)

    def _replace(self, attempt: SaveAttempt) -> None:
        """Put the crash in the place of what is there, until no other process does the same at
        that moment."""
        for _ in self._putter.turns(attempt.crash_id):
            if self._put_in_place(attempt):
                return

    def _put_in_place(self, attempt: SaveAttempt) -> bool:
        """Put it there; return True if no other process has put anything since this began to."""
        in_place = self._make_way(attempt)
        self._putter.put_list(attempt.names, attempt.crash_id, attempt.of_list())
        is_put = self._put_all(attempt, create=not in_place)
        return is_put and self._putter.is_whole(attempt)

    def _make_way(self, attempt: SaveAttempt) -> bool:
        """Remove the crash that is there, unless it is this one: return True if it is.

        To replace a crash by the same, nothing has to be removed; so a crash that two queues hand
        out twice is never missing.
        """
        finder, crash, crash_id = self._finder, attempt.crash, attempt.crash_id
        with self._client.rounds() as begin:
            ask, ask_list = (
                begin(partial(finder.raw_crash, crash_id)),
                begin(partial(finder.listed_dumps, crash_id)),
            )
            there, old_names = ask(), ask_list() or set()
        if there and SHA256 not in there.metadata:  # another program's: the list may not be
            with suppress(CorruptCrash, StorageUnavailable):  # it goes at this moment
                old_names |= set(finder.unlisted_dumps(there))
        if (
            there
            and there.metadata.get(SHA256) == attempt.sha256
            and stamps.sha256_of_dumps(there.metadata) == attempt.sha256
            and attempt.names == old_names
            and self._has_all(crash)
        ):
            return there.key == self._layout.raw_crash_keys(crash_id)[0]
        if there:
            _read_through(crash)
            self._remover.remove_raw_crash(crash_id, there)
        self._remover.remove_dumps(crash_id, old_names - attempt.names)
        return False

    def _has_all(self, crash: Crash) -> bool:
        """Return True if all its dumps are there, to the byte."""
        with self._client.rounds() as begin:
            has = [begin(partial(self._finder.has, part, crash.crash_id)) for part in crash.dumps]
            return all(answer() for answer in has)

    # Creating: no raw crash and no dump is replaced

    def create(self, attempt: SaveAttempt) -> None:
        """Save a crash; replace no raw crash and no dump.

        The process that has reserved a crash has the turn.  No other can tell whether it still
        runs.  So what a save of the same crash has left is completed, and what this process itself
        has left is replaced; what a save of another crash has left stays until `save` replaces it.
        Dumps, too, are put on the condition that there are none: so a process that has lost its
        turn without knowing writes over no other's dump.

        If the server honours no conditions, two may have the turn.  A process that finds another's
        token does not leave before all of one crash is there, and nothing of its own among it: not
        even if what it did has failed, and is tried again.

        :raises CrashExists: the raw crash is there
        """
        try:
            if self._may_lie_among_others(attempt):
                self._settle(attempt)
            else:
                self._create_all(attempt)
        except CrashExists:
            self._begun.pop(attempt.crash_id, None)
            raise
        self._begun.pop(attempt.crash_id, None)

    def _create_all(self, attempt: SaveAttempt) -> None:
        crash_id = attempt.crash_id
        is_new = self._begin(attempt)
        if not is_new and not self._take_over(attempt):
            self._settle(attempt)
            return
        try:
            attempt.put |= self._putter.put_new_dumps(attempt.crash, attempt.sha256)
        except StorageUnavailable:
            is_alone = is_new and self._putter.conditions  # there was no other list
            if is_alone and self._withdraw(attempt):
                raise self._putter.exists(crash_id) from None
            raise
        self._putter.put_processed(attempt.crash)
        if not self._putter.put_raw_crash(attempt, create=bool(self._putter.conditions)):
            if is_new:
                self._withdraw(attempt)
            raise self._putter.exists(crash_id)
        self._make_sure(attempt, is_new)

    def _begin(self, attempt: SaveAttempt) -> bool:
        """Reserve the crash if no process has; return True if none had."""
        if self._putter.is_reserved(attempt.crash_id):
            return False
        self._expect_others(attempt)
        is_new = self._putter.reserve(attempt)
        if is_new:
            self._begun[attempt.crash_id] = attempt.token
        return is_new

    def _expect_others(self, attempt: SaveAttempt) -> None:
        """Remember, before anything is put, that it may come to lie among another crash: even if
        the request that puts it fails, for it may have been put."""
        if not self._putter.conditions:
            self._begun[attempt.crash_id] = attempt.token

    def _may_lie_among_others(self, attempt: SaveAttempt) -> bool:
        """Return True if this process has begun the crash already, and no condition has kept it
        from doing so."""
        crash_id = attempt.crash_id
        if crash_id not in self._begun:
            return False
        if self._putter.conditions is None and self._finder.list_of_dumps(crash_id):
            self._putter.learn(attempt.names, crash_id, attempt.of_list())
        return self._putter.conditions is False

    def _make_sure(self, attempt: SaveAttempt, is_new: bool) -> None:
        """See to it that all of it is of this save: another may have put something meanwhile."""
        if is_new or not self._putter.conditions:
            if not self._putter.is_still_reserved(attempt):
                self._settle(attempt)
        elif not self._putter.is_whole(attempt):
            if self._finder.list_of_dumps(attempt.crash_id):
                # The process that replaces it finds this one.
                raise self._putter.busy(attempt.crash_id)
            self._replace(attempt)  # what it was to go on from was being removed

    def _settle(self, attempt: SaveAttempt) -> None:
        """See to it that all of one crash is there, after another process has put objects of its
        crash among the objects of this one.

        :raises CrashExists: it is another: nothing of this one is left
        """
        for turn in self._putter.turns(attempt.crash_id):
            if self._reader.is_whole_other(attempt.crash_id, attempt.sha256):
                raise self._putter.exists(attempt.crash_id)
            if turn and self._put_in_place(attempt):  # the process with the token goes first
                return

    def _take_over(self, attempt: SaveAttempt) -> bool:
        """Go on where a save of the same crash was stopped, if it was.  Return False if it was a
        save of another crash by this process.

        Perhaps it was not stopped: where conditions keep it from nothing, it has to notice.

        :raises CrashExists: it was not stopped: all is there
        :raises StorageUnavailable: it may still go on
        """
        crash_id = attempt.crash_id
        if self._finder.raw_crash(crash_id):
            raise self._putter.exists(crash_id)
        listed = self._finder.list_of_dumps(crash_id)
        if listed is None:  # it is being removed
            raise self._putter.busy(crash_id)
        names = self._finder.listed_dumps(crash_id) or set()
        if attempt.names != names or not is_of(listed, attempt.sha256):
            if crash_id in self._begun and listed.metadata.get(SAVE) == self._begun[crash_id]:
                return False
            raise self._putter.busy(crash_id, OVERWRITE)
        self._expect_others(attempt)
        self._putter.learn(attempt.names, crash_id, attempt.of_list())
        if self._putter.conditions:
            attempt.token = listed.metadata.get(SAVE)
        else:
            self._putter.try_to_list(attempt.names, crash_id, attempt.of_list())
        return True

    def _withdraw(self, attempt: SaveAttempt) -> bool:
        """Remove the list of dumps of this save from beside another program's raw crash, which had
        none; return True if that is so.  The dumps of that crash are found without a list, and are
        hidden by a list that does not name them."""
        there = self._finder.raw_crash(attempt.crash_id)
        listed = self._finder.list_of_dumps(attempt.crash_id)
        if (
            there
            and there.metadata.get(SHA256) != attempt.sha256
            and listed
            and is_of(listed, attempt.sha256)
        ):
            self._client.delete({listed.key: listed.version})
            return True
        return False

    def _put_all(self, attempt: SaveAttempt, *, create: bool) -> bool:
        """Put everything but the list of dumps, the raw crash last.

        :param create: only if there is no raw crash, as far as the server knows what that means;
            return True if there was none
        """
        attempt.put |= self._putter.put_dumps(attempt.crash, stamps.of_save(attempt.sha256))
        self._putter.put_processed(attempt.crash)
        return self._putter.put_raw_crash(attempt, create=create and bool(self._putter.conditions))


def _read_through(crash: Crash) -> None:
    """Read all of a crash, and raise what is wrong with it before another makes way for it."""
    for part in crash.parts:
        for _ in part.chunks():
            pass
