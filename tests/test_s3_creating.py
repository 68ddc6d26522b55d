# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Creating a crash in a bucket where another save was stopped, or goes on at this moment."""

from collections.abc import Iterator

import pytest

from crashmover.errors import CrashExists, StorageUnavailable
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.s3 import keys
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
from tests.conftest import UseAWS
from tests.servers.s3 import Bucket

OURS, THEIRS = (without(contents(version), PROCESSED) for version in "ab")
FEWER = without(OURS, BROWSER)
OLD_KEY = keys.raw_crash_keys(CRASH_ID)[-1]


@pytest.fixture(params=["s3_strict", "s3_signed"])
def bucket(request: pytest.FixtureRequest, aws: UseAWS) -> Bucket:
    return Bucket(aws(request.getfixturevalue(request.param)))


@pytest.fixture
def storage(bucket: Bucket) -> Iterator[CrashStorageBase]:
    with open_storage(bucket.uri()) as storage:
        yield storage


def begin(bucket: Bucket, state: Contents) -> None:
    """Leave what a save has put that was stopped before the raw crash."""
    with open_storage(bucket.uri()) as another:
        another.save_crash(crash_of(state))
    for key in keys.raw_crash_keys(CRASH_ID):
        bucket.client.delete_object(Bucket=bucket.name, Key=key)


def create(storage: CrashStorageBase, state: Contents) -> Exception | None:
    [result] = storage.create_crashes([crash_of(state)])
    return result


@pytest.mark.parametrize("begun", [OURS, FEWER])
def test_a_save_of_the_same_that_was_stopped_is_completed_at_once(
    bucket: Bucket, storage: CrashStorageBase, begun: Contents
) -> None:
    begin(bucket, begun)
    assert create(storage, OURS) is None
    assert read(storage) == OURS


def test_what_another_is_saving_is_left_alone(bucket: Bucket, storage: CrashStorageBase) -> None:
    begin(bucket, THEIRS)
    before = bucket.objects()
    error = create(storage, OURS)
    assert isinstance(error, StorageUnavailable)
    assert error.reason == "other processes save the same crash at this moment"
    assert bucket.objects() == before


def test_after_an_hour_nobody_is_saving_it_any_more(
    bucket: Bucket, storage: CrashStorageBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(bucket, THEIRS)
    monkeypatch.setattr("crashmover.external.s3.saving._STALE", -60.0)
    assert create(storage, FEWER) is None
    assert read(storage) == FEWER
    assert keys.dump_key(CRASH_ID, BROWSER[1]) not in bucket.objects()


def test_a_crash_under_a_key_of_old_is_there(bucket: Bucket, storage: CrashStorageBase) -> None:
    begin(bucket, THEIRS)
    bucket.put({OLD_KEY: b"{}"})
    before = bucket.objects()
    assert isinstance(create(storage, OURS), CrashExists)
    assert bucket.objects() == before
