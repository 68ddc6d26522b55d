# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What queues say is wrong with them; nothing is published or pulled for it."""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.iam.v1 import iam_policy_pb2
from google.pubsub_v1 import types

from crashmover import open_queue
from crashmover.errors import QueueError, QueueUnavailable
from crashmover.external.pubsub.diagnosis import ENOUGH
from crashmover.testing.queues import new_ids
from tests.servers import pubsub
from tests.servers.pubsub import PubSub

PUBSUBS = pytest.mark.parametrize("pubsub_server", pubsub.servers(), indirect=True)

# SQLite


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "queue.db"
    with open_queue(f"sqlite:{path}") as queue:
        queue.create()
        queue.publish("standard", new_ids(2))
    return path


def rows(path: Path) -> list[Any]:
    """All that is in the file."""
    with closing(sqlite3.connect(path)) as connection:
        messages = connection.execute("SELECT * FROM messages").fetchall()
        return [*messages, *connection.execute("SELECT * FROM sqlite_sequence")]


def test_a_queue_in_a_file_is_afterwards_as_it_was_before(database: Path) -> None:
    before = rows(database)
    with open_queue(f"sqlite:{database}") as queue:
        assert queue.diagnose() == []
        assert len(queue.pull(max_messages=2)) == 2
        queue.give_back()
    assert [row[:3] for row in rows(database)] == [row[:3] for row in before]


def test_a_lease_may_be_too_short(database: Path) -> None:
    with open_queue(f"sqlite:{database}?lease=5") as queue:
        [warning] = queue.diagnose()
    assert warning == "a lease of 5 s may end while another process keeps it busy"


