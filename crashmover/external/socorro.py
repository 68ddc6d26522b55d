# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The API of Socorro's crash storage, on top of what every store can do: Python's objects in
place of bytes.

Source: Mozilla Socorro, ``socorro/external/crashstorage_base.py``.
"""

import atexit
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, final

from crashmover import crashid
from crashmover.crash import ALL_KINDS, Crash, Kind, Part, canonical_dump_name
from crashmover.documents import json_object, json_part
from crashmover.dumps import (
    DumpsMapping,
    FileDumpsMapping,
    MemoryDumpsMapping,
    dump_parts,
    temporary_dump_path,
)
from crashmover.errors import CorruptCrash, CrashIDNotFound, DumpNotFound, StorageUnavailable
from crashmover.redaction import Redactor
from crashmover.spelling import refuse_taken


class SocorroReader(ABC):
    """What every source inherits.  JSON is read here, and nowhere in a store."""

    uri: str
    """Where the store is, redacted: what messages call it."""

    redactor: Redactor = Redactor()
    """What `get_processed` leaves out."""

    exceptions_eligible_for_retry: ClassVar[tuple[type[Exception], ...]] = (StorageUnavailable,)
    """What may go away when the call is repeated."""

    temporary_directory: str | os.PathLike[str] | None = None
    """Where `get_raw_dumps_as_files` writes, unless the caller says where.  None: a private
    directory of this process, which is removed when the process ends."""

    # As `CrashSource` says:

    @abstractmethod
    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash: ...

    @property
    @abstractmethod
    def stores(self) -> "tuple[SocorroReader, ...]": ...

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
    def get_raw_dumps_as_files(
        self, crash_id: str, directory: str | os.PathLike[str] | None = None
    ) -> FileDumpsMapping:
        """Write every dump to ``directory/ID.NAME.TEMPORARY.dump``.  The caller removes the files.
        A failure removes what it has written.

        :param directory: `temporary_directory`, where it is None
        :raises CrashIDNotFound: no such crash
        :raises FileExistsError: two names differ only in case, and are one in the directory
        """
        parts = self.load_crash(crash_id, {Kind.DUMP}).parts
        if directory is None:
            directory = self.temporary_directory or _private_directory(os.getpid())
        files = FileDumpsMapping()
        try:
            for part in parts:
                path = temporary_dump_path(directory, crash_id, part.name)
                refuse_taken(files.values(), path)
                files[part.name] = str(path)
                with path.open("wb") as file:
                    file.writelines(part.chunks())
        except BaseException:
            for written in files.values():
                Path(written).unlink(missing_ok=True)
            raise
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

    @final
    def catalog_crash(self, crash_id: str) -> list[str]:
        """Return what there is of a crash, as sorted words: ``fs_raw_crash``, ``fs_dump_NAME``,
        ``fs_processed_crash``.  The first word is the scheme of the store's URI.  The list is empty
        where there is nothing."""
        return sorted(word for store in self.stores for word in _words_of(store, crash_id))

    # The names of today for the methods of 2019

    get_dumps = get_raw_dumps
    get_dumps_as_files = get_raw_dumps_as_files
    get_processed_crash = get_unredacted_processed

    def _get_json(self, crash_id: str, kind: Kind) -> dict[str, Any]:
        part = self.load_crash(crash_id, {kind}).part(kind)
        if part is None:
            raise CrashIDNotFound(crash_id, uri=self.uri, reason=f"no {kind}")
        try:
            return json_object(part)
        except CorruptCrash as error:
            raise CorruptCrash(error.reason, crash_id=crash_id, uri=self.uri) from error.__cause__


class SocorroAPI(SocorroReader):
    """What `CrashStorageBase` inherits: saving and removing, too."""

    # As `CrashStorageBase` says:

    @abstractmethod
    def save_crash(self, crash: Crash) -> None: ...

    @abstractmethod
    def save_keeping_dumps(self, crash: Crash) -> None: ...

    @abstractmethod
    def remove(self, crash_id: str) -> None: ...

    @final
    def save_raw_crash(
        self, raw_crash: Mapping[str, Any], dumps: DumpsMapping, crash_id: str
    ) -> None:
        """Save annotations and dumps; `dumps` as a `MemoryDumpsMapping` (or a plain mapping
        of names to bytes), a `FileDumpsMapping`, or None.

        None keeps the dumps that are there, as `save_keeping_dumps` says; an empty mapping
        removes them.
        """
        _save(
            self, Crash(crash_id, [json_part(Kind.RAW_CRASH, raw_crash), *dump_parts(dumps)]), dumps
        )

    @final
    def save_raw_crash_with_file_dumps(
        self, raw_crash: Mapping[str, Any], dumps: Mapping[str, str] | None, crash_id: str
    ) -> None:
        """Save annotations and dumps that are files: name -> path.  None as in
        `save_raw_crash`."""
        files = None if dumps is None else FileDumpsMapping(dumps)
        self.save_raw_crash(raw_crash, files, crash_id)

    @final
    def save_processed(self, processed_crash: Mapping[str, Any]) -> None:
        """Save a processed crash under the id that is its ``uuid``; nothing else is touched."""
        self.save_crash(
            Crash(_uuid(processed_crash), [json_part(Kind.PROCESSED_CRASH, processed_crash)])
        )

    @final
    def save_processed_crash(self, raw_crash: object, processed_crash: Mapping[str, Any]) -> None:
        """As `save_processed`: the processor of today calls it so.  `raw_crash` is not saved."""
        self.save_processed(processed_crash)

    @final
    def save_raw_and_processed(
        self,
        raw_crash: Mapping[str, Any],
        dumps: DumpsMapping,
        processed_crash: Mapping[str, Any],
        crash_id: str,
    ) -> None:
        """Save all of a crash in one step; `dumps` as in `save_raw_crash`.

        Socorro's S3 store of 2019 saved the processed crash alone.  Every store here saves the
        raw crash too.

        :raises ValueError: the processed crash is another crash's
        """
        if _uuid(processed_crash) != crash_id:
            raise ValueError("the processed crash is of another crash: its uuid differs")
        parts = [
            json_part(Kind.RAW_CRASH, raw_crash),
            *dump_parts(dumps),
            json_part(Kind.PROCESSED_CRASH, processed_crash),
        ]
        _save(self, Crash(crash_id, parts), dumps)

    @final
    def ack_crash(self, crash_id: str) -> str:
        """Return the crash id: a store has nothing to acknowledge; a queue has."""
        return crash_id

    @final
    def is_mutator(self) -> bool:
        """Return False: a save changes none of the mappings that it is given."""
        return False

    @final
    def delete_crash(self, crash_id: str) -> None:
        """As `remove`."""
        self.remove(crash_id)


def _save(store: SocorroAPI, crash: Crash, dumps: DumpsMapping) -> None:
    if dumps is None:
        store.save_keeping_dumps(crash)
    else:
        store.save_crash(crash)


def _words_of(store: SocorroReader, crash_id: str) -> Iterator[str]:
    try:
        parts: Sequence[Part] = store.load_crash(crash_id).parts
    except CrashIDNotFound:
        parts = ()
        with suppress(CrashIDNotFound):
            parts = store.load_crash(crash_id, {Kind.PROCESSED_CRASH}).parts
    scheme = store.uri.partition(":")[0]
    for part in parts:
        yield "_".join(filter(None, (scheme, part.kind.value, part.name)))


def _uuid(processed_crash: Mapping[str, Any]) -> str:
    return crashid.validate(processed_crash.get("uuid", ""))


@cache
def _private_directory(pid: int) -> str:
    """Return a directory that no other user can read or write, which is removed with all that is
    in it when this process ends.  A process that was forked gets its own."""

    def remove() -> None:
        if os.getpid() == pid:
            shutil.rmtree(directory, ignore_errors=True)

    directory = tempfile.mkdtemp(prefix="crashmover-")
    atexit.register(remove)
    return directory
