# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The copy engine: what it asks of its stores, and how it finds out that one is down."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import Future
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pytest

from crashmover.crash import ALL_KINDS, Crash, Kind, Part
from crashmover.engine import mover
from crashmover.engine.checker import Checker, Verdict
from crashmover.engine.mover import Mover, Outcome, Status
from crashmover.engine.remover import Remover
from crashmover.engine.workers import Workers
from crashmover.errors import (
    CrashMoverError,
    StorageDenied,
    StorageError,
    StorageUnavailable,
    WorkerKilled,
)
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.external.tuning import Tuning
from crashmover.testing import (
    CRASH_ID,
    PROCESSED,
    RAW,
    contents,
    crash_of,
    observed,
    read,
    without,
)
from tests.faulty import FaultyStorage, denied, fill, unavailable
from tests.moving import AT_ONCE, move, some_crashes, store_of


class Batching(FaultyStorage):
    tuning = Tuning(batch=4)


# Reading


def test_a_crash_that_has_nothing_of_what_is_asked_for_is_skipped_and_not_saved() -> None:
    class Bare(InMemoryCrashStorage):
        def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
            return Crash(crash_id, [])

    destination = FaultyStorage()
    assert move(Bare(), destination) == [Outcome(CRASH_ID, Status.SKIPPED)]
    assert destination.calls == []


def test_only_the_kinds_asked_for_are_copied_when_they_are_asked_for_again() -> None:
    source, destination = FaultyStorage("load_crash", times=1), InMemoryCrashStorage()
    source.save_crash(crash_of(contents()))
    assert move(source, destination, kinds={Kind.RAW_CRASH})[0].status is Status.COPIED
    assert read(destination) == {RAW: contents()[RAW]}


def test_a_batch_is_loaded_at_once() -> None:
    class Loading(FaultyStorage):
        def load_crashes(
            self, crash_ids: Sequence[str], kinds: Set[Kind] = ALL_KINDS
        ) -> Iterator[Crash | Exception]:
            self._call("load_crashes")
            yield from (InMemoryCrashStorage.load_crash(self, one, kinds) for one in crash_ids)

    source, destination = Loading(), Batching()
    fill(source, some_crashes(4))
    source.calls.clear()
    list(Mover(source, destination, retry=AT_ONCE).run(source.new_crashes()))
    assert source.calls.count("load_crashes") == 1
    assert "load_crash" not in source.calls
    assert len(list(destination.new_crashes())) == 4


LOADED: dict[str, Callable[[list[Crash]], Iterator[Crash]]] = {
    "too few": lambda crashes: iter(crashes[:-2]),
    "none": lambda crashes: iter(()),
    "too many": lambda crashes: chain(crashes, crashes),
    "in another order": lambda crashes: reversed(crashes),
    "and breaks off": lambda crashes: broken_off(crashes),
}


def broken_off(crashes: list[Crash]) -> Iterator[Crash]:
    yield crashes[0]
    raise unavailable()


@pytest.mark.parametrize("what", LOADED)
def test_a_store_that_breaks_its_promise_about_a_batch_mixes_up_no_crashes(what: str) -> None:
    class Loading(InMemoryCrashStorage):
        tuning = Tuning(batch=4)

        def load_crashes(
            self, crash_ids: Sequence[str], kinds: Set[Kind] = ALL_KINDS
        ) -> Iterator[Crash | Exception]:
            return LOADED[what]([self.load_crash(one, kinds) for one in crash_ids])

    class Refusing(Batching):
        def save_crash(self, crash: Crash) -> None:
            if crash.crash_id == refused:
                raise denied()
            super().save_crash(crash)

    source, same = Loading(), Loading()
    for store in (source, same):
        fill(store, some_crashes(4))
    refused, *others = source.new_crashes()
    outcomes = Mover(source, Refusing(), retry=AT_ONCE).run(source.new_crashes())
    failed = [outcome.crash_id for outcome in outcomes if outcome.status is Status.FAILED]
    assert failed == [refused]
    findings = Checker(source, same, digest=True, retry=AT_ONCE).run(source.new_crashes())
    assert [finding.status for finding in findings] == [Verdict.OK] * 4
    with Remover(source, retry=AT_ONCE) as remover:
        removed = list(remover.crashes([refused, *others]))
    assert all(result.parts == removed[0].parts for result in removed)
    assert not list(source.new_crashes())