def test_a_file_that_cannot_be_used_is_an_error(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_queue = pytest.raises(QueueError, match="no such queue; --create makes it")
    with open_queue(f"sqlite:{tmp_path}/none.db") as queue, no_queue:
        queue.diagnose()
    monkeypatch.setattr("crashmover.external.sqlite.crashqueue._BUSY", 0.01)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        busy = pytest.raises(QueueUnavailable, match="another process keeps it busy")
        with open_queue(f"sqlite:{database}") as queue, busy:
            queue.diagnose()


# Pub/Sub


@PUBSUBS
def test_queues_as_they_are_made_are_as_they_should_be(
    pubsub_server: PubSub, use_pubsub: Callable[[PubSub], None]
) -> None:
    use_pubsub(pubsub_server)
    with open_queue(pubsub_server.uri()) as queue:
        queue.create()
        ids = new_ids(1)
        queue.publish("standard", ids)
        assert queue.diagnose() == []
        assert [delivery.crash_id for delivery in queue.pull(wait=5)] == ids


@PUBSUBS
def test_all_that_is_missing_is_named(
    pubsub_server: PubSub, use_pubsub: Callable[[PubSub], None]
) -> None:
    from google.pubsub_v1 import PublisherClient

    use_pubsub(pubsub_server)
    uri = pubsub_server.uri()
    prefix = uri.rpartition("/")[2]
    with PublisherClient() as publisher:
        for name in ("standard", "priority"):
            publisher.create_topic(name=f"projects/project/topics/{prefix}-{name}-topic")
    with open_queue(uri) as queue, pytest.raises(QueueError) as caught:
        queue.diagnose()
    missing = [f"subscription {prefix}-{name}-sub" for name in ("priority", "standard")]
    missing += [
        f"{kind} {prefix}-reprocessing-{end}"
        for kind, end in (("topic", "topic"), ("subscription", "sub"))
    ]
    for what in missing:
        assert f"there is no {what}" in str(caught.value)
    assert str(caught.value).count("there is no") == 4


@PUBSUBS
def test_an_ack_deadline_may_be_too_short(
    pubsub_server: PubSub, use_pubsub: Callable[[PubSub], None]
) -> None:
    from google.pubsub_v1 import PublisherClient, SubscriberClient

    use_pubsub(pubsub_server)
    name = pubsub_server.uri().rpartition("/")[2]
    topic = f"projects/project/topics/{name}"
    with PublisherClient() as publisher, SubscriberClient() as subscriber:
        publisher.create_topic(name=topic)
        for seconds in (10, ENOUGH):
            path = f"projects/project/subscriptions/{name}-{seconds}"
            request = types.Subscription(name=path, topic=topic, ack_deadline_seconds=seconds)
            subscriber.create_subscription(request=request)
    uri = f"pubsub://project?standard_topic={name}&standard_subscription={name}"
    with open_queue(f"{uri}-{ENOUGH}") as queue:
        assert queue.diagnose() == []
    with open_queue(f"{uri}-10") as queue:
        assert queue.diagnose() == [f"{name}-10 has an ack deadline of 10 s, below {ENOUGH}"]


class Service:
    """A topic and a subscription of a service that knows of rights, as no emulator does.

    :param rights: that we have
    :param hidden: whether we may not look at anything
    """

    def __init__(self, *rights: str, hidden: bool = False, **subscription: Any) -> None:
        self.rights = rights
        self.hidden = hidden
        self.subscription = {"topic": "projects/project/topics/abc", **subscription}
        self.asked: list[str] = []

    def _note(self, what: str, context: grpc.ServicerContext) -> None:
        self.asked.append(what)
        if self.hidden and what != "rights":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not yours to look at")

    def topic(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("topic", context)
        return types.Topic.pb(types.Topic(name=request.topic))

    def look(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("subscription", context)
        found = {"ack_deadline_seconds": 60, "name": request.subscription, **self.subscription}
        return types.Subscription.pb(types.Subscription(**found))

    def test_rights(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note("rights", context)
        known = dict(context.invocation_metadata())
        assert known["x-goog-request-params"] == f"resource={request.resource}"
        granted = [right for right in request.permissions if right in self.rights]
        return iam_policy_pb2.TestIamPermissionsResponse(permissions=granted)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        def handler(method: Any, parse: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                method, parse, lambda answer: answer.SerializeToString()
            )

        methods = {
            "google.pubsub.v1.Publisher": {
                "GetTopic": handler(self.topic, types.GetTopicRequest.deserialize)
            },
            "google.pubsub.v1.Subscriber": {
                "GetSubscription": handler(self.look, types.GetSubscriptionRequest.deserialize)
            },
            "google.iam.v1.IAMPolicy": {
                "TestIamPermissions": handler(
                    self.test_rights, iam_policy_pb2.TestIamPermissionsRequest.FromString
                )
            },
        }
        make = grpc.method_handlers_generic_handler
        return [make(service, handlers) for service, handlers in methods.items()]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Service], None]]:
    servers = []

    def start(service: Service) -> None:
        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers(service.handlers())
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{port}")

    yield start
    for server in servers:
        server.stop(None).wait()


URI = "pubsub://project?standard_topic=abc&standard_subscription=def"
PUBLISH, PULL = "pubsub.topics.publish", "pubsub.subscriptions.consume"

DIAGNOSES: dict[str, tuple[Service, list[str]]] = {
    "all is well": (Service(PUBLISH, PULL), []),
    "who may do all and not look": (Service(PUBLISH, PULL, hidden=True), []),
    "who may only pull": (Service(PULL), ["no right to publish to abc"]),
    "who may only publish": (Service(PUBLISH, hidden=True), ["no right to pull from def"]),
    "another topic": (
        Service(PUBLISH, PULL, topic="projects/project/topics/other"),
        ["def is of the topic other"],
    ),
    "a deadline": (
        Service(PUBLISH, PULL, ack_deadline_seconds=39),
        ["def has an ack deadline of 39 s, below 40"],
    ),
}


@pytest.mark.parametrize("case", DIAGNOSES)
def test_what_may_go_wrong_is_a_warning(case: str, serve: Callable[[Service], None]) -> None:
    service, warnings = DIAGNOSES[case]
    serve(service)
    with open_queue(URI) as queue:
        assert queue.diagnose() == warnings
    assert sorted(service.asked) == ["rights", "rights", "subscription", "topic"]


ERRORS: dict[str, tuple[Service, str]] = {
    "no rights at all": (Service(), "no right to publish to abc; no right to pull from def"),
    "a topic that was deleted": (
        Service(PUBLISH, PULL, topic="_deleted-topic_"),
        "the topic of def was deleted",
    ),
    "a subscription without a topic": (
        Service(PUBLISH, PULL, detached=True),
        "def is detached from its topic",
    ),
    "a subscription that is pushed": (
        Service(PUBLISH, PULL, push_config={"push_endpoint": "https://example.com/"}),
        "def is pushed somewhere, and cannot be pulled from",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_goes_wrong_now_is_an_error(case: str, serve: Callable[[Service], None]) -> None:
    service, reason = ERRORS[case]
    serve(service)
    with open_queue(URI) as queue, pytest.raises(QueueError) as caught:
        queue.diagnose()
    assert str(caught.value) == f"{queue.uri}: {reason}"
