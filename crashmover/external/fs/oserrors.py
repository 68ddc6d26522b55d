# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What the operating system's errors mean for a store: translated here and nowhere else."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from crashmover.errors import (
    CorruptCrash,
    InvalidDumpName,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)

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

    @contextmanager
    def translating(self, action: str, crash_id: str | None = None) -> Iterator[None]:
        """Raise the store's error for any of the operating system's."""
        try:
            yield
        except OSError as error:
            raise self.error(error, action, crash_id) from error
        except InvalidDumpName as error:
            raise CorruptCrash(str(error), crash_id=crash_id, uri=self.uri) from error
        except CorruptCrash as error:
            error.uri = error.uri or self.uri
            raise
