# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Dumps as the Socorro API takes and returns them: by name, in memory or in files."""

import os
from collections.abc import Mapping
from pathlib import Path

from crashmover.crash import Crash
from crashmover.kinds import Kind
from crashmover.parts import Part


class MemoryDumpsMapping(dict[str, bytes]):
    """Dumps in memory: name -> bytes."""

    def as_memory_dumps_mapping(self) -> "MemoryDumpsMapping":
        """Return itself."""
        return self

    def as_file_dumps_mapping(
        self, crash_id: str, temp_path: str | os.PathLike[str], dump_file_suffix: str = ".dump"
    ) -> "FileDumpsMapping":
        """Write each dump to ``temp_path/ID.NAME.TEMPORARY.dump`` and return where they are.

        :raises InvalidCrashID, InvalidDumpName, CorruptCrash: of a bad id, a bad name, or two
            names for one dump; nothing is written
        """
        files = FileDumpsMapping()
        for part in Crash(crash_id, self.as_parts()).parts:
            path = temporary_dump_path(temp_path, crash_id, part.name, dump_file_suffix)
            path.write_bytes(part.read())
            files[part.name] = str(path)
        return files

    def as_parts(self) -> list[Part]:
        """Return each dump as a part of a crash."""
        return [Part.of_bytes(Kind.DUMP, bytes(data), name) for name, data in self.items()]


class FileDumpsMapping(dict[str, str]):
    """Dumps in files: name -> path."""

    def as_memory_dumps_mapping(self) -> MemoryDumpsMapping:
        """Read every file."""
        return MemoryDumpsMapping((name, Path(path).read_bytes()) for name, path in self.items())

    def as_file_dumps_mapping(self, *_args: object, **_kwargs: object) -> "FileDumpsMapping":
        """Return itself; the files stay where they are."""
        return self

    def as_parts(self) -> list[Part]:
        """Return each dump as a part of a crash."""
        return [Part.of_file(Kind.DUMP, path, name) for name, path in self.items()]


DumpsMapping = MemoryDumpsMapping | FileDumpsMapping | Mapping[str, bytes] | None
"""What the Socorro API takes for dumps; a plain mapping is of names to bytes."""


def dump_parts(dumps: DumpsMapping) -> list[Part]:
    """Return the parts that a mapping of dumps stands for."""
    if not isinstance(dumps, MemoryDumpsMapping | FileDumpsMapping):
        dumps = MemoryDumpsMapping(dumps or {})
    return dumps.as_parts()


def temporary_dump_path(
    directory: str | os.PathLike[str], crash_id: str, name: str, suffix: str = ".dump"
) -> Path:
    """Where a dump is put down for a program that wants a file."""
    return Path(directory, f"{crash_id}.{name}.TEMPORARY{suffix}")
