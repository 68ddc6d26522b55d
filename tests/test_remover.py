# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Remover: what becomes of each crash, and when it had better give up."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence, Set

import pytest

from crashmover import crashid
from crashmover.crash import ALL_KINDS, Crash, Kind
from crashmover.engine.remover import RemovalResult, Remover, Status
from crashmover.errors import CorruptCrash, PolyCrashStorageError, StorageDenied, StorageUnavailable
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.retry import RetryPolicy
from crashmover.testing import CRASH_ID, MAIN, NEIGHBOUR, PROCESSED, RAW, crash_of
from tests.faulty import FaultyStorage, denied, unavailable

DAY = crashid.date_of(CRASH_ID)
IDS = [f"{n:08x}-8721-460c-dead-a43c22071025" for n in range(300)]
AT_ONCE = RetryPolicy(attempts=4, wait=0, wait_max=0)

Ways = Callable[[Remover, Sequence[str]], Iterator[RemovalResult]]

both_ways = pytest.mark.parametrize(
    "way",
    [Remover.crashes, lambda remover, _ids: remover.days(DAY, DAY)],
    ids=["named", "days"],
)


def filled(storage: CrashStorageBase, ids: Sequence[str] = IDS) -> CrashStorageBase:
    for crash_id in ids:
        storage.save_crash(crash_of({RAW: b"{}", MAIN: b"x"}, crash_id))
    return storage


def left_in(storage: CrashStorageBase) -> list[str]:
    return list(storage.all_crashes(dt.date.min, dt.date.max))


def removals(
    storage: CrashStorageBase, way: Ways, ids: Sequence[str] = IDS, *, dry_run: bool = False
) -> list[RemovalResult]:
    with Remover(storage, dry_run=dry_run, retry=AT_ONCE) as remover:
        return list(way(remover, ids))


@both_ways
def test_all_that_is_named_is_removed_in_order_and_the_rest_stays(way: Ways) -> None:
    other = NEIGHBOUR[:-6] + "071026"
    storage = filled(InMemoryCrashStorage(), [*IDS, other])
    found = removals(storage, way)
    assert [(each.crash_id, each.status, each.error) for each in found] == [
        (crash_id, Status.REMOVED, None) for crash_id in IDS
    ]
    assert left_in(storage) == [other]


def test_of_what_is_named_it_is_said_what_there_was() -> None:
    storage = filled(InMemoryCrashStorage(), IDS[:2])
    storage.save_crash(crash_of({PROCESSED: b"{}"}, IDS[1]))
    storage.save_crash(crash_of({PROCESSED: b"{}"}, IDS[2]))
    found = removals(storage, Remover.crashes, IDS[:4])
    assert [each.parts for each in found] == [
        ["raw_crash", "upload_file_minidump"],
        ["raw_crash", "upload_file_minidump", "processed_crash"],
        ["processed_crash"],
        None,
    ]
    assert [each.status for each in found] == [*[Status.REMOVED] * 3, Status.MISSING]
    assert found[3].error == "memory:: no such crash"


@both_ways
def test_a_dry_run_says_the_same_and_changes_nothing(way: Ways) -> None:
    storage = filled(InMemoryCrashStorage(), IDS[:3])
    tried = removals(storage, way, IDS[:3], dry_run=True)
    assert {each.status for each in tried} == {Status.WOULD_REMOVE}
    assert left_in(storage) == IDS[:3]
    done = removals(storage, way, IDS[:3])
    assert [(e.crash_id, e.parts) for e in done] == [(e.crash_id, e.parts) for e in tried]


def test_a_dry_run_says_what_is_not_there() -> None:
    [found] = removals(InMemoryCrashStorage(), Remover.crashes, [CRASH_ID], dry_run=True)
    assert found.status is Status.MISSING


@both_ways
def test_what_may_pass_is_tried_again(way: Ways) -> None:
    storage = FaultyStorage("remove", times=3)
    filled(storage, IDS[:5])
    found = removals(storage, way, IDS[:5])
    assert [each.status for each in found] == [Status.REMOVED] * 5
    assert left_in(storage) == []