@pytest.mark.parametrize("verify", [False, True])
def test_a_part_is_read_once_from_its_source(verify: bool) -> None:
    opened: list[str] = []

    class Observed(InMemoryCrashStorage):
        def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
            parts = [
                observed(key, data, partial(opened.append, key[1] or key[0].value))
                for key, data in contents().items()
            ]
            return Crash(crash_id, parts)

    destination = InMemoryCrashStorage()
    assert move(Observed(), destination, verify=verify)[0].status is Status.COPIED
    opened_parts = [name for name in opened if name != "raw_crash"]
    assert sorted(opened_parts) == sorted(set(opened_parts))
    # The checksums of the dumps stand in the raw crash, which is small.
    assert opened.count("raw_crash") == 1 + verify


@pytest.mark.parametrize(
    ("prefetch", "batch_sizes", "limit", "expected"),
    [
        (1, (1,), None, 1),
        (1, (1, 4), None, 4),
        (1, (4,), 3, 3),
        (1, (4, 1), 9, 4),
        (7, (4, 1), None, 7),
        (2, (4, 1), None, 4),
    ],
)
def test_as_many_crashes_are_begun_at_once_as_a_store_takes_or_are_asked_for(
    prefetch: int, batch_sizes: tuple[int, ...], limit: int | None, expected: int
) -> None:
    def tuned(**tuning: int) -> InMemoryCrashStorage:
        return type("Tuned", (InMemoryCrashStorage,), {"tuning": Tuning(**tuning)})()  # type: ignore

    source = tuned(prefetch=prefetch, batch=64)
    poly = PolyCrashStorage([tuned(batch=size) for size in batch_sizes])
    assert Mover(source, poly, limit=limit).batch_size == expected


@pytest.mark.parametrize("name", ["workers", "savers", "batch", "prefetch", "least_batch"])
def test_a_store_that_takes_no_crash_at_once_is_refused(name: str) -> None:
    """A copy from it would end before its first crash, as if there were none."""
    with pytest.raises(ValueError, match=f"{name} is 0"):
        Tuning(**cast(Any, {name: 0}))


# What is said of a crash


def test_a_crash_that_cannot_be_loaded_was_tried_once_and_has_no_bytes() -> None:
    source = FaultyStorage("load_crash", error=denied())
    [outcome] = move(source, InMemoryCrashStorage())
    expected = Outcome(
        CRASH_ID, Status.FAILED, parts=0, bytes=0, attempts=1, error="memory:faulty: access denied"
    )
    assert outcome == expected


def test_each_destination_says_what_went_wrong_there_and_those_that_agree_say_it_once() -> None:
    errors = [denied("memory:a"), unavailable("memory:b"), denied("memory:a")]
    stores = [FaultyStorage("create_crashes", error=error) for error in errors]
    [outcome] = move(store_of(crash_of(contents())), PolyCrashStorage(stores))
    assert outcome.error == "memory:a: access denied; memory:b: connection refused"
    assert (outcome.status, outcome.parts, outcome.bytes) == (Status.FAILED, 0, 0)


def test_a_worker_that_is_killed_fails_each_crash_of_its_batch_and_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Killed(Workers[object, object]):
        def submit(self, task: object, crashes: int = 1) -> "Future[object]":
            future: Future[object] = Future()
            future.set_exception(WorkerKilled("a worker was killed"))
            return future

    monkeypatch.setattr(mover, "Workers", Killed)
    source, destination = store_of(*some_crashes(4)), Batching()
    run = Mover(source, destination, retry=AT_ONCE).run(source.new_crashes())
    expected = [
        Outcome(crash.crash_id, Status.FAILED, error="a worker was killed")
        for crash in some_crashes(4)
    ]
    assert [next(run) for _ in expected] == expected
    with pytest.raises(CrashMoverError, match=r"\Aa worker was killed\Z"):
        next(run)


