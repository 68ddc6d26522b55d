# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""CrashObjects: the objects of a crash, one by one."""

import hashlib
import secrets
from collections.abc import Iterable, Sequence

from crashmover import comparison
from crashmover.crash import CHUNK, MAIN_DUMP, Crash, Part
from crashmover.errors import CorruptCrash, CrashExists, CrashIDNotFound, StorageUnavailable
from crashmover.external.bucket import layouts as keys
from crashmover.external.bucket.bodies import PART_SIZE
from crashmover.external.bucket.obstore_client import (
    ADDED,
    DUMPS,
    DUMPS_OF,
    RAW_CRASH_SHA256,
    SAVE,
    SHA256,
    Objects,
    StoredObject,
)
from crashmover.external.bucket.unlisted import unlisted_dumps
from crashmover.external.s3.s3errors import AlreadyThere

_JSON = "application/json"
_BINARY = "application/octet-stream"
_MOST_MARKS = 150  # of nine characters: there is room for 2 KB of metadata
_BUSY = "other processes save the same crash at this moment"


class CrashObjects:
    """Puts, looks at and deletes the objects of a crash; in which order, `Save` and `Create` know.

    :param objects: of the bucket
    :param uri: what messages call the store
    """

    def __init__(self, objects: Objects, uri: str) -> None:
        self._objects = objects
        self._uri = uri

    # What is wrong

    def busy(self, crash_id: str, reason: str = _BUSY) -> StorageUnavailable:
        """Return what to raise where another process is at it."""
        return StorageUnavailable(reason, crash_id=crash_id, uri=self._uri)

    def exists(self, crash_id: str) -> CrashExists:
        """Return what to raise where nothing is to be replaced."""
        return CrashExists(crash_id, uri=self._uri)

    # Looking

    def raw_crash(self, crash_id: str) -> StoredObject | None:
        """Look for the raw crash, by all its keys."""
        return self._objects.find_raw_crash(crash_id)

    def raw_crashes(self, crash_id: str) -> list[StoredObject]:
        """Look for raw crashes under each of its keys."""
        found = (self._objects.look(key, crash_id) for key in keys.raw_crash_keys(crash_id))
        return list(filter(None, found))

    def is_rest_of(self, crash: Crash) -> bool:
        """Whether what is there, without a raw crash, is what a removal of this crash has left, and
        not what somebody has begun to save since."""
        parts = {keys.dump_key(crash.crash_id, part.name): part for part in crash.dumps}
        if crash.processed_crash:
            parts[keys.processed_crash_key(crash.crash_id)] = crash.processed_crash
        names = {*parts, keys.processed_crash_key(crash.crash_id)}
        left = [there for key in names if (there := self._objects.look(key, crash.crash_id))]
        listed = self.list_of_dumps(crash.crash_id)
        if listed and not is_of(listed, _sha256_of_dumps(crash.raw_crash)):
            return False
        if listed and self.dump_names(crash.crash_id) != {part.name for part in crash.dumps}:
            return False
        are_loaded = [
            there.key in parts and parts[there.key].find_state() == there.state for there in left
        ]
        return all(are_loaded) and bool(left or listed)

    def raw_crash_for_dumps(self, crash_id: str) -> StoredObject:
        """Look for the raw crash that dumps are to be added to."""
        if raw := self.raw_crash(crash_id):
            return raw
        reason = "no raw crash to add dumps to"
        raise CrashIDNotFound(crash_id, uri=self._uri, reason=reason)

    def list_of_dumps(self, crash_id: str) -> StoredObject | None:
        """Look for the list of dumps."""
        return self._objects.look(keys.dump_names_key(crash_id), crash_id)

    def dump_names(self, crash_id: str) -> set[str]:
        """Return what is in the list of dumps; nothing, where that is none."""
        return self.listed_dumps(crash_id) or set()

    def dumps_of(self, raw: StoredObject | None, crash_id: str) -> set[str]:
        """Return the names of the dumps in the list; where there is no list, of those that are
        beside the raw crash.

        :raises CorruptCrash: there is no list, and the raw crash is too large to be looked into
        """
        listed = self.listed_dumps(crash_id)
        if listed is None and raw:
            return self.unlisted_dumps(raw, crash_id)
        return listed or set()

    def unlisted_dumps(self, raw: StoredObject, crash_id: str) -> set[str]:
        """Return the names of the dumps that are beside a raw crash without a list; raises as
        `dumps_of`."""
        return set(unlisted_dumps(self._objects, raw, crash_id))

    def listed_dumps(self, crash_id: str) -> set[str] | None:
        """Return what is in the list of dumps; None where there is no list."""
        found = self._objects.open(keys.dump_names_key(crash_id), crash_id)
        if found is None:
            return None
        with found[1] as file:
            try:
                return set(keys.parse_dump_names(file.read(keys.LONGEST_DUMP_NAMES + 1)))
            except CorruptCrash:
                return set()

    def dump(self, crash_id: str, name: str) -> StoredObject | None:
        """Look for a dump."""
        return self._objects.look(keys.dump_key(crash_id, name), crash_id)

    def has(self, dump: Part, crash_id: str) -> bool:
        """Whether the dump is there, to the byte; what went up in parts has to be read for it."""
        there = self.dump(crash_id, dump.name)
        if there is None or dump.size not in (None, there.size):
            return False
        return self._sha256(there, crash_id) == comparison.sha256(dump).hex()

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

    def is_whole(self, crash: Crash, raw: "RawCrash") -> bool:
        """Whether all that was put is still there, and nobody else's."""
        there = self.raw_crash(crash.crash_id)
        dumps = (self.dump(crash.crash_id, part.name) for part in crash.dumps)
        return (
            there is not None
            and there.metadata.get(SHA256, raw.sha256) == raw.sha256
            and all(dump is not None and raw.was_saved_with(dump) for dump in dumps)
            and self.is_held(crash.crash_id, raw)
        )

    def is_held(self, crash_id: str, raw: "RawCrash") -> bool:
        """Whether the list of dumps is of this save: whoever puts anything puts that first."""
        listed = self.list_of_dumps(crash_id)
        return listed is not None and raw.has_put(listed)

    # Putting

    def put_raw_crash(self, raw: "RawCrash", crash_id: str, *, create: bool) -> bool:
        """Put it; return False where it was to be created and one is there."""
        try:
            self._objects.put(
                keys.raw_crash_keys(crash_id)[0],
                raw.body(),
                crash_id,
                content_type=_JSON,
                metadata={SHA256: raw.sha256, **raw.marks()},
                create=create,
            )
        except AlreadyThere:
            return False
        return True

    def put_list(
        self,
        names: Iterable[str],
        crash_id: str,
        sha256: str | None,
        *,
        save: str | None = None,
        create: bool = False,
    ) -> None:
        """Put the list of dumps.

        :param sha256: of the raw crash
        :param save: what tells the save that it is put for from any other
        :raises AlreadyThere: it was to be created and one is there
        """
        self._objects.put(
            keys.dump_names_key(crash_id),
            keys.format_dump_names(list(names)),
            crash_id,
            content_type=_JSON,
            metadata=_saved_with(sha256) | ({SAVE: save} if save else {}),
            create=create,
        )

    def add_to_list(self, dumps: Sequence[Part], crash_id: str, raw: StoredObject) -> None:
        """Add dumps to the list; where there is none, to the dumps that are beside the raw crash:
        a list hides what it does not name."""
        added, listed = {part.name for part in dumps}, self.listed_dumps(crash_id)
        if listed is None or not added <= listed:
            names = self.unlisted_dumps(raw, crash_id) if listed is None else listed
            self.put_list(names | added, crash_id, raw.sha256_of_dumps)

    def put_dump(
        self,
        dump: Part,
        crash_id: str,
        sha256: str | None,
        *,
        create: bool = False,
        added: bool = False,
    ) -> str | None:
        """Put a dump; return its SHA-256, where it is known.

        :param sha256: of the raw crash
        :param added: whether that is there already
        :raises AlreadyThere: it was to be created and one is there
        """
        return self._objects.put(
            keys.dump_key(crash_id, dump.name),
            dump,
            crash_id,
            content_type=_BINARY,
            metadata=_saved_with(sha256) | ({ADDED: "true"} if added else {}),
            create=create,
        )

    def put_processed(self, crash: Crash) -> None:
        """Put the processed crash, where there is one."""
        if crash.processed_crash:
            self._objects.put(
                keys.processed_crash_key(crash.crash_id),
                crash.processed_crash,
                crash.crash_id,
                content_type=_JSON,
                metadata={},
            )

    def put_in_place_of(
        self,
        there: StoredObject,
        raw: "RawCrash",
        crash_id: str,
        listed: StoredObject | None,
        *,
        if_match: bool,
    ) -> None:
        """Put a raw crash in the place of another, whose dumps stay.

        :param listed: the list of the dumps
        :param if_match: whether to put it on the condition that the other is still there
        :raises NotTheSame: the other is no longer there, as far as the server notices
        """
        sha256 = listed.metadata.get(RAW_CRASH_SHA256) if listed else there.sha256_of_dumps
        metadata = {SHA256: raw.sha256}
        if sha256 and sha256 != raw.sha256:
            metadata[DUMPS_OF] = sha256
        if DUMPS in there.metadata and sha256 == there.sha256_of_dumps:
            metadata[DUMPS] = there.metadata[DUMPS]
        key = keys.raw_crash_keys(crash_id)[0]
        self._objects.put(
            key,
            raw.body(),
            crash_id,
            content_type=_JSON,
            metadata=metadata,
            replaced=there if if_match and there.key == key else None,
        )

    def delete_older_raw_crashes(self, crash_id: str) -> None:
        """Delete the raw crash under all keys but the one that is written today."""
        self._objects.delete(keys.raw_crash_keys(crash_id)[1:], crash_id)

    # Deleting

    def delete_raw_crash(self, crash_id: str) -> None:
        """Delete it under all its keys."""
        self._objects.delete(keys.raw_crash_keys(crash_id), crash_id)

    def delete_dumps(self, names: set[str], crash_id: str) -> None:
        """Delete dumps, which are left in the list."""
        if names:
            places = [keys.dump_key(crash_id, name) for name in sorted(names)]
            self._objects.delete(places, crash_id)

    def delete_list(self, crash_id: str) -> None:
        """Delete the list of dumps."""
        self._objects.delete([keys.dump_names_key(crash_id)], crash_id)

    def remove(self, crash_id: str) -> None:
        """Delete all of a crash, the raw crash first.

        :raises CrashIDNotFound: there was nothing of it
        """
        raw = self.raw_crash(crash_id)
        main_dump = keys.dump_key(crash_id, MAIN_DUMP)  # the rest of a crash that has no list
        others = [keys.dump_names_key(crash_id), keys.processed_crash_key(crash_id), main_dump]
        if not raw and not any(self._objects.look(key, crash_id) for key in others):
            raise CrashIDNotFound(crash_id, uri=self._uri)
        try:
            names = self.dumps_of(raw, crash_id)
        except CorruptCrash:  # what it names cannot be known
            names = set()
        self.delete_all(crash_id, names | {MAIN_DUMP})

    def delete_all(self, crash_id: str, names: Iterable[str]) -> None:
        """Delete all of a crash that has dumps of these names, the raw crash first."""
        dumps = [keys.dump_key(crash_id, name) for name in sorted(names)]
        others = [keys.dump_names_key(crash_id), keys.processed_crash_key(crash_id)]
        self.delete_raw_crash(crash_id)
        self._objects.delete([*dumps, *others], crash_id)


