# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""CrashFile: one file of a crash, opened only while the crash is as it was found."""

import gzip
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from crashmover.crash import Kind, Part, open_file
from crashmover.errors import CorruptCrash, StorageUnavailable
from crashmover.external.fs import durable
from crashmover.external.fs.listing import Generation, generation
from crashmover.external.fs.oserrors import Translator

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Where = tuple[str, ...]

_GZIP_LEVEL = 1  # a processed crash is packed at 3 x the speed of level 6, to 1.1 x the size


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
        opener = self.open_gzip if kind is Kind.PROCESSED_CRASH else self.open
        return Part(kind, name, opener, size)

    def open(self) -> BinaryIO:
        """Open the file.

        :raises StorageUnavailable: it was replaced or removed since the crash was found
        """
        action = f"{self.name} cannot be read"
        with self.translator.translating(action, self.crash_id):
            try:
                with (
                    ExitStack() as unless_all_is_well,
                    durable.opened(durable.open_root(self.root)) as root_fd,
                    durable.opened(durable.walk_down(root_fd, self.where)) as dir_fd,
                ):
                    fd = durable.open_regular(dir_fd, self.name)
                    file = open_file(fd, self.translator.explain(action, self.crash_id))
                    unless_all_is_well.callback(file.close)
                    if self._is_changed(dir_fd):
                        raise self._changed()
                    unless_all_is_well.pop_all()
                    return file
            except FileNotFoundError as error:
                raise self._changed() from error

    def open_gzip(self) -> BinaryIO:
        """Open the file, unpacked; raises as `open`, and on reading `CorruptCrash`."""
        file = self.open()
        what = f"{self.name} is not whole gzip"
        corrupt = CorruptCrash(what, crash_id=self.crash_id, uri=self.translator.uri)
        return cast(BinaryIO, _Gunzip(file, corrupt))

    def _is_changed(self, dir_fd: int) -> bool:
        if self.state is None:
            return False
        return generation(durable.status(dir_fd, self.marker)) != self.state

    def _changed(self) -> StorageUnavailable:
        reason = "it was replaced or removed while it was read"
        return StorageUnavailable(reason, crash_id=self.crash_id, uri=self.translator.uri)


class _Gunzip(io.RawIOBase):
    """A gzipped file, unpacked as it is read; what is damaged raises `corrupt`."""

    def __init__(self, file: BinaryIO, corrupt: CorruptCrash) -> None:
        self._file = file
        self._corrupt = corrupt
        self._unpacked = gzip.GzipFile(fileobj=file, mode="rb")
        self._empty = os.fstat(file.fileno()).st_size == 0

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if self._empty:  # which GzipFile would take for nothing, well packed
            raise self._corrupt
        try:
            return self._unpacked.read(-1 if size is None else size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._corrupt from error

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pack as the files of processed crashes are packed: the same bytes for the same bytes."""
    packer = zlib.compressobj(_GZIP_LEVEL, wbits=zlib.MAX_WBITS | 16)
    for chunk in chunks:
        yield packer.compress(chunk)
    yield packer.flush()
