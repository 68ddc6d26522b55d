# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``copy -q``: a crash id leaves the queue when its crash has arrived, and not before."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Set
from contextlib import closing
from pathlib import Path

import pytest

from crashmover import open_queue
from crashmover.crash import ALL_KINDS, Crash, Kind
from crashmover.engine.mover import Mover, Status
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.selection import QueuedIDs
from crashmover.testing import contents, crash_of
from tests.cli_helpers import (
    TIMEOUT,
    assert_refused,
    environment,
    manifest,
    put,
    run,
    sample,
    start,
    statuses,
    stored,
)

CRASHES = [sample(n) for n in range(20)]
IDS = sorted(crash.crash_id for crash in CRASHES)


class Place:
    """A source, a destination that is not there yet, and a queue of the source's crashes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = put(root / "source", *CRASHES)
        self.destination = root / "destination"
        self.database = root / "queue.db"
        self.uri = f"sqlite:{self.database}?quarantine={root}/bad.jsonl"
        self.publish(*IDS, create=True)

    def publish(self, *bodies: str, create: bool = False) -> None:
        with open_queue(self.uri) as queue:
            if create:
                queue.create()
            queue.publish("standard", bodies)

    def copy(self, *args: str | Path) -> tuple[int, str]:
        """Return the exit code, and what was said."""
        where = ("-s", self.source, "-d", self.destination, "-q", self.uri)
        result = run("copy", *where, "--wait", "0", *args)
        return result.exit_code, result.stderr

    def left(self) -> list[str]:
        """What is in the queue, leased or not."""
        with closing(sqlite3.connect(self.database)) as database:
            rows = database.execute("SELECT body FROM messages").fetchall()
        return sorted(bytes(body).decode() for (body,) in rows)

    def leased(self) -> int:
        with closing(sqlite3.connect(self.database)) as database:
            statement = "SELECT count(*) FROM messages WHERE visible_at > ?"
            return int(database.execute(statement, (time.time(),)).fetchone()[0])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_is_copied_leaves_the_queue(place: Place) -> None:
    code, said = place.copy("--verify")
    assert code == 0 and said.startswith("copied 20, skipped 0, failed 0;")
    assert stored(place.destination) == manifest(*CRASHES)
    assert place.left() == []


def test_what_is_there_already_leaves_it_too(place: Place) -> None:
    put(place.destination, *CRASHES[:5])
    code, said = place.copy()
    assert code == 0 and said.startswith("copied 15, skipped 5, failed 0;")
    assert place.left() == []


def test_what_comes_twice_is_copied_once(place: Place) -> None:
    place.publish(*IDS, f"{IDS[0]}:rules")
    report = place.root / "report.jsonl"
    assert place.copy("--report", report)[0] == 0
    assert stored(place.destination) == manifest(*CRASHES)
    assert place.left() == []


def test_what_failed_stays_and_is_tried_once_a_run(place: Place) -> None:
    missing = sample(99).crash_id
    place.publish(missing, missing)
    report = place.root / "report.jsonl"
    code, said = place.copy("--report", report)
    assert code == 1 and said.count(missing) == 1
    assert statuses(report)[missing] == "missing"
    assert place.left() == [missing, missing]
    assert place.leased() == 0


def test_what_is_malformed_is_kept_and_the_others_are_copied(place: Place) -> None:
    with closing(sqlite3.connect(place.database)) as database:
        database.execute("UPDATE messages SET body = x'ff' WHERE id = 3")
        database.commit()
    code, said = place.copy()
    assert code == 0 and "copied 19" in said and "malformed" in said
    assert (place.root / "bad.jsonl").read_text().count("\n") == 1
    assert place.left() == []


def test_a_limit_leaves_the_others_in_the_queue(place: Place) -> None:
    assert place.copy("--limit", "3")[0] == 0
    assert len(stored(place.destination)) == len(manifest(*CRASHES[:3]))
    assert len(place.left()) == 17 and place.leased() == 0


def test_a_dry_run_takes_nothing_off_the_queue(place: Place) -> None:
    code, said = place.copy("--dry-run")
    assert code == 0 and "would copy 20" in said
    assert place.left() == IDS and place.leased() == 0
    assert not place.destination.exists()


def test_the_source_is_removed_when_the_crash_has_arrived(place: Place) -> None:
    assert place.copy("--remove-source", "--verify")[0] == 0
    assert stored(place.source) == {} and stored(place.destination) == manifest(*CRASHES)
    assert place.left() == []


def test_a_destination_that_cannot_be_written_takes_nothing_off_the_queue(place: Place) -> None:
    place.destination.write_bytes(b"not a directory")
    code, said = place.copy()
    assert code == 4 and said.splitlines()[0].startswith("crashmover: ")
    assert place.left() == IDS and place.leased() == 0


def test_of_two_destinations_both_must_have_it(place: Place) -> None:
    other = place.root / "other"
    other.write_bytes(b"not a directory")
    code, _ = place.copy("-d", other)
    assert code != 0
    assert place.left() == IDS and place.leased() == 0


def test_a_source_that_is_gone_is_no_reason_to_forget_its_crashes(place: Place) -> None:
    place.source.rename(place.root / "elsewhere")
    assert place.copy()[0] == 4
    assert place.left() == IDS and place.leased() == 0


def test_a_queue_that_is_not_there_ends_with_4(place: Place) -> None:
    place.database.unlink()
    code, said = place.copy()
    assert code == 4 and "--create makes it" in said
    assert not place.destination.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_following_ends_with_a_signal_and_holds_nothing(
    place: Place, number: signal.Signals
) -> None:
    where = ("-s", place.source, "-d", place.destination, "-q", place.uri)
    with start("copy", *where, "--follow", "--report", "/dev/stdout") as process:
        assert process.stdout and process.stderr
        for _ in IDS:
            assert b'"copied"' in process.stdout.readline()
        later = sample(50)
        put(place.source, later)
        place.publish(later.crash_id)
        assert later.crash_id.encode() in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 128 + number
        assert b"copied 21, skipped 0, failed 0;" in process.stderr.read()
    assert place.left() == []


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        (["-q", "sqlite:./queue.db", IDS[0]], "either a queue"),
        (["-q", "sqlite:./queue.db", "--since", "7d"], "either a queue"),
        (["--follow"], "-q is missing"),
        (["-q", "fs:./queue"], "no scheme of a queue"),
    ],
)
def test_bad_usage_changes_nothing(place: Place, args: list[str], phrase: str) -> None:
    result = run("copy", "-s", place.source, "-d", place.destination, *args)
    assert_refused(result, 2, phrase)
    assert place.left() == IDS and not place.destination.exists()


def test_the_queue_of_the_environment_is_for_runs_that_name_no_crashes(place: Place) -> None:
    env = {"CRASHMOVER_QUEUE": place.uri}
    where = ("copy", "-s", place.source, "-d", place.destination, "--wait", "0")
    assert run(*where, IDS[0], env=env).stderr.startswith("copied 1,")
    assert place.left() == IDS
    assert run(*where, env=env).stderr.startswith("copied 19, skipped 1,")
    assert place.left() == []


class SlowStorage(InMemoryCrashStorage):
    """Takes its time to load a crash."""

    def __init__(self, delay: float) -> None:
        super().__init__()
        self.delay = delay
        self.loaded: list[str] = []

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        self.loaded.append(crash_id)
        time.sleep(self.delay)
        return super().load_crash(crash_id, kinds)


@pytest.fixture
def short(place: Place) -> Iterator[str]:
    yield f"{place.uri}&lease=1"


def test_a_copy_of_three_times_the_lease_is_delivered_once(short: str) -> None:
    crash = crash_of(contents("a"))
    source, destination = SlowStorage(3.0), InMemoryCrashStorage()
    source.save_crash(crash)
    with open_queue(short) as queue, open_queue(short) as other:
        others = other.pull(max_messages=1000)
        other.ack(others)
        queue.publish("standard", [crash.crash_id])
        queued = QueuedIDs(queue, batch_size=1, wait=0.0)
        with queue.keeping_leases():
            for outcome in Mover(source, destination).run(queued, ahead=1):
                assert outcome.status is Status.COPIED
                assert other.pull() == []
                queued.settle(outcome.crash_id, True)
            queued.close()
        assert source.loaded == [crash.crash_id]
        assert other.pull(wait=1.5) == []


def test_who_does_not_extend_loses_the_lease_and_is_told(
    short: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_queue(short) as queue, open_queue(short) as other:
        [first] = queue.pull(max_messages=1)
        time.sleep(1.1)
        [again] = [d for d in other.pull(max_messages=1000) if d.crash_id == first.crash_id]
        queue.ack([first])
        assert "too late" in caplog.text
        assert again.attempt == 2
        other.ack([again])


def test_the_example_shows_several_workers_on_one_queue() -> None:
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", Path(__file__).parents[1] / "examples" / "many_workers.sh", "60"],
        capture_output=True,
        text=True,
        env={**environment(), "PATH": f"{scripts}:{os.environ['PATH']}"},
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["1 working", "2 working", "4 working"]
