# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PolyCrashStorage: what is its own; the promises of every store are in the conformance suite."""

import datetime as dt
import logging
import threading
from collections.abc import Callable, Sequence

import pytest

from crashmover.crash import Crash, Kind, Part
from crashmover.errors import (
    CrashChanged,
    CrashIDNotFound,
    InvalidURI,
    PolyCrashStorageError,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.testing import (
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    contents,
    crash_of,
    read,
    without,
)
from crashmover.uri import StorageURI
from tests.faulty import FaultyStorage, all_down, denied, unavailable

OTHER = NEIGHBOUR[:-6] + "071026"
ALL_DAYS = (dt.date.min, dt.date.max)


def test_a_save_goes_to_the_end_at_every_child_and_then_all_failures_are_raised() -> None:
    good = [InMemoryCrashStorage() for _ in range(3)]
    bad = [FaultyStorage("save_crash"), FaultyStorage("save_crash", error=denied())]
    poly = PolyCrashStorage([bad[0], good[0], bad[1], *good[1:]])
    with pytest.raises(PolyCrashStorageError) as caught:
        poly.save_crash(crash_of(contents()))
    assert caught.value.exceptions == (bad[0].error, bad[1].error)
    assert caught.value.crash_id == CRASH_ID
    assert [read(store) for store in good] == [contents()] * 3


def test_children_save_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)

    class Meeting(InMemoryCrashStorage):
        def save_crash(self, crash: Crash) -> None:
            together.wait()  # raises unless all three come
            super().save_crash(crash)

    PolyCrashStorage([Meeting() for _ in range(3)]).save_crash(crash_of(contents()))


def test_one_failure_of_a_nest_is_one_exception_in_a_nest() -> None:
    bad = FaultyStorage("save_crash")
    inner = PolyCrashStorage([InMemoryCrashStorage(), bad])
    poly = PolyCrashStorage([inner, InMemoryCrashStorage()])
    with pytest.raises(PolyCrashStorageError) as caught:
        poly.save_crash(crash_of(contents()))
    [nested] = caught.value.exceptions
    assert isinstance(nested, PolyCrashStorageError)
    assert nested.exceptions == (bad.error,)
    with pytest.RaisesGroup(StorageUnavailable, flatten_subgroups=True):
        poly.save_crash(crash_of(contents()))
    assert str(caught.value).count("memory:faulty: connection refused") == 1


def test_a_batch_has_each_crash_s_own_failures() -> None:
    class Picky(InMemoryCrashStorage):
        def save_crash(self, crash: Crash) -> None:
            if crash.crash_id == NEIGHBOUR:
                raise denied()
            super().save_crash(crash)

    picky, good = Picky(), InMemoryCrashStorage()
    crashes = [crash_of(contents(), crash_id) for crash_id in (CRASH_ID, NEIGHBOUR)]
    first, second = PolyCrashStorage([picky, good]).save_crashes(crashes)
    assert first is None
    assert isinstance(second, PolyCrashStorageError)
    assert [type(error) for error in second.exceptions] == [StorageDenied]
    assert list(good.new_crashes()) == [CRASH_ID, NEIGHBOUR]


def test_a_read_comes_from_the_first_child_that_has_the_crash() -> None:
    children = [InMemoryCrashStorage() for _ in range(3)]
    children[1].save_crash(crash_of(contents("second")))
    children[2].save_crash(crash_of(contents("third")))
    assert read(PolyCrashStorage(children)) == contents("second")


def test_a_read_goes_on_past_a_child_that_is_down_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = InMemoryCrashStorage()
    good.save_crash(crash_of(contents()))
    poly = PolyCrashStorage([all_down(), good])
    with caplog.at_level(logging.WARNING, "crashmover"):
        for _ in range(3):
            assert read(poly) == contents()
    assert poly.has_crash(CRASH_ID)
    assert [record.getMessage() for record in caplog.records] == [
        "going on without a store: memory:faulty: connection refused"
    ]


