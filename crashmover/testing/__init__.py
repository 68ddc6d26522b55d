# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The conformance suites: what every store, and every queue, promises, as tests.

A backend of your own joins with five lines (pytest is needed: the ``testing`` extra)::

    class TestMyStorage(StorageConformance):
        @pytest.fixture
        def storage(self) -> Iterator[CrashStorageBase]:
            with MyStorage() as storage:
                yield storage

A third party's store that can only be read joins with `SourceConformance`, or with
`ListedSourceConformance`; one that can only be saved to, with `DestinationConformance`.

The fixture gives a store that is empty and that can be written to.  A queue joins in the same
way with `QueueConformance`, and with `LeaseConformance` where its leases can be made short.

`DistinctConformance` holds that a store is never moved onto itself, and is moved to others.  It
needs two fixtures more: `same_storage`, the same store by another name, and `other_storage`.

`BucketClientConformance` is for the client of a further provider of buckets.
"""

from functools import partial

import pytest

from crashmover.external.crashstorage_base import CrashStorageBase

# So that a failed promise shows the values that it compared.
pytest.register_assert_rewrite(
    *(
        f"crashmover.testing.{name}"
        for name in (
            "buckets",
            "creating",
            "dumps_kept",
            "keeping",
            "queues",
            "removing",
            "roles",
            "sameness",
            "saving",
        )
    )
)

from crashmover.testing.buckets import BucketClientConformance
from crashmover.testing.creating import CreatingConformance
from crashmover.testing.dumps_kept import KeepingDumpsConformance
from crashmover.testing.keeping import KeepingConformance, SocorroConformance
from crashmover.testing.queues import LeaseConformance, QueueConformance
from crashmover.testing.removing import RemovingConformance
from crashmover.testing.roles import (
    DestinationConformance,
    Held,
    ListedSourceConformance,
    Put,
    SourceConformance,
)
from crashmover.testing.sameness import DistinctConformance, SamenessConformance
from crashmover.testing.samples import (
    AT_ONCE,
    BROWSER,
    CRASH_ID,
    LARGE,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    ReadFailed,
    broken,
    contents,
    crash_of,
    held_by,
    observed,
    read,
    whole_or_none,
    without,
)
from crashmover.testing.saving import SavingConformance, WholenessConformance

__all__ = [
    "AT_ONCE",
    "BROWSER",
    "CRASH_ID",
    "LARGE",
    "MAIN",
    "NEIGHBOUR",
    "PROCESSED",
    "RAW",
    "BucketClientConformance",
    "Contents",
    "DestinationConformance",
    "DistinctConformance",
    "LeaseConformance",
    "ListedSourceConformance",
    "QueueConformance",
    "ReadFailed",
    "SourceConformance",
    "StorageConformance",
    "all_cases",
    "broken",
    "contents",
    "crash_of",
    "held_by",
    "observed",
    "read",
    "whole_or_none",
    "without",
]


class StorageConformance(
    ListedSourceConformance,
    DestinationConformance,
    SavingConformance,
    CreatingConformance,
    KeepingDumpsConformance,
    WholenessConformance,
    KeepingConformance,
    RemovingConformance,
    SamenessConformance,
    SocorroConformance,
):
    """The promises of `CrashStorageBase`; give it a fixture `storage`."""

    @pytest.fixture
    def source(self, storage: CrashStorageBase) -> CrashStorageBase:
        """The store as a source."""
        return storage

    @pytest.fixture
    def put(self, storage: CrashStorageBase) -> Put:
        """Puts a crash into the store."""
        return storage.save_crash

    @pytest.fixture
    def destination(self, storage: CrashStorageBase) -> CrashStorageBase:
        """The store as a destination."""
        return storage

    @pytest.fixture
    def held(self, storage: CrashStorageBase) -> Held:
        """Tells what the store has."""
        return partial(held_by, storage)


def all_cases() -> list[str]:
    """Return the names of the promises."""
    return [name for name in dir(StorageConformance) if name.startswith("test_")]