# Stores that are down


@pytest.mark.parametrize("error", [unavailable(), denied()])
def test_before_anything_is_copied_the_source_is_looked_at(error: StorageError) -> None:
    source = FaultyStorage("verify_access", error=error)
    with pytest.raises(type(error)):
        Mover(source, InMemoryCrashStorage(), retry=AT_ONCE).verify_access()


def test_a_source_must_take_changes_only_where_it_is_to_be_removed() -> None:
    source = FaultyStorage("verify_access, to write", error=denied())
    Mover(source, InMemoryCrashStorage(), retry=AT_ONCE).verify_access()
    with pytest.raises(StorageDenied):
        Mover(source, InMemoryCrashStorage(), remove_source=True, retry=AT_ONCE).verify_access()


def test_a_source_that_has_lost_its_crashes_is_looked_at_before_they_are_said_to_be_missing() -> (
    None
):
    """As a disk does that is not mounted any more."""
    source = FaultyStorage("verify_access")
    ids = [crash.crash_id for crash in some_crashes(500)]
    with pytest.raises(StorageUnavailable):
        move(source, InMemoryCrashStorage(), *ids)
    assert source.calls.count("load_crash") <= 5 * source.tuning.workers
    # Where it only lacks them, the rest is looked for.
    source.failing.clear()
    outcomes = move(source, InMemoryCrashStorage(), *ids)
    assert [outcome.status for outcome in outcomes] == [Status.MISSING] * 500


def test_a_source_that_goes_down_while_it_is_read_ends_the_run() -> None:
    class Breaking(FaultyStorage):
        def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
            self._call("load_crash")

            def fail() -> None:
                raise self.error

            data = contents()
            parts = [Part.of_bytes(k, d, name) for (k, name), d in without(data, PROCESSED).items()]
            return Crash(crash_id, [*parts, observed(PROCESSED, data[PROCESSED], fail)])

    source, destination = Breaking("verify_access"), InMemoryCrashStorage()
    with pytest.raises(StorageUnavailable):
        move(source, destination, *(crash.crash_id for crash in some_crashes(500)))
    assert source.calls.count("load_crash") <= 20 * source.tuning.workers
    assert list(destination.new_crashes()) == []


DOWN = """
import sys
from crashmover.errors import StorageUnavailable
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.engine.mover import Mover
from crashmover.retry import RetryPolicy
class Down(FSPermanentStorage):
    def fail(self, *args, **kwargs):
        raise StorageUnavailable("connection refused", uri=self.uri)
    load_crash = create_crashes = fail
    def verify_access(self, *, write=False):
        self.fail()
source, destination = map(FSPermanentStorage, sys.argv[2:])
if sys.argv[1] == "source":
    source = Down(source.root)
else:
    destination = Down(destination.root)
ids = [f"{n:08x}-8721-460c-dead-a43c22071025" for n in range(2000)]
outcomes = []
try:
    with Mover(source, destination, workers=2, retry=RetryPolicy(wait=0, wait_max=0)) as mover:
        outcomes += [outcome.status for outcome in mover.run(ids, ahead=1)]
except StorageUnavailable as error:
    print(error, len(outcomes) < len(ids))
"""


@pytest.mark.parametrize("which", ["source", "destination"])
def test_what_a_worker_that_is_a_process_finds_down_ends_the_run(
    which: str, tmp_path: Path
) -> None:
    paths = {name: tmp_path / name for name in ("source", "destination")}
    fill(FSPermanentStorage(paths["source"]), some_crashes(2))
    command = [sys.executable, "-c", DOWN, which, *map(str, paths.values())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"fs://{paths[which]}: connection refused True\n"


@pytest.mark.parametrize(("workers", "expected"), [(1, 64), (4, 64), (16, 16), (64, 8)])
def test_many_workers_have_less_in_hand_each(tmp_path: Path, workers: int, expected: int) -> None:
    with FSPermanentStorage(tmp_path) as store:
        mover = Mover(InMemoryCrashStorage(), store, workers=workers)
    assert mover.batch_size == expected
