# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Stamps: what an object's metadata says of the save that it is of.  Pure."""

import hashlib
import secrets
from collections.abc import Mapping

from crashmover.crash import Crash, Part
from crashmover.external.bucket.bodies import PART_SIZE
from crashmover.external.bucket.client import SHA256, StoredObject

RAW_CRASH_SHA256 = "raw-crash-sha256"
"""The name, in an object's metadata, of the SHA-256 of the raw crash that it was saved with."""

DUMPS = "dumps"
"""The name, in a raw crash's metadata, of the marks of the dumps that it was saved with."""

DUMPS_OF = "dumps-of"
"""The name, in a raw crash's metadata, of the SHA-256 of the raw crash that its dumps say they were
saved with, if that is an earlier one."""

SAVE = "save"
"""The name, in the metadata of a list of dumps, of a token that no other save has."""

ADDED = "added"
"""The name, in a dump's metadata, of what says that it came later than its raw crash."""

_MOST_MARKS = 150  # of nine characters: there is room for 2 KB of metadata

Metadata = Mapping[str, str]


def of_save(sha256: str | None, *, token: str | None = None, added: bool = False) -> Metadata:
    """Return the metadata of a list of dumps or of a dump.

    :param sha256: of the raw crash, if that is known
    :param token: of the save, for a list
    :param added: whether it is a dump that comes later than its raw crash
    """
    said = {RAW_CRASH_SHA256: sha256, SAVE: token, ADDED: "true" if added else None}
    return {name: value for name, value in said.items() if value}


def of_raw_crash_beside(
    dumps_of: StoredObject, listed: StoredObject | None, sha256: str
) -> Metadata:
    """Return the metadata of a raw crash that replaces another, whose dumps stay.

    :param dumps_of: the raw crash that is replaced
    :param listed: the list of the dumps
    :param sha256: of the new raw crash
    """
    known = sha256_of_dumps(dumps_of.metadata)
    saved_with = listed.metadata.get(RAW_CRASH_SHA256) if listed else known
    metadata = {SHA256: sha256}
    if saved_with and saved_with != sha256:
        metadata[DUMPS_OF] = saved_with
    if DUMPS in dumps_of.metadata and saved_with == known:
        metadata[DUMPS] = dumps_of.metadata[DUMPS]
    return metadata


def sha256_of_dumps(raw_crash: Metadata) -> str | None:
    """Return what the dumps of a raw crash with this metadata have as `RAW_CRASH_SHA256`."""
    return raw_crash.get(DUMPS_OF, raw_crash.get(SHA256))


def is_of(stored: StoredObject, sha256: str | None) -> bool:
    """Return True if an object was saved with this raw crash, or does not say: some servers keep
    no metadata."""
    return stored.metadata.get(RAW_CRASH_SHA256, sha256) == sha256


def is_marked(dump: StoredObject, raw_crash: StoredObject) -> bool:
    """Return True if a dump is one of those that the raw crash was saved with, or that is not
    said: it may have been replaced by one with the same raw crash and other dumps."""
    marks, sha256 = raw_crash.metadata.get(DUMPS), dump.metadata.get(SHA256)
    if not marks or not sha256 or ADDED in dump.metadata:
        return True
    return _mark(dump.key, sha256) in marks.split()


def _mark(key: str, sha256: str) -> str:
    """Return a few characters by which a dump with these bytes is known."""
    return hashlib.sha256(f"{key} {sha256}".encode()).hexdigest()[:8]


class SaveAttempt:
    """A crash that is being saved: the SHA-256 of its raw crash, which must be known before the
    first object is put; the token of the save; and what was put.

    :param crash: with this raw crash
    :raises CorruptCrash: the raw crash is not as long as announced
    """

    def __init__(self, crash: Crash, raw_crash: Part) -> None:
        self.crash = crash
        self.crash_id = crash.crash_id
        self.names = {part.name for part in crash.dumps}
        self.token: str | None = secrets.token_hex(8)
        self.put: dict[str, str | None] = {}
        """By the keys of dumps, their SHA-256 if it is known."""
        self.raw_crash = raw_crash
        digest = hashlib.sha256()
        kept: list[bytes] | None = []
        count = 0
        for chunk in raw_crash.chunks():
            digest.update(chunk)
            count += len(chunk)
            kept = None if kept is None or count > PART_SIZE else [*kept, chunk]
        self._data = None if kept is None else b"".join(kept)
        self.sha256 = digest.hexdigest()

    def body(self) -> bytes | Part:
        """Return the raw crash to send; a large one is read once more, and must be the same."""
        return self.raw_crash if self._data is None else self._data

    def of_list(self) -> Metadata:
        """Return the metadata of the list of dumps."""
        return of_save(self.sha256, token=self.token)

    def of_raw_crash(self) -> Metadata:
        """Return the metadata of the raw crash: with marks of the dumps, as these may be replaced
        by others with the same raw crash."""
        marks = [_mark(key, known) for key, known in sorted(self.put.items()) if known]
        said = {DUMPS: " ".join(marks)} if 0 < len(marks) <= _MOST_MARKS else {}
        return {SHA256: self.sha256, **said}

    def has_put_dump(self, dump: StoredObject) -> bool:
        """Return True if a dump is of this save, as far as the server keeps metadata: another may
        have the same raw crash and other dumps."""
        known = self.put.get(dump.key)
        is_same = known is None or dump.metadata.get(SHA256, known) == known
        return is_same and is_of(dump, self.sha256)

    def has_put_list(self, listed: StoredObject) -> bool:
        """Return True if a list of dumps is of this save, as far as the server keeps metadata."""
        if RAW_CRASH_SHA256 not in listed.metadata:
            return True
        return is_of(listed, self.sha256) and listed.metadata.get(SAVE) == self.token
