# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The objects of a crash, read only as far as all of them are of one save."""

from collections.abc import Callable, Set
from contextlib import ExitStack
from functools import partial
from typing import BinaryIO

from crashmover.crash import Kind, Part, marker_of
from crashmover.documents import LargeDocument
from crashmover.errors import CorruptCrash, CrashIDNotFound, StorageUnavailable
from crashmover.external.bucket import layouts as keys
from crashmover.external.bucket.obstore_client import (
    ADDED,
    DUMPS,
    RAW_CRASH_SHA256,
    SHA256,
    Objects,
    StoredObject,
)
from crashmover.external.bucket.unlisted import open_as_found, unlisted_dumps

_UNLISTED = ("dump_names", "missing")  # in the state of a raw crash, as the list may come later


class Reader:
    """Finds crashes and makes parts of their objects.

    :param objects: of the bucket
    :param uri: what messages call the store
    :param location: says where a key is
    """

    def __init__(self, objects: Objects, uri: str, location: Callable[[str], str]) -> None:
        self.objects = objects
        self._uri = uri
        self._location = location

    def parts(self, crash_id: str, kinds: Set[Kind]) -> list[Part]:
        """Return the crash's parts of these kinds.

        :raises CrashIDNotFound: as `CrashStorageBase.load_crash`
        """
        parts: list[Part] = []
        if marker_of(kinds) is Kind.RAW_CRASH:
            parts += self._raw_and_dumps(crash_id, kinds)
        if Kind.PROCESSED_CRASH in kinds:
            processed = self.objects.fetch(keys.processed_crash_key(crash_id), crash_id)
            if processed:
                parts.append(self._part(Kind.PROCESSED_CRASH, processed, crash_id))
            elif kinds == {Kind.PROCESSED_CRASH}:
                raise CrashIDNotFound(crash_id, uri=self._uri, reason="no processed_crash")
        return parts

    def _raw_and_dumps(self, crash_id: str, kinds: Set[Kind]) -> list[Part]:
        wanted = Kind.RAW_CRASH in kinds
        raw = self.objects.find_raw_crash(crash_id, body=wanted)
        if raw is None:
            raise CrashIDNotFound(crash_id, uri=self._uri)
        names: list[str] | None = []
        dumps: list[Part] = []
        if Kind.DUMP in kinds:
            names = self._listed(crash_id, raw)
            there = self._unlisted(crash_id, raw) if names is None else names
            dumps = [self._dump(name, crash_id, raw) for name in there]
        if not wanted:
            return dumps
        return [self._part(Kind.RAW_CRASH, raw, crash_id, is_listed=names is not None), *dumps]

    def is_whole_other(self, crash_id: str, sha256: str) -> bool:
        """Whether all of a crash is there, that has another raw crash than the one of this
        SHA-256, and says so."""
        raw = self.objects.find_raw_crash(crash_id)
        if raw is None or raw.metadata.get(SHA256, sha256) == sha256:
            return False
        try:
            listed = self._listed(crash_id, raw)
            for name in self._unlisted(crash_id, raw) if listed is None else listed:
                _Dump(self, name, crash_id, raw).size()
        except (CorruptCrash, StorageUnavailable):  # it was saved with others, or is replaced
            return False
        return True

    def _part(
        self, kind: Kind, stored: StoredObject, crash_id: str, *, is_listed: bool = True
    ) -> Part:
        locate = partial(self._location, stored.key)
        opener = partial(open_as_found, self.objects, stored, crash_id)
        state = stored.state if is_listed else (*stored.state, _UNLISTED)
        return Part(kind, "", opener, stored.size, locate=locate, state=state)

    def _dump(self, name: str, crash_id: str, raw: StoredObject) -> Part:
        dump = _Dump(self, name, crash_id, raw)
        locate = partial(self._location, dump.key)
        return Part(
            Kind.DUMP, name, dump.open, ask_size=dump.size, locate=locate, ask_state=dump.state
        )

    def _listed(self, crash_id: str, raw: StoredObject) -> list[str] | None:
        """Return the names in the list of dumps; None where there is no list."""
        stored = self.objects.fetch(keys.dump_names_key(crash_id), crash_id)
        if stored is None:
            return None
        self.check_belongs(stored, raw, "dump_names", crash_id)
        if stored.size > keys.LONGEST_DUMP_NAMES:
            raise self.corrupt("dump_names is too long", crash_id)
        with open_as_found(self.objects, stored, crash_id) as file:
            try:
                return keys.parse_dump_names(file.read())
            except CorruptCrash as error:
                raise self.corrupt(error.reason, crash_id) from error

    def _unlisted(self, crash_id: str, raw: StoredObject) -> list[str]:
        """Return the names of the dumps beside a raw crash that had no list of them.

        :raises StorageUnavailable: the crash is being saved, replaced or removed
        """
        try:
            names = unlisted_dumps(self.objects, raw, crash_id)
        except LargeDocument as error:
            reason = f"there is no dump_names, and {error.reason}"
            raise self.corrupt(reason, crash_id) from error
        if self.objects.look(keys.dump_names_key(crash_id), crash_id):
            raise self.objects.replaced(crash_id)
        self.raise_if_replaced(crash_id, raw)
        return names

    def check_belongs(
        self, stored: StoredObject, raw: StoredObject, what: str, crash_id: str
    ) -> None:
        """Make sure that an object was saved with this raw crash, as far as they say.

        What other programs have put there says nothing: then it is enough that the raw crash
        is still there, for whoever replaces a crash takes that away first.
        """
        theirs, its = stored.metadata.get(RAW_CRASH_SHA256), raw.sha256_of_dumps
        if theirs != its:
            self.raise_if_replaced(crash_id, raw)
            if theirs and its:
                raise self.corrupt(f"{what} was saved with another raw crash", crash_id)

    def raise_if_replaced(self, crash_id: str, raw: StoredObject) -> None:
        """Raise `StorageUnavailable` unless the raw crash is as it was found."""
        now = self.objects.look(raw.key, crash_id)
        if now is None or now.state != raw.state:
            raise self.objects.replaced(crash_id)

    def corrupt(self, reason: str, crash_id: str) -> CorruptCrash:
        """Return what to raise where objects do not belong together."""
        return CorruptCrash(reason, crash_id=crash_id, uri=self._uri)


