# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Reader: the objects of a crash as parts, read only as far as all of them are of one save."""

from collections.abc import Set
from contextlib import ExitStack
from functools import partial
from typing import BinaryIO

from crashmover.crash import Kind, Part, marker_of
from crashmover.documents import LargeDocument
from crashmover.errors import CorruptCrash, CrashIDNotFound, StorageUnavailable
from crashmover.external.bucket.client import SHA256, StoredObject, replaced
from crashmover.external.bucket.finding import Finder
from crashmover.external.bucket.layouts import LONGEST_DUMP_NAMES, parse_dump_names
from crashmover.external.bucket.stamps import RAW_CRASH_SHA256, is_marked, sha256_of_dumps

_UNLISTED = ("dump_names", "missing")  # in the version of a raw crash, as the list may come later


class Reader:
    """Makes parts of the objects of crashes.

    :param finder: of the bucket
    """

    def __init__(self, finder: Finder) -> None:
        self.finder = finder
        self.client = finder.client
        self._layout = finder.layout

    def parts(self, crash_id: str, kinds: Set[Kind], raw: StoredObject | None = None) -> list[Part]:
        """Return the crash's parts of these kinds.

        :param raw: the raw crash, if it was found already
        :raises CrashIDNotFound: as `CrashStorageBase.load_crash`
        """
        parts: list[Part] = []
        if marker_of(kinds) is Kind.RAW_CRASH:
            parts += self._raw_and_dumps(crash_id, kinds, raw)
        if Kind.PROCESSED_CRASH in kinds:
            processed = self.client.get_small(self._layout.processed_crash_key(crash_id))
            if processed:
                parts.append(self._part(Kind.PROCESSED_CRASH, processed))
            elif kinds == {Kind.PROCESSED_CRASH}:
                raise CrashIDNotFound(crash_id, uri=self.client.uri, reason="no processed_crash")
        return parts

    def _raw_and_dumps(
        self, crash_id: str, kinds: Set[Kind], raw: StoredObject | None
    ) -> list[Part]:
        wanted = Kind.RAW_CRASH in kinds
        raw = raw or self.finder.raw_crash(crash_id, body=wanted)
        if raw is None:
            raise CrashIDNotFound(crash_id, uri=self.client.uri)
        names: list[str] | None = []
        dumps: list[Part] = []
        if Kind.DUMP in kinds:
            names = self._listed(crash_id, raw)
            there = self._unlisted(crash_id, raw) if names is None else names
            dumps = [self._dump(name, crash_id, raw) for name in there]
        if not wanted:
            return dumps
        return [self._part(Kind.RAW_CRASH, raw, is_listed=names is not None), *dumps]

    def is_whole_other(self, crash_id: str, sha256: str) -> bool:
        """Return True if all of a crash is there that has another raw crash than the one of this
        SHA-256, and says so."""
        raw = self.finder.raw_crash(crash_id)
        if raw is None or raw.metadata.get(SHA256, sha256) == sha256:
            return False
        try:
            listed = self._listed(crash_id, raw)
            for name in self._unlisted(crash_id, raw) if listed is None else listed:
                _Dump(self, name, crash_id, raw).size()
        except (CorruptCrash, StorageUnavailable):  # it was saved with others, or is replaced
            return False
        return True

    def _part(self, kind: Kind, stored: StoredObject, *, is_listed: bool = True) -> Part:
        locate = partial(self.client.location, stored.key)
        opener = partial(self.finder.open_as_found, stored)
        version = stored.state if is_listed else (*stored.state, _UNLISTED)
        return Part(kind, "", opener, stored.size, locate=locate, version=version)

    def _dump(self, name: str, crash_id: str, raw: StoredObject) -> Part:
        dump = _Dump(self, name, crash_id, raw)
        locate = partial(self.client.location, dump.key)
        ask_size, ask_version = dump.size, dump.version
        return Part(
            Kind.DUMP, name, dump.open, ask_size=ask_size, locate=locate, ask_version=ask_version
        )

    def _listed(self, crash_id: str, raw: StoredObject) -> list[str] | None:
        """Return the names in the list of dumps; None where there is no list."""
        stored = self.client.get_small(self._layout.dump_names_key(crash_id))
        if stored is None:
            return None
        self.check_belongs(stored, raw, "dump_names", crash_id)
        if stored.size > LONGEST_DUMP_NAMES:
            raise self.corrupt("dump_names is too long", crash_id)
        with self.finder.open_as_found(stored) as file:
            try:
                return parse_dump_names(file.read())
            except CorruptCrash as error:
                raise self.corrupt(error.reason, crash_id) from error

    def _unlisted(self, crash_id: str, raw: StoredObject) -> list[str]:
        """Return the names of the dumps beside a raw crash that had no list of them.

        :raises StorageUnavailable: the crash is being saved, replaced or removed
        """
        try:
            names = self.finder.unlisted_dumps(raw)
        except LargeDocument as error:
            reason = f"there is no dump_names, and {error.reason}"
            raise self.corrupt(reason, crash_id) from error
        if self.finder.list_of_dumps(crash_id):
            raise replaced(self.client, raw.key)
        self.raise_if_replaced(raw)
        return names

    def check_belongs(
        self, stored: StoredObject, raw: StoredObject, what: str, crash_id: str
    ) -> None:
        """Make sure that an object was saved with this raw crash, as far as they say.

        What other programs have put there says nothing: then it is enough that the raw crash
        is still there, for a save that replaces a crash removes that first.
        """
        of_stored, of_raw = stored.metadata.get(RAW_CRASH_SHA256), sha256_of_dumps(raw.metadata)
        if of_stored != of_raw:
            self.raise_if_replaced(raw)
            if of_stored and of_raw:
                raise self.corrupt(f"{what} was saved with another raw crash", crash_id)

    def raise_if_replaced(self, raw: StoredObject) -> None:
        """Raise `StorageUnavailable` unless the raw crash is as it was found."""
        now = self.client.head(raw.key)
        if now is None or now.state != raw.state:
            raise replaced(self.client, raw.key)

    def corrupt(self, reason: str, crash_id: str) -> CorruptCrash:
        """Return what to raise where objects do not belong together."""
        return CorruptCrash(reason, crash_id=crash_id, uri=self.client.uri)


