# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Requests that have no order go together: how many rounds a crash costs, and what may go wrong."""

import datetime as dt
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, BinaryIO

import pytest

from crashmover.crash import Crash, Part
from crashmover.errors import CrashIDNotFound, StorageUnavailable
from crashmover.external.bucket import reading, rounds
from crashmover.external.bucket.client import StoredObject
from crashmover.external.bucket.layouts import SOCORRO, V1_ONLY, BucketLayout
from crashmover.external.bucket.rounds import Rounds
from crashmover.pool import at_once
from crashmover.retry import RetryPolicy
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
from tests.bucket_in_memory import Bucket, InMemoryBucketCrashStorage, open_bucket
from tests.conftest import Figures

LIMIT = 20  # seconds until a test fails that waits
OLDER = ["list raw_crash"] * 3
DUMPS = ["dump", "upload_file_minidump_browser"]


# What goes together, and when


@pytest.fixture
def meeting() -> threading.Barrier:
    return threading.Barrier(3, timeout=LIMIT)


def test_calls_go_together_and_answers_come_in_their_order(
    together: None, meeting: threading.Barrier
) -> None:
    def call(number: int) -> int:
        meeting.wait()
        return number

    assert Rounds().together(*(partial(call, number) for number in range(3))) == [0, 1, 2]


def test_one_call_goes_after_the_other_until_a_call_has_taken_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounds, "FAR_AWAY", 0.1)
    now = [0.0]
    monkeypatch.setattr(rounds, "monotonic", lambda: now[0])
    sent = Rounds()
    threads = []

    def call(seconds: float) -> None:
        threads.append(threading.current_thread())
        now[0] += seconds

    sent.together(*[partial(call, 0.01)] * 3)
    assert threads == [threading.current_thread()] * 3
    for _ in range(40):  # the server is far away from now on: the fastest is forgotten
        sent.timed(partial(call, 0.2))
    assert sent.is_far
    sent.timed(partial(call, 0.01))
    assert not sent.is_far


def test_a_round_that_begins_with_a_slow_call_goes_on_together(
    monkeypatch: pytest.MonkeyPatch, meeting: threading.Barrier
) -> None:
    monkeypatch.setattr(rounds, "FAR_AWAY", 0.001)
    with Rounds()() as begin:
        first = begin(partial(time.sleep, 0.01))
        others = [begin(meeting.wait) for _ in range(3)]
        first()
        assert not begin.has_sent
        assert sorted(answer() for answer in others) == [0, 1, 2]


def test_what_fails_first_is_raised_when_all_have_ended(
    together: None, meeting: threading.Barrier
) -> None:
    ended = []

    def fail(text: str) -> None:
        meeting.wait()
        raise ValueError(text)

    def end_late() -> None:
        meeting.wait()
        time.sleep(0.2)
        ended.append(True)

    calls: list[Callable[[], None]] = [end_late, partial(fail, "first"), partial(fail, "second")]
    with pytest.raises(ValueError, match="first"):
        Rounds().together(*calls)
    assert ended
    with pytest.raises(ValueError, match="first"):
        at_once(calls)
    assert len(ended) == 2


def test_a_signal_does_not_wait_for_the_server(together: None) -> None:
    end = threading.Event()
    has_begun = threading.Event()

    def wait() -> None:
        has_begun.set()
        end.wait(LIMIT)

    def interrupt() -> None:
        has_begun.wait(LIMIT)
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            Rounds().together(interrupt, wait)
        assert not end.is_set()
    finally:
        end.set()


def test_where_no_thread_can_be_started_one_call_goes_after_the_other(
    together: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    me = threading.current_thread
    assert set(Rounds().together(me, me, me)) == {me()}
    assert set(at_once([me, me])) == {me()}


def test_rounds_within_rounds_need_no_thread_of_their_own(
    together: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "_MOST", 2)
    sent = Rounds()

    def call(depth: int) -> int:
        return sum(sent.together(*[partial(call, depth - 1)] * 3)) if depth else 1

    done = threading.Thread(target=lambda: counts.append(call(5)), daemon=True)
    counts: list[int] = []
    done.start()
    done.join(LIMIT)
    assert counts == [3**5]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_process_that_was_forked_does_without_the_threads(together: None) -> None:
    sent = Rounds()
    calls = [partial(int, number) for number in range(3)]
    assert sent.together(*calls) == [0, 1, 2]
    child = os.fork()
    if child == 0:
        os._exit(sum(sent.together(*calls)))
    for _ in range(LIMIT * 10):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.1)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3


