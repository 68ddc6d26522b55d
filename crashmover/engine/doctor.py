# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Doctor: whether stores and queues can be used, found out by nearly using them."""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from time import monotonic

from crashmover.crash import Kind
from crashmover.errors import (
    CorruptCrash,
    CrashArchived,
    CrashIDNotFound,
    CrashMoverError,
    StorageDenied,
    StorageError,
    describe,
    masked,
)
from crashmover.external.crashqueue_base import CrashQueueBase
from crashmover.external.roles import CrashDestination, CrashSource, ListedSource, Store
from crashmover.pool import Pool
from crashmover.retry import RetryPolicy

CLOCK_OFF = 60.0
"""Seconds by which a store's clock may differ from ours before that is worth a warning.  What is
signed for S3 is refused from 15 minutes on."""

_UNCERTAIN = 2.0  # seconds: some clocks are told without fractions, and on their way that long
_RETRY = RetryPolicy(attempts=2, timeout=5.0)


class Need(Enum):
    """What a store is for."""

    READ = "to be read"
    WRITE = "to be read and saved to"
    EITHER = "to be read, and to be saved to if it can be"


@dataclass
class Checkup:
    """What was found of a store or a queue.

    :param uri: its own, redacted
    """

    uri: str
    found: list[str] = field(default_factory=list)
    """What is as it should be."""
    warnings: list[str] = field(default_factory=list)
    error: str | None = None
    """Why it cannot be used; None: it can."""
    clock: float | None = None
    """How many seconds its clock is ahead of ours, where it tells."""

    @property
    def verdict(self) -> str:
        """``ok``, ``warn`` or ``failed``."""
        return "failed" if self.error else "warn" if self.warnings else "ok"


Check = Callable[[Checkup], None]
"""Finds out, and takes note; raises what makes the store or queue unusable."""


def check_storage(storage: Store, need: Need, probe: bool, checkup: Checkup) -> None:
    """Find out whether a store can be used, and close it.

    :param probe: whether something may be written, and taken away again
    :raises StorageError: it cannot
    """
    with storage:
        clock = _Clock()
        try:
            _require_role(storage, need)
            if not _try_writing(storage, need, probe, checkup, clock):
                _RETRY.call(storage.verify_access)
            if isinstance(storage, CrashSource):
                _try_reading(storage, checkup)
            checkup.warnings += _warnings(storage)
        except StorageDenied:  # by whom it is out of time, perhaps
            with suppress(StorageError):
                clock.read(storage.clock)
            clock.report(checkup)
            raise
        clock.read(storage.clock)
        clock.report(checkup)


def check_queue(queue: CrashQueueBase, checkup: Checkup) -> None:
    """Find out whether a queue can be used, and close it.

    :raises QueueError: it cannot
    """
    with queue:
        checkup.warnings += _RETRY.call(queue.diagnose)
        checkup.warnings += queue.diagnose_quarantine()
        checkup.found += [name.value for name in queue.queues]


def _require_role(storage: Store, need: Need) -> None:
    if need is Need.READ and not isinstance(storage, CrashSource):
        raise StorageDenied("crashes can only be saved to it", uri=storage.uri)
    if need is Need.WRITE and not isinstance(storage, CrashDestination):
        raise StorageDenied("crashes can only be read from it", uri=storage.uri)


def _try_writing(
    storage: Store, need: Need, probe: bool, checkup: Checkup, clock: "_Clock"
) -> bool:
    """Return whether it can be saved to; that it cannot is an error where it must be."""
    if need is Need.READ or not isinstance(storage, CrashDestination):
        return False
    try:
        _RETRY.call(partial(storage.verify_access, write=True))
        if probe:
            checkup.warnings += _unprefixed(storage, _RETRY.call(storage.try_saving))
            clock.read(partial(_RETRY.call, storage.probe_write))
    except StorageDenied as error:
        if need is Need.WRITE:
            raise
        checkup.warnings.append(f"cannot be saved to: {error.reason}")
        return False
    checkup.found.append("write" if probe else "write not tried")
    checkup.warnings += _unprefixed(storage, storage.durability_risks())
    return True


