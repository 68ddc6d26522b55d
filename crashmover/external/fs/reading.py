# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""CrashFile: one file of a crash, opened only while the crash is as it was found."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from crashmover.crash import Kind, Part, Write
from crashmover.errors import CorruptCrash, StorageUnavailable
from crashmover.external.fs import durable
from crashmover.external.fs.layout import Where
from crashmover.external.fs.listing import Generation, generation
from crashmover.external.fs.oserrors import Translator
from crashmover.external.fs.packing import gunzipped, pump_both
from crashmover.partfiles import open_file


@dataclass(frozen=True, slots=True)
class CrashFile:
    """Where a part lies.

    :param where: its directory, below `root`
    :param marker: the file name of the crash's raw crash, there too
    :param state: that file's state when the crash was found; None where it does not matter,
        as for a processed crash, which is one file and replaced in one step
    """

    root: Path
    where: Where
    name: str
    crash_id: str
    marker: str
    state: Generation | None
    translator: Translator

    def part(self, kind: Kind, name: str, size: int | None) -> Part:
        """Return the part that is in this file."""
        if kind is Kind.PROCESSED_CRASH:
            return Part(kind, name, self.open_gzip, size, self.pump_both, locate=self.path)
        return Part(kind, name, self.open, size, locate=self.path)

    def path(self) -> str:
        """Return the file's absolute path."""
        return os.path.join(self.root, *self.where, self.name)

    def open(self) -> BinaryIO:
        """Open the file.

        :raises StorageUnavailable: it was replaced or removed since the crash was found
        """
        action = f"{self.name} cannot be read"
        with self.translator.translating(action, self.crash_id):
            try:
                root_fd = durable.open_root(self.root)
                try:
                    fd = self._open(root_fd)
                finally:
                    os.close(root_fd)
            except FileNotFoundError as error:
                raise self.changed() from error
            return open_file(fd, self.translator.explain(action, self.crash_id))

    def _open(self, root_fd: int) -> int:
        fd, status = durable.open_regular_below(root_fd, self.where, self.name)
        with durable.closed_on_error(fd):
            if self.state and self.name != self.marker:
                status = durable.status(root_fd, "/".join((*self.where, self.marker)))
            if self.state and generation(status) != self.state:
                raise self.changed()
        return fd

    def open_gzip(self) -> BinaryIO:
        """Open the file, unpacked; raises as `open`, and on reading `CorruptCrash`."""
        return gunzipped(self.open(), self._corrupt())

    def pump_both(self, write: Write, write_unpacked: Write) -> None:
        """Pass the file on, as it is and unpacked; raises as `open_gzip`."""
        with self.open() as file:
            pump_both(file, self._corrupt(), write, write_unpacked)

    def _corrupt(self) -> CorruptCrash:
        what = f"{self.name} is not whole gzip"
        return CorruptCrash(what, crash_id=self.crash_id, uri=self.translator.uri)

    def changed(self) -> StorageUnavailable:
        """The error for a crash that is not any more what it was when it was found."""
        reason = "it was replaced or removed while it was read"
        return StorageUnavailable(reason, crash_id=self.crash_id, uri=self.translator.uri)