@both_ways
def test_what_was_done_and_only_the_answer_was_lost_is_removed(way: Ways) -> None:
    class Deaf(InMemoryCrashStorage):
        def remove(self, crash_id: str) -> None:
            super().remove(crash_id)
            raise unavailable()

    found = removals(filled(Deaf(), IDS[:3]), way, IDS[:3])
    assert [each.status for each in found] == [Status.REMOVED] * 3


@both_ways
def test_what_is_refused_is_named_and_the_others_go(way: Ways) -> None:
    class Picky(InMemoryCrashStorage):
        def remove(self, crash_id: str) -> None:
            if crash_id == IDS[1]:
                raise denied()
            super().remove(crash_id)

    storage = filled(Picky(), IDS[:3])
    found = removals(storage, way, IDS[:3])
    assert [each.status for each in found] == [Status.REMOVED, Status.FAILED, Status.REMOVED]
    assert found[1].error == "memory:faulty: access denied"
    assert left_in(storage) == [IDS[1]]


@both_ways
def test_a_store_that_is_down_as_a_whole_is_not_tried_crash_by_crash(way: Ways) -> None:
    storage = FaultyStorage("remove", "verify_access")
    filled(storage)
    found: list[RemovalResult] = []
    with (
        Remover(storage, retry=AT_ONCE) as remover,
        pytest.raises(StorageUnavailable),
    ):
        for removal in way(remover, IDS):
            found.append(removal)
    assert found and {each.status for each in found} == {Status.FAILED}
    assert storage.calls.count("remove") < len(IDS)
    assert len(left_in(storage)) == len(IDS)


def test_what_cannot_be_looked_at_for_now_is_not_removed_while_the_store_is_down() -> None:
    storage = FaultyStorage("load_crash", "verify_access")
    filled(storage)
    with Remover(storage, retry=AT_ONCE) as remover, pytest.raises(StorageUnavailable):
        list(remover.crashes(IDS))
    assert left_in(storage) == IDS


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_damaged_crash_can_be_removed_too(dry_run: bool) -> None:
    class Damaged(InMemoryCrashStorage):
        def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
            raise CorruptCrash("no dump name", crash_id=crash_id, uri=self.uri)

    storage = filled(Damaged(), IDS[:1])
    [found] = removals(storage, Remover.crashes, IDS[:1], dry_run=dry_run)
    status = Status.WOULD_REMOVE if dry_run else Status.REMOVED
    assert found == RemovalResult(IDS[0], status)
    assert left_in(storage) == (IDS[:1] if dry_run else [])


@both_ways
def test_who_stops_it_hears_of_all_that_is_gone(way: Ways) -> None:
    storage = filled(InMemoryCrashStorage())
    found: list[RemovalResult] = []
    with Remover(storage) as remover:
        for removal in way(remover, IDS):
            remover.stop()
            found.append(removal)
    assert 0 < len(found) < len(IDS)
    assert left_in(storage) == IDS[len(found) :]


def test_it_is_looked_whether_each_store_is_there_and_can_be_written_to() -> None:
    stores = [FaultyStorage(), FaultyStorage("verify_access, to write", error=denied())]
    with pytest.raises(StorageDenied):
        Remover(PolyCrashStorage(stores), retry=AT_ONCE).verify_access()
    for store in stores:
        assert store.calls == ["verify_access", "verify_access", "verify_access, to write"]


@both_ways
def test_what_one_of_several_stores_does_not_remove_has_failed(way: Ways) -> None:
    good, bad = InMemoryCrashStorage(), FaultyStorage("remove", error=denied())
    for store in (good, bad):
        filled(store, IDS[:2])
    found = removals(PolyCrashStorage([good, bad]), way, IDS[:2])
    assert [each.status for each in found] == [Status.FAILED] * 2
    assert found[0].error == "memory:faulty: access denied"
    assert left_in(good) == []


def test_days_that_cannot_be_listed_are_said_at_the_end() -> None:
    torn = FaultyStorage("new_crashes, after one", error=denied())
    filled(torn, IDS[:2])
    with pytest.raises(PolyCrashStorageError):
        removals(PolyCrashStorage([torn]), lambda remover, _: remover.days(DAY, DAY))
