# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A crash that was loaded is removed from a bucket while another process puts something: in every
order of their requests, what was not seen stays."""

import itertools
from collections.abc import Callable
from functools import partial

import pytest

from crashmover.crash import Kind
from crashmover.errors import CrashChanged, CrashIDNotFound, StorageUnavailable
from crashmover.external.bucket.layouts import SOCORRO as keys
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    PROCESSED,
    RAW,
    Contents,
    contents,
    crash_of,
)
from tests.bucket_in_memory import Bucket, open_bucket
from tests.conftest import Figures
from tests.test_s3_interleavings import ALL, SharedBucket, Stores, outcomes, succeeded

OLD = contents("old")
NEW = contents("new")
KEYS = {
    RAW: keys.raw_crash_keys(CRASH_ID)[0],
    MAIN: keys.dump_key(CRASH_ID, MAIN[1]),
    BROWSER: keys.dump_key(CRASH_ID, BROWSER[1]),
    PROCESSED: keys.processed_crash_key(CRASH_ID),
}
LIST = keys.dump_names_key(CRASH_ID)

Put = Callable[[Bucket], None]


def replaced(part: tuple[Kind, str]) -> Put:
    """Another program puts this part anew, and says nothing of a save."""
    return lambda bucket: bucket.add(KEYS[part], NEW[part])


def added(bucket: Bucket) -> None:
    """Another program adds a dump."""
    bucket.add(keys.dump_key(CRASH_ID, "late"), b"late")
    bucket.add(LIST, b'["dump", "upload_file_minidump_browser", "late"]')


PUTS: dict[str, Put] = {
    "raw crash": replaced(RAW),
    "dump": replaced(MAIN),
    "processed crash": replaced(PROCESSED),
    "dump and list": added,
}


@pytest.mark.parametrize("what", PUTS)
def test_what_is_put_before_any_request_of_a_removal_is_not_deleted(
    what: str, figures: Figures
) -> None:
    """It stays, and the crash counts as changed; or the removal was over."""
    seen = dict.fromkeys(("changed", "gone"), 0)
    for number in itertools.count():
        bucket = Bucket()
        storage = open_bucket(bucket)
        storage.save_crash(crash_of(OLD))
        crash = storage.load_crash(CRASH_ID)
        assert {part.key: part.read() for part in crash.parts} == OLD
        before = dict(bucket.there)
        bucket.requests.clear()

        def put(at: int, number: int = number, bucket: Bucket = bucket) -> None:
            if at == number:
                PUTS[what](bucket)

        bucket.before = put
        try:
            storage.remove_loaded(crash)
        except (CrashChanged, StorageUnavailable):
            seen["changed"] += 1
        else:
            if len(bucket.requests) <= number:
                break
            seen["gone"] += 1
        new = {key: found for key, found in bucket.there.items() if before.get(key) != found}
        assert len(new) == (2 if what == "dump and list" else 1), (number, bucket.requests)
    assert seen["changed"]
    figures(**seen)


@ALL
@pytest.mark.parametrize("create", ["amazon", "honours"])
def test_a_save_that_meets_a_removal_of_what_was_loaded_is_whole_or_says_so(
    create: str, most: int, figures: Figures
) -> None:
    def start() -> Stores:
        return Stores(OLD, bucket=SharedBucket(create))

    def both(stores: Stores) -> list[Callable[[], None]]:
        storage = stores.open()
        crash = storage.load_crash(CRASH_ID)
        assert {part.key: part.read() for part in crash.parts} == OLD
        return [lambda: storage.remove_loaded(crash), stores.save(NEW)]

    count = 0
    for stores, (removed, saved), order in outcomes(both, start, most=most):
        assert removed.error is None or isinstance(
            removed.error, CrashChanged | CrashIDNotFound | StorageUnavailable
        ), order.taken
        if succeeded(saved):
            assert stores.found() == NEW, order.taken
        count += 1
    figures(orders=count)


@pytest.mark.parametrize("deletes_versions", [True, False])
def test_only_keys_that_are_there_are_deleted(deletes_versions: bool) -> None:
    """A bucket with versions keeps a delete marker for each other one."""

    class Watched(Bucket):
        def delete(self, versions: dict[str, str | None]) -> list[str]:  # type: ignore[override]
            deleted.extend(versions)
            assert self.there.keys() >= versions.keys()
            return super().delete(versions)

    for parts in (OLD, {RAW: b"{}"}, {RAW: b"{}", PROCESSED: b"{}"}):
        for act in (
            remove,
            remove_loaded,
            partial(replace, parts=NEW),
            partial(replace, parts={RAW: b"[]"}),
        ):
            deleted: list[str] = []
            bucket = Watched("honours", deletes_versions=deletes_versions)
            open_bucket(bucket).save_crash(crash_of(parts))
            act(bucket)
            assert deleted


def remove(bucket: Bucket) -> None:
    open_bucket(bucket).remove(CRASH_ID)
    assert not bucket.there


def remove_loaded(bucket: Bucket) -> None:
    storage = open_bucket(bucket)
    storage.remove_loaded(storage.load_crash(CRASH_ID))
    assert not bucket.there


def replace(bucket: Bucket, parts: Contents) -> None:
    open_bucket(bucket).save_crash(crash_of(parts))