# How many rounds a crash costs


class InRounds(Bucket):
    """A bucket whose requests must come in rounds: each waits until all others of its round have
    come, and those of the next round come after all.  Small bodies come along.

    :param said: the requests of each round
    """

    def __init__(self, create: str = "amazon") -> None:
        super().__init__(create)
        self._said: list[list[str]] = []
        self._changed = threading.Condition()

    def clock(self) -> dt.datetime:
        """Return the time, without a request: it would go along with others, once a run."""
        return dt.datetime.now(dt.UTC)

    def expect(self, *said: Iterable[str]) -> None:
        """Say which requests come from now on."""
        assert not any(self._said), self._said
        self._said = [sorted(requests) for requests in said]
        self._left = [list(requests) for requests in self._said]

    def ask(self, verb: str, key: str) -> None:
        request = " ".join([verb, *key.split("/")[1:2]])
        with self._changed:
            assert self._said, f"one round more: {request}"
            now = self._left[0]
            assert request in now, f"{request} is not one of {self._said}"
            now.remove(request)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: not now, LIMIT), f"{request} came without {now}"
            if self._left and self._left[0] is now:
                self._said.pop(0)
                self._left.pop(0)

    def get_small(self, key: str) -> StoredObject | None:
        found = self.head(key)
        return found and replace(found, body=self.there[key][0])


def in_rounds(crash: Crash | None = None, *, is_settled: bool = True) -> InRounds:
    """Return a bucket with a crash."""
    bucket, whole = InRounds(), Bucket("amazon")
    if crash:
        open_bucket(whole).save_crash(crash)
    bucket.there = whole.there
    if not is_settled:  # saved a moment ago
        now = int(
            (dt.datetime.now(dt.UTC) - dt.datetime(2007, 10, 25, tzinfo=dt.UTC)).total_seconds()
        )
        bucket.there = {key: (*at[:2], str(now)) for key, at in whole.there.items()}
    return bucket


def looks(*names: str) -> list[str]:
    return [f"look {name}" for name in names]


ALL = looks("raw_crash", "dump_names", "processed_crash")


@pytest.mark.usefixtures("together")
class TestRounds:
    def test_a_crash_is_read_in_two_rounds(self) -> None:
        bucket = in_rounds(crash_of(contents()))
        # The dump that is opened first, and the other, come together.
        bucket.expect(ALL, ["get dump", *looks(DUMPS[1])])
        crash = InMemoryBucketCrashStorage(bucket).load_crash(CRASH_ID)
        assert {part.key: part.read() for part in crash.parts} == contents()
        assert [part.find_size() for part in crash.dumps]  # which is known by now
        bucket.expect(["get dump"], [f"get {DUMPS[1]}"])  # what is read again is asked for again
        assert all(part.read() for part in crash.dumps)

    def test_a_crash_that_was_saved_just_now_takes_one_more(self) -> None:
        bucket = in_rounds(crash_of(without(contents(), PROCESSED)), is_settled=False)
        rest = looks("dump_names", "processed_crash")
        bucket.expect(ALL, rest, ["get dump", *looks(DUMPS[1])])
        storage = InMemoryBucketCrashStorage(bucket)
        assert read(storage, CRASH_ID) == without(contents(), PROCESSED)

    def test_sizes_are_looked_at_together(self) -> None:
        bucket = in_rounds(crash_of(contents()))
        bucket.expect(ALL, looks(*DUMPS))
        crash = InMemoryBucketCrashStorage(bucket).load_crash(CRASH_ID)
        sizes = {key: len(data) for key, data in contents().items()}
        assert {part.key: part.check() for part in crash.parts} == sizes

    def test_a_missing_crash_is_asked_for_once(self) -> None:
        bucket = in_rounds()
        bucket.expect(ALL)
        with pytest.raises(CrashIDNotFound):
            InMemoryBucketCrashStorage(bucket, V1_ONLY).load_crash(CRASH_ID)

    def test_a_new_crash_is_saved_in_three_rounds(self) -> None:
        bucket = in_rounds()
        dumps = [f"create {name}" for name in DUMPS]
        bucket.expect(["create dump_names"], dumps, ["create raw_crash"])
        crash = crash_of(without(contents(), PROCESSED))
        assert InMemoryBucketCrashStorage(bucket).create_crashes([crash]) == [None]
        bucket.there.clear()
        bucket.expect(["create dump_names"], dumps, ["put processed_crash"], ["create raw_crash"])
        assert InMemoryBucketCrashStorage(bucket).create_crashes([crash_of(contents())]) == [None]

    def test_a_crash_is_removed_in_three_rounds(self) -> None:
        bucket = in_rounds(crash_of(contents()))
        bucket.expect(
            ["look raw_crash", "get dump_names", "look processed_crash", *OLDER],
            ["delete raw_crash"],
            ["delete dump"],
        )
        InMemoryBucketCrashStorage(bucket).remove(CRASH_ID)
        assert not bucket.there

    def test_a_crash_that_was_loaded_is_removed_in_five(self) -> None:
        bucket = in_rounds(crash_of(contents()))
        storage = InMemoryBucketCrashStorage(bucket)
        bucket.expect(ALL, ["get dump", *looks(DUMPS[1])])
        crash = storage.load_crash(CRASH_ID)
        assert all(part.read() for part in crash.parts)
        bucket.expect(
            looks("dump_names", *["raw_crash"] * 4),
            looks("dump_names", "processed_crash"),
            looks(*DUMPS),
            ["delete raw_crash"],
            ["delete dump"],
        )
        storage.remove_loaded(crash)
        assert not bucket.there


