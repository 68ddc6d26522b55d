# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The order in which the objects of a crash are put and deleted, request by request, over a bucket
in memory: a saver may die before each of them, be read at each, and meet another saver at each.
"""

import datetime as dt
import hashlib
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, count, islice, product, repeat
from typing import Any

import pytest

from crashmover.crash import MAIN_DUMP, Crash, Kind, Part
from crashmover.errors import (
    CrashIDNotFound,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.bucket import putting as saving
from crashmover.external.bucket.bodies import PART_SIZE
from crashmover.external.bucket.client import SHA256
from crashmover.external.bucket.crashstorage import BucketCrashStorage
from crashmover.external.bucket.layouts import SOCORRO as keys
from crashmover.external.bucket.stamps import RAW_CRASH_SHA256
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    ReadFailed,
    contents,
    crash_of,
    observed,
    read,
    whole_or_none,
    without,
)
from crashmover.testing.samples import with_broken
from tests.bucket_in_memory import HONOURING, Bucket, open_bucket
from tests.conftest import Figures

REPORT = (Kind.DUMP, "memory_report")
RAW_KEY, *OLD_KEYS = keys.raw_crash_keys(CRASH_ID)


class Killed(BaseException):
    """What a saver meets when it dies."""


Opened = Callable[[Bucket], BucketCrashStorage]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """What opens a bucket, without pauses."""
    monkeypatch.setattr(saving, "_PAUSE", 0.0)
    return open_bucket


@dataclass(frozen=True)
class Scenario:
    """What is there, and what is saved; what is there then."""

    before: Contents
    new: Contents
    after: Contents


B = contents("b")
SCENARIOS = {
    "new": Scenario({}, B, B),
    "new without dumps": Scenario({}, {RAW: B[RAW]}, {RAW: B[RAW]}),
    "same": Scenario(B, B, B),
    "other": Scenario(contents("a"), B, B),
    "one dump less": Scenario(contents("a"), without(B, BROWSER), without(B, BROWSER)),
    "one dump more": Scenario(without(B, BROWSER), B, B),
    "other dump": Scenario(
        contents("a"), contents("a") | {MAIN: b"x"}, contents("a") | {MAIN: b"x"}
    ),
    "other raw crash": Scenario(B, B | {RAW: b"[]"}, B | {RAW: b"[]"}),
    "processed": Scenario(B, {PROCESSED: b"{}"}, B | {PROCESSED: b"{}"}),
    "kept processed": Scenario(
        contents("a"),
        without(B, PROCESSED),
        without(B, PROCESSED) | {PROCESSED: contents("a")[PROCESSED]},
    ),
}
SERVERS = [*HONOURING, "ignores", "refuses"]
on_each_server = pytest.mark.parametrize("create", SERVERS)
in_each_scenario = pytest.mark.parametrize("what", SCENARIOS)


def bucket_with(opened: Opened, create: str, *crashes: Crash) -> Bucket:
    """Return a bucket that has these crashes, of which nothing was asked yet."""
    bucket = Bucket(create)
    for crash in crashes:
        opened(bucket).save_crash(crash)
    bucket.requests.clear()
    return bucket


def started(opened: Opened, what: str, create: str) -> tuple[Bucket, Scenario]:
    """Return the bucket of a scenario, with a crash beside that has nothing to do with it."""
    scenario = SCENARIOS[what]
    crashes = [crash_of(scenario.before)] if scenario.before else []
    return bucket_with(opened, create, crash_of(contents(), NEIGHBOUR), *crashes), scenario


def states_of(scenario: Scenario) -> list[Contents]:
    """What a reader may see on the way; a processed crash is an object by itself."""
    whole = [state for state in (scenario.before, scenario.after) if state]
    processed = [state.get(PROCESSED) for state in whole] + [None]
    return [
        without(state, PROCESSED) | ({PROCESSED: data} if data is not None else {})
        for state in whole
        for data in processed
    ]


def die(number: int, at: int) -> None:
    """Die at the request of this number."""
    if at == number:
        raise Killed


# One saver


@on_each_server
@in_each_scenario
def test_what_is_saved_is_there_and_whoever_reads_meanwhile_sees_no_half_of_it(
    opened: Opened, what: str, create: str, figures: Figures
) -> None:
    bucket, scenario = started(opened, what, create)
    reader, states = opened(bucket), states_of(scenario)
    looks = 0

    def look(_number: int) -> None:
        nonlocal looks
        looks += 1
        assert whole_or_none(reader, *states)

    bucket.before = look
    opened(bucket).save_crash(crash_of(scenario.new))
    bucket.before = lambda _: None
    assert read(reader) == scenario.after
    assert read(reader, NEIGHBOUR) == contents()
    assert {key for key in bucket.there if CRASH_ID in key} == keys_of(scenario.after)
    figures(looks=looks)


def keys_of(parts: Contents) -> set[str]:
    """The keys of the objects of a crash."""
    dumps = {keys.dump_key(CRASH_ID, name) for kind, name in parts if kind is Kind.DUMP}
    processed = {keys.processed_crash_key(CRASH_ID)} if PROCESSED in parts else set()
    return {RAW_KEY, keys.dump_names_key(CRASH_ID)} | dumps | processed


@in_each_scenario
def test_a_server_that_keeps_no_metadata_gets_what_is_saved(opened: Opened, what: str) -> None:
    bucket = Bucket()
    bucket.forgets = True
    storage, scenario = opened(bucket), SCENARIOS[what]
    for parts in filter(None, (scenario.before, scenario.new)):
        bucket.requests.clear()
        storage.save_crash(crash_of(parts))
    assert read(storage) == scenario.after
    assert len(bucket.requests) < 30  # it is done at the first try


@pytest.mark.parametrize("late", [{}, {REPORT: b"late"}])
def test_every_object_says_which_save_it_is_of(opened: Opened, late: Contents) -> None:
    bucket = Bucket()
    for parts in filter(None, (contents(), late)):
        opened(bucket).save_crash(crash_of(parts))
    raw = hashlib.sha256(contents()[RAW]).hexdigest()
    others = keys_of(contents() | late) - {RAW_KEY, keys.processed_crash_key(CRASH_ID)}
    assert {bucket.there[key][1][RAW_CRASH_SHA256] for key in others} == {raw}
    assert bucket.there[RAW_KEY][1][SHA256] == raw


@on_each_server
@in_each_scenario
def test_a_saver_that_dies_before_a_request_tears_nothing_and_the_next_completes_it(
    opened: Opened, what: str, create: str, figures: Figures
) -> None:
    for number in count():
        bucket, scenario = started(opened, what, create)
        bucket.before = partial(die, number)
        try:
            opened(bucket).save_crash(crash_of(scenario.new))
        except Killed:
            pass
        else:
            break
        bucket.before = lambda _: None
        assert whole_or_none(opened(bucket), *states_of(scenario)), bucket.requests
        opened(bucket).save_crash(crash_of(scenario.new))
        if RAW in scenario.new:
            assert without(read(opened(bucket)), PROCESSED) == without(scenario.after, PROCESSED)
        else:
            assert read(opened(bucket)) == scenario.after
    figures(kills=number)


@on_each_server
@pytest.mark.parametrize("parts", [contents(), {RAW: b"{}"}, without(contents(), PROCESSED)])
def test_a_removal_that_dies_before_a_request_tears_nothing_and_the_next_completes_it(
    opened: Opened, parts: Contents, create: str, figures: Figures
) -> None:
    for number in count():
        bucket = bucket_with(opened, create, crash_of(contents(), NEIGHBOUR))
        others = dict(bucket.there)
        opened(bucket).save_crash(crash_of(parts))
        bucket.requests.clear()
        bucket.before = partial(die, number)
        try:
            opened(bucket).remove(CRASH_ID)
        except Killed:
            pass
        else:
            break
        bucket.before = lambda _: None
        assert whole_or_none(opened(bucket), parts)
        opened(bucket).remove(CRASH_ID)
        assert bucket.there == others
        with pytest.raises(CrashIDNotFound):
            opened(bucket).remove(CRASH_ID)
    figures(kills=number)


# Two savers


def meetings(
    opened: Opened, what: str, create: str, other: Contents | None
) -> Iterator[tuple[Bucket, list[Contents]]]:
    """Let another saver come before each request in turn; yield the bucket as both leave it, and
    what they have saved."""
    for number in count():
        bucket, scenario = started(opened, what, create)
        theirs = scenario.new if other is None else other
        met: list[int] = []
        bucket.before = partial(meet, opened(bucket), crash_of(theirs), number, met)
        opened(bucket).save_crash(crash_of(scenario.new))
        bucket.before = lambda _: None
        if not met:
            return
        yield bucket, [without(state, PROCESSED) for state in (scenario.new, theirs)]


def meet(storage: BucketCrashStorage, crash: Crash, number: int, met: list[int], at: int) -> None:
    """Save at the request of this number, and take note of it."""
    if at == number:
        storage.save_crash(crash)
        met.append(at)


OTHERS: dict[str, Contents | None] = {
    "other": contents("c"),
    "other names": {RAW: b'{"other": 1}', REPORT: b"r"},
    "other dumps": B | {MAIN: b"theirs", BROWSER: b"theirs"},
    "same": None,
}
against_each_other = pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)


@on_each_server
@pytest.mark.parametrize("what", [name for name, s in SCENARIOS.items() if RAW in s.new])
@against_each_other
def test_two_savers_that_meet_at_any_request_leave_one_of_both_crashes(
    opened: Opened, what: str, create: str, other: Contents | None, figures: Figures
) -> None:
    met = 0
    is_new = not SCENARIOS[what].before
    for met, (bucket, states) in enumerate(meetings(opened, what, create, other), 1):
        if is_new and create not in HONOURING and other == OTHERS["other dumps"]:
            # Such a server lets both believe that they are the first, and by the lists of dumps
            # neither learns of the other where these and the raw crash are the same; the next
            # save mends it.
            opened(bucket).save_crash(crash_of(states[0]))
        assert without(read(opened(bucket)), PROCESSED) in states, met
    figures(meetings=met)


@pytest.mark.parametrize("create", HONOURING)
@pytest.mark.parametrize("what", ["other", "one dump less"])
@pytest.mark.parametrize("one_in", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_saver_is_whole_though_another_comes_and_dies_at_any_request(
    opened: Opened, what: str, create: str, one_in: int, figures: Figures
) -> None:
    met = 0
    for number, death in islice(product(range(25), range(12)), 0, None, one_in):
        bucket, scenario = started(opened, what, create)

        def meet_and_die(at: int, number: int = number, death: int = death) -> None:
            if at == number:
                bucket.before = lambda now: die(number + death, now)  # noqa: B023
                with suppress(Killed):
                    opened(bucket).save_crash(crash_of(contents("c")))  # noqa: B023
                bucket.before = lambda _: None  # noqa: B023

        bucket.before = meet_and_die
        opened(bucket).save_crash(crash_of(scenario.new))
        bucket.before = lambda _: None
        met += len(bucket.requests) > number
        # None, where the other has taken the finished crash away to put its own there.
        states = states_of(scenario) + states_of(Scenario({}, contents("c"), contents("c")))
        assert whole_or_none(opened(bucket), *states), (number, death)
    figures(meetings=met)


def test_who_finds_another_at_work_each_time_gives_up_in_the_end(opened: Opened) -> None:
    bucket = Bucket()
    storage = opened(bucket)

    def be_first(_number: int) -> None:
        bucket.add(RAW_KEY, b"theirs")

    bucket.before = be_first
    with pytest.raises(StorageUnavailable) as caught:
        storage.save_crash(crash_of({RAW: b"{}"}))
    reason = "other processes save the same crash at this moment"
    assert str(caught.value) == f"s3://bucket: {CRASH_ID}: {reason}"
    assert bucket.requests.count("create raw_crash") == 1 + 12
    assert bucket.there[RAW_KEY][0] == b"theirs"


@pytest.mark.parametrize(("a_turn_takes", "first"), [(0.0, 0.1), (0.4, 0.8)])
def test_who_has_met_another_waits_by_chance_and_up_to_twice_as_long_each_time(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, a_turn_takes: float, first: float
) -> None:
    spans: list[tuple[float, float]] = []
    waits: list[float] = []

    def last_of(first: float, last: float) -> float:
        spans.append((first, last))
        return last

    bucket = Bucket()
    storage = opened(bucket)
    clock = accumulate(repeat(a_turn_takes))
    monkeypatch.setattr(saving, "_PAUSE", 0.05)
    monkeypatch.setattr(random, "uniform", last_of)
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    bucket.before = lambda _: bucket.add(RAW_KEY, b"theirs")
    with pytest.raises(StorageUnavailable):
        storage.save_crash(crash_of({RAW: b"{}"}))
    assert waits == [0, *(pytest.approx(min(first * 2**turn, 5)) for turn in range(11))]
    assert spans == [(0, wait) for wait in waits]


# What a save costs


NEW = ["create dump_names", "put dump", "put upload_file_minidump_browser"]
NEW += ["put processed_crash", "create raw_crash"]


@pytest.mark.parametrize("create", HONOURING)
def test_a_new_crash_costs_a_request_for_each_object_once_the_server_is_known(
    opened: Opened, create: str
) -> None:
    bucket = Bucket(create)
    storage = opened(bucket)
    storage.save_crash(crash_of(contents()))
    asked = [] if create == "amazon" else ["look dump_names", "create dump_names"]
    assert bucket.requests == [*asked, *NEW]
    bucket.requests.clear()
    storage.save_crash(crash_of(contents(), NEIGHBOUR))
    assert bucket.requests == NEW


@pytest.mark.parametrize("create", ["ignores", "refuses"])
def test_a_server_that_knows_no_conditions_is_asked_whether_a_crash_is_there(
    opened: Opened, create: str
) -> None:
    bucket = Bucket(create)
    storage = opened(bucket)
    storage.save_crash(crash_of(contents()))
    new = [request.replace("create", "put") for request in NEW]
    learning = ["look dump_names", "create dump_names"]
    learning += ["put dump_names" if create == "refuses" else "create dump_names"]
    is_held = "look dump_names"  # by us still
    assert bucket.requests == [*learning, *new[1:], is_held]
    bucket.requests.clear()
    storage.save_crash(crash_of(contents(), NEIGHBOUR))
    assert bucket.requests == ["look dump_names", *new, is_held]


@on_each_server
def test_what_a_listing_has_not_found_is_not_asked_for(opened: Opened, create: str) -> None:
    bucket = Bucket(create)
    storage = opened(bucket)
    storage.save_crash(crash_of(contents(), NEIGHBOUR))
    bucket.requests.clear()
    monday = dt.date(2007, 10, 22)
    storage._missing.add_days(monday, monday + dt.timedelta(7), set())
    storage.save_crash(crash_of(contents()))
    *before, is_held = bucket.requests if create not in HONOURING else [*bucket.requests, None]
    assert "look dump_names" not in before and len(before) == len(NEW)
    assert is_held in (None, "look dump_names")


@pytest.mark.parametrize("error", [StorageDenied, StorageUnavailable])
def test_a_server_that_fails_is_not_taken_for_one_that_knows_no_conditions(
    opened: Opened, error: type[StorageError]
) -> None:
    class Failing(Bucket):
        def put(self, key: str, body: bytes | Part, **options: Any) -> str | None:
            if options.get("create"):
                raise error("not now", crash_id=CRASH_ID, uri="s3://bucket")
            return super().put(key, body, **options)

    bucket = Failing()
    with pytest.raises(error):
        opened(bucket).save_crash(crash_of(contents()))
    assert not opened(bucket).has_crash(CRASH_ID)


def test_what_is_there_to_the_byte_is_not_taken_away(opened: Opened) -> None:
    bucket = bucket_with(opened, "honours", crash_of(contents()))
    opened(bucket).save_crash(crash_of(contents()))
    assert not [request for request in bucket.requests if request.startswith("delete")]


LARGE_KEY = keys.dump_key(CRASH_ID, MAIN_DUMP)


def went_up_in_parts(bucket: Bucket, data: bytes | None) -> None:
    """Let the main dump be what it is after it went up in parts, when nobody knew its SHA-256
    before; or not be there at all."""
    _, metadata, _ = bucket.there.pop(LARGE_KEY)
    if data is not None:
        bucket.add(LARGE_KEY, data, **{RAW_CRASH_SHA256: metadata[RAW_CRASH_SHA256]})


@on_each_server
@pytest.mark.parametrize(
    ("there", "is_replaced"),
    [(contents()[MAIN], False), (bytes(len(contents()[MAIN])), True), (b"short", True)],
    ids=["same", "other", "short"],
)
def test_a_dump_that_does_not_say_what_it_is_is_read_before_it_is_left_alone(
    opened: Opened, create: str, there: bytes, is_replaced: bool
) -> None:
    bucket = bucket_with(opened, create, crash_of(contents()))
    went_up_in_parts(bucket, there)
    opened(bucket).save_crash(crash_of(contents()))
    assert read(opened(bucket)) == contents()
    deleted = [request for request in bucket.requests if request.startswith("delete")]
    assert bool(deleted) is is_replaced


@on_each_server
def test_a_dump_that_is_lost_is_put_again(opened: Opened, create: str) -> None:
    bucket = bucket_with(opened, create, crash_of(contents()))
    went_up_in_parts(bucket, None)
    opened(bucket).save_crash(crash_of(contents()))
    assert read(opened(bucket)) == contents()


# What other programs have put


def laid_out(bucket: Bucket, raw_crash_key: str) -> None:
    """Put a crash as another program does, which says nothing of its bytes."""
    parts = contents("a")
    bucket.add(keys.dump_names_key(CRASH_ID), b'["dump", "upload_file_minidump_browser"]')
    for key, name in ((MAIN, MAIN_DUMP), (BROWSER, BROWSER[1])):
        bucket.add(keys.dump_key(CRASH_ID, name), parts[key])
    bucket.add(keys.processed_crash_key(CRASH_ID), parts[PROCESSED])
    bucket.add(raw_crash_key, parts[RAW])


@on_each_server
@pytest.mark.parametrize("key", [RAW_KEY, *OLD_KEYS])
@pytest.mark.parametrize("version", ["a", "b"])
def test_a_crash_under_any_key_is_replaced_or_removed_and_read_whole_meanwhile(
    opened: Opened, create: str, key: str, version: str
) -> None:
    bucket = Bucket(create)
    laid_out(bucket, key)
    reader, new = opened(bucket), contents(version)
    states = states_of(Scenario(contents("a"), new, new))
    bucket.before = lambda _: check(whole_or_none(reader, *states))
    opened(bucket).save_crash(crash_of(new))
    bucket.before = lambda _: None
    assert read(reader) == new
    assert set(keys.raw_crash_keys(CRASH_ID)) & bucket.there.keys() == {RAW_KEY}
    laid_out(bucket, key)
    opened(bucket).remove(CRASH_ID)
    assert bucket.there == {}


@pytest.mark.parametrize(
    "left", [keys.dump_names_key(CRASH_ID), keys.processed_crash_key(CRASH_ID)]
)
def test_what_is_left_of_a_crash_is_removed(opened: Opened, left: str) -> None:
    bucket = Bucket()
    bucket.add(left, b"[]")
    opened(bucket).remove(CRASH_ID)
    assert bucket.there == {}
    with pytest.raises(CrashIDNotFound) as caught:
        opened(bucket).remove(CRASH_ID)
    assert (caught.value.crash_id, caught.value.uri) == (CRASH_ID, "s3://bucket")


@pytest.mark.parametrize("names", [b"not JSON", b'{"a": 1}', b'["../dump"]'])
def test_a_list_of_dumps_that_is_none_is_replaced(opened: Opened, names: bytes) -> None:
    bucket = Bucket()
    laid_out(bucket, RAW_KEY)
    bucket.add(keys.dump_names_key(CRASH_ID), names)
    opened(bucket).save_crash(crash_of(contents("b")))
    assert read(opened(bucket)) == contents("b")


# Parts


@on_each_server
@pytest.mark.parametrize("bad", [RAW, MAIN, BROWSER, PROCESSED])
def test_a_crash_of_which_a_part_cannot_be_read_takes_the_place_of_none(
    opened: Opened, create: str, bad: tuple[Kind, str]
) -> None:
    bucket = bucket_with(opened, create, crash_of(contents("a")))
    with pytest.raises(ReadFailed):
        opened(bucket).save_crash(with_broken(contents("b"), bad, after=5))
    assert read(opened(bucket)) == contents("a")


def test_dumps_are_added_to_the_crash_that_is_there(opened: Opened) -> None:
    bucket = bucket_with(opened, "honours", crash_of(without(contents(), BROWSER)))
    opened(bucket).save_crash(crash_of({BROWSER: b"late", MAIN: contents()[MAIN]}))
    opened(bucket).save_crash(crash_of({REPORT: b"later"}))
    assert read(opened(bucket)) == contents() | {BROWSER: b"late", REPORT: b"later"}
    bucket.requests.clear()
    opened(bucket).save_crash(crash_of({REPORT: b"last"}))
    assert "put dump_names" not in bucket.requests  # where it is listed already
    assert read(opened(bucket)) == contents() | {BROWSER: b"late", REPORT: b"last"}


def test_dumps_are_added_to_what_another_program_has_put(opened: Opened) -> None:
    bucket = Bucket()
    laid_out(bucket, OLD_KEYS[0])
    opened(bucket).save_crash(crash_of({REPORT: b"late"}))
    assert read(opened(bucket)) == contents("a") | {REPORT: b"late"}


def test_dumps_are_not_added_to_a_crash_that_is_not_there(opened: Opened) -> None:
    bucket = Bucket()
    with pytest.raises(CrashIDNotFound, match=r": no raw crash to add dumps to$") as caught:
        opened(bucket).save_crash(crash_of({MAIN: b"MDMP"}))
    assert (caught.value.crash_id, caught.value.uri) == (CRASH_ID, "s3://bucket")
    assert bucket.there == {}


@pytest.mark.parametrize("size", [PART_SIZE, PART_SIZE + 1])
def test_a_raw_crash_is_kept_in_memory_unless_it_is_large(opened: Opened, size: int) -> None:
    opens: list[None] = []
    raw = observed(RAW, bytes(size), lambda: opens.append(None))
    bucket = Bucket()
    opened(bucket).save_crash(Crash(CRASH_ID, [raw]))
    assert len(opens) == (1 if size == PART_SIZE else 2)
    assert read(opened(bucket)) == {RAW: bytes(size)}
    assert bucket.there[RAW_KEY][1][SHA256] == hashlib.sha256(bytes(size)).hexdigest()


@pytest.mark.parametrize("count", [150, 151])
def test_a_crash_of_more_dumps_than_there_is_room_for_is_saved_all_the_same(count: int) -> None:
    """A raw crash says which dumps it was saved with, as long as they are not too many."""
    bucket = Bucket()
    dumps = {(Kind.DUMP, f"dump_{n}"): b"%d" % n for n in range(count)}
    open_bucket(bucket).save_crash(crash_of({RAW: b"{}", **dumps}))
    assert read(open_bucket(bucket)) == {RAW: b"{}", **dumps}
    _, metadata, _ = bucket.there[RAW_KEY]
    assert len(metadata.get("dumps", "").split()) == (count if count == 150 else 0)


def check(is_well: bool) -> None:
    assert is_well