class RawCrash:
    """A raw crash on its way, of which the SHA-256 must be known before it is sent; by their keys,
    the SHA-256 of the dumps that were put with it, where it is known; and the word by which its
    save is known from others of the same raw crash.

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
        self.put_with_it: dict[str, str | None] = {}
        self.save: str | None = secrets.token_hex(8)

    def was_saved_with(self, dump: StoredObject) -> bool:
        """Whether a dump is of the same save: another may have the same raw crash and other dumps.
        Not all servers keep what says so."""
        known = self.put_with_it.get(dump.key)
        is_same = known is None or dump.metadata.get(SHA256, known) == known
        return is_same and is_of(dump, self.sha256)

    def has_put(self, listed: StoredObject) -> bool:
        """Whether a list of dumps is of this save, as far as the server has kept what says so."""
        if RAW_CRASH_SHA256 not in listed.metadata:
            return True
        return is_of(listed, self.sha256) and listed.metadata.get(SAVE) == self.save

    def marks(self) -> dict[str, str]:
        """Return, for its metadata, by what a reader knows the dumps that were put with it: these
        may be replaced by others, and the raw crash by the same."""
        put = sorted((key, known) for key, known in self.put_with_it.items() if known)
        marks = [keys.mark(key, known) for key, known in put]
        return {DUMPS: " ".join(marks)} if 0 < len(marks) <= _MOST_MARKS else {}

    def body(self) -> bytes | Part:
        """What to send; a large one is read once more, and must then be the same."""
        if self._data is not None:
            return self._data
        return self._part


def _sha256_of_dumps(raw_crash: Part | None) -> str | None:
    """As `StoredObject.sha256_of_dumps`, of a raw crash that was loaded."""
    state = raw_crash.state if raw_crash else None
    metadata = dict(state[1:]) if isinstance(state, tuple) else {}
    return metadata.get(DUMPS_OF, metadata.get(SHA256))


def is_of(stored: StoredObject, sha256: str | None) -> bool:
    """Whether an object was saved with this raw crash; not all servers keep what says so."""
    return stored.metadata.get(RAW_CRASH_SHA256, sha256) == sha256


def _saved_with(sha256: str | None) -> dict[str, str]:
    return {RAW_CRASH_SHA256: sha256} if sha256 else {}
