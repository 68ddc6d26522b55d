# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The copy engine: what becomes of a crash when stores fail."""

import io
import subprocess
import sys
import threading
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import pytest

from crashmover.crash import ALL_KINDS, Crash, Kind, Part
from crashmover.engine.mover import Existing, Mover, Outcome, Status
from crashmover.errors import (
    CorruptCrash,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.external.tuning import Tuning
from crashmover.testing import (
    CRASH_ID,
    MAIN,
    contents,
    crash_of,
    read,
)
from tests.faulty import FaultyStorage, all_down, denied, fill, unavailable
from tests.moving import AT_ONCE, move, move_all, some_crashes, store_of


def test_what_fails_in_passing_is_tried_again() -> None:
    source = FaultyStorage("load_crash", times=2)
    source.save_crash(crash_of(contents()))
    destination = FaultyStorage("create_crashes", times=2)
    [outcome] = move(source, destination)
    assert (outcome.status, outcome.attempts) == (Status.COPIED, 3)
    assert read(destination) == contents()


def test_only_what_failed_is_tried_again() -> None:
    class Flaky(InMemoryCrashStorage):
        tuning = Tuning(batch=8)
        saved: list[str]

        def __init__(self) -> None:
            super().__init__()
            self.saved = []

        def save_crash(self, crash: Crash) -> None:
            self.saved.append(crash.crash_id)
            if self.saved.count(crash.crash_id) == 1 and crash.crash_id.startswith("00000003"):
                raise unavailable()
            super().save_crash(crash)

    destination = Flaky()
    outcomes = move_all(store_of(*some_crashes(8)), destination)
    assert {outcome.status for outcome in outcomes} == {Status.COPIED}
    assert len(destination.saved) == 9


def test_what_is_denied_is_not_tried_again() -> None:
    destination = FaultyStorage("create_crashes", error=denied())
    [outcome] = move(store_of(crash_of(contents())), destination)
    assert (outcome.status, outcome.error) == (Status.FAILED, "memory:faulty: access denied")
    assert destination.calls.count("create_crashes") == 1


def test_a_part_that_cannot_be_read_is_the_source_s_failure() -> None:
    class Unreadable(InMemoryCrashStorage):
        uri = "memory:unreadable"

        def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
            short = Part(*MAIN, lambda: io.BytesIO(b"four"), 5)
            return Crash(crash_id, [Part.of_bytes(Kind.RAW_CRASH, b"{}"), short])

    destination = InMemoryCrashStorage()
    [outcome] = move(Unreadable(), destination)
    assert outcome.status is Status.FAILED
    expected = "memory:unreadable: dump upload_file_minidump: read 4 bytes of 5"
    assert outcome.error == expected
    assert not destination.has_crash(CRASH_ID)


def test_a_crash_that_is_replaced_while_it_is_copied_is_copied_as_it_is_then(
    tmp_path: Path,
) -> None:
    source = FSPermanentStorage(tmp_path)
    source.save_crash(crash_of(contents("a")))

    class Slow(InMemoryCrashStorage):
        def save_crash(self, crash: Crash) -> None:
            if read(source) == contents("a"):
                source.save_crash(crash_of(contents("b")))
            super().save_crash(crash)

    destination = Slow()
    [outcome] = move(source, destination, verify=True)
    assert outcome.status is Status.COPIED
    assert read(destination) == contents("b")


@pytest.mark.parametrize("error", [unavailable(), denied()])
def test_a_source_that_goes_down_ends_the_run(error: StorageError) -> None:
    source = FaultyStorage(error=error)
    for crash in some_crashes(500):
        source.save_crash(crash)
    source.failing = {"load_crash", "verify_access"}
    with pytest.raises(type(error)):
        list(Mover(source, InMemoryCrashStorage(), retry=AT_ONCE).run(source.new_crashes()))
    assert source.calls.count("load_crash") < 500


def test_a_destination_that_is_down_stops_the_run_only_when_it_is_the_last() -> None:
    good = InMemoryCrashStorage()
    source = store_of(*some_crashes(20))
    mover = Mover(source, PolyCrashStorage([all_down(), good]), retry=AT_ONCE)
    mover.verify_access()
    outcomes = list(mover.run(source.new_crashes()))
    assert {outcome.status for outcome in outcomes} == {Status.FAILED}
    assert {outcome.error for outcome in outcomes} == {"memory:faulty: connection refused"}
    assert list(good.new_crashes()) == list(source.new_crashes())
    with pytest.raises(StorageError):
        Mover(source, PolyCrashStorage([all_down(), all_down()]), retry=AT_ONCE).verify_access()


def test_a_destination_that_goes_down_on_the_way_is_not_tried_for_every_crash() -> None:
    source = store_of(*some_crashes(200))
    down = FaultyStorage("create_crashes", "verify_access")
    with pytest.raises(StorageUnavailable):
        list(Mover(source, down, retry=AT_ONCE).run(source.new_crashes()))
    assert down.calls.count("create_crashes") <= 5 * down.tuning.workers


@pytest.mark.parametrize("error", [unavailable(), denied()])
@pytest.mark.parametrize(
    ("failing", "options"),
    [
        ("has_crash", {}),
        ("load_crash", {"existing": Existing.COMPARE}),
        ("load_crash", {"verify": True}),
    ],
)
def test_a_destination_that_cannot_be_asked_is_not_asked_for_every_crash(
    failing: str, options: dict[str, Any], error: StorageError
) -> None:
    source = store_of(*some_crashes(200))
    down = FaultyStorage(failing, "verify_access", error=error)
    with pytest.raises(type(error)):
        list(Mover(source, down, retry=AT_ONCE, **options).run(source.new_crashes()))
    assert down.calls.count(failing) <= 5 * down.tuning.workers


def test_a_source_that_goes_down_is_not_asked_for_the_rest_of_a_batch() -> None:
    class Batching(InMemoryCrashStorage):
        tuning = Tuning(batch=100)

    source = FaultyStorage("load_crash", "verify_access")
    with pytest.raises(StorageUnavailable):
        list(Mover(source, Batching(), retry=AT_ONCE).run(c.crash_id for c in some_crashes(200)))
    assert source.calls.count("load_crash") <= 5 * source.tuning.workers


def test_a_source_that_cannot_be_listed_to_its_end_is_an_error_at_the_end() -> None:
    source = FaultyStorage("new_crashes, after one")
    for crash in some_crashes(3):
        source.save_crash(crash)
    destination = InMemoryCrashStorage()
    outcomes: list[Outcome] = []
    mover = Mover(source, destination, retry=AT_ONCE)
    with pytest.raises(StorageUnavailable):
        for outcome in mover.run(source.new_crashes()):
            outcomes.append(outcome)
    assert [outcome.status for outcome in outcomes] == [Status.COPIED]
    assert len(list(destination.new_crashes())) == 1


def test_a_destination_that_cannot_be_listed_gets_nothing_overwritten() -> None:
    source, destination = store_of(*some_crashes(3)), FaultyStorage("new_crashes, after one")
    for crash in some_crashes(2):
        destination.save_crash(crash_of(contents("theirs"), crash.crash_id))
    with pytest.raises(StorageUnavailable):
        move_all(source, destination)
    for crash in some_crashes(2):
        assert read(destination, crash.crash_id) == contents("theirs")


def test_a_listing_that_fails_takes_nothing_from_what_is_in_hand() -> None:
    failing = threading.Event()

    class Slow(InMemoryCrashStorage):
        def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
            assert failing.wait(20)
            return super().load_crash(crash_id, kinds)

    def listing() -> Iterator[str]:
        yield from source.new_crashes()
        failing.set()
        raise denied()

    source = Slow()
    fill(source, some_crashes(2))
    outcomes = []
    mover = Mover(source, InMemoryCrashStorage(), retry=AT_ONCE, workers=1)
    with pytest.raises(StorageDenied):
        for outcome in mover.run(listing(), ahead=3):
            outcomes.append(outcome.status)
    assert outcomes == [Status.COPIED] * 2


def test_a_destination_of_which_one_directory_cannot_be_listed_gets_all_else() -> None:
    class Odd(FaultyStorage):
        def new_crashes(self, *_args: object, **_kwargs: object) -> Iterator[str]:
            yield from ()
            raise denied()

    crashes = some_crashes(3)
    destination = Odd()
    fill(destination, crashes[:1])
    outcomes = move_all(store_of(*crashes), destination)
    assert sorted(outcome.status for outcome in outcomes) == ["copied", "copied", "skipped"]


BY_PROCESSES = """
import os, sys
from crashmover.errors import StorageUnavailable
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.engine.mover import Mover
from crashmover.retry import RetryPolicy
class Destination(FSPermanentStorage):
    def new_crashes(self, *args, **kwargs):
        yield next(super().new_crashes(*args, **kwargs))
        raise StorageUnavailable("connection refused", uri=self.uri)
source, destination = FSPermanentStorage(sys.argv[1]), Destination(sys.argv[2])
listings = lambda store: store.new_crashes()
with Mover(source, destination, retry=RetryPolicy(wait=0, wait_max=0)) as mover:
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        print(len(children.read().split()), flush=True)
    outcomes = mover.run(listings(source), listings)
    try:
        for outcome in outcomes:
            print(outcome.status)
    except StorageUnavailable as error:
        print(error)
"""


@pytest.fixture
def said_by_processes(tmp_path: Path) -> list[str]:
    """What a copy says whose workers are processes, and whose destination cannot be listed to
    its end: how they are, and what became of each crash and of the run."""
    source, destination = (FSPermanentStorage(tmp_path / name) for name in ("from", "to"))
    for crash in some_crashes(3):
        source.save_crash(crash)
    for crash in some_crashes(2):
        destination.save_crash(crash_of(contents("theirs"), crash.crash_id))
    command = [sys.executable, "-c", BY_PROCESSES, str(source.root), str(destination.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


only_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")


@only_linux
def test_a_destination_that_processes_cannot_list_gets_nothing_overwritten(
    said_by_processes: list[str], tmp_path: Path
) -> None:
    assert int(said_by_processes[0]) > 1
    destination = FSPermanentStorage(tmp_path / "to")
    for crash in some_crashes(2):
        assert read(destination, crash.crash_id) == contents("theirs")


@only_linux
def test_a_destination_that_cannot_be_listed_is_an_error_beside_processes_too(
    said_by_processes: list[str], tmp_path: Path
) -> None:
    assert said_by_processes[-1] == f"fs://{tmp_path}/to: connection refused"


def test_an_exception_that_nobody_expects_is_a_failed_crash() -> None:
    class Buggy(InMemoryCrashStorage):
        def save_crash(self, crash: Crash) -> None:
            raise ZeroDivisionError("bug")

    [outcome] = move(store_of(crash_of(contents())), Buggy())
    assert (outcome.status, outcome.error) == (Status.FAILED, "ZeroDivisionError: bug")


def test_corrupt_is_not_retried() -> None:
    source = FaultyStorage("load_crash", error=CorruptCrash("torn", uri="memory:faulty"))
    source.save_crash(crash_of(contents()))
    [outcome] = move(source, InMemoryCrashStorage())
    assert (outcome.status, outcome.error) == (Status.FAILED, "memory:faulty: torn")
    assert source.calls.count("load_crash") == 1
