# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Probing: crashes that no reader sees, to find out whether a store can be saved to."""

import datetime as dt
from typing import NoReturn

from crashmover import crashid
from crashmover.crash import Crash, Kind, Part
from crashmover.errors import StorageError

_NOBODYS = "00000000-0000-0000-0000-00000"
_DUMP = b"crashmover doctor was here, and should have taken this away again\n"


class Unfinished(StorageError):
    """What reading the raw crash of a probe ends in."""


def probe_id() -> str:
    """Return a crash id of today that no crash is given."""
    return f"{_NOBODYS}{crashid.DEFAULT_DEPTH}{dt.datetime.now(dt.UTC):%y%m%d}"


def probe_crash() -> Crash:
    """Return a small crash, for a store that can take back all that it has written of it before
    any reader sees it."""
    raw = Part.of_bytes(Kind.RAW_CRASH, b"{}")
    return Crash(probe_id(), [Part.of_bytes(Kind.DUMP, _DUMP), raw])


def unfinished_crash() -> Crash:
    """Return a crash of which the raw crash cannot be read.  A destination promises that of its
    save nothing is seen and nothing stays."""
    dump, raw = Part.of_bytes(Kind.DUMP, _DUMP), Part(Kind.RAW_CRASH, "", _end)
    return Crash(probe_id(), [dump, raw])


def verify_unfinished(error: Exception) -> None:
    """Raise the error, unless it is what saving an `unfinished_crash` has to end in."""
    if not _is_the_end(error):
        raise error


def _end() -> NoReturn:
    raise Unfinished("a probe ends here")


def _is_the_end(error: BaseException | None) -> bool:
    """Whether that is what was to be raised, as it is or translated."""
    return error is not None and (isinstance(error, Unfinished) or _is_the_end(error.__cause__))
