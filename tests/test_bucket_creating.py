# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Creating a crash in a bucket where another save was stopped, or goes on at this moment."""

from collections.abc import Iterator

import pytest

from crashmover.errors import CrashExists, StorageUnavailable
from crashmover.external.bucket.layouts import SOCORRO as keys
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.registry import open_storage
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    PROCESSED,
    Contents,
    contents,
    crash_of,
    read,
    without,
)
from crashmover.testing.samples import with_broken
from tests.conftest import server_of_buckets
from tests.servers.buckets import Bucket

OURS, THEIRS = (without(contents(version), PROCESSED) for version in "ab")
FEWER = without(OURS, BROWSER)
OLD_KEY = keys.raw_crash_keys(CRASH_ID)[-1]


@pytest.fixture(params=["s3_strict", "s3_signed", "gcs"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    return Bucket(server_of_buckets(request, request.param))


@pytest.fixture
def storage(bucket: Bucket) -> Iterator[CrashStorageBase]:
    with open_storage(bucket.uri()) as storage:
        yield storage


def begin(bucket: Bucket, state: Contents) -> None:
    """Leave what a save has put that was stopped before the raw crash."""
    with open_storage(bucket.uri()) as another:
        another.save_crash(crash_of(state))
    for key in keys.raw_crash_keys(CRASH_ID):
        bucket.delete(key)


def create(storage: CrashStorageBase, state: Contents) -> Exception | None:
    [result] = storage.create_crashes([crash_of(state)])
    return result


def test_a_save_of_the_same_that_was_stopped_is_completed_at_once(
    bucket: Bucket, storage: CrashStorageBase
) -> None:
    begin(bucket, OURS)
    assert create(storage, OURS) is None
    assert read(storage) == OURS


@pytest.mark.parametrize("begun", [THEIRS, FEWER])
def test_what_another_is_saving_is_left_alone(
    bucket: Bucket, storage: CrashStorageBase, begun: Contents
) -> None:
    begin(bucket, begun)
    before = bucket.objects()
    error = create(storage, OURS)
    assert isinstance(error, StorageUnavailable)
    assert error.reason.startswith("another save of it goes on, or was stopped")
    assert bucket.objects() == before


def test_what_another_has_left_can_be_replaced(bucket: Bucket, storage: CrashStorageBase) -> None:
    begin(bucket, THEIRS)
    storage.save_crash(crash_of(FEWER))
    assert read(storage) == FEWER
    assert keys.dump_key(CRASH_ID, BROWSER[1]) not in bucket.objects()


def test_what_this_process_has_left_is_its_own(storage: CrashStorageBase) -> None:
    """As where a crash is replaced at its source while it is read."""
    [failed] = storage.create_crashes([with_broken(THEIRS, BROWSER, 5)])
    assert failed is not None
    assert create(storage, FEWER) is None
    assert read(storage) == FEWER


def test_a_crash_under_a_key_of_old_is_there(bucket: Bucket, storage: CrashStorageBase) -> None:
    begin(bucket, THEIRS)
    bucket.put({OLD_KEY: b"{}"})
    before = bucket.objects()
    assert isinstance(create(storage, OURS), CrashExists)
    assert bucket.objects() == before