class _Dump:
    """A dump, of which nothing is known before it is looked at, and which has to stay what it was
    then: otherwise two destinations could get different dumps.

    :param raw: the raw crash that it was found with
    """

    def __init__(self, reader: Reader, name: str, crash_id: str, raw: StoredObject) -> None:
        self.key = reader.finder.layout.dump_key(crash_id, name)
        self._reader = reader
        self._name = name
        self._crash_id = crash_id
        self._raw = raw
        self._version: object = None  # until it is looked at

    def open(self) -> BinaryIO:
        """Open it."""
        found = self._reader.client.get(self.key)
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

    def version(self) -> object:
        """Return the version that was there when it was looked at first."""
        return self._version or self._look().state

    def _look(self) -> StoredObject:
        found = self._reader.client.head(self.key)
        if found is None:
            raise self._missing()
        self._check(found)
        return found

    def _missing(self) -> CorruptCrash:
        self._reader.raise_if_replaced(self._raw)
        return self._reader.corrupt(f"dump {self._name} is listed and not there", self._crash_id)

    def _check(self, dump: StoredObject) -> None:
        self._reader.check_belongs(dump, self._raw, f"dump {self._name}", self._crash_id)
        if not is_marked(dump, self._raw):
            self._reader.raise_if_replaced(self._raw)
            raise self._reader.corrupt(
                f"dump {self._name} was saved with other dumps", self._crash_id
            )
        if self._version not in (None, dump.state):
            raise replaced(self._reader.client, self.key)
        self._version = dump.state