@pytest.mark.parametrize("ask", [PolyCrashStorage.load_crash, PolyCrashStorage.has_crash])
def test_not_found_is_not_said_while_a_child_is_down(
    ask: Callable[[PolyCrashStorage, str], object],
) -> None:
    poly = PolyCrashStorage([all_down(), InMemoryCrashStorage()])
    with pytest.raises(PolyCrashStorageError) as caught:
        ask(poly, CRASH_ID)
    assert [type(error) for error in caught.value.exceptions] == [StorageUnavailable]


def test_listings_are_merged_in_order() -> None:
    children = [InMemoryCrashStorage() for _ in range(2)]
    for child, ids in zip(children, [(OTHER, CRASH_ID), (NEIGHBOUR, CRASH_ID)], strict=True):
        for crash_id in ids:
            child.save_crash(crash_of({RAW: b"{}"}, crash_id))
    assert list(PolyCrashStorage(children).new_crashes()) == [CRASH_ID, NEIGHBOUR, OTHER]


def test_the_size_of_a_crash_is_that_of_the_first_child_that_can_tell_it() -> None:
    broken, good = FaultyStorage("load_crash", error=denied()), InMemoryCrashStorage()
    for crash_id in (CRASH_ID, OTHER):
        broken.save_crash(crash_of({RAW: b"{}"}, crash_id))
    for crash_id, raw in ((CRASH_ID, b"longer"), (NEIGHBOUR, b"")):
        good.save_crash(crash_of({RAW: raw}, crash_id))
    *known, (last, error) = PolyCrashStorage([broken, good]).crash_sizes()
    assert (known, last) == ([(CRASH_ID, 6), (NEIGHBOUR, 0)], OTHER)
    assert isinstance(error, PolyCrashStorageError)
    assert (error.exceptions, error.crash_id) == ((broken.error,), OTHER)
    *known, one = PolyCrashStorage([InMemoryCrashStorage(), good, broken]).crash_sizes()
    assert (known, one[0]) == ([(CRASH_ID, 6), (NEIGHBOUR, 0)], OTHER)


def test_sizes_that_are_not_complete_say_so_at_their_end() -> None:
    torn, good = FaultyStorage("new_crashes, after one"), InMemoryCrashStorage()
    for store, crash_id in ((torn, CRASH_ID), (torn, OTHER), (good, NEIGHBOUR)):
        store.save_crash(crash_of({RAW: b"{}"}, crash_id))
    found = PolyCrashStorage([torn, good]).crash_sizes()
    assert next(found) == (CRASH_ID, 2)
    assert next(found) == (NEIGHBOUR, 2)
    with pytest.raises(PolyCrashStorageError) as caught:
        next(found)
    assert caught.value.exceptions == (torn.error,)


def test_a_listing_that_is_not_complete_says_so_at_its_end() -> None:
    torn = FaultyStorage("new_crashes, after one")
    for crash_id in (CRASH_ID, OTHER):
        torn.save_crash(crash_of({RAW: b"{}"}, crash_id))
    good = InMemoryCrashStorage()
    good.save_crash(crash_of({RAW: b"{}"}, NEIGHBOUR))
    seen: list[str] = []
    with pytest.raises(PolyCrashStorageError) as caught:
        for crash_id in PolyCrashStorage([torn, good]).new_crashes():
            seen.append(crash_id)
    assert seen == [CRASH_ID, NEIGHBOUR]
    assert caught.value.exceptions == (torn.error,)


def test_removing_goes_to_the_end_at_every_child() -> None:
    good, without_it = InMemoryCrashStorage(), InMemoryCrashStorage()
    bad = FaultyStorage("remove")
    for store in (good, bad):
        store.save_crash(crash_of(contents()))
    with pytest.raises(PolyCrashStorageError) as caught:
        PolyCrashStorage([bad, without_it, good]).remove(CRASH_ID)
    assert caught.value.exceptions == (bad.error,)
    assert not good.has_crash(CRASH_ID)


