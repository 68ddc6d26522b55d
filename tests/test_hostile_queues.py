# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What strangers have put into a queue: it is kept to the byte where it can be found, said in a
line, and costs no crash id behind it."""

import base64
import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from crashmover import open_queue
from crashmover.external.crashqueue_base import QueueName
from tests.cli_helpers import make_id, manifest, put, sample, snapshot, stored
from tests.conftest import Figures
from tests.hostile import Ended, invoke, measured
from tests.servers.pubsub import Drongo, PubSub

GOOD = [sample(n) for n in range(3)]
IDS = [crash.crash_id for crash in GOOD]

BODIES: dict[str, bytes] = {
    "nothing": b"",
    "a zero": b"\0",
    "an id and a zero": f"{make_id(9)}\0".encode(),
    "two lines": f"{make_id(9)}\n{make_id(10)}".encode(),
    "JSON": json.dumps({"crash_id": make_id(9)}).encode(),
    "JSON that is too deep": b"[" * 10_000,
    "what a terminal acts on": b"\x1b]0;owned\x07\x1b[2J\r",
    "no text": b"\xff\xfe\x80",
    "UTF-16": make_id(9).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + make_id(9).encode(),
    "upper case": make_id(9).upper().encode(),
    "digits of another script": make_id(9).replace("0", "٠").encode(),
    "a ruleset that is a path": f"{make_id(9)}:../../x".encode(),
    "a ruleset of many letters": f"{make_id(9)}:{'x' * 101}".encode(),
    "a day that is none": b"0bba0001-721c-460c-dead-a43c22261131",
    "colons": b":" * 1000,
    "many ids": b",".join([make_id(9).encode()] * 1000),
    "a megabyte": os.urandom(1 << 20),
}
assert all(body != b"test" for body in BODIES.values()), "that is a probe, which is dropped"


def kept(quarantine: Path) -> list[bytes]:
    """What was put aside."""
    lines = quarantine.read_bytes().splitlines() if quarantine.exists() else []
    return [base64.b64decode(json.loads(line)["body"], validate=True) for line in lines]


class Queue:
    """A queue in a file, with hostile things before, between and behind three crash ids."""

    def __init__(self, tmp: Path) -> None:
        self.path = tmp / "queue.db"
        self.quarantine = tmp / "quarantine.jsonl"
        self.uri = f"sqlite:{self.path}?quarantine={self.quarantine}"
        with open_queue(self.uri) as queue:
            queue.create()

    def put(self, value: object, visible_at: object = 0.0) -> None:
        """Put something there as no program of ours does: SQLite keeps values of any type."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute(
                "INSERT INTO messages (queue, body, visible_at) VALUES ('standard', ?, ?)",
                (value, visible_at),
            )

    def left(self) -> list[object]:
        with closing(sqlite3.connect(self.path)) as connection:
            return [length for (length,) in connection.execute("SELECT length(body) FROM messages")]


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path)


def pull(queue: Queue, *args: str) -> Ended:
    return invoke("queue-pull", "-q", queue.uri, "--wait", "0", *args)


def fill(queue: Queue, put_body: Callable[[bytes], None]) -> None:
    """Put hostile things before, between and behind the crash ids."""
    for n, body in enumerate(BODIES.values()):
        if n < len(IDS):
            put_body(IDS[n].encode())
        put_body(body)


def test_what_is_no_crash_id_is_put_aside_to_the_byte(queue: Queue, figures: Figures) -> None:
    fill(queue, queue.put)
    done = pull(queue)
    assert (done.code, done.out.decode().split()) == (0, IDS)
    assert len(done.said) == len(BODIES)
    assert all("a malformed message, now in" in line for line in done.said)
    assert sorted(kept(queue.quarantine)) == sorted(BODIES.values())
    assert queue.left() == []
    figures(put_aside=len(BODIES))


def test_a_crash_id_is_found_behind_any_number_of_them(queue: Queue) -> None:
    with open_queue(queue.uri) as opened:
        opened.send_messages(QueueName.STANDARD, [b"no-id"] * 5)
    queue.put(IDS[0].encode(), visible_at=time.time())
    done = pull(queue, "--limit", "1")
    assert (done.code, done.out.decode().split()) == (0, IDS[:1])


def test_a_copy_puts_it_aside_as_well(queue: Queue, tmp_path: Path) -> None:
    fill(queue, queue.put)
    source = put(tmp_path / "source", *GOOD)
    done = invoke("copy", "-s", source, "-d", tmp_path / "to", "-q", queue.uri, "--wait", "0")
    assert (done.code, len(done.said)) == (0, len(BODIES))
    assert stored(tmp_path / "to") == manifest(*GOOD)
    assert (len(kept(queue.quarantine)), queue.left()) == (len(BODIES), [])


