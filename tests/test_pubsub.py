# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What is Pub/Sub's own: names, acks of subscriptions that deliver exactly once, dead letters.

The emulator knows neither of the last two: a small server here answers as the service does.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, empty_pb2
from google.pubsub_v1 import types
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from crashmover import crashid, open_queue
from crashmover.errors import InvalidURI, QueueError
from crashmover.external.crashqueue_base import CrashQueueBase, QueueName
from crashmover.retry import RetryPolicy
from crashmover.testing import LeaseConformance
from tests.servers import pubsub
from tests.servers.pubsub import Emulator, PubSub


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("pubsub:", "project"),
        ("pubsub:///prefix", "project"),
        ("pubsub://project", "neither a prefix"),
        ("pubsub://project/a/b", "prefix"),
        ("pubsub://project/a%0Ab", "prefix|URI|control"),
        ("pubsub://project/p?standard_topic=a/b", "standard_topic"),
        ("pubsub://project/p?topic=abc", "topic"),
        ("pubsub://user@project/p", "user"),
        ("pubsub://project:80/p", "port"),
    ],
)
def test_a_uri_that_is_not_understood_is_refused(uri: str, why: str) -> None:
    with pytest.raises(InvalidURI, match=why):
        open_queue(uri)


def test_a_topic_that_is_not_named_is_an_error() -> None:
    with open_queue("pubsub://project?standard_subscription=abc") as queue:
        assert queue.queues == (QueueName.STANDARD,)
        with pytest.raises(QueueError, match="no topic is named for the standard queue"):
            queue.publish("standard", [crashid.create()])
        with pytest.raises(QueueError, match="no subscription is named for the priority queue"):
            queue.pull(["priority"])


PUBSUBS = pytest.mark.parametrize("pubsub_server", pubsub.servers(), indirect=True)


@PUBSUBS
def test_topics_and_subscriptions_may_have_any_names(
    pubsub_server: PubSub, use_pubsub: Callable[[PubSub], None]
) -> None:
    use_pubsub(pubsub_server)
    name = pubsub_server.uri().rpartition("/")[2]
    uri = f"pubsub://project?standard_topic=in-{name}&standard_subscription=out-{name}"
    ids = [crashid.create()]
    with open_queue(uri) as queue:
        assert queue.create() == [
            f"projects/project/topics/in-{name}",
            f"projects/project/subscriptions/out-{name}",
        ]
        queue.publish("standard", ids)
        assert [d.crash_id for d in queue.pull(wait=5)] == ids