def test_removing_one_crash_asks_no_child_to_remove_many() -> None:
    """A store's way to remove many may cost more, or may fail as a whole."""

    class OneByOne(InMemoryCrashStorage):
        def remove_crashes(self, crash_ids: Sequence[str]) -> list[Exception | None]:
            raise denied()

    stores = [OneByOne(), InMemoryCrashStorage()]
    for store in stores:
        store.save_crash(crash_of(contents()))
    PolyCrashStorage(stores).remove(CRASH_ID)
    assert not any(store.has_crash(CRASH_ID) for store in stores)


def test_removing_is_done_when_one_child_had_the_crash() -> None:
    good = InMemoryCrashStorage()
    good.save_crash(crash_of(contents()))
    poly = PolyCrashStorage([InMemoryCrashStorage(), good])
    poly.remove(CRASH_ID)
    with pytest.raises(CrashIDNotFound):
        poly.remove(CRASH_ID)


@pytest.mark.parametrize(
    "other",
    [None, contents("a"), without(contents("a"), PROCESSED)],
    ids=["no crash", "the same", "less"],
)
def test_a_crash_that_was_loaded_is_removed_from_every_child_that_has_it(
    other: Contents | None,
) -> None:
    first, second = InMemoryCrashStorage(), InMemoryCrashStorage()
    first.save_crash(crash_of(contents("a")))
    if other:
        second.save_crash(crash_of(other))
    with PolyCrashStorage([first, second]) as poly:
        poly.remove_loaded(poly.load_crash(CRASH_ID))
    assert not first.has_crash(CRASH_ID)
    assert not second.has_crash(CRASH_ID)


@pytest.mark.parametrize(
    "other",
    [contents("b"), contents("a") | {(Kind.DUMP, "late"): b""}, contents("a") | {PROCESSED: b"{}"}],
    ids=["another", "another dump", "another processed crash"],
)
def test_it_stays_where_a_child_has_another(other: Contents) -> None:
    first, second = InMemoryCrashStorage(), InMemoryCrashStorage()
    first.save_crash(crash_of(contents("a")))
    second.save_crash(crash_of(other))
    for children in ([first, second], [PolyCrashStorage([first, second])]):
        with PolyCrashStorage(children) as poly, pytest.raises(CrashChanged):
            poly.remove_loaded(poly.load_crash(CRASH_ID))
        assert (read(first), read(second)) == (contents("a"), other)


def test_a_child_that_cannot_remove_it_is_told() -> None:
    first, second = InMemoryCrashStorage(), FaultyStorage("remove", error=denied())
    for store in (first, second):
        store.save_crash(crash_of(contents()))
    with PolyCrashStorage([first, second]) as poly, pytest.RaisesGroup(StorageDenied):
        poly.remove_loaded(poly.load_crash(CRASH_ID))
    assert (first.has_crash(CRASH_ID), second.has_crash(CRASH_ID)) == (False, True)


def test_several_are_removed_from_every_child_that_has_them() -> None:
    children = [InMemoryCrashStorage(), FaultyStorage("remove"), InMemoryCrashStorage()]
    for child, crash_id in zip(children, (CRASH_ID, NEIGHBOUR, CRASH_ID), strict=True):
        child.save_crash(crash_of(contents(), crash_id))
    good = PolyCrashStorage([children[0], children[2]])
    [removed, missing] = good.remove_crashes([CRASH_ID, NEIGHBOUR])
    assert removed is None
    assert isinstance(missing, CrashIDNotFound)
    [failed] = PolyCrashStorage(children).remove_crashes([NEIGHBOUR])
    assert isinstance(failed, PolyCrashStorageError)
    assert failed.exceptions == (children[1].error,)  # type: ignore[attr-defined]


def test_days_are_removed_from_every_child_and_each_crash_is_said_once() -> None:
    bad = FaultyStorage("remove")
    children = [InMemoryCrashStorage(), bad, InMemoryCrashStorage()]
    for child, ids in zip(children, ([CRASH_ID, OTHER], [OTHER], [NEIGHBOUR, OTHER]), strict=True):
        for crash_id in ids:
            child.save_crash(crash_of(contents(), crash_id))
    (first, ok), (second, fine), (third, error) = PolyCrashStorage(children).remove_days(*ALL_DAYS)
    assert [first, second, third] == [CRASH_ID, NEIGHBOUR, OTHER]
    assert ok is None and fine is None
    assert isinstance(error, PolyCrashStorageError)
    assert (error.exceptions, error.crash_id) == ((bad.error,), OTHER)
    assert not any(child.has_crash(OTHER) for child in (children[0], children[2]))


