# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A Pub/Sub server in this process whose pulls wait, go on without their client, and whose leases
end: as Google's emulator does, which cannot be had from PyPI, and as drongo does not."""

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from google.protobuf import empty_pb2
from google.pubsub_v1 import types


@dataclass
class Kept:
    """A message of a subscription."""

    message: Any
    number: int
    deliveries: int = 0
    leased_until: float = 0.0

    @property
    def ack_id(self) -> str:
        return f"{self.number}-{self.deliveries}"


@dataclass
class LatePubSub:
    """Topics and subscriptions.

    :param margin: seconds before its client's deadline at which a pull ends that has nothing
    """

    margin: float = 1.0
    topics: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    deadlines: dict[str, float] = field(default_factory=dict)
    kept: dict[str, list[Kept]] = field(default_factory=lambda: defaultdict(list))
    modified: list[tuple[int, int]] = field(default_factory=list)
    """Each request to modify leases: how many, and to how many seconds."""

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._server = grpc.server(ThreadPoolExecutor(32))
        self._server.add_generic_rpc_handlers(self._handlers())
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.stop(None).wait()

    def uri(self) -> str:
        """Return the URI of queues that are not there yet."""
        return f"pubsub://project/t{uuid.uuid4().hex[:12]}"

    def waiting(self) -> int:
        """Return how many messages could be handed out now."""
        with self._changed:
            now = time.monotonic()
            return sum(k.leased_until <= now for all_ in self.kept.values() for k in all_)

    def leases(self) -> list[float]:
        """Return how many seconds each lease has left."""
        with self._changed:
            left = [k.leased_until - time.monotonic() for all_ in self.kept.values() for k in all_]
            return [seconds for seconds in left if seconds > 0]

    # What it answers

    def _create_topic(self, request: Any, _context: Any) -> Any:
        self.topics[request.name] = []
        return types.Topic.pb(request)

    def _create_subscription(self, request: Any, _context: Any) -> Any:
        self.topics[request.topic].append(request.name)
        self.deadlines[request.name] = request.ack_deadline_seconds
        return types.Subscription.pb(request)

    def _look(self, request: Any, _context: Any) -> Any:
        name = request.subscription
        seconds = int(self.deadlines[name])
        return types.Subscription.pb(types.Subscription(name=name, ack_deadline_seconds=seconds))

    def _publish(self, request: Any, _context: Any) -> Any:
        with self._changed:
            for message in request.messages:
                self._count += 1
                for name in self.topics[request.topic]:
                    self.kept[name].append(Kept(message, self._count))
            self._changed.notify_all()
        ids = [str(number) for number in range(len(request.messages))]
        return types.PublishResponse.pb(types.PublishResponse(message_ids=ids))

    def _pull(self, request: Any, context: Any) -> Any:
        end = time.monotonic() + context.time_remaining() - self.margin
        name = request.subscription
        with self._changed:
            while True:
                now = time.monotonic()
                free = [kept for kept in self.kept[name] if kept.leased_until <= now]
                if free or now >= end:
                    break
                self._changed.wait(min(0.1, end - now))
            taken = free[: request.max_messages]
            for kept in taken:
                kept.deliveries += 1
                kept.leased_until = now + self.deadlines[name]
        received = [{"ack_id": kept.ack_id, "message": kept.message} for kept in taken]
        return types.PullResponse.pb(types.PullResponse(received_messages=received))

    def _acknowledge(self, request: Any, _context: Any) -> Any:
        with self._changed:
            kept = self.kept[request.subscription]
            kept[:] = [each for each in kept if each.ack_id not in set(request.ack_ids)]
        return empty_pb2.Empty()

    def _modify(self, request: Any, _context: Any) -> Any:
        with self._changed:
            self.modified.append((len(request.ack_ids), request.ack_deadline_seconds))
            for kept in self.kept[request.subscription]:
                if kept.ack_id in request.ack_ids:
                    kept.leased_until = time.monotonic() + request.ack_deadline_seconds
            self._changed.notify_all()
        return empty_pb2.Empty()

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        def handler(method: Callable[[Any, Any], Any], request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                method, request.deserialize, lambda answer: answer.SerializeToString()
            )

        make = grpc.method_handlers_generic_handler
        return (
            make(
                "google.pubsub.v1.Publisher",
                {
                    "CreateTopic": handler(self._create_topic, types.Topic),
                    "Publish": handler(self._publish, types.PublishRequest),
                },
            ),
            make(
                "google.pubsub.v1.Subscriber",
                {
                    "CreateSubscription": handler(self._create_subscription, types.Subscription),
                    "GetSubscription": handler(self._look, types.GetSubscriptionRequest),
                    "Pull": handler(self._pull, types.PullRequest),
                    "Acknowledge": handler(self._acknowledge, types.AcknowledgeRequest),
                    "ModifyAckDeadline": handler(self._modify, types.ModifyAckDeadlineRequest),
                },
            ),
        )
