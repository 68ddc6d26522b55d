# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Keep: a raw crash is put in the place of another, and its dumps stay as they are."""

from collections.abc import Callable

from crashmover.crash import Crash
from crashmover.errors import CrashExists, StorageDenied, StorageError, StorageUnavailable
from crashmover.external.bucket import layouts as keys
from crashmover.external.bucket.crashobjects import CrashObjects, RawCrash
from crashmover.external.bucket.obstore_client import RAW_CRASH_SHA256, SHA256, StoredObject
from crashmover.external.bucket.writing import Save
from crashmover.external.s3.s3errors import NotTheSame

_UNFINISHED = (
    "another save of it goes on, or was stopped half-way: save it with its dumps, or with an empty"
    " mapping, to replace that"
)
_TURNS_FOR_OTHERS = 6  # some seconds, in which another save can finish what it has begun


class Keep:
    """Replaces raw crashes, one at a time for each crash id, and touches no dump.

    One request replaces the raw crash, so the crash is never missing.  The new raw crash says
    which raw crash its dumps were saved with.  The request has the condition that the old raw
    crash is still there (``If-Match``).  A server may ignore conditions.  So this looks afterwards
    whether the list of dumps is still the one that it has kept.

    :param create: saves a crash where there is none
    """

    def __init__(self, objects: CrashObjects, save: Save, create: Callable[[Crash], None]) -> None:
        self._objects = objects
        self._save = save
        self._create = create
        self._if_match = True  # until a server refuses the condition

    def __call__(self, crash: Crash) -> None:
        """Save the raw crash and the processed crash, if there is one."""
        if crash.raw_crash is None:
            self._objects.put_processed(crash)
            return
        raw = RawCrash(crash.raw_crash)
        for turn in self._save.turns(crash.crash_id):
            if there := self._objects.raw_crash(crash.crash_id):
                is_saved = self._replace(there, crash, raw)
            else:
                is_saved = self._save_new(turn, crash)
            if is_saved:
                return

    def _replace(self, there: StoredObject, crash: Crash, raw: RawCrash) -> bool:
        """Put the raw crash in the place of the one that is there; return whether the dumps are
        still those that it has kept."""
        crash_id = crash.crash_id
        listed = self._objects.list_of_dumps(crash_id) or self._list(there, crash_id)
        self._objects.put_processed(crash)
        if not self._put(there, raw, crash_id, listed):
            return False
        if there.key != keys.raw_crash_keys(crash_id)[0]:
            self._objects.delete_older_raw_crashes(crash_id)
        return self._is_kept(crash_id, raw, listed)

    def _list(self, there: StoredObject, crash_id: str) -> StoredObject | None:
        """List the dumps beside a raw crash without a list: the new one may not name them."""
        names = self._objects.unlisted_dumps(there, crash_id)
        self._objects.put_list(names, crash_id, there.sha256_of_dumps)
        return self._objects.list_of_dumps(crash_id)

    def _put(
        self, there: StoredObject, raw: RawCrash, crash_id: str, listed: StoredObject | None
    ) -> bool:
        """Put the raw crash; return False where the old one is no longer there."""
        try:
            self._objects.put_in_place_of(there, raw, crash_id, listed, if_match=self._if_match)
        except NotTheSame:
            return False
        except (StorageDenied, StorageUnavailable):
            raise
        except StorageError:  # 501 Not Implemented, or another answer to an unknown condition
            if not self._if_match:
                raise
            self._if_match = False
            return self._put(there, raw, crash_id, listed)
        return True

    def _is_kept(self, crash_id: str, raw: RawCrash, listed: StoredObject | None) -> bool:
        now = self._objects.raw_crash(crash_id)
        if now and now.metadata.get(SHA256, raw.sha256) != raw.sha256:
            return True  # another save has replaced this one, and sees to its own dumps
        return now is not None and _save_of(self._objects.list_of_dumps(crash_id)) == _save_of(
            listed
        )

    def _save_new(self, turn: int, crash: Crash) -> bool:
        """Save a crash that is not there; return False where another save has begun it.

        :raises StorageUnavailable: that save does not go on; its dumps may be needed, so they stay
        """
        if self._objects.list_of_dumps(crash.crash_id):
            if turn >= _TURNS_FOR_OTHERS:
                raise self._objects.busy(crash.crash_id, _UNFINISHED)
            return False
        try:
            self._create(crash)
        except CrashExists:
            return False
        return True


def _save_of(listed: StoredObject | None) -> str | None:
    """Return which raw crash a list of dumps was saved with."""
    return listed.metadata.get(RAW_CRASH_SHA256) if listed else None
