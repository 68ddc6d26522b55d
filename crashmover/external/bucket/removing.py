# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Removing: the raw crash goes first, and only what was seen goes.

Each object is deleted in the version that it was seen in, as far as the server honours that.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial

from crashmover.crash import ALL_KINDS, MAIN_DUMP, Crash, Kind, Part
from crashmover.errors import CorruptCrash, CrashChanged, CrashIDNotFound, StorageUnavailable
from crashmover.external.bucket.client import ObjectExists, StoredObject
from crashmover.external.bucket.finding import Finder
from crashmover.external.bucket.layouts import format_dump_names
from crashmover.external.bucket.reading import Reader
from crashmover.external.bucket.stamps import DUMPS, is_of, sha256_of_dumps


class Remover:
    """Removes crashes, and objects of crashes.

    :param finder: of the bucket
    :param reader: of the same
    """

    def __init__(self, finder: Finder, reader: Reader) -> None:
        self._finder = finder
        self._client = finder.client
        self._layout = finder.layout
        self._reader = reader

    def remove(self, crash_id: str) -> None:
        """Remove all of a crash.

        :raises CrashIDNotFound: there was nothing of it
        :raises StorageUnavailable: another process has replaced it meanwhile
        """
        with self._client.rounds() as begin:
            ask_raw = begin(partial(self._finder.raw_crash, crash_id, surely=True))
            ask_list = begin(partial(self._finder.read_list, crash_id))
            processed = begin(
                partial(self._finder.those_there, [self._layout.processed_crash_key(crash_id)])
            )
            raw, listed = ask_raw(), ask_list()
            names = listed[1] if listed else self._unlisted(raw)
            seen = [*processed(), *(listed or ())[:1]]
        if MAIN_DUMP not in names:  # it may be left of a crash without a list
            seen += self._finder.those_there([self._layout.dump_key(crash_id, MAIN_DUMP)])
        if not raw and not seen:
            raise CrashIDNotFound(crash_id, uri=self._client.uri)
        left = self.remove_raw_crash(crash_id, raw) if raw else []
        if left or self._client.delete(self._of_dumps(crash_id, names) | _versions(seen)):
            reason = "another process replaced it while it was removed"
            raise StorageUnavailable(reason, crash_id=crash_id, uri=self._client.uri)

    def _unlisted(self, raw: StoredObject | None) -> Iterable[str]:
        try:
            return self._finder.unlisted_dumps(raw) if raw else ()
        except CorruptCrash:  # what it names cannot be known
            return ()

    def remove_raw_crash(self, crash_id: str, raw: StoredObject) -> list[str]:
        """Remove a raw crash, and those that it hides under older keys; return the keys of those
        that were replaced meanwhile, and stay."""
        behind = self._finder.raw_crashes_behind(crash_id, raw)
        return self._client.delete(_versions([raw, *behind]))

    def remove_dumps(self, crash_id: str, names: Iterable[str]) -> None:
        """Remove dumps, and leave them in the list."""
        self._client.delete(self._of_dumps(crash_id, names))

    def _of_dumps(self, crash_id: str, names: Iterable[str]) -> dict[str, str | None]:
        """Return what `BucketClient.delete` is told of dumps that were not looked at."""
        return {self._layout.dump_key(crash_id, name): None for name in sorted(names)}

    # What was loaded

    def remove_loaded(self, crash: Crash) -> None:
        """As `CrashStorageBase.remove_loaded`, by one question for each dump and each key of a raw
        crash, as one may lie under an older key, too.

        What an earlier attempt has left is removed as well.  What another process puts meanwhile
        stays, as far as the server honours versions.
        """
        crash_id = crash.crash_id
        _, *older = keys = self._layout.raw_crash_keys(crash_id)
        with self._client.rounds() as begin:
            ask_list = begin(partial(self._finder.list_of_dumps, crash_id))
            ask_raw = begin(partial(self._finder.raw_crash, crash_id, body=True))
            # What sends no request must not count as one that was answered at once.
            ask_older = begin(partial(self._finder.those_there, older)) if older else list
            listed, raw = ask_list(), ask_raw()  # the list, before its names are compared
            behind = [each for each in ask_older() if not raw or _is_behind(each, raw, keys)]
        if raw:
            there = Crash(crash_id, self._reader.parts(crash_id, ALL_KINDS, raw))
            if there.versions() != crash.versions():
                raise CrashChanged(crash_id, uri=self._client.uri)
        elif not behind and not self._is_rest_of(crash, listed):
            raise CrashIDNotFound(crash_id, uri=self._client.uri)
        if behind:
            raise CrashChanged(crash_id, behind[-1].key, uri=self._client.uri)
        if raw and self._client.delete(_versions([raw])):
            raise CrashChanged(crash_id, raw.key, uri=self._client.uri)
        others = {self._key(part, crash_id): _version(part) for part in _others(crash)}
        changed = self._client.delete(others | _versions([listed] if listed else []))
        if changed:
            dumps = {self._key(part, crash_id) for part in crash.dumps}
            if raw and listed and dumps and dumps == dumps.intersection(changed):
                self._put_back(raw, listed, crash)
            raise CrashChanged(crash_id, changed[0], uri=self._client.uri)

    def _put_back(self, raw: StoredObject, listed: StoredObject, crash: Crash) -> None:
        """Put back a raw crash that was removed before other dumps were met than were loaded, so
        that these can be found.  A large one stays removed; the caller has it."""
        if raw.body is None:
            return
        names = format_dump_names([part.name for part in crash.dumps])
        metadata = {name: value for name, value in raw.metadata.items() if name != DUMPS}
        with suppress(ObjectExists):
            put = partial(self._client.put, content_type="application/json", create=True)
            put(listed.key, names, metadata=listed.metadata)
            put(raw.key, raw.body, metadata=metadata)

    def _key(self, part: Part, crash_id: str) -> str:
        if part.kind is Kind.PROCESSED_CRASH:
            return self._layout.processed_crash_key(crash_id)
        return self._layout.dump_key(crash_id, part.name)

    def _is_rest_of(self, crash: Crash, listed: StoredObject | None) -> bool:
        """Return True if what is there, without a raw crash, is what a removal of this crash has
        left, and not what another process has begun to save since."""
        names = {part.name for part in crash.dumps}
        if listed and not is_of(listed, _sha256_of_dumps(crash.raw_crash)):
            return False
        if listed and self._finder.listed_dumps(crash.crash_id) != names:
            return False
        parts = {self._key(part, crash.crash_id): part for part in _others(crash)}
        keys = {*parts, self._layout.processed_crash_key(crash.crash_id)}
        left = self._finder.those_there(keys)
        are_loaded = [
            there.key in parts and parts[there.key].find_version() == there.state for there in left
        ]
        return all(are_loaded) and bool(left or listed)


def _is_behind(each: StoredObject, first: StoredObject, keys: Sequence[str]) -> bool:
    return keys.index(each.key) > keys.index(first.key)


def _versions(found: Iterable[StoredObject]) -> dict[str, str | None]:
    """Return what `BucketClient.delete` is told of objects that were found."""
    return {each.key: each.version for each in found}


def _others(crash: Crash) -> list[Part]:
    return [part for part in crash.parts if part.kind is not Kind.RAW_CRASH]


def _version(part: Part) -> str | None:
    """As `StoredObject.version`, of a part that was loaded."""
    version = part.find_version()
    return version[0] if isinstance(version, tuple) else None


def _sha256_of_dumps(raw_crash: Part | None) -> str | None:
    """As `sha256_of_dumps`, of a raw crash that was loaded."""
    version = raw_crash.version if raw_crash else None
    return sha256_of_dumps(dict(version[1:])) if isinstance(version, tuple) else None