def test_where_it_cannot_be_put_aside_it_stays(queue: Queue, tmp_path: Path) -> None:
    os.mkfifo(queue.quarantine)
    queue.put(b"no-id")
    queue.put(IDS[0].encode())
    done = pull(queue)
    assert (done.code, done.out.decode().split()) == (0, IDS[:1])
    assert "a malformed message stays" in done.said[0]
    assert queue.left() == [5]
    assert queue.quarantine.is_fifo()


@pytest.mark.parametrize("plant", ["link", "dangling link", "directory"])
def test_it_is_not_put_where_somebody_points_us(queue: Queue, tmp_path: Path, plant: str) -> None:
    (tmp_path / "elsewhere").write_bytes(b"precious")
    if plant == "directory":
        queue.quarantine.mkdir()
    else:
        queue.quarantine.symlink_to(tmp_path / ("elsewhere" if plant == "link" else "nothing"))
    queue.put(b"no-id")
    before = snapshot(tmp_path / "elsewhere")
    done = pull(queue)
    assert (done.code, queue.left()) == (4, [5])
    assert "cannot be written" in done.said[-1]
    assert snapshot(tmp_path / "elsewhere") == before
    assert not (tmp_path / "nothing").exists()


# Of other types than ours


def test_a_crash_id_that_was_put_there_as_text_is_one(queue: Queue) -> None:
    queue.put(IDS[0])
    done = pull(queue)
    assert (done.code, done.out.decode().split(), done.said) == (0, IDS[:1], [])


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5, b"5"), (10**12, b"1000000000000"), (1.5, b"1.5"), ("é\0", "é\0".encode())],
)
def test_what_is_no_bytes_is_put_aside_as_its_text(
    queue: Queue, value: object, expected: bytes
) -> None:
    queue.put(value)
    queue.put(IDS[0].encode())
    done = pull(queue)
    assert (done.code, done.out.decode().split(), len(done.said)) == (0, IDS[:1], 1)
    assert kept(queue.quarantine) == [expected]


def test_text_that_is_no_text_is_put_aside(queue: Queue) -> None:
    queue.put(IDS[0].encode())
    with closing(sqlite3.connect(queue.path, isolation_level=None)) as connection:
        connection.execute("UPDATE messages SET body = CAST(x'fffe' AS TEXT)")
    assert pull(queue).code == 0
    assert kept(queue.quarantine) == [b"\xff\xfe"]


# Of other sizes


@pytest.mark.slow
def test_long_messages_take_no_more_memory_than_there_is(queue: Queue, figures: Figures) -> None:
    for n, size in enumerate((10 << 20, 9 << 20, 300 << 20, *[5 << 20] * 20)):
        queue.put(bytes(size))
        if n < len(IDS):
            queue.put(IDS[n].encode())
    done = measured("queue-pull", "-q", queue.uri, "--wait", "0")
    assert (done.code, done.out.decode().split()) == (0, IDS)
    *put_aside, stays = done.said
    assert len(put_aside) == 22 and "of 314572800 bytes stays there" in stays
    assert queue.left() == [300 << 20]
    assert sorted(map(len, kept(queue.quarantine))) == [*[5 << 20] * 20, 9 << 20, 10 << 20]
    figures(put_aside=22, left=1)


@pytest.mark.parametrize("plant", ["nothing", "no database", "directory", "fifo", "other tables"])
def test_a_file_that_is_no_queue_is_refused_and_left_alone(tmp_path: Path, plant: str) -> None:
    path = tmp_path / "queue.db"
    if plant == "directory":
        path.mkdir()
    elif plant == "fifo":
        os.mkfifo(path)
    elif plant == "other tables":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE messages (id TEXT)")
    else:
        path.write_bytes(b"\x1b[2J" * 1000 if plant == "no database" else b"")
    before = snapshot(path)
    done = invoke("queue-pull", "-q", f"sqlite:{path}", "--wait", "0")
    assert (done.code, len(done.said)) == (4, 1)
    assert snapshot(path) == before
    assert list(tmp_path.iterdir()) == [path]


# Pub/Sub


@pytest.mark.parametrize("pubsub_server", [Drongo], indirect=True)
def test_pubsub_hands_out_the_same(
    pubsub_server: PubSub,
    use_pubsub: Callable[[PubSub], None],
    tmp_path: Path,
    figures: Figures,
) -> None:
    use_pubsub(pubsub_server)
    quarantine = tmp_path / "quarantine.jsonl"
    uri = f"{pubsub_server.uri()}?quarantine={quarantine}"
    bodies = [body for body in BODIES.values() if body]  # nobody can publish nothing
    with open_queue(uri) as queue:
        queue.create()
        mixed = [*bodies[:5], *(crash_id.encode() for crash_id in IDS), *bodies[5:]]
        queue.send_messages(QueueName.STANDARD, mixed)
    done = invoke("queue-pull", "-q", uri, "--wait", "1")
    assert (done.code, sorted(done.out.decode().split())) == (0, IDS)
    malformed = [line for line in done.said if "a malformed message, now in" in line]
    assert len(malformed) == len(bodies)
    assert sorted(kept(quarantine)) == sorted(bodies)
    figures(put_aside=len(bodies))
