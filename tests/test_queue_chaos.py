# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Several workers copy from one queue while they are killed and stopped: no crash is lost, and
none is acked before it has arrived."""

import base64
import json
import random
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import pytest
from google.pubsub_v1 import PublisherClient, SubscriberClient

from crashmover import open_queue
from crashmover.external.crashqueue_base import QueueName
from tests.cli_helpers import Sample, command_line, environment, manifest, put, sample, stored
from tests.conftest import Figures
from tests.servers import pubsub
from tests.servers.pubsub import Emulator, PubSub

LEAVES = ("0bba", "0bbb", "c0de", "f00d")
POISON = (b"no-crash-id", b"\xff\xfe", b"0bba929f-8721-460c-dead-a43c22071025;rm", b"?", b"{}")
WORKERS = 3
_ENDS = 300.0  # seconds; reached only when something hangs


@dataclass
class Worker:
    """A `copy -q` that is started again when it was ended."""

    args: list[str]
    log: Path
    ends: list[int] = field(default_factory=list)
    process: "subprocess.Popen[bytes] | None" = None
    _begun_at: int = 0

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._begun_at = log.tell()
            self.process = subprocess.Popen(
                self.args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )

    def end(self, number: int) -> None:
        """Send it a signal, and wait for its end."""
        assert self.process
        self.process.send_signal(number)
        self.ends.append(self.process.wait(60))
        self.start()

    def is_at_work(self) -> bool:
        """Whether it has copied something: it says so of each crash."""
        with self.log.open("rb") as log:
            log.seek(self._begun_at)
            return b": copied" in log.read()

    def has_ended(self) -> bool:
        assert self.process
        return self.process.poll() is not None


@dataclass
class Scene:
    """Crashes at a source, and their ids in a queue, some twice, among poison."""

    crashes: list[Sample]
    source: Path
    destination: Path
    quarantine: Path
    uri: str
    wait: str

    @property
    def ids(self) -> set[str]:
        return {crash.crash_id for crash in self.crashes}

    @property
    def poison_count(self) -> int:
        return max(1, len(self.crashes) // 100)

    def publish(self) -> None:
        ids = [crash.crash_id for crash in self.crashes]
        bodies = [text.encode() for text in [*ids, *ids[::10]]]
        bodies += [POISON[n % len(POISON)] for n in range(self.poison_count)]
        random.Random(4).shuffle(bodies)
        with open_queue(self.uri) as queue:
            for start in range(0, len(bodies), 1000):
                name = list(QueueName)[start // 1000 % 3]
                queue.send_messages(name, bodies[start : start + 1000])

    def worker(self, number: int) -> Worker:
        where = ("-s", self.source, "-d", self.destination, "-q", self.uri)
        args = command_line("-vv", "copy", *where, "--wait", self.wait, "--workers", "1")
        return Worker(args, self.destination.with_name(f"worker-{number}.log"))

    def arrived(self) -> set[str]:
        """The crashes whose raw crash can be seen."""
        return {path.name[:36] for path in self.destination.rglob("*.json")}

    def run(self, check: Callable[[], None]) -> list[Worker]:
        """Let workers copy, end one of them now and then, and call `check` meanwhile."""
        rng = random.Random(7)
        workers = [self.worker(n) for n in range(WORKERS)]
        for worker in workers:
            worker.start()
        deadline = monotonic() + _ENDS
        kinds = [signal.SIGKILL, signal.SIGTERM]
        while not all(worker.has_ended() for worker in workers):
            assert monotonic() < deadline
            check()
            sleep(rng.uniform(0.0, 0.1))
            victim = rng.randrange(2)  # the third is left in peace
            if workers[victim].is_at_work() and not workers[victim].has_ended():
                workers[victim].end(kinds[victim])
        return workers

    def assert_all_is_well(self, workers: list[Worker], figures: Figures) -> None:
        ends = [len(worker.ends) for worker in workers]
        figures(crashes=len(self.crashes), killed=ends[0], terminated=ends[1])
        logs = "".join(worker.log.read_text() for worker in workers)
        assert "Traceback" not in logs
        assert workers[0].ends and workers[1].ends
        assert set(workers[0].ends) == {-signal.SIGKILL}
        assert set(workers[1].ends) <= {128 + signal.SIGTERM, 0}, logs
        assert [worker.process.wait() for worker in workers if worker.process] == [0] * WORKERS
        assert stored(self.destination) == manifest(*self.crashes)
        lines = [json.loads(line) for line in self.quarantine.read_text().splitlines()]
        kept = {base64.b64decode(line["body"]) for line in lines}
        assert kept == set(POISON[: self.poison_count])
        assert len(lines) >= self.poison_count


def make_scene(directory: Path, uri: str, count: int, wait: str) -> Scene:
    crashes = [sample(n, leaf=LEAVES[n % 4], depth="2") for n in range(count)]
    source = put(directory / "source", *crashes)
    quarantine = directory / "quarantine.jsonl"
    joint = "&" if "?" in uri else "?"
    uri = f"{uri}{joint}quarantine={quarantine}"
    return Scene(crashes, source, directory / "destination", quarantine, uri, wait)


SIZES = [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]


@pytest.mark.parametrize("count", SIZES)
def test_workers_on_one_file_may_be_killed_at_any_time(
    tmp_path: Path, count: int, figures: Figures
) -> None:
    path = tmp_path / "queue.db"
    scene = make_scene(tmp_path, f"sqlite://{path}?lease=2", count, "4")
    with open_queue(scene.uri) as queue:
        queue.create()
    scene.publish()

    def check() -> None:
        # What leaves the queue has arrived before: so look at the queue first.
        in_queue = bodies_in(path)
        assert scene.ids <= in_queue | scene.arrived()

    workers = scene.run(check)
    scene.assert_all_is_well(workers, figures)
    assert bodies_in(path) == set()


def bodies_in(path: Path) -> set[str]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=20)) as database:
        rows = database.execute("SELECT body FROM messages").fetchall()
    return {bytes(body).decode("ascii", "replace") for (body,) in rows}


@pytest.fixture
def emulator(
    request: pytest.FixtureRequest, pubsub_server: PubSub, use_pubsub: Callable[[PubSub], None]
) -> Iterator[PubSub]:
    use_pubsub(pubsub_server)
    yield pubsub_server


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("pubsub_server", [Emulator], indirect=True)
@pytest.mark.skipif(not pubsub.has_emulator(), reason="leases end nowhere else")
def test_workers_on_one_subscription_may_be_killed_at_any_time(
    tmp_path: Path, emulator: PubSub, figures: Figures
) -> None:
    uri = emulator.uri()
    with_short_leases(emulator, uri)
    # A lease that was extended before its worker was killed lasts another minute.
    scene = make_scene(tmp_path, uri, 10_000, "75")
    scene.publish()
    workers = scene.run(lambda: None)
    scene.assert_all_is_well(workers, figures)
    with open_queue(scene.uri) as queue:
        assert queue.pull(wait=12) == []


def with_short_leases(server: PubSub, uri: str) -> None:
    """Make topics and subscriptions whose leases last ten seconds: none can be shorter."""
    project, prefix = uri.removeprefix("pubsub://").split("/")
    with PublisherClient() as publisher, SubscriberClient() as subscriber:
        for name in QueueName:
            topic = f"projects/{project}/topics/{prefix}-{name}-topic"
            publisher.create_topic(name=topic)
            subscriber.create_subscription(
                name=f"projects/{project}/subscriptions/{prefix}-{name}-sub",
                topic=topic,
                ack_deadline_seconds=10,
            )
