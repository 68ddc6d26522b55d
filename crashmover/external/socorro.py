# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The API of Socorro's crash storage, on top of what every store can do: Python's objects in
place of bytes.

Source: Mozilla Socorro, ``socorro/external/crashstorage_base.py``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, final

from crashmover import crashid
from crashmover.crash import (
    ALL_KINDS,
    Crash,
    DumpsMapping,
    FileDumpsMapping,
    Kind,
    MemoryDumpsMapping,
    Part,
    canonical_dump_name,
    dump_parts,
    temporary_dump_path,
)
from crashmover.documents import json_object, json_part
from crashmover.errors import CorruptCrash, CrashIDNotFound, DumpNotFound
from crashmover.redactor import Redactor


class SocorroAPI(ABC):
    """What `CrashStorageBase` inherits.  JSON is read here, and nowhere in a store."""

    uri: str
    """Where the store is, redacted: what messages call it."""

    redactor: Redactor = Redactor()
    """What `get_processed` leaves out."""

    @abstractmethod
    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        """As `CrashStorageBase` says."""

    @abstractmethod
    def save_crash(self, crash: Crash) -> None:
        """As `CrashStorageBase` says."""

    @final
    def save_raw_crash(
        self, raw_crash: Mapping[str, Any], dumps: DumpsMapping, crash_id: str
    ) -> None:
        """Save annotations and dumps; `dumps` as a `MemoryDumpsMapping` (or a plain mapping
        of names to bytes), a `FileDumpsMapping`, or None."""
        self.save_crash(Crash(crash_id, [_raw_part(raw_crash), *dump_parts(dumps)]))

    @final
    def save_raw_crash_with_file_dumps(
        self, raw_crash: Mapping[str, Any], dumps: Mapping[str, str], crash_id: str
    ) -> None:
        """Save annotations and dumps that are files: name -> path."""
        self.save_raw_crash(raw_crash, FileDumpsMapping(dumps), crash_id)

    @final
    def save_processed(self, processed_crash: Mapping[str, Any]) -> None:
        """Save a processed crash under the id that is its ``uuid``."""
        self.save_crash(Crash(_uuid(processed_crash), [_processed_part(processed_crash)]))

    @final
    def save_raw_and_processed(
        self,
        raw_crash: Mapping[str, Any],
        dumps: DumpsMapping,
        processed_crash: Mapping[str, Any],
        crash_id: str,
    ) -> None:
        """Save all of a crash in one step.

        :raises ValueError: the processed crash is another crash's
        """
        if _uuid(processed_crash) != crash_id:
            raise ValueError("the processed crash is of another crash: its uuid differs")
        parts = [_raw_part(raw_crash), *dump_parts(dumps), _processed_part(processed_crash)]
        self.save_crash(Crash(crash_id, parts))

    @final
    def get_raw_crash(self, crash_id: str) -> dict[str, Any]:
        """Return the annotations.

        :raises CrashIDNotFound: no such crash
        :raises CorruptCrash: it is not a JSON object
        """
        return self._get_json(crash_id, Kind.RAW_CRASH)

    @final
    def get_raw_dump(self, crash_id: str, name: str | None = None) -> bytes:
        """Return one dump, the main one when not named.

        :raises DumpNotFound: the crash has no such dump
        :raises CrashIDNotFound: no such crash
        """
        return self.find_dump(crash_id, name).read()

    @final
    def find_dump(self, crash_id: str, name: str | None = None) -> Part:
        """Return one dump as a part, unread; raises as `get_raw_dump` does."""
        name = canonical_dump_name(name)
        part = self.load_crash(crash_id, {Kind.DUMP}).part(Kind.DUMP, name)
        if part is None:
            raise DumpNotFound(crash_id, uri=self.uri, reason=f"no dump {name}")
        return part

    @final
    def get_raw_dumps(self, crash_id: str) -> MemoryDumpsMapping:
        """Return every dump, in memory.

        :raises CrashIDNotFound: no such crash
        """
        parts = self.load_crash(crash_id, {Kind.DUMP}).parts
        return MemoryDumpsMapping((part.name, part.read()) for part in parts)

    @final
    def get_raw_dumps_as_files(self, crash_id: str, directory: str | Path) -> FileDumpsMapping:
        """Write every dump to ``directory/ID.NAME.TEMPORARY.dump``; whoever asked removes
        the files.

        :raises CrashIDNotFound: no such crash
        """
        files = FileDumpsMapping()
        for part in self.load_crash(crash_id, {Kind.DUMP}).parts:
            path = temporary_dump_path(directory, crash_id, part.name)
            with path.open("wb") as file:
                file.writelines(part.chunks())
            files[part.name] = str(path)
        return files

    @final
    def get_processed(self, crash_id: str) -> dict[str, Any]:
        """Return the processed crash without what `redactor` forbids.

        :raises CrashIDNotFound: there is none
        :raises CorruptCrash: it is not a JSON object
        """
        return self.redactor.redact(self.get_unredacted_processed(crash_id))

    @final
    def get_unredacted_processed(self, crash_id: str) -> dict[str, Any]:
        """Return the processed crash, protected data and all; raises as `get_processed`."""
        return self._get_json(crash_id, Kind.PROCESSED_CRASH)

    def _get_json(self, crash_id: str, kind: Kind) -> dict[str, Any]:
        part = self.load_crash(crash_id, {kind}).part(kind)
        if part is None:
            raise CrashIDNotFound(crash_id, uri=self.uri, reason=f"no {kind}")
        try:
            return json_object(part)
        except CorruptCrash as error:
            raise CorruptCrash(error.reason, crash_id=crash_id, uri=self.uri) from error.__cause__


def _raw_part(raw_crash: Mapping[str, Any]) -> Part:
    return json_part(Kind.RAW_CRASH, raw_crash)


def _processed_part(processed_crash: Mapping[str, Any]) -> Part:
    return json_part(Kind.PROCESSED_CRASH, processed_crash)


def _uuid(processed_crash: Mapping[str, Any]) -> str:
    return crashid.validate(processed_crash.get("uuid", ""))
