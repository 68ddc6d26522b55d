# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Save: the order in which the objects of a crash are put and deleted."""

import hashlib
import random
import time

from crashmover.crash import CHUNK, Crash, Part
from crashmover.errors import (
    CorruptCrash,
    CrashExists,
    CrashIDNotFound,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.s3 import keys
from crashmover.external.s3.bodies import PART_SIZE
from crashmover.external.s3.listing import Absences
from crashmover.external.s3.objects import (
    RAW_CRASH_SHA256,
    SHA256,
    Objects,
    StoredObject,
)
from crashmover.external.s3.s3errors import AlreadyThere

_JSON = "application/json"
_BINARY = "application/octet-stream"
_STALE = 3600.0  # seconds
_TRIES = 10
_PAUSE = 0.05  # seconds


class Save:
    """Saves and removes crashes, one at a time for each crash id.

    The list of dumps is put first, on the condition that there is none (``If-None-Match``):
    a crash that is new costs no request more than it has objects, and one that is there
    already is noticed before anything of it is touched.  The raw crash is put last, on the
    same condition, so that of two processes that save a crash one notices the other.

    :param objects: of the bucket
    :param uri: what messages call the store
    :param absences: what listings have just found not to be there: a server that does not
        understand conditions is not asked for it once more
    """

    def __init__(self, objects: Objects, uri: str, absences: Absences) -> None:
        self._objects = objects
        self._uri = uri
        self._absences = absences
        self._conditions: bool | None = None  # whether the server is known to understand them

    def __call__(self, crash: Crash, *, create: bool = False) -> None:
        """Save the parts that there are.

        :param create: whether to replace no raw crash and no dump
        :raises CrashExists: one of these is there
        """
        if crash.raw_crash:
            save = self._create if create else self._save_with_raw_crash
            save(crash, RawCrash(crash.raw_crash))
            return
        if crash.dumps:
            self._add_dumps(crash, create=create)
        self._put_processed(crash)

    # A crash with a raw crash

    def _save_with_raw_crash(self, crash: Crash, raw: "RawCrash") -> None:
        is_new = self._claim(crash, raw)
        if is_new and self._put_all(crash, raw, create=bool(self._conditions)):
            return
        for turn in range(_TRIES):
            if self._replace(crash, raw):
                return
            time.sleep(random.uniform(0, _PAUSE * (turn + 1)))  # for the others to finish
        raise self._busy(crash)

    def _busy(self, crash: Crash) -> StorageUnavailable:
        reason = "other processes save the same crash at this moment"
        return StorageUnavailable(reason, crash_id=crash.crash_id, uri=self._uri)

    def _create(self, crash: Crash, raw: "RawCrash") -> None:
        """Put a crash where there is none.

        The list of dumps says whose turn it is: another crash's is left alone for an hour, longer
        than any save takes; after that, whoever has put it has died.
        """
        if not self._claim(crash, raw):
            self._take_over(crash, raw)
        if not self._put_all(crash, raw, create=bool(self._conditions)):
            raise CrashExists(crash.crash_id, uri=self._uri)

    def _take_over(self, crash: Crash, raw: "RawCrash") -> None:
        """Go on where a save was stopped: of the same crash at once, of another when it is old."""
        if self._objects.find_raw_crash(crash.crash_id):
            raise CrashExists(crash.crash_id, uri=self._uri)
        claim = self._objects.look(keys.dump_names_key(crash.crash_id), crash.crash_id)
        is_same = claim and claim.metadata.get(RAW_CRASH_SHA256) == raw.sha256
        if claim and not is_same and claim.age < _STALE:
            raise self._busy(crash)
        obsolete = self._old_dump_names(crash.crash_id) - {part.name for part in crash.dumps}
        self._delete_dumps(obsolete, crash.crash_id)
        self._put_dump_names(crash, raw)

    def _replace(self, crash: Crash, raw: "RawCrash") -> bool:
        """Put the crash in the place of the one that is there, or of what is left of one;
        return whether nobody else did the same at that moment."""
        in_place = self._make_way(crash, raw)
        self._put_dump_names(crash, raw)
        create = bool(self._conditions) and not in_place
        return self._put_all(crash, raw, create=create) and self._is_whole(crash, raw)

    def _is_whole(self, crash: Crash, raw: "RawCrash") -> bool:
        """Whether all that was put is still there, and nobody else's."""
        there = self._objects.find_raw_crash(crash.crash_id)
        places = [keys.dump_key(crash.crash_id, part.name) for part in crash.dumps]
        others = (
            self._objects.look(key, crash.crash_id)
            for key in (keys.dump_names_key(crash.crash_id), *places)
        )
        return (
            there is not None
            and there.metadata.get(SHA256, raw.sha256) == raw.sha256
            and all(other is not None and _is_of(other, raw.sha256) for other in others)
        )

    def _claim(self, crash: Crash, raw: "RawCrash") -> bool:
        """Put the list of dumps where there is none; return whether there was none."""
        key = keys.dump_names_key(crash.crash_id)
        if self._conditions is None and self._objects.is_aws:
            self._conditions = True
        if not self._conditions and self._is_there(key, crash.crash_id):
            return False
        if self._conditions is None:
            return self._learn(crash, raw)
        if self._conditions:
            return self._put_new_dump_names(crash, raw)
        self._put_dump_names(crash, raw)
        return True

    def _is_there(self, key: str, crash_id: str) -> bool:
        return not self._absences.take(crash_id) and bool(self._objects.look(key, crash_id))

    def _learn(self, crash: Crash, raw: "RawCrash") -> bool:
        """Claim, and find out whether the server understands conditions: if it does, it refuses to
        put the same twice."""
        try:
            is_new = self._put_new_dump_names(crash, raw)
            self._conditions = not (is_new and self._put_new_dump_names(crash, raw))
        except (StorageDenied, StorageUnavailable):
            raise
        except StorageError:  # 501 Not Implemented, or whatever it says to what it does not know
            self._conditions = False
            self._put_dump_names(crash, raw)
            return True
        return is_new

    def _put_new_dump_names(self, crash: Crash, raw: "RawCrash") -> bool:
        try:
            self._put_dump_names(crash, raw, create=True)
        except AlreadyThere:
            return False
        return True

    def _make_way(self, crash: Crash, raw: "RawCrash") -> bool:
        """Take the crash that is there away, unless it is this one: return whether it is.

        To replace what is there by the same, nothing has to be taken away; so a crash that two
        queues hand out twice is never missing.
        """
        there = self._objects.find_raw_crash(crash.crash_id)
        old_names = self._old_dump_names(crash.crash_id)
        names = {part.name for part in crash.dumps}
        has_same = there and there.metadata.get(SHA256) == raw.sha256 and names == old_names
        if there and has_same and all(self._has(part, crash.crash_id) for part in crash.dumps):
            return there.key == keys.raw_crash_keys(crash.crash_id)[0]
        if there:
            _read_through(crash)
            self._objects.delete(keys.raw_crash_keys(crash.crash_id), crash.crash_id)
        self._delete_dumps(old_names - names, crash.crash_id)
        return False

    def _delete_dumps(self, names: set[str], crash_id: str) -> None:
        if names:
            places = [keys.dump_key(crash_id, name) for name in sorted(names)]
            self._objects.delete(places, crash_id)

    def _has(self, dump: Part, crash_id: str) -> bool:
        """Whether the dump is there, to the byte; what went up in parts has to be read for it."""
        key = keys.dump_key(crash_id, dump.name)
        there = self._objects.look(key, crash_id)
        if there is None or dump.size not in (None, there.size):
            return False
        return self._sha256(there, crash_id) == _sha256_of(dump)

    def _sha256(self, there: StoredObject, crash_id: str) -> str | None:
        if SHA256 in there.metadata:
            return there.metadata[SHA256]
        found = self._objects.open(there.key, crash_id)
        if found is None:
            return None
        digest = hashlib.sha256()
        with found[1] as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def _put_all(self, crash: Crash, raw: "RawCrash", *, create: bool) -> bool:
        """Put everything but the list of dumps, the raw crash last.

        :param create: only where there is no raw crash; return whether there was none
        """
        self._put_dumps(crash.dumps, crash.crash_id, raw.sha256)
        self._put_processed(crash)
        try:
            self._objects.put(
                keys.raw_crash_keys(crash.crash_id)[0],
                raw.body(),
                crash.crash_id,
                content_type=_JSON,
                metadata={SHA256: raw.sha256},
                create=create,
            )
        except AlreadyThere:
            return False
        return True

    def _put_dump_names(self, crash: Crash, raw: "RawCrash", *, create: bool = False) -> None:
        names = [part.name for part in crash.dumps]
        self._put_names(crash.crash_id, names, raw.sha256, create=create)

    # Parts

    def _put_names(
        self, crash_id: str, names: list[str], sha256: str | None, *, create: bool = False
    ) -> None:
        self._objects.put(
            keys.dump_names_key(crash_id),
            keys.format_dump_names(names),
            crash_id,
            content_type=_JSON,
            metadata=_saved_with(sha256),
            create=create,
        )

    def _put_dumps(self, dumps: list[Part], crash_id: str, sha256: str | None) -> None:
        for part in dumps:
            self._objects.put(
                keys.dump_key(crash_id, part.name),
                part,
                crash_id,
                content_type=_BINARY,
                metadata=_saved_with(sha256),
            )

    def _put_processed(self, crash: Crash) -> None:
        if crash.processed_crash:
            self._objects.put(
                keys.processed_crash_key(crash.crash_id),
                crash.processed_crash,
                crash.crash_id,
                content_type=_JSON,
                metadata={},
            )

    # A crash without a raw crash

    def _add_dumps(self, crash: Crash, *, create: bool) -> None:
        """Add dumps to the crash that is there: they become visible when they are listed."""
        raw = self._objects.find_raw_crash(crash.crash_id)
        if raw is None:
            reason = "no raw crash to add dumps to"
            raise CrashIDNotFound(crash.crash_id, uri=self._uri, reason=reason)
        sha256 = raw.metadata.get(SHA256)
        old = self._old_dump_names(crash.crash_id)
        names = {part.name for part in crash.dumps}
        if create and names & old:
            raise CrashExists(crash.crash_id, uri=self._uri)
        self._put_dumps(crash.dumps, crash.crash_id, sha256)
        old = self._old_dump_names(crash.crash_id)
        if names := names - old:
            self._put_names(crash.crash_id, [*old, *names], sha256)

    def _old_dump_names(self, crash_id: str) -> set[str]:
        found = self._objects.open(keys.dump_names_key(crash_id), crash_id)
        if found is None:
            return set()
        with found[1] as file:
            try:
                return set(keys.parse_dump_names(file.read()))
            except CorruptCrash:
                return set()

    # Removing

    def remove(self, crash_id: str) -> None:
        """Delete all of a crash, the raw crash first.

        :raises CrashIDNotFound: there was nothing of it
        """
        names = self._old_dump_names(crash_id)
        others = [keys.dump_names_key(crash_id), keys.processed_crash_key(crash_id)]
        if not self._objects.find_raw_crash(crash_id) and not any(
            self._objects.look(key, crash_id) for key in others
        ):
            raise CrashIDNotFound(crash_id, uri=self._uri)
        dumps = [keys.dump_key(crash_id, name) for name in sorted(names)]
        self._objects.delete(keys.raw_crash_keys(crash_id), crash_id)
        self._objects.delete([*dumps, *others], crash_id)


class RawCrash:
    """A raw crash on its way, of which the SHA-256 must be known before it is sent.

    :raises CorruptCrash: it is not as long as announced
    """

    def __init__(self, part: Part) -> None:
        self._part = part
        digest = hashlib.sha256()
        kept: list[bytes] | None = []
        count = 0
        for chunk in part.chunks():
            digest.update(chunk)
            count += len(chunk)
            kept = None if kept is None or count > PART_SIZE else [*kept, chunk]
        self._data = None if kept is None else b"".join(kept)
        self.sha256 = digest.hexdigest()

    def body(self) -> bytes | Part:
        """What to send; a large one is read once more, and must then be the same."""
        if self._data is not None:
            return self._data
        return self._part


def _sha256_of(part: Part) -> str:
    digest = hashlib.sha256()
    part.pump(digest.update)
    return digest.hexdigest()


def _read_through(crash: Crash) -> None:
    """Read all of a crash, and raise what is wrong with it before another makes way for it."""
    for part in crash.parts:
        for _ in part.chunks():
            pass


def _is_of(stored: StoredObject, sha256: str) -> bool:
    """Whether an object was saved with this raw crash; not all servers keep what says so."""
    return stored.metadata.get(RAW_CRASH_SHA256, sha256) == sha256


def _saved_with(sha256: str | None) -> dict[str, str]:
    return {RAW_CRASH_SHA256: sha256} if sha256 else {}
