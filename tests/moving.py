# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The copy engine as tests call it, on stores in memory."""

from collections.abc import Iterator
from typing import Any

from crashmover.crash import Crash
from crashmover.engine.mover import Mover, Outcome
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.roles import ListedSource
from crashmover.retry import RetryPolicy
from crashmover.testing import (
    CRASH_ID,
    Contents,
    contents,
    crash_of,
)

AT_ONCE = RetryPolicy(wait=0, wait_max=0)


def store_of(*crashes: Crash) -> InMemoryCrashStorage:
    storage = InMemoryCrashStorage()
    for crash in crashes:
        storage.save_crash(crash)
    return storage


def some_crashes(number: int) -> list[Crash]:
    ids = (f"{n:08x}-8721-460c-dead-a43c22071025" for n in range(number))
    return [crash_of(contents(crash_id), crash_id) for crash_id in ids]


def move(
    source: CrashStorageBase, destination: CrashStorageBase, *crash_ids: str, **options: Any
) -> list[Outcome]:
    mover = Mover(source, destination, retry=AT_ONCE, **options)
    return sorted(mover.run(crash_ids or (CRASH_ID,)), key=lambda outcome: outcome.crash_id)


def move_all(
    source: CrashStorageBase, destination: CrashStorageBase, **options: Any
) -> list[Outcome]:
    """Move as a copy of a range of days does: by listings."""
    mover = Mover(source, destination, retry=AT_ONCE, **options)

    def listings(store: ListedSource) -> Iterator[str]:
        return store.new_crashes(kind=mover.marker)

    return list(mover.run(listings(source), listings))


def difference(new: Contents) -> tuple[InMemoryCrashStorage, InMemoryCrashStorage]:
    """Return a source, and a destination that has the crash with other contents."""
    return store_of(crash_of(contents())), store_of(crash_of(new))