def _try_reading(source: CrashSource, checkup: Checkup) -> None:
    if isinstance(source, ListedSource):
        checkup.warnings += _RETRY.call(partial(_read_something, source))
        checkup.found.insert(0, "read")
    else:
        checkup.found.insert(0, "read by crash id not tried")
    checkup.warnings += _unprefixed(source, source.reading_risks())


def _read_something(source: ListedSource) -> list[str]:
    """List what came since yesterday, and read a little of the first crash: what can be listed
    cannot always be read.  A crash may be damaged, and the store be all right.

    :return: a warning, if the crash cannot be read as it is
    """
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    for crash_id in source.new_crashes(yesterday):
        try:
            for part in source.load_crash(crash_id, {Kind.RAW_CRASH}).parts:
                with part.open() as file:
                    file.read(1)
        except CrashArchived as error:
            return [f"{crash_id}: {error.reason}"]
        except (CrashIDNotFound, CorruptCrash):
            pass
        break
    return []


def _warnings(storage: Store) -> list[str]:
    """Return what the owner of the store should mend, and what it holds instead of crashes or
    beside them, each once, without the store's own name."""
    lines = [*_RETRY.call(lambda: [*storage.diagnose()])]
    if isinstance(storage, CrashSource):
        lines += [*storage.passed_over()] or [*storage.strangers()]
    return _unprefixed(storage, dict.fromkeys(lines))


def _unprefixed(storage: Store, lines: Iterable[str]) -> list[str]:
    return [line.removeprefix(f"{storage.uri}: ") for line in lines]


class _Clock:
    """How far a store's clock is from ours, as soon as something tells."""

    def __init__(self) -> None:
        self._offset: float | None = None

    def read(self, tell: Callable[[], dt.datetime | None]) -> None:
        """Take note of what time that returns, if any."""
        before = now()
        theirs = tell()
        after = now()
        if theirs:
            nearest = min(max(theirs, before), after)
            self._offset = (theirs - nearest).total_seconds()

    def report(self, checkup: Checkup) -> None:
        """Say what that means."""
        offset = checkup.clock = self._offset
        if offset is None:
            return
        if abs(offset) > CLOCK_OFF:
            by = dt.timedelta(seconds=round(abs(offset)))
            side = "ahead of" if offset > 0 else "behind"
            checkup.warnings.append(f"its clock is {by} {side} this machine's")
        elif abs(offset) > _UNCERTAIN:
            checkup.found.append(f"clock {offset:+.0f} s")
        else:
            checkup.found.append("clock right")


def now() -> dt.datetime:
    """Return the time by our own clock."""
    return dt.datetime.now(dt.UTC)


def run(checks: Sequence[tuple[str, Check]], timeout: float) -> Iterator[Checkup]:
    """Carry out all of these at once; yield what each has found, in their order.

    One that has no answer after so many seconds is given up: what hangs stops no other check.

    :param checks: each with the URI it is about, redacted
    """
    deadline = monotonic() + timeout
    pool = Pool(len(checks), "checkup")  # of daemons: the exit does not wait for what hangs
    begun = [(uri, pool.submit(_checkup, uri, check)) for uri, check in checks]
    for uri, future in begun:
        try:
            yield future.result(max(0.0, deadline - monotonic()))
        except TimeoutError:
            yield Checkup(uri, error=f"no answer in {timeout:g} s")


def _checkup(uri: str, check: Check) -> Checkup:
    checkup = Checkup(uri)
    try:
        check(checkup)
    except CrashMoverError as error:
        checkup.error = describe(error)
    except Exception as error:  # a mistake in one must not hide what the others have found
        checkup.error = masked(describe(error))
    return checkup
