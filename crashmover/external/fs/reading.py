# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The files of a crash, opened only while the crash is as it was found."""

import errno
import os
from collections.abc import Iterator, Set
from contextlib import suppress
from functools import partial
from typing import BinaryIO

from crashmover.crash import Kind, Part
from crashmover.errors import CorruptCrash, StorageUnavailable
from crashmover.external.fs import durable
from crashmover.external.fs.directory_index import Generation, generation, state_of
from crashmover.external.fs.durable import HeldDirectory, opened
from crashmover.external.fs.finding import status_if_there
from crashmover.external.fs.layouts import Where
from crashmover.external.fs.packing import gunzipped, pump_both
from crashmover.external.fs.syscalls import is_local, status_from_server
from crashmover.external.fs.tree import Tree
from crashmover.partfiles import open_file
from crashmover.parts import Write

_OPEN_TRIES = 5  # each fails in at most one of six, beside a process that replaces without end
_GONE = (errno.ENOENT, errno.ESTALE)  # the latter on a file server, of a directory that was open


class CrashFiles:
    """What there is of a crash in one directory.

    :param dir_fd: the directory, open; it is kept open to read the parts, if possible
    """

    def __init__(self, tree: Tree, crash_id: str, where: Where, dir_fd: int) -> None:
        self._tree = tree
        self._crash_id = crash_id
        self._where = where
        self._marker = tree.layout.file_name(crash_id, Kind.RAW_CRASH)
        self._held = HeldDirectory.of(dir_fd)
        self._is_local = False

    def raw_crash_and_dumps(self, dir_fd: int, kinds: Set[Kind]) -> list[Part] | None:
        """Return these, as far as they are among the kinds; None where there is no raw crash."""
        self._is_local = is_local(dir_fd)
        try:
            status = self._raw_crash_status(dir_fd)
        except FileNotFoundError:
            return None
        state = generation(status)
        parts: list[Part] = []
        if Kind.RAW_CRASH in kinds:
            parts.append(self._part(Kind.RAW_CRASH, "", self._marker, status, state))
        if Kind.DUMP in kinds:
            parts += self._dumps(dir_fd, state)
        if not parts and not self._is_still(dir_fd, state):  # no part will notice when it is opened
            raise self._changed()
        return parts

    def _dumps(self, dir_fd: int, state: Generation) -> Iterator[Part]:
        layout = self._tree.layout
        names = self._tree.indexes.names_of(self._crash_id, state, dir_fd, self._where)
        for name in filter(layout.is_dump, names):
            try:
                status = durable.status(dir_fd, name)
            except FileNotFoundError:
                raise self._changed() from None
            yield self._part(Kind.DUMP, layout.dump_name(name), name, status, state)

    def _part(
        self, kind: Kind, name: str, file: str, status: os.stat_result, state: Generation
    ) -> Part:
        open_it, locate = partial(self._open, file, state), partial(self._path, file)
        return Part(kind, name, open_it, status.st_size, locate=locate, version=state_of(status))

    def processed_crash(self, dir_fd: int) -> list[Part] | None:
        """Return it; None where it is not there."""
        file = self._tree.layout.file_name(self._crash_id, Kind.PROCESSED_CRASH)
        status = status_if_there(dir_fd, file)
        if status is None:
            return None
        open_it, packed = partial(self._open_gzip, file), partial(self._pump_both, file)
        kind, locate = Kind.PROCESSED_CRASH, partial(self._path, file)
        return [Part(kind, "", open_it, packed=packed, locate=locate, version=state_of(status))]

    def _path(self, file: str) -> str:
        return os.path.join(self._tree.root, *self._where, file)

    def _open(self, file: str, state: Generation | None) -> BinaryIO:
        """Open a file of the crash.

        :param state: the raw crash's when the crash was found; None where it does not matter, as
            for a processed crash, which is one file and replaced in one step
        :raises StorageUnavailable: it was replaced or removed since the crash was found
        """
        about = f"{file} cannot be read", self._crash_id
        with self._tree.translating(*about):
            try:
                fd = self._open_fd(file, state)
            except OSError as error:
                if error.errno in _GONE:
                    raise self._changed() from error
                raise
            return open_file(fd, self._tree.explain(*about))

    def _open_gzip(self, file: str) -> BinaryIO:
        """Open a file, unpacked; reading it raises `CorruptCrash` too."""
        return gunzipped(self._open(file, None), self._corrupt(file))

    def _pump_both(self, file: str, write: Write, write_unpacked: Write) -> None:
        """Pass a file on, as it is and unpacked."""
        with self._open(file, None) as packed:
            pump_both(packed, self._corrupt(file), write, write_unpacked)

    def _open_fd(self, name: str, state: Generation | None) -> int:
        if self._held:
            return self._open_in(self._held.fd, name, state)
        with (
            opened(durable.open_root(self._tree.root)) as root_fd,
            opened(durable.walk_down(root_fd, self._where)) as dir_fd,
        ):
            return self._open_in(dir_fd, name, state)

    def _open_in(self, dir_fd: int, name: str, state: Generation | None) -> int:
        fd, status = durable.open_regular(dir_fd, name)
        with durable.closed_on_error(fd):
            if state and name != self._marker:
                status = self._raw_crash_status(dir_fd)
            elif state and not self._is_local:
                status = status_from_server(fd)
            if state and generation(status) != state:
                raise self._changed()
        return fd

    def _raw_crash_status(self, dir_fd: int) -> os.stat_result:
        """Return the raw crash's status now, and not as a mount's cache has it."""
        if self._is_local:
            return durable.status(dir_fd, self._marker)
        with opened(self._open_marker(dir_fd)) as fd:
            return status_from_server(fd)

    def _open_marker(self, dir_fd: int) -> int:
        """Open the raw crash on a FUSE or network mount.  libfuse may call a file missing that
        another process replaces at this moment."""
        for _ in range(_OPEN_TRIES):
            with suppress(FileNotFoundError):
                return durable.open_regular(dir_fd, self._marker)[0]
            durable.status(dir_fd, self._marker)  # raises if it is missing indeed
        raise self._changed()

    def _is_still(self, dir_fd: int, state: Generation) -> bool:
        """Return True if the raw crash is still in that state."""
        try:
            return generation(self._raw_crash_status(dir_fd)) == state
        except FileNotFoundError:
            return False

    def _changed(self) -> StorageUnavailable:
        """Return the error for a crash that has changed since it was found."""
        reason = "it was replaced or removed while it was read"
        return StorageUnavailable(reason, crash_id=self._crash_id, uri=self._tree.uri)

    def _corrupt(self, file: str) -> CorruptCrash:
        what = f"{file} is not whole gzip"
        return CorruptCrash(what, crash_id=self._crash_id, uri=self._tree.uri)
