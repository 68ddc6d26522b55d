# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Publish and pull crash ids: the commands against Google's client, on the same server.

The client publishes with its own batching, and pulls and acks five at a time, as Socorro's
processor did.  It is timed without its start, the commands with theirs.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from google.api_core.exceptions import DeadlineExceeded
from google.cloud.pubsub_v1 import PublisherClient
from google.pubsub_v1 import SubscriberClient

from crashmover import crashid
from tests.benchmarks.contest import OURS, Command, Contender
from tests.benchmarks.measure import Argument, Sample, measure
from tests.benchmarks.report import Row, at_least
from tests.benchmarks.report import compare as row
from tests.benchmarks.suite import Suite, compare
from tests.servers import pubsub
from tests.servers.pubsub import PubSub

CLIENT = "Google's client"


class Queue:
    """A topic and its subscription, empty."""

    def __init__(self, server: PubSub) -> None:
        self.uri = server.uri()
        self.env = {"PUBSUB_EMULATOR_HOST": server.address}
        project, prefix = self.uri.removeprefix("pubsub://").split("/")
        self.topic = f"projects/{project}/topics/{prefix}-standard-topic"
        self.subscription = f"projects/{project}/subscriptions/{prefix}-standard-sub"
        self.run("queue-publish", "--create")

    def line(self, name: str, *options: Argument) -> list[Argument]:
        """Return the line of a command."""
        return ["crashmover", name, "-q", self.uri, *options]

    def run(self, name: str, *options: Argument) -> None:
        """Run a command that is not timed."""
        measure(self.line(name, *options), self.env)


@dataclass(frozen=True)
class Client:
    """A turn of the client, in this process.

    :param work: what is timed
    :param close: what is not
    """

    count: int
    work: Callable[[], None]
    close: Callable[[], None]

    def go(self) -> Sample:
        begun, begun_cpu = time.perf_counter(), time.process_time()
        self.work()
        return Sample(self.count, time.perf_counter() - begun, time.process_time() - begun_cpu)

    def check(self) -> None:
        """The server has confirmed all: nothing is left to be looked at."""
        self.close()


def client_publish(queue: Queue, ids: list[str]) -> Client:
    """Publish with the client's own batching."""
    client = PublisherClient()

    def work() -> None:
        for future in [client.publish(queue.topic, crash_id.encode()) for crash_id in ids]:
            future.result(timeout=60)

    return Client(len(ids), work, client.stop)


def client_pull(queue: Queue, count: int) -> Client:
    """Pull and ack five at a time."""
    client, subscription = SubscriberClient(), queue.subscription

    def work() -> None:
        left = count
        while left > 0:
            try:
                found = client.pull(subscription=subscription, max_messages=5, timeout=30)
            except DeadlineExceeded:
                continue
            if ack_ids := [item.ack_id for item in found.received_messages]:
                client.acknowledge(subscription=subscription, ack_ids=ack_ids)
            left -= len(ack_ids)

    return Client(count, work, client.transport.close)


def both(suite: Suite) -> Iterator[Row]:
    """Publish all, then pull all."""
    server = suite.start(pubsub.servers()[0]())
    os.environ["PUBSUB_EMULATOR_HOST"] = server.address  # for the client
    ids = [crashid.create() for _ in range(suite.sizes.ids)]
    some = ids[: suite.sizes.client_ids]
    all_file, some_file = written(suite, ids), written(suite, some)

    def filled(file: Path) -> Queue:
        queue = Queue(server)
        queue.run("queue-publish", "--ids-from", file)
        return queue

    def publish() -> Command:
        queue = Queue(server)
        line = queue.line("queue-publish", "--ids-from", all_file)
        return Command(line, len(ids), partial(check_queue, suite, queue, ids), queue.env)

    def pull() -> Command:
        queue, output = filled(all_file), suite.new_path()
        line = queue.line("queue-pull", "--limit", str(len(ids)))
        return Command(line, len(ids), partial(check_ids, output, ids), queue.env, output)

    publishers = [
        Contender(OURS, publish),
        Contender(CLIENT, lambda: client_publish(Queue(server), some)),
    ]
    pullers = [
        Contender(OURS, pull),
        Contender(CLIENT, lambda: client_pull(filled(some_file), len(some))),
    ]
    yield row("queue-publish", suite.hold("queue-publish", publishers), CLIENT, at_least(3))
    yield row("queue-pull", suite.hold("queue-pull", pullers), CLIENT, at_least(8))


def written(suite: Suite, ids: list[str]) -> Path:
    """Return a file of crash ids."""
    file = suite.new_path()
    file.write_text("\n".join(ids))
    return file


def check_queue(suite: Suite, queue: Queue, ids: list[str]) -> None:
    """Raise `WrongBytes` unless these ids are in the queue; they are not afterwards."""
    output = suite.new_path()
    measure(queue.line("queue-pull", "--limit", str(len(ids))), queue.env, output=output)
    check_ids(output, ids)


def check_ids(output: Path, ids: list[str]) -> None:
    """Raise `WrongBytes` unless these ids were pulled."""
    compare(lambda: dict.fromkeys(output.read_text().split(), ""), lambda: dict.fromkeys(ids, ""))
