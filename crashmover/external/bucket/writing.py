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

import random
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from threading import Lock

from crashmover.crash import Crash, Part
from crashmover.errors import (
    CorruptCrash,
    CrashExists,
    CrashIDNotFound,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.bucket import stamps
from crashmover.external.bucket.client import SHA256, ObjectChanged, ObjectExists, StoredObject
from crashmover.external.bucket.finding import Finder
from crashmover.external.bucket.layouts import format_dump_names
from crashmover.external.bucket.listing import MissingCache
from crashmover.external.bucket.reading import Reader
from crashmover.external.bucket.removing import Remover
from crashmover.external.bucket.stamps import RAW_CRASH_SHA256, SAVE, Metadata, SaveAttempt, is_of

_JSON = "application/json"
_BINARY = "application/octet-stream"

_TRIES = 12
_PAUSE = 0.05  # seconds at least, before the first is repeated
_LONGEST_PAUSE = 5.0
_TRIES_FOR_OTHERS = 6  # some seconds, in which another save can finish what it has begun

_BUSY = "other processes save the same crash at this moment"
_UNFINISHED = "another save of it goes on, or was stopped half-way: "
_OVERWRITE = f"{_UNFINISHED}--existing overwrite replaces that"
_WITH_DUMPS = f"{_UNFINISHED}save it with its dumps, or with an empty mapping, to replace that"


class Writer:
    """Saves crashes, one at a time for each crash id.

    :param finder: of the bucket
    :param reader: of the same
    :param remover: of the same
    :param missing: what listings have just found not to be there: a server that honours no
        conditions is not asked for it once more
    """

    def __init__(
        self, finder: Finder, reader: Reader, remover: Remover, missing: MissingCache
    ) -> None:
        self._finder = finder
        self._client = finder.client
        self._layout = finder.layout
        self._reader = reader
        self._remover = remover
        self._missing = missing
        self._learning = Lock()
        self._learned: bool | None = None
        self._if_match = True  # until a server refuses that condition
        self._begun: dict[str, str | None] = {}  # what `create` has reserved, and not finished

    # Saving: what is there is replaced

    def save(self, crash: Crash) -> None:
        """Save the parts that there are, in the place of those that are there.

        A crash that is there with another raw crash is removed before its dumps are replaced; for
        that moment a reader finds none.
        """
        if crash.raw_crash:
            attempt = SaveAttempt(crash, crash.raw_crash)
            is_new = not self._is_reserved(crash.crash_id) and self._reserve(attempt)
            is_put = is_new and self._put_all(attempt, create=True)
            if not (is_put and self._is_still_reserved(attempt)):
                self._replace(attempt)
            return
        if crash.dumps:
            self._add_dumps(crash)
        self._put_processed(crash)

    def _replace(self, attempt: SaveAttempt) -> None:
        """Put the crash in the place of what is there, until no other process does the same at
        that moment."""
        for _ in self._turns(attempt.crash_id):
            if self._put_in_place(attempt):
                return

    def _put_in_place(self, attempt: SaveAttempt) -> bool:
        """Put it there; return True if no other process has put anything since this began to."""
        in_place = self._make_way(attempt)
        self._put_list(attempt.names, attempt.crash_id, attempt.of_list())
        is_put = self._put_all(attempt, create=not in_place)
        return is_put and self._is_whole(attempt)

    def _make_way(self, attempt: SaveAttempt) -> bool:
        """Remove the crash that is there, unless it is this one: return True if it is.

        To replace a crash by the same, nothing has to be removed; so a crash that two queues hand
        out twice is never missing.
        """
        finder, crash, crash_id = self._finder, attempt.crash, attempt.crash_id
        there = finder.raw_crash(crash_id)
        old_names = finder.listed_dumps(crash_id) or set()
        if there and SHA256 not in there.metadata:  # another program's: the list may not be
            with suppress(CorruptCrash, StorageUnavailable):  # it goes at this moment
                old_names |= set(finder.unlisted_dumps(there))
        if (
            there
            and there.metadata.get(SHA256) == attempt.sha256
            and stamps.sha256_of_dumps(there.metadata) == attempt.sha256
            and attempt.names == old_names
            and all(finder.has(part, crash_id) for part in crash.dumps)
        ):
            return there.key == self._layout.raw_crash_keys(crash_id)[0]
        if there:
            _read_through(crash)
            self._remover.remove_raw_crash(crash_id, there)
        self._remover.remove_dumps(crash_id, old_names - attempt.names)
        return False

    def _turns(self, crash_id: str) -> Iterator[int]:
        """Yield turns, and between them wait for other processes to finish, which may wait for
        this one: by chance, as long as a turn takes to twice that, then to four times that, and so
        on.

        :raises StorageUnavailable: these were enough
        """
        longest = 0.0
        for turn in range(_TRIES):
            time.sleep(random.uniform(0, longest))
            began = time.monotonic()
            yield turn
            longest = min(2 * max(longest, _PAUSE, time.monotonic() - began), _LONGEST_PAUSE)
        raise self._busy(crash_id)

    # Creating: no raw crash and no dump is replaced

    def create(self, crash: Crash) -> None:
        """Save the parts that there are; replace no raw crash and no dump.

        The process that has reserved a crash has the turn.  No other can tell whether it still
        runs.  So what a save of the same crash has left is completed, and what this process itself
        has left is replaced; what a save of another crash has left stays until `save` replaces it.
        Dumps, too, are put on the condition that there are none: so a process that has lost its
        turn without knowing writes over no other's dump.

        If the server honours no conditions, two may have the turn.  A process that finds another's
        token does not leave before all of one crash is there, and nothing of its own among it: not
        even if what it did has failed, and is tried again.

        :raises CrashExists: the raw crash is there, or one of the dumps that are to be added
        """
        if crash.raw_crash:
            self._create(SaveAttempt(crash, crash.raw_crash))
        elif crash.dumps:
            self._create_dumps(crash)
        else:
            self._put_processed(crash)

    def _create(self, attempt: SaveAttempt) -> None:
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
            attempt.put |= self._put_new_dumps(attempt.crash, attempt.sha256)
        except StorageUnavailable:
            is_alone = is_new and self._conditions  # there was no other list
            if is_alone and self._withdraw(attempt):
                raise self._exists(crash_id) from None
            raise
        self._put_processed(attempt.crash)
        if not self._put_raw_crash(attempt, create=bool(self._conditions)):
            if is_new:
                self._withdraw(attempt)
            raise self._exists(crash_id)
        self._make_sure(attempt, is_new)

    def _begin(self, attempt: SaveAttempt) -> bool:
        """Reserve the crash if no process has; return True if none had."""
        if self._is_reserved(attempt.crash_id):
            return False
        self._expect_others(attempt)
        is_new = self._reserve(attempt)
        if is_new:
            self._begun[attempt.crash_id] = attempt.token
        return is_new

    def _expect_others(self, attempt: SaveAttempt) -> None:
        """Remember, before anything is put, that it may come to lie among another crash: even if
        the request that puts it fails, for it may have been put."""
        if not self._conditions:
            self._begun[attempt.crash_id] = attempt.token

    def _may_lie_among_others(self, attempt: SaveAttempt) -> bool:
        """Return True if this process has begun the crash already, and no condition has kept it
        from doing so."""
        crash_id = attempt.crash_id
        if crash_id not in self._begun:
            return False
        if self._conditions is None and self._finder.list_of_dumps(crash_id):
            self._learn(attempt.names, crash_id, attempt.of_list())
        return self._conditions is False

    def _make_sure(self, attempt: SaveAttempt, is_new: bool) -> None:
        """See to it that all of it is of this save: another may have put something meanwhile."""
        if is_new or not self._conditions:
            if not self._is_still_reserved(attempt):
                self._settle(attempt)
        elif not self._is_whole(attempt):
            if self._finder.list_of_dumps(attempt.crash_id):
                raise self._busy(attempt.crash_id)  # the process that replaces it finds this one
            self._replace(attempt)  # what it was to go on from was being removed

    def _settle(self, attempt: SaveAttempt) -> None:
        """See to it that all of one crash is there, after another process has put objects of its
        crash among the objects of this one.

        :raises CrashExists: it is another: nothing of this one is left
        """
        for turn in self._turns(attempt.crash_id):
            if self._reader.is_whole_other(attempt.crash_id, attempt.sha256):
                raise self._exists(attempt.crash_id)
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
            raise self._exists(crash_id)
        listed = self._finder.list_of_dumps(crash_id)
        if listed is None:  # it is being removed
            raise self._busy(crash_id)
        names = self._finder.listed_dumps(crash_id) or set()
        if attempt.names != names or not is_of(listed, attempt.sha256):
            if crash_id in self._begun and listed.metadata.get(SAVE) == self._begun[crash_id]:
                return False
            raise self._busy(crash_id, _OVERWRITE)
        self._expect_others(attempt)
        self._learn(attempt.names, crash_id, attempt.of_list())
        if self._conditions:
            attempt.token = listed.metadata.get(SAVE)
        else:
            self._try_to_list(attempt.names, crash_id, attempt.of_list())
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

    # Keeping: a raw crash is put in the place of another, and its dumps stay as they are

    def keep(self, crash: Crash) -> None:
        """Save the raw crash, and the processed crash if there is one, and touch no dump.

        One request replaces the raw crash, so the crash is never missing.  The new raw crash says
        which raw crash its dumps were saved with.  The request has the condition that the old raw
        crash is still there (``If-Match``).  A server may ignore conditions.  So this looks
        afterwards whether the list of dumps is still the one that it has kept.
        """
        if crash.raw_crash is None:
            self._put_processed(crash)
            return
        attempt = SaveAttempt(crash, crash.raw_crash)
        for turn in self._turns(crash.crash_id):
            if there := self._finder.raw_crash(crash.crash_id):
                is_saved = self._put_beside_dumps(there, attempt)
            else:
                is_saved = self._create_for_dumps(turn, crash)
            if is_saved:
                return

    def _put_beside_dumps(self, there: StoredObject, attempt: SaveAttempt) -> bool:
        """Put the raw crash in the place of the one that is there; return True if the dumps are
        still those that it has kept."""
        crash_id = attempt.crash_id
        listed = self._finder.list_of_dumps(crash_id) or self._list_unlisted(there, crash_id)
        self._put_processed(attempt.crash)
        metadata = stamps.of_raw_crash_beside(there, listed, attempt.sha256)
        if not self._put_in_place_of(there, attempt, metadata):
            return False
        if there.key != self._layout.raw_crash_keys(crash_id)[0]:
            self._remover.remove_raw_crash(crash_id, there)
        return self._are_kept(attempt, listed)

    def _list_unlisted(self, there: StoredObject, crash_id: str) -> StoredObject | None:
        """List the dumps beside a raw crash without a list: the new one may not name them."""
        names = self._finder.unlisted_dumps(there)
        metadata = stamps.of_save(stamps.sha256_of_dumps(there.metadata))
        self._put_list(names, crash_id, metadata)
        return self._finder.list_of_dumps(crash_id)

    def _put_in_place_of(
        self, there: StoredObject, attempt: SaveAttempt, metadata: Metadata
    ) -> bool:
        """Put the raw crash; return False if the old one is no longer there, as far as the server
        notices."""
        key = self._layout.raw_crash_keys(attempt.crash_id)[0]
        replaced = there if self._if_match and there.key == key else None
        try:
            self._client.put(
                key, attempt.body(), content_type=_JSON, metadata=metadata, replaced=replaced
            )
        except ObjectChanged:
            return False
        except (StorageDenied, StorageUnavailable):
            raise
        except StorageError:  # 501 Not Implemented, or another answer to an unknown condition
            if not self._if_match:
                raise
            self._if_match = False
            return self._put_in_place_of(there, attempt, metadata)
        return True

    def _are_kept(self, attempt: SaveAttempt, listed: StoredObject | None) -> bool:
        now = self._finder.raw_crash(attempt.crash_id)
        if now and now.metadata.get(SHA256, attempt.sha256) != attempt.sha256:
            return True  # another save has replaced this one, and sees to its own dumps
        listed_now = self._finder.list_of_dumps(attempt.crash_id)
        return now is not None and _save_of(listed_now) == _save_of(listed)

    def _create_for_dumps(self, turn: int, crash: Crash) -> bool:
        """Save a crash that is not there; return False if another save has begun it.

        :raises StorageUnavailable: that save does not go on; its dumps may be needed, so they stay
        """
        if self._finder.list_of_dumps(crash.crash_id):
            if turn >= _TRIES_FOR_OTHERS:
                raise self._busy(crash.crash_id, _WITH_DUMPS)
            return False
        try:
            self.create(crash)
        except CrashExists:
            return False
        return True

    # Dumps that come later: they become visible when they are listed

    def _add_dumps(self, crash: Crash) -> None:
        """Add dumps to the crash that is there, in the place of those of the same names."""
        raw = self._raw_crash_for_dumps(crash.crash_id)
        metadata = stamps.of_save(stamps.sha256_of_dumps(raw.metadata), added=True)
        for dump in crash.dumps:
            self._put_dump(dump, crash.crash_id, metadata)
        self._add_to_list(crash, raw)

    def _create_dumps(self, crash: Crash) -> None:
        """Add dumps that are not there."""
        crash_id = crash.crash_id
        raw = self._raw_crash_for_dumps(crash_id)
        found = self._finder.listed_dumps(crash_id)
        listed = set(self._finder.unlisted_dumps(raw)) if found is None else found
        if {part.name for part in crash.dumps} & listed:
            raise self._exists(crash_id)
        sha256 = stamps.sha256_of_dumps(raw.metadata)
        if found is None:
            self._put_list(listed, crash_id, stamps.of_save(sha256))
        self._learn(listed, crash_id, stamps.of_save(sha256))
        self._put_processed(crash)
        self._put_new_dumps(crash, sha256, added=True)
        self._add_to_list(crash, raw)

    def _raw_crash_for_dumps(self, crash_id: str) -> StoredObject:
        if raw := self._finder.raw_crash(crash_id):
            return raw
        reason = "no raw crash to add dumps to"
        raise CrashIDNotFound(crash_id, uri=self._client.uri, reason=reason)

    def _add_to_list(self, crash: Crash, raw: StoredObject) -> None:
        """Add dumps to the list; where there is none, to the dumps that are beside the raw crash:
        a list hides what it does not name."""
        added = {part.name for part in crash.dumps}
        listed = self._finder.listed_dumps(crash.crash_id)
        if listed is None or not added <= listed:
            names = set(self._finder.unlisted_dumps(raw)) if listed is None else listed
            metadata = stamps.of_save(stamps.sha256_of_dumps(raw.metadata))
            self._put_list(names | added, crash.crash_id, metadata)

    # The reservation: which process puts the list of dumps where there is none

    @property
    def _conditions(self) -> bool | None:
        """Whether the server honours conditions; None if that is not known yet."""
        if self._learned is None:
            self._learned = self._client.honours_conditions()
        return self._learned

    def _is_reserved(self, crash_id: str) -> bool:
        """Return True if a process has reserved the crash, where `_reserve` may not notice."""
        if self._conditions or self._missing.take(crash_id):
            return False
        return self._finder.list_of_dumps(crash_id) is not None

    def _reserve(self, attempt: SaveAttempt) -> bool:
        """Put the list of dumps where there is none; return True if there was none, as far as the
        server notices."""
        of_list = (attempt.names, attempt.crash_id, attempt.of_list())
        # The first thread finds out what the server honours, and the others wait for that.
        with self._learning if self._conditions is None else nullcontext():
            is_new = self._try_to_list(*of_list)
            self._learn(*of_list)
        return is_new

    def _is_still_reserved(self, attempt: SaveAttempt) -> bool:
        """Return True if no other process has reserved the crash since.  Of two that reserve it at
        the same moment, which only conditions prevent, the first notices by this."""
        return bool(self._conditions) or self._is_listed(attempt)

    def _is_listed(self, attempt: SaveAttempt) -> bool:
        """Return True if the list of dumps is of this save: every save puts the list first."""
        listed = self._finder.list_of_dumps(attempt.crash_id)
        return listed is not None and attempt.has_put_list(listed)

    def _is_whole(self, attempt: SaveAttempt) -> bool:
        """Return True if everything that was put is still there, and of this save."""
        crash_id = attempt.crash_id
        there = self._finder.raw_crash(crash_id)
        dumps = (self._finder.dump(crash_id, part.name) for part in attempt.crash.dumps)
        return (
            there is not None
            and there.metadata.get(SHA256, attempt.sha256) == attempt.sha256
            and all(dump is not None and attempt.has_put_dump(dump) for dump in dumps)
            and self._is_listed(attempt)
        )

    def _learn(self, names: set[str], crash_id: str, metadata: Metadata) -> None:
        """Find out whether the server honours conditions, by putting a list of dumps that is there
        once more: if it does, it refuses."""
        if self._conditions is None and self._try_to_list(names, crash_id, metadata):
            self._learned = False

    def _try_to_list(self, names: set[str], crash_id: str, metadata: Metadata) -> bool:
        """Put a list of dumps if there is none, as far as the server knows what that means."""
        try:
            create = self._conditions is not False
            self._put_list(names, crash_id, metadata, create=create)
        except ObjectExists:
            self._learned = True
            return False
        except (StorageDenied, StorageUnavailable):
            raise
        except StorageError:  # 501 Not Implemented, or another answer to an unknown condition
            if self._conditions is not None:
                raise
            self._learned = False
            return self._try_to_list(names, crash_id, metadata)
        return True

    # The objects

    def _put_all(self, attempt: SaveAttempt, *, create: bool) -> bool:
        """Put everything but the list of dumps, the raw crash last.

        :param create: only if there is no raw crash, as far as the server knows what that means;
            return True if there was none
        """
        metadata = stamps.of_save(attempt.sha256)
        for dump in attempt.crash.dumps:
            key = self._layout.dump_key(attempt.crash_id, dump.name)
            attempt.put[key] = self._put_dump(dump, attempt.crash_id, metadata)
        self._put_processed(attempt.crash)
        return self._put_raw_crash(attempt, create=create and bool(self._conditions))

    def _put_new_dumps(
        self, crash: Crash, sha256: str | None, *, added: bool = False
    ) -> dict[str, str | None]:
        """Put dumps that are not there; return, by their keys, their SHA-256 if it is known.

        :raises StorageUnavailable: another is there
        """
        create, metadata = bool(self._conditions), stamps.of_save(sha256, added=added)
        put: dict[str, str | None] = {}
        for dump in crash.dumps:
            key = self._layout.dump_key(crash.crash_id, dump.name)
            try:
                put[key] = self._put_dump(dump, crash.crash_id, metadata, create=create)
            except ObjectExists:
                there = self._finder.dump(crash.crash_id, dump.name)
                is_ours = there and is_of(there, sha256)
                if not there or not is_ours or not self._finder.has(dump, crash.crash_id):
                    raise self._busy(crash.crash_id, _OVERWRITE) from None
                put[key] = there.metadata.get(SHA256)
        return put

    def _put_dump(
        self, dump: Part, crash_id: str, metadata: Metadata, *, create: bool = False
    ) -> str | None:
        """Put a dump; return its SHA-256 if it is known.

        :raises ObjectExists: it was to be created and one is there
        """
        key = self._layout.dump_key(crash_id, dump.name)
        return self._client.put(key, dump, content_type=_BINARY, metadata=metadata, create=create)

    def _put_list(
        self, names: Iterable[str], crash_id: str, metadata: Metadata, *, create: bool = False
    ) -> None:
        """Put the list of dumps; raises as `_put_dump`."""
        key, data = self._layout.dump_names_key(crash_id), format_dump_names(list(names))
        self._client.put(key, data, content_type=_JSON, metadata=metadata, create=create)

    def _put_processed(self, crash: Crash) -> None:
        """Put the processed crash, if there is one."""
        if part := crash.processed_crash:
            key = self._layout.processed_crash_key(crash.crash_id)
            self._client.put(key, part, content_type=_JSON, metadata={})

    def _put_raw_crash(self, attempt: SaveAttempt, *, create: bool) -> bool:
        """Put it; return False if it was to be created and one is there."""
        key, metadata = self._layout.raw_crash_keys(attempt.crash_id)[0], attempt.of_raw_crash()
        try:
            self._client.put(
                key, attempt.body(), content_type=_JSON, metadata=metadata, create=create
            )
        except ObjectExists:
            return False
        return True

    def _busy(self, crash_id: str, reason: str = _BUSY) -> StorageUnavailable:
        return StorageUnavailable(reason, crash_id=crash_id, uri=self._client.uri)

    def _exists(self, crash_id: str) -> CrashExists:
        return CrashExists(crash_id, uri=self._client.uri)


def _read_through(crash: Crash) -> None:
    """Read all of a crash, and raise what is wrong with it before another makes way for it."""
    for part in crash.parts:
        for _ in part.chunks():
            pass


def _save_of(listed: StoredObject | None) -> str | None:
    """Return which raw crash a list of dumps was saved with."""
    return listed.metadata.get(RAW_CRASH_SHA256) if listed else None
