# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PostgreSQL and Pub/Sub far away: one round trip a batch, not one a crash."""

from collections.abc import Iterator
from functools import partial

from crashmover import crashid
from tests.benchmarks.contest import Command
from tests.benchmarks.distance import NEAR
from tests.benchmarks.postgresql import client_of, filled_schema, uri_of, write
from tests.benchmarks.queues import Queue, check_ids, check_queue, written
from tests.benchmarks.report import Row
from tests.benchmarks.suite import Suite, copy, files_are
from tests.benchmarks.trips import against_trips
from tests.servers.pubsub import Drongo

_SAVED, _LOADED = 40, 64
"""Crashes that are saved to PostgreSQL, and loaded from there, at once."""

_CONNECTION = 5
"""Round trips until PostgreSQL takes a statement: TCP, whether there is TLS, and three for the
password."""

_MESSAGES = 1000
"""Crash ids in one request to Pub/Sub."""

_CHANNEL = 2
"""Round trips until gRPC sends a request: TCP, and the settings of HTTP/2."""


def postgresql(suite: Suite) -> Iterator[Row]:
    """The batches of one connection, one after the other."""
    corpus, server = suite.corpus(suite.sizes.distance), suite.postgresql

    def save(away: int) -> Command:
        return write(suite, corpus, corpus.root, away=away)

    schema = filled_schema(suite, corpus)

    def load(away: int) -> Command:
        target = suite.new_path()
        line = copy(uri_of(server, schema, suite.port(server, away)), target)
        check = files_are(target, lambda: corpus.files)
        return Command(line, corpus.count, check, client_of(server))

    batches = -(-corpus.count // _SAVED)
    yield from against_trips(suite, "fs -> PostgreSQL", NEAR, _CONNECTION + batches, save)
    batches = -(-corpus.count // _LOADED)
    yield from against_trips(suite, "PostgreSQL -> fs", NEAR, _CONNECTION + batches, load)


def queues(suite: Suite) -> Iterator[Row]:
    """Publish and pull: acknowledgements are sent while the next messages are pulled."""
    server = suite.start(Drongo())
    ids = [crashid.create() for _ in range(suite.sizes.far_ids)]
    file = written(suite, ids)

    def env(away: int) -> dict[str, str]:
        return {"PUBSUB_EMULATOR_HOST": f"{server.host}:{suite.port(server, away)}"}

    def publish(away: int) -> Command:
        queue = Queue(server)
        line = queue.line("queue-publish", "--ids-from", file)
        return Command(line, len(ids), partial(check_queue, suite, queue, ids), env(away))

    def pull(away: int) -> Command:
        queue, output = Queue(server), suite.new_path()
        queue.run("queue-publish", "--ids-from", file)
        line = queue.line("queue-pull", "--limit", str(len(ids)))
        return Command(line, len(ids), partial(check_ids, output, ids), env(away), output)

    requests = -(-len(ids) // _MESSAGES)
    yield from against_trips(suite, "queue-publish", NEAR, _CHANNEL + requests, publish)
    # The last acknowledgement is sent when all is pulled.
    yield from against_trips(suite, "queue-pull", NEAR, _CHANNEL + requests + 1, pull)
