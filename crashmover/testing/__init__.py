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

The fixture gives a store that is empty and that can be written to.  A queue joins in the same
way with `QueueConformance`, and with `LeaseConformance` where its leases can be made short.

`DistinctConformance` holds that a store is never moved onto itself, and is moved to others.  It
needs two fixtures more: `same_storage`, the same store by another name, and `other_storage`.

`BucketClientConformance` is for the client of a further provider of buckets.
"""

import pytest

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
    "DistinctConformance",
    "LeaseConformance",
    "QueueConformance",
    "ReadFailed",
    "StorageConformance",
    "all_cases",
    "broken",
    "contents",
    "crash_of",
    "observed",
    "read",
    "whole_or_none",
    "without",
]


class StorageConformance(
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


def all_cases() -> list[str]:
    """Return the names of the promises."""
    return [name for name in dir(StorageConformance) if name.startswith("test_")]
