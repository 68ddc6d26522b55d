# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""How ``crashmover get`` holds what it has read of a crash against the crash's own raw crash."""

from collections.abc import Iterator
from contextlib import contextmanager

from crashmover.cli.console import say
from crashmover.crash import Crash, Part
from crashmover.documents import LargeDocument
from crashmover.errors import CorruptCrash, CrashIDNotFound, StorageError
from crashmover.external.roles import CrashSource
from crashmover.retry import is_retryable
from crashmover.soundness import (
    Checksums,
    mismatch,
    missing,
    read_dump_checksums,
    why_no_document,
)

_NO_CRASH = "no such crash"


class Held:
    """What a raw crash says of the dumps of its crash.

    :param raw_crash: None where the store has only a processed crash
    """

    def __init__(self, raw_crash: Part | None) -> None:
        self.checksums: Checksums = {}
        self.why_not_compared: str | None = None
        """Why no dump can be compared."""
        self._fault: str | None = None  # what is wrong with the raw crash
        if raw_crash is not None:
            try:
                self.checksums = read_dump_checksums(raw_crash)
            except CorruptCrash as error:
                self.why_not_compared = error.reason
                self._fault = None if isinstance(error, LargeDocument) else error.reason

    def expected(self, name: str) -> bytes | None:
        """Return the SHA-256 that a dump should have; None where the raw crash does not say."""
        return self.checksums.get(name)

    def lacking(self, crash: Crash) -> list[str]:
        """Return the names of the dumps that should be there and are missing."""
        return sorted(self.checksums.keys() - {part.name for part in crash.dumps})

    def faults(self, crash: Crash, digests: dict[str, bytes]) -> list[str]:
        """Return what is wrong with a crash of which all was read.

        :param digests: the SHA-256 of each dump
        """
        wrong = [name for name, it in digests.items() if self.expected(name) not in (None, it)]
        lacking = map(missing, self.lacking(crash))
        faults = [self._fault, *map(mismatch, wrong), *lacking, _processed_fault(crash)]
        return list(filter(None, faults))


def _processed_fault(crash: Crash) -> str | None:
    part = crash.processed_crash
    return why_no_document(part) if part else None


@contextmanager
def telling_what_is_there(storage: CrashSource, crash_id: str) -> Iterator[None]:
    """Where there is no crash, say if there are dumps of it, and what the store holds instead of
    crashes.

    :raises StorageError: if reading failed and the store as a whole cannot be read, why that is so.
        To ask for that before would cost a request that is hardly ever needed.
    """
    try:
        yield
    except CrashIDNotFound as error:
        storage.tuning.retry.call(storage.verify_access)
        names = storage.dumps_alone(crash_id) if error.reason == _NO_CRASH else ()
        for line in storage.tuning.retry.call(lambda: list(storage.strangers())):
            say(f"crashmover: {line}")
        if not names:
            raise
        dumps = "1 dump is" if len(names) == 1 else f"{len(names):,} dumps are"
        reason = f"{_NO_CRASH} ({dumps} there, but no raw crash)"
        raise CrashIDNotFound(crash_id, uri=error.uri, reason=reason) from error
    except StorageError as error:
        if not is_retryable(error):  # which was tried often enough
            storage.verify_access()
        raise