@pytest.mark.parametrize("layout", [SOCORRO, V1_ONLY])
def test_a_server_far_away_stays_so_while_crashes_are_removed(layout: BucketLayout) -> None:
    bucket = Bucket()
    storage = InMemoryBucketCrashStorage(bucket, layout)
    storage.save_crash(crash_of(contents()))
    crash = storage.load_crash(CRASH_ID)
    ask = bucket.head

    def ask_slowly(key: str) -> StoredObject | None:
        time.sleep(0.002)
        return ask(key)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rounds, "FAR_AWAY", 0.001)
        patched.setattr(bucket, "head", ask_slowly)
        for _ in range(100):  # what went before is forgotten
            bucket.rounds.timed(partial(bucket.head, "x"))
        assert bucket.rounds.is_far
        storage.remove_loaded(crash)
        assert bucket.rounds.is_far


def test_a_dump_that_fails_on_its_way_along_with_another_is_asked_for_again(
    together: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket()
    open_bucket(bucket).save_crash(crash_of(contents()))

    def fail(key: str) -> None:
        raise StorageUnavailable("503", uri=bucket.uri)

    crash = open_bucket(bucket).load_crash(CRASH_ID)
    monkeypatch.setattr(bucket, "get_small", fail)
    assert {part.key: part.read() for part in crash.dumps} == {
        key: data for key, data in contents().items() if key[1]
    }


# What readers see while others save and remove


class Hurried(Bucket):
    """A bucket whose requests take their time, one more and another less."""

    def __init__(self, create: str, seed: int) -> None:
        super().__init__(create)
        self.latest = 0
        self._random = random.Random(seed)
        self._lock = threading.RLock()

    def clock(self) -> dt.datetime:
        return dt.datetime(2007, 10, 25, tzinfo=dt.UTC) + dt.timedelta(seconds=self.latest + 1)

    def _take_time(self) -> threading.RLock:
        time.sleep(self._random.random() / 500)
        return self._lock

    def add(self, key: str, data: bytes, **metadata: str) -> None:
        super().add(key, data, **metadata)
        self.latest = int(self.there[key][2])

    def head(self, key: str) -> StoredObject | None:
        with self._take_time():
            return super().head(key)

    def get(self, key: str) -> tuple[StoredObject, BinaryIO] | None:
        with self._take_time():
            return super().get(key)

    def put(self, key: str, body: bytes | Part, **options: Any) -> str | None:
        with self._take_time():
            return super().put(key, body, **options)

    def delete(self, versions: Mapping[str, str | None]) -> list[str]:
        with self._take_time():
            return super().delete(versions)

    def list_directory(self, prefix: str) -> tuple[list[str], list[str]]:
        with self._take_time():
            return super().list_directory(prefix)

    def has_key(self, prefix: str, after: str = "") -> bool:
        with self._take_time():
            return super().has_key(prefix, after)


WHOLE = contents()
FEW = without(contents(), PROCESSED)
FEWER = without(FEW, BROWSER)  # the same raw crash
OTHER = without(contents("b"), PROCESSED)

SCENES: dict[str, tuple[Contents, ...]] = {
    "it is new": (WHOLE,),
    "another replaces it": (FEW, OTHER, FEW),
    "it loses a dump and gets it back": (FEW, FEWER, FEW),
}


@pytest.mark.parametrize(
    ("long", "ahead"),
    [(0, 0), (0, 3600), (2**29, 0)],
    ids=["at once", "at once, by a clock that is wrong", "never"],
)
@pytest.mark.parametrize("create", ["amazon", "honours", "ignores"])
@pytest.mark.parametrize("scene", SCENES)
def test_readers_see_whole_crashes_while_requests_go_together(
    together: None,
    monkeypatch: pytest.MonkeyPatch,
    figures: Figures,
    scene: str,
    create: str,
    long: int,
    ahead: int,
) -> None:
    """A raw crash is taken for old as soon as it is there, or never.

    :param long: seconds until then
    :param ahead: seconds by which the clock here is ahead of the server's
    """
    found: Counter[str] = Counter()
    saved = SCENES[scene]
    states = list(saved)
    for seed in range(25):
        bucket = Hurried(create, seed)
        clock = _Clock(bucket, ahead)
        monkeypatch.setattr(reading, "monotonic", clock)
        monkeypatch.setattr(reading, "_LONG", dt.timedelta(seconds=long))
        has_ended = threading.Event()

        def save(bucket: Hurried = bucket, end: threading.Event = has_ended) -> None:
            storage = open_bucket(bucket)
            try:
                for state in saved:
                    storage.save_crash(crash_of(state))
            finally:
                end.set()

        def look(bucket: Hurried = bucket, end: threading.Event = has_ended) -> list[Contents]:
            storage, seen = open_bucket(bucket), list[Contents]()
            while not end.is_set():
                with suppress(CrashIDNotFound, StorageUnavailable):
                    seen.append(read(storage, CRASH_ID))
            return seen

        with ThreadPoolExecutor(4) as threads:
            futures = [threads.submit(look) for _ in range(3)]
            threads.submit(save).result()
            for seen in chain.from_iterable(future.result() for future in futures):
                assert seen in states
                found[f"state_{states.index(seen)}"] += 1
        assert read(open_bucket(bucket), CRASH_ID) == states[-1]
    figures(seen=found.total())


class _Clock:
    def __init__(self, bucket: Hurried, ahead: int) -> None:
        self._bucket = bucket
        self._ahead = ahead

    def __call__(self) -> float:
        """Return the seconds of a time that is later than all that was put, and not than what is
        put next, but for what the clock is ahead."""
        return self._bucket.latest + 1 + self._ahead


@pytest.mark.parametrize("create", ["amazon", "honours"])
def test_of_savers_and_removers_one_comes_last(
    together: None, figures: Figures, create: str
) -> None:
    """What is there in the end is one whole crash, or nothing."""
    left: Counter[str] = Counter()
    for seed in range(40):
        bucket = Hurried(create, seed)

        def retried(work: Callable[[], object]) -> None:
            with suppress(CrashIDNotFound):
                RetryPolicy(attempts=9, wait=0, wait_max=0).call(work)

        def save(state: Contents, bucket: Hurried = bucket) -> None:
            storage = open_bucket(bucket)
            retried(lambda: storage.save_crash(crash_of(state)))

        def remove(bucket: Hurried = bucket) -> None:
            storage = open_bucket(bucket)
            retried(lambda: storage.remove(CRASH_ID))

        calls: list[Callable[[], None]] = [partial(save, state) for state in (FEW, OTHER, FEWER)]
        at_once([*calls, remove])
        try:
            there = read(open_bucket(bucket), CRASH_ID)
        except CrashIDNotFound:
            left["nothing"] += 1
        else:
            assert there in (FEW, OTHER, FEWER)
            left["crash"] += 1
    figures(**left)