@PUBSUBS
def test_the_emulator_is_announced_once(
    pubsub_server: PubSub,
    use_pubsub: Callable[[PubSub], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    use_pubsub(pubsub_server)
    with open_queue(pubsub_server.uri()) as queue:
        queue.create()
        queue.publish("standard", [crashid.create()])
        queue.pull(wait=5)
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [f"PUBSUB_EMULATOR_HOST is set: using the emulator at {pubsub_server.address}"]


@pytest.mark.slow
@pytest.mark.parametrize("pubsub_server", [Emulator], indirect=True)
@pytest.mark.skipif(not pubsub.has_emulator(), reason="leases end nowhere else")
class TestEmulatorLeases(LeaseConformance):
    @pytest.fixture
    def queue(
        self, pubsub_server: PubSub, use_pubsub: Callable[[PubSub], None]
    ) -> Iterator[object]:
        from google.pubsub_v1 import PublisherClient, SubscriberClient

        use_pubsub(pubsub_server)
        name = pubsub_server.uri().rpartition("/")[2]
        topic = f"projects/project/topics/{name}"
        with PublisherClient() as publisher, SubscriberClient() as subscriber:
            publisher.create_topic(name=topic)
            subscriber.create_subscription(
                name=f"projects/project/subscriptions/{name}",
                topic=topic,
                ack_deadline_seconds=10,
            )
        uri = f"pubsub://project?standard_topic={name}&standard_subscription={name}"
        with open_queue(uri) as queue:
            yield queue


class Service:
    """A subscription that delivers exactly once, or has a dead-letter policy.

    :param verdicts: ack id -> what becomes of its acks, one after the other; then they succeed
    """

    def __init__(self, bodies: dict[str, bytes], dead_letters: bool = False) -> None:
        self.bodies = dict(bodies)
        self.dead_letters = dead_letters
        self.verdicts: dict[str, list[str]] = {}
        self.acked: list[str] = []
        self.nacked: list[str] = []
        self.asked: list[list[str]] = []

    def pull(self, request: Any, context: grpc.ServicerContext) -> Any:
        found, self.bodies = self.bodies, {}
        received = [{"ack_id": ack_id, "message": {"data": body}} for ack_id, body in found.items()]
        return types.PullResponse(received_messages=received)

    def acknowledge(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(sorted(request.ack_ids))
        results = {i: self.verdicts[i].pop(0) for i in request.ack_ids if self.verdicts.get(i)}
        self.acked += [ack_id for ack_id in request.ack_ids if ack_id not in results]
        if results:
            info = error_details_pb2.ErrorInfo(reason="ACKS", metadata=results)
            details = any_pb2.Any()
            details.Pack(info)
            status = status_pb2.Status(
                code=code_pb2.FAILED_PRECONDITION, message="some failed", details=[details]
            )
            context.abort_with_status(rpc_status.to_status(status))
        return empty_pb2.Empty()

    def modify(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.ack_deadline_seconds == 0:
            self.nacked += request.ack_ids
        return empty_pb2.Empty()

    def look(self, request: Any, context: grpc.ServicerContext) -> Any:
        policy = {"dead_letter_topic": "projects/p/topics/dead"} if self.dead_letters else {}
        return types.Subscription(name=request.subscription, dead_letter_policy=policy)

    def handlers(self) -> grpc.GenericRpcHandler:
        def handler(method: Any, request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                method, request.deserialize, lambda answer: _serialized(answer)
            )

        return grpc.method_handlers_generic_handler(
            "google.pubsub.v1.Subscriber",
            {
                "Pull": handler(self.pull, types.PullRequest),
                "Acknowledge": handler(self.acknowledge, types.AcknowledgeRequest),
                "ModifyAckDeadline": handler(self.modify, types.ModifyAckDeadlineRequest),
                "GetSubscription": handler(self.look, types.GetSubscriptionRequest),
            },
        )


def _serialized(answer: Any) -> bytes:
    message = answer if isinstance(answer, empty_pb2.Empty) else type(answer).pb(answer)
    data: bytes = message.SerializeToString()
    return data


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Service], None]]:
    servers = []

    def start(service: Service) -> None:
        server = grpc.server(ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((service.handlers(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{port}")

    yield start
    for server in servers:
        server.stop(None).wait()


URI = "pubsub://project?standard_subscription=abc"


def test_an_ack_that_came_too_late_is_told_and_the_others_are_done(
    serve: Callable[[Service], None], caplog: pytest.LogCaptureFixture
) -> None:
    service = Service({f"ack-{n}": crashid.create().encode() for n in range(4)})
    service.verdicts = {"ack-2": ["PERMANENT_FAILURE_INVALID_ACK_ID"]}
    serve(service)
    with open_queue(URI) as queue:
        queue.ack(queue.pull(wait=5))
    assert sorted(service.acked) == ["ack-0", "ack-1", "ack-3"]
    assert service.asked == [["ack-0", "ack-1", "ack-2", "ack-3"]]
    assert "1 acknowledgements came too late" in caplog.text


def test_an_ack_that_failed_for_now_is_tried_again_alone(
    serve: Callable[[Service], None], caplog: pytest.LogCaptureFixture
) -> None:
    service = Service({f"ack-{n}": crashid.create().encode() for n in range(3)})
    service.verdicts = {"ack-1": ["TRANSIENT_FAILURE_SERVICE_UNAVAILABLE"] * 2}
    serve(service)
    with open_queue(URI) as queue:
        queue.ack(queue.pull(wait=5))
    assert sorted(service.acked) == ["ack-0", "ack-1", "ack-2"]
    assert service.asked[1:] == [["ack-1"], ["ack-1"]]
    assert "too late" not in caplog.text


def test_an_ack_that_never_succeeds_is_an_error(
    serve: Callable[[Service], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service({"ack-0": crashid.create().encode()})
    service.verdicts = {"ack-0": ["TRANSIENT_FAILURE_SERVICE_UNAVAILABLE"] * 99}
    serve(service)
    monkeypatch.setattr(CrashQueueBase, "retry", RetryPolicy(wait=0.01))
    with open_queue(URI) as queue, pytest.raises(QueueError, match="abc"):
        queue.ack(queue.pull(wait=5))


def test_what_is_malformed_is_left_to_a_dead_letter_policy(
    serve: Callable[[Service], None], tmp_path: Path
) -> None:
    good = crashid.create()
    service = Service({"ack-0": b"no-crash-id", "ack-1": good.encode()}, dead_letters=True)
    serve(service)
    with open_queue(f"{URI}&quarantine={tmp_path}/bad.jsonl") as queue:
        assert [d.crash_id for d in queue.pull(wait=5)] == [good]
    assert service.nacked == ["ack-0"] and service.acked == []
    assert not list(tmp_path.iterdir())
