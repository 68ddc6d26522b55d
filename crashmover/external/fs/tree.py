# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Tree: a store's directory, the names in it, and what the system's errors mean there.

An `OSError` is made a `StorageError` here and nowhere else.
"""

import errno
from collections.abc import Callable
from pathlib import Path

from crashmover.errors import (
    CorruptCrash,
    CrashChanged,
    InvalidDumpName,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.fs.directory_index import IndexCache
from crashmover.external.fs.layouts import Layout
from crashmover.external.fs.modes import Modes
from crashmover.external.translating import translating
from crashmover.uri import StorageURI

# ENOENT: the root; waiting does not bring a mistyped path into being.
_DENIED = {errno.EACCES, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EROFS}

# These pass: another process lets go, a file server comes back.
_PASSING = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EHOSTDOWN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOLCK,
    errno.ENOTCONN,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
_TRANSLATED = (OSError, InvalidDumpName, CorruptCrash, CrashChanged)


class Tree:
    """A store's directory tree; `root` is an absolute path."""

    def __init__(self, root: Path, layout: Layout, modes: Modes) -> None:
        self.root = root
        self.layout = layout
        self.modes = modes
        self.indexes = IndexCache(layout.json_file_suffix)
        self.uri = str(StorageURI("fs", path=str(root)))

    def error(self, error: Exception, action: str, crash_id: str | None = None) -> Exception:
        """Return the store's error for one of the operating system's, or another."""
        if isinstance(error, OSError):
            kind: type[StorageError] = StorageError
            if error.errno in _DENIED:
                kind = StorageDenied
            elif error.errno in _PASSING:
                kind = StorageUnavailable
            return kind(f"{action}: {error.strerror or error}", crash_id=crash_id, uri=self.uri)
        if isinstance(error, InvalidDumpName):
            return CorruptCrash(str(error), crash_id=crash_id, uri=self.uri)
        if isinstance(error, StorageError):
            error.uri = error.uri or self.uri
        return error

    def explain(self, action: str, crash_id: str | None = None) -> Callable[[Exception], Exception]:
        """Return `error` with all but the error filled in."""
        return lambda error: self.error(error, action, crash_id)

    def translating(self, action: str, crash_id: str | None = None) -> translating:
        """Raise the store's error for any of the operating system's."""
        return translating(_TRANSLATED, self.explain(action, crash_id))