class _Dump:
    """A dump, of which nothing is known before it is looked at, and which has to stay what it was
    then: or else one destination would get the one, and another the other.

    :param raw: the raw crash that it was found with
    """

    def __init__(self, reader: Reader, name: str, crash_id: str, raw: StoredObject) -> None:
        self.key = keys.dump_key(crash_id, name)
        self._reader = reader
        self._name = name
        self._crash_id = crash_id
        self._raw = raw
        self._state: object = None  # until it is looked at

    def open(self) -> BinaryIO:
        """Open it."""
        found = self._reader.objects.open(self.key, self._crash_id)
        if found is None:
            raise self._missing()
        with ExitStack() as unless_all_is_well:
            unless_all_is_well.callback(found[1].close)
            self._check(found[0])
            unless_all_is_well.pop_all()
        return found[1]

    def size(self) -> int:
        """Return how many bytes it has."""
        return self._look().size

    def state(self) -> object:
        """Return what tells it from another of its key: as it was when somebody looked first."""
        return self._state or self._look().state

    def _look(self) -> StoredObject:
        found = self._reader.objects.look(self.key, self._crash_id)
        if found is None:
            raise self._missing()
        self._check(found)
        return found

    def _missing(self) -> CorruptCrash:
        self._reader.raise_if_replaced(self._crash_id, self._raw)
        return self._reader.corrupt(f"dump {self._name} is listed and not there", self._crash_id)

    def _check(self, dump: StoredObject) -> None:
        self._reader.check_belongs(dump, self._raw, f"dump {self._name}", self._crash_id)
        self._check_mark(dump)
        if self._state not in (None, dump.state):
            raise self._reader.objects.replaced(self._crash_id)
        self._state = dump.state

    def _check_mark(self, dump: StoredObject) -> None:
        """Make sure that it is one of those that the raw crash was saved with: it may have been
        replaced by one with the same raw crash and other dumps."""
        marks, sha256 = self._raw.metadata.get(DUMPS), dump.metadata.get(SHA256)
        if not marks or not sha256 or ADDED in dump.metadata:
            return
        if keys.mark(dump.key, sha256) not in marks.split():
            self._reader.raise_if_replaced(self._crash_id, self._raw)
            raise self._reader.corrupt(
                f"dump {self._name} was saved with other dumps", self._crash_id
            )
