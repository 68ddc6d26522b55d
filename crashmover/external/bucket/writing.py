# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Save: the order in which the objects of a crash are put, in the place of what is there."""

import random
import time
from collections.abc import Iterator
from contextlib import suppress

from crashmover.crash import Crash
from crashmover.errors import CorruptCrash, StorageUnavailable
from crashmover.external.bucket import layouts as keys
from crashmover.external.bucket.claims import Claims
from crashmover.external.bucket.crashobjects import CrashObjects, RawCrash
from crashmover.external.bucket.obstore_client import SHA256
from crashmover.external.bucket.reading import Reader

_TRIES = 12
_PAUSE = 0.05  # seconds at least, before the first is repeated
_LONGEST_PAUSE = 5.0


class Save:
    """Saves crashes, one at a time for each crash id.

    The list of dumps is put first, the raw crash last, and both on the condition that there is
    none: of two processes that save a crash one notices the other.  Where there are no
    conditions, and where something is replaced, each looks for the other when it has put all.
    The list says whose it is: who finds his own there has begun after whoever else is at it, who
    will not find his; who does not find his own begins again.

    :param reader: of the same bucket
    """

    def __init__(self, objects: CrashObjects, claims: Claims, reader: Reader) -> None:
        self._objects = objects
        self._claims = claims
        self._reader = reader

    def __call__(self, crash: Crash) -> None:
        """Save the parts that there are."""
        if crash.raw_crash:
            raw = RawCrash(crash.raw_crash)
            is_new = not self._claims.is_claimed(crash.crash_id) and self._claims.claim(crash, raw)
            is_put = is_new and self._put_all(crash, raw, create=True)
            if not (is_put and self._claims.is_held(crash, raw)):
                self.replace(crash, raw)
            return
        if crash.dumps:
            self._add_dumps(crash)
        self._objects.put_processed(crash)

    def replace(self, crash: Crash, raw: RawCrash) -> None:
        """Put the crash in the place of the one that is there, or of what is left of one, until
        nobody else does the same at that moment."""
        for _ in self.turns(crash.crash_id):
            if self._put_in_place(crash, raw):
                return

    def settle(self, crash: Crash, raw: RawCrash) -> None:
        """See to it that all of one crash is there, after others have put theirs among ours.

        :raises CrashExists: it is another: nothing of ours is left
        """
        for turn in self.turns(crash.crash_id):
            if self._reader.is_whole_other(crash.crash_id, raw.sha256):
                raise self._objects.exists(crash.crash_id)
            if turn and self._put_in_place(crash, raw):  # whose claim it is goes first
                return

    def turns(self, crash_id: str) -> Iterator[int]:
        """Yield turns, and between them wait for the others to finish, who may wait for us: by
        chance, as long as a turn takes to twice that, then to four times that, and so on.

        :raises StorageUnavailable: these were enough
        """
        longest = 0.0
        for turn in range(_TRIES):
            time.sleep(random.uniform(0, longest))
            began = time.monotonic()
            yield turn
            longest = min(2 * max(longest, _PAUSE, time.monotonic() - began), _LONGEST_PAUSE)
        raise self._objects.busy(crash_id)

    def _put_in_place(self, crash: Crash, raw: RawCrash) -> bool:
        """Put it there; return whether nobody else has put anything since we began to."""
        in_place = self._make_way(crash, raw)
        names = [part.name for part in crash.dumps]
        self._objects.put_list(names, crash.crash_id, raw.sha256, save=raw.save)
        is_put = self._put_all(crash, raw, create=not in_place)
        return is_put and self._objects.is_whole(crash, raw)

    def _make_way(self, crash: Crash, raw: RawCrash) -> bool:
        """Take the crash that is there away, unless it is this one: return whether it is.

        To replace what is there by the same, nothing has to be taken away; so a crash that two
        queues hand out twice is never missing.
        """
        objects, crash_id = self._objects, crash.crash_id
        there = objects.raw_crash(crash_id)
        old_names = objects.dump_names(crash_id)
        if there and SHA256 not in there.metadata:  # another program's: the list may be ours
            with suppress(CorruptCrash, StorageUnavailable):  # it goes at this moment
                old_names |= objects.unlisted_dumps(there, crash_id)
        names = {part.name for part in crash.dumps}
        is_same = there and there.metadata.get(SHA256) == raw.sha256 == there.sha256_of_dumps
        if (
            there
            and is_same
            and names == old_names
            and all(objects.has(part, crash_id) for part in crash.dumps)
        ):
            return there.key == keys.raw_crash_keys(crash_id)[0]
        if there:
            _read_through(crash)
            objects.delete_raw_crash(crash_id)
        objects.delete_dumps(old_names - names, crash_id)
        return False

    def _put_all(self, crash: Crash, raw: RawCrash, *, create: bool) -> bool:
        """Put everything but the list of dumps, the raw crash last.

        :param create: only where there is no raw crash, as far as the server knows what that
            means; return whether there was none
        """
        for dump in crash.dumps:
            put = self._objects.put_dump(dump, crash.crash_id, raw.sha256)
            raw.put_with_it[keys.dump_key(crash.crash_id, dump.name)] = put
        self._objects.put_processed(crash)
        create = create and bool(self._claims.are_respected)
        return self._objects.put_raw_crash(raw, crash.crash_id, create=create)

    def _add_dumps(self, crash: Crash) -> None:
        """Add dumps to the crash that is there: they become visible when they are listed."""
        raw = self._objects.raw_crash_for_dumps(crash.crash_id)
        sha256 = raw.sha256_of_dumps
        for dump in crash.dumps:
            self._objects.put_dump(dump, crash.crash_id, sha256, added=True)
        self._objects.add_to_list(crash.dumps, crash.crash_id, raw)


def _read_through(crash: Crash) -> None:
    """Read all of a crash, and raise what is wrong with it before another makes way for it."""
    for part in crash.parts:
        for _ in part.chunks():
            pass
