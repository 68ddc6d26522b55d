# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The conformance suite over every queue."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crashmover import open_queue
from crashmover.external.crashqueue_base import CrashQueueBase
from crashmover.external.pubsub.crashqueue import PubSubCrashQueue
from crashmover.testing import LeaseConformance, QueueConformance
from tests.servers import pubsub
from tests.servers.late_pubsub import LatePubSub
from tests.servers.pubsub import Emulator, PubSub

# Google's emulator ends a pull a second before its time: an empty queue takes long there.
PUBSUBS = pytest.mark.parametrize(
    "pubsub_server",
    [
        pytest.param(server, marks=[pytest.mark.slow] * (server is Emulator))
        for server in pubsub.servers()
    ],
    indirect=True,
)


@pytest.fixture
def quarantine(tmp_path: Path) -> Path:
    return tmp_path / "not" / "there" / "quarantine.jsonl"


def opened(uri: str, quarantine: Path, **options: str) -> Iterator[CrashQueueBase]:
    query = "&".join(f"{k}={v}" for k, v in {"quarantine": quarantine, **options}.items())
    with open_queue(f"{uri}?{query}") as queue:
        queue.create()
        yield queue


class TestInMemoryQueue(QueueConformance):
    @pytest.fixture
    def queue(self, quarantine: Path) -> Iterator[CrashQueueBase]:
        yield from opened("memory:", quarantine)


@pytest.mark.slow  # its leases are those of the next queue
class TestInMemoryLeases(LeaseConformance):
    @pytest.fixture
    def queue(self, quarantine: Path) -> Iterator[CrashQueueBase]:
        yield from opened("memory:", quarantine, lease="1")


class TestSQLiteQueue(QueueConformance):
    @pytest.fixture
    def queue(self, tmp_path: Path, quarantine: Path) -> Iterator[CrashQueueBase]:
        yield from opened(f"sqlite://{tmp_path}/a/queue.db", quarantine)


class TestSQLiteLeases(LeaseConformance):
    @pytest.fixture
    def queue(self, tmp_path: Path, quarantine: Path) -> Iterator[CrashQueueBase]:
        yield from opened(f"sqlite://{tmp_path}/queue.db", quarantine, lease="1")


@PUBSUBS
class TestPubSubQueue(QueueConformance):
    @pytest.fixture
    def queue(
        self, pubsub_server: PubSub, quarantine: Path, use_pubsub: Callable[[PubSub], None]
    ) -> Iterator[CrashQueueBase]:
        use_pubsub(pubsub_server)
        yield from opened(pubsub_server.uri(), quarantine)


@pytest.mark.slow
class TestLatePubSubLeases(LeaseConformance):
    """At a server of the tests: Pub/Sub that can be had from PyPI has no leases that end."""

    @pytest.fixture
    def queue(self, monkeypatch: pytest.MonkeyPatch, quarantine: Path) -> Iterator[CrashQueueBase]:
        monkeypatch.setattr(PubSubCrashQueue, "first_lease", 2.0)
        with LatePubSub() as server:
            monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)
            for queue in opened(server.uri(), quarantine):
                server.deadlines = dict.fromkeys(server.deadlines, queue.first_lease)
                yield queue
