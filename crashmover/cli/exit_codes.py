# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What the command says to the shell when it ends."""

from enum import IntEnum

from crashmover.errors import (
    CrashIDNotFound,
    CrashIdsFailedToPublish,
    InvalidConfig,
    InvalidCrashID,
    InvalidDumpName,
    InvalidURI,
    MissingExtra,
    NotTwoStores,
    PolyCrashStorageError,
    QueueError,
    StorageDenied,
    StorageUnavailable,
)

HELP = """\b
Exit codes:
  0      all done
  1      some crash failed, each is named; or the store holds something else
  2      wrong usage; nothing was touched
  3      no such crash
  4      a store or queue cannot be reached, or refuses us
  128+N  stopped by signal N, after finishing what was in hand"""


class ExitCode(IntEnum):
    """The same for every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    SIGNAL = 128


_USAGE = (
    InvalidConfig,
    InvalidCrashID,
    InvalidDumpName,
    InvalidURI,
    MissingExtra,
    NotTwoStores,
)
_UNAVAILABLE = (QueueError, StorageDenied, StorageUnavailable)


def of_error(error: Exception) -> ExitCode:
    """Return the exit code for what ended a command."""
    if isinstance(error, PolyCrashStorageError):
        codes = {of_error(child) for child in error.exceptions}
        return codes.pop() if len(codes) == 1 else ExitCode.FAILED
    if isinstance(error, CrashIdsFailedToPublish) and error.__cause__ is None:
        return ExitCode.FAILED
    if isinstance(error, _USAGE):
        return ExitCode.USAGE
    if isinstance(error, CrashIDNotFound):
        return ExitCode.NOT_FOUND
    return ExitCode.UNAVAILABLE if isinstance(error, _UNAVAILABLE) else ExitCode.FAILED
