# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Adder: what comes to a crash that is there: a new raw crash beside its dumps, or more dumps."""

from crashmover.crash import Crash
from crashmover.errors import (
    CrashExists,
    CrashIDNotFound,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.bucket import stamps
from crashmover.external.bucket.client import SHA256, ObjectChanged, StoredObject
from crashmover.external.bucket.finding import Finder
from crashmover.external.bucket.putting import JSON, UNFINISHED, Putter
from crashmover.external.bucket.removing import Remover
from crashmover.external.bucket.stamps import RAW_CRASH_SHA256, Metadata, SaveAttempt
from crashmover.external.bucket.writing import Writer

_TRIES_FOR_OTHERS = 6  # some seconds, in which another save can finish what it has begun
_WITH_DUMPS = f"{UNFINISHED}save it with its dumps, or with an empty mapping, to replace that"


class Adder:
    """Puts objects beside those of a crash that is there.

    :param finder: of the bucket
    :param putter: of the same
    :param remover: of the same
    :param writer: saves a crash that is not there
    """

    def __init__(self, finder: Finder, putter: Putter, remover: Remover, writer: Writer) -> None:
        self._finder = finder
        self._client = finder.client
        self._layout = finder.layout
        self._putter = putter
        self._remover = remover
        self._writer = writer
        self._if_match = True  # until a server refuses that condition

    # Keeping: a raw crash is put in the place of another, and its dumps stay as they are

    def keep(self, attempt: SaveAttempt) -> None:
        """Save the raw crash, and the processed crash if there is one, and touch no dump.

        One request replaces the raw crash, so the crash is never missing.  The new raw crash says
        which raw crash its dumps were saved with.  The request has the condition that the old raw
        crash is still there (``If-Match``).  A server may ignore conditions.  So this looks
        afterwards whether the list of dumps is still the one that it has kept.
        """
        for turn in self._putter.turns(attempt.crash_id):
            if there := self._finder.raw_crash(attempt.crash_id):
                is_saved = self._put_beside_dumps(there, attempt)
            else:
                is_saved = self._create_for_dumps(turn, attempt)
            if is_saved:
                return

    def _put_beside_dumps(self, there: StoredObject, attempt: SaveAttempt) -> bool:
        """Put the raw crash in the place of the one that is there; return True if the dumps are
        still those that it has kept."""
        crash_id = attempt.crash_id
        listed = self._finder.list_of_dumps(crash_id) or self._list_unlisted(there, crash_id)
        self._putter.put_processed(attempt.crash)
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
        self._putter.put_list(names, crash_id, metadata)
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
                key, attempt.body(), content_type=JSON, metadata=metadata, replaced=replaced
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

    def _create_for_dumps(self, turn: int, attempt: SaveAttempt) -> bool:
        """Save a crash that is not there; return False if another save has begun it.

        :raises StorageUnavailable: that save does not go on; its dumps may be needed, so they stay
        """
        if self._finder.list_of_dumps(attempt.crash_id):
            if turn >= _TRIES_FOR_OTHERS:
                raise self._putter.busy(attempt.crash_id, _WITH_DUMPS)
            return False
        try:
            self._writer.create(SaveAttempt(attempt.crash, attempt.raw_crash))  # with a new token
        except CrashExists:
            return False
        return True

    # Dumps that come later: they become visible when they are listed

    def add(self, crash: Crash) -> None:
        """Save dumps and the processed crash, in the place of those of the same names."""
        if crash.dumps:
            raw = self._raw_crash_for_dumps(crash.crash_id)
            metadata = stamps.of_save(stamps.sha256_of_dumps(raw.metadata), added=True)
            self._putter.put_dumps(crash, metadata)
            self._add_to_list(crash, raw)
        self._putter.put_processed(crash)

    def create(self, crash: Crash) -> None:
        """Save dumps that are not there, and the processed crash.

        :raises CrashExists: one of the dumps is there
        """
        crash_id = crash.crash_id
        if not crash.dumps:
            self._putter.put_processed(crash)
            return
        raw = self._raw_crash_for_dumps(crash_id)
        found = self._finder.listed_dumps(crash_id)
        listed = set(self._finder.unlisted_dumps(raw)) if found is None else found
        if {part.name for part in crash.dumps} & listed:
            raise self._putter.exists(crash_id)
        sha256 = stamps.sha256_of_dumps(raw.metadata)
        if found is None:
            self._putter.put_list(listed, crash_id, stamps.of_save(sha256))
        self._putter.learn(listed, crash_id, stamps.of_save(sha256))
        self._putter.put_processed(crash)
        self._putter.put_new_dumps(crash, sha256, added=True)
        self._add_to_list(crash, raw)

    def _raw_crash_for_dumps(self, crash_id: str) -> StoredObject:
        if raw := self._finder.raw_crash(crash_id):
            return raw
        reason = "no raw crash to add dumps to"
        raise CrashIDNotFound(crash_id, uri=self._client.uri, reason=reason)

    def _add_to_list(self, crash: Crash, raw: StoredObject) -> None:
        """Add dumps to the list, which hides what it does not name.  If the list is missing, make
        one of these and of the dumps that are beside the raw crash."""
        added = {part.name for part in crash.dumps}
        listed = self._finder.listed_dumps(crash.crash_id)
        if listed is None or not added <= listed:
            names = set(self._finder.unlisted_dumps(raw)) if listed is None else listed
            metadata = stamps.of_save(stamps.sha256_of_dumps(raw.metadata))
            self._putter.put_list(names | added, crash.crash_id, metadata)


def _save_of(listed: StoredObject | None) -> str | None:
    """Return which raw crash a list of dumps was saved with."""
    return listed.metadata.get(RAW_CRASH_SHA256) if listed else None
