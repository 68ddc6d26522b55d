# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What the operating system's errors mean for a store: translated here and nowhere else."""

import errno
import os
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
from crashmover.external.translating import translating

# ENOENT: the root; waiting does not bring a mistyped path into being.
_DENIED = {
    errno.EACCES,
    errno.ELOOP,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}

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


def why_not_writable(directory: Path) -> OSError:
    """Return the error of making a file in a directory that `os.access` has found not writable.

    It only says that, and statvfs does not know of a read-only snapshot or subvolume of Btrfs.  A
    file without a name (O_TMPFILE) is refused with the reason, and leaves nothing where it is not.
    """
    number = errno.EROFS if os.statvfs(directory).f_flag & os.ST_RDONLY else errno.EACCES
    try:
        os.close(os.open(directory, os.O_RDWR | getattr(os, "O_TMPFILE", 0) | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EPERM):
            number = error.errno
    return OSError(number, os.strerror(number))


class Translator:
    """Makes a `StorageError` of an `OSError`.

    :param uri: the store
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def error(self, error: OSError, action: str, crash_id: str | None = None) -> StorageError:
        """Return the store's error for one of the operating system's."""
        kind: type[StorageError] = StorageError
        if error.errno in _DENIED:
            kind = StorageDenied
        elif error.errno in _PASSING:
            kind = StorageUnavailable
        return kind(f"{action}: {error.strerror or error}", crash_id=crash_id, uri=self.uri)

    def explain(self, action: str, crash_id: str | None = None) -> Callable[[OSError], Exception]:
        """Return `error` with all but the error filled in."""
        return lambda error: self.error(error, action, crash_id)

    def translating(self, action: str, crash_id: str | None = None) -> translating:
        """Raise the store's error for any of the operating system's."""
        return translating(_TRANSLATED, lambda error: self._translated(error, action, crash_id))

    def _translated(self, error: Exception, action: str, crash_id: str | None) -> Exception:
        if isinstance(error, OSError):
            return self.error(error, action, crash_id)
        if isinstance(error, InvalidDumpName):
            return CorruptCrash(str(error), crash_id=crash_id, uri=self.uri)
        if isinstance(error, StorageError):
            error.uri = error.uri or self.uri
        return error


_TRANSLATED = (OSError, InvalidDumpName, CorruptCrash, CrashChanged)