def test_of_a_child_that_cannot_be_listed_it_is_not_known_what_is_gone() -> None:
    torn, good = FaultyStorage("new_crashes, after one"), InMemoryCrashStorage()
    for child, ids in ((torn, [CRASH_ID, OTHER]), (good, [CRASH_ID, NEIGHBOUR])):
        for crash_id in ids:
            child.save_crash(crash_of({RAW: b"{}"}, crash_id))
    torn_error = torn.error
    removed: list[tuple[str, Exception | None]] = []
    with pytest.raises(PolyCrashStorageError) as caught:
        for each in PolyCrashStorage([torn, good]).remove_days(*ALL_DAYS):
            removed.append(each)
    assert caught.value.exceptions == (torn_error,)
    [(first, none), (second, error)] = removed
    assert (first, none, second) == (CRASH_ID, None, NEIGHBOUR)
    assert isinstance(error, PolyCrashStorageError)
    assert error.exceptions == (torn_error,)


def test_days_that_are_stopped_leave_no_crash_at_one_child_alone() -> None:
    ids = [f"{n:08x}{CRASH_ID[8:]}" for n in range(400)]
    one, other = InMemoryCrashStorage(), InMemoryCrashStorage()
    for child, some in ((one, ids), (other, ids[::3])):
        for crash_id in some:
            child.save_crash(crash_of({RAW: b"{}"}, crash_id))
    gone: list[str] = []
    poly = PolyCrashStorage([one, other])
    for crash_id, error in poly.remove_days(*ALL_DAYS, lambda: bool(gone)):
        assert error is None
        gone.append(crash_id)
    assert 0 < len(gone) < len(ids)
    assert list(poly.new_crashes()) == [each for each in ids if each not in gone]


def test_one_child_is_enough_to_read_and_all_are_needed_to_write() -> None:
    poly = PolyCrashStorage([all_down(), InMemoryCrashStorage()])
    poly.verify_access()
    with pytest.raises(PolyCrashStorageError):
        poly.verify_access(write=True)
    with pytest.raises(PolyCrashStorageError):
        PolyCrashStorage([all_down(), all_down()]).verify_access()


def test_every_child_is_closed_whatever_happens() -> None:
    bad = [FaultyStorage("close") for _ in range(2)]
    good = FaultyStorage()
    with pytest.raises(PolyCrashStorageError) as caught:
        PolyCrashStorage([bad[0], PolyCrashStorage([bad[1]]), good]).close()
    assert len(caught.value.exceptions) == 2
    assert all(store.closed for store in (*bad, good))


def test_the_stores_of_a_nest_are_its_leaves() -> None:
    leaves = [InMemoryCrashStorage() for _ in range(4)]
    inner = PolyCrashStorage([leaves[1], PolyCrashStorage([leaves[2]])])
    assert PolyCrashStorage([leaves[0], inner, leaves[3]]).stores == tuple(leaves)


def test_what_cannot_be_one() -> None:
    with pytest.raises(ValueError, match="needs a store"):
        PolyCrashStorage([])
    with pytest.raises(InvalidURI):
        PolyCrashStorage.from_uri(StorageURI("poly"))


def test_a_part_that_cannot_be_read_fails_everywhere_and_is_seen_nowhere() -> None:
    def no_file() -> StorageError:
        raise unavailable("memory:source")

    crash = Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), Part(*MAIN, no_file)])  # type: ignore[arg-type]
    children = [InMemoryCrashStorage(), InMemoryCrashStorage()]
    with pytest.raises(PolyCrashStorageError):
        PolyCrashStorage(children).save_crash(crash)
    assert not any(child.has_crash(CRASH_ID) for child in children)
