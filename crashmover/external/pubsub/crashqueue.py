# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PubSubCrashQueue: queues of Google Cloud Pub/Sub, a topic and a subscription each."""

import logging
import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import Lock
from time import monotonic
from typing import Any, Self

import grpc
from google.api_core.exceptions import from_grpc_error
from google.pubsub_v1 import types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from crashmover.errors import InvalidURI, QueueError, QueueUnavailable
from crashmover.external.crashqueue_base import CrashQueueBase, Delivery, Message, QueueName
from crashmover.external.pubsub.connection_context import (
    ConnectionContext,
    code_of,
    emulator_address,
    translated,
)
from crashmover.external.pubsub.pulls import Pulls, messages_of
from crashmover.uri import StorageURI, refuse_tilde

logger = logging.getLogger(__name__)

_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,99}", re.ASCII)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}", re.ASCII)

_TIMEOUT = 30.0  # seconds
_ASK_TIMEOUT = 10.0  # for what a server answers at once
_PAUSE = 0.1  # seconds before a subscription that had nothing is asked again
_LONGEST_LEASE = 600  # seconds, a limit of Pub/Sub's
_ACK_DEADLINE = 600  # seconds, of subscriptions that we make: other consumers extend no leases


class PubSubCrashQueue(CrashQueueBase):
    """Queues of Google Cloud Pub/Sub.

    :param project: the project's id
    :param topics: the topic of each queue
    :param subscriptions: the subscription of each queue
    :param quarantine: the file for malformed messages
    """

    lease = 60.0
    first_lease = 10.0  # the least that a subscription can have
    first_extension = 0.0  # which ends a lease of 600 seconds after 60, should we be killed
    extend_every = 0.25
    answer_time = 1.0

    def __init__(
        self,
        project: str,
        topics: dict[QueueName, str],
        subscriptions: dict[QueueName, str],
        *,
        quarantine: str | None = None,
    ) -> None:
        super().__init__(quarantine)
        self.uri = f"pubsub://{project}"
        self._project = f"projects/{project}"
        self._topics = {q: f"{self._project}/topics/{name}" for q, name in topics.items()}
        self._subscriptions = {
            q: f"{self._project}/subscriptions/{name}" for q, name in subscriptions.items()
        }
        self.queues = tuple(name for name in QueueName if name in subscriptions)
        self._context = ConnectionContext()
        self._pulling = Lock()
        self._pulls = Pulls(self._ask)
        self._waiting: dict[QueueName, deque[Delivery]] = {q: deque() for q in QueueName}
        self._not_before: dict[QueueName, float] = {}
        self._dead_letters: dict[QueueName, bool] = {}

    @classmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """``pubsub://project/prefix``, or each topic and subscription by its name."""
        uri.refuse("user", "password", "port")
        if not _PROJECT.fullmatch(uri.host):
            raise InvalidURI("pubsub: the project's id is missing: pubsub://PROJECT/PREFIX")
        kinds = ("topic", "subscription")
        named = {f"{queue}_{kind}": _name for queue in QueueName for kind in kinds}
        options = uri.options(**named, quarantine=refuse_tilde)
        emulator_address()
        quarantine = options.pop("quarantine", None)
        prefix = uri.path.strip("/")
        if not prefix and not options:
            raise InvalidURI("pubsub: neither a prefix nor a topic or subscription is named")
        names: dict[str, dict[QueueName, str]] = {"topic": {}, "subscription": {}}
        for queue in QueueName:
            for kind, ending in zip(kinds, ("topic", "sub"), strict=True):
                default = _prefixed(prefix, f"{queue}-{ending}") if prefix else None
                if name := options.get(f"{queue}_{kind}", default):
                    names[kind][queue] = name
        self = cls(uri.host, names["topic"], names["subscription"], quarantine=quarantine)
        self.uri = str(uri)
        return self

    # Asking and making

    def create(self) -> list[str]:
        made = []
        for queue, topic in self._topics.items():
            if self._make(self._publisher.create_topic, types.Topic(name=topic), topic):
                made.append(topic)
            if subscription := self._subscriptions.get(queue):
                request = types.Subscription(
                    name=subscription, topic=topic, ack_deadline_seconds=_ACK_DEADLINE
                )
                if self._make(self._subscriber.create_subscription, request, subscription):
                    made.append(subscription)
        return made

    def _make(self, method: Callable[..., Any], request: Any, name: str) -> bool:
        try:
            self.retry.call(partial(self._call, method, request, name, _ASK_TIMEOUT))
        except QueueError as error:
            if code_of(error) is grpc.StatusCode.ALREADY_EXISTS:
                return False
            raise
        return True

    def verify_access(self) -> None:
        """Look at the subscriptions; an account that may pull and not look is let through."""
        for subscription in self._subscriptions.values():
            self.retry.call(partial(self._look_at, subscription))

    def has_dead_letters(self, queue: QueueName) -> bool:
        """Whether the subscription has a dead-letter policy, as far as we may see it."""
        if queue not in self._dead_letters:
            found = self.retry.call(partial(self._look_at, self._subscription(queue)))
            self._dead_letters[queue] = bool(found and found.dead_letter_policy.dead_letter_topic)
        return self._dead_letters[queue]

    def diagnose(self) -> list[str]:
        from crashmover.external.pubsub.diagnosis import Diagnosis

        diagnosis = Diagnosis(self._see, self._publisher, self._subscriber)
        for topic in self._topics.values():
            diagnosis.topic(topic)
        for queue, subscription in self._subscriptions.items():
            diagnosis.subscription(subscription, self._topics.get(queue))
        diagnosis.finish()
        if diagnosis.broken:
            raise QueueError(f"{self.uri}: {'; '.join(diagnosis.broken)}")
        return diagnosis.warnings

    def _look_at(self, subscription: str) -> Any:
        request = types.GetSubscriptionRequest(subscription=subscription)
        return self._see(self._subscriber.get_subscription, request, subscription)

    def _see(self, method: Callable[..., Any], request: Any, name: str) -> Any:
        """Return the answer; None where we may not have it."""
        try:
            return self._call(method, request, name, _ASK_TIMEOUT)
        except QueueError as error:
            if code_of(error) is grpc.StatusCode.PERMISSION_DENIED:
                return None
            raise

    # Publishing

    def send_messages(self, queue: QueueName, bodies: Sequence[bytes]) -> None:
        if queue not in self._topics:
            raise QueueError(f"{self.uri}: no topic is named for the {queue} queue")
        topic = self._topics[queue]
        # The bare protocol buffer: the client's own classes take ten times as long to fill.
        request = types.PublishRequest.pb()(topic=topic)
        for body in bodies:
            request.messages.add(data=body)
        wrapped = types.PublishRequest.wrap(request)
        answer = self._call(self._publisher.publish, wrapped, topic, _TIMEOUT)
        if len(answer.message_ids) != len(bodies):
            raise QueueError(f"{self.uri}: {topic}: not all messages were confirmed")

    # Pulling

    def receive_messages(
        self, queues: Sequence[QueueName], max_messages: int, wait: float
    ) -> list[Delivery]:
        deadline = monotonic() + wait
        with self._pulling:
            while True:
                left = max(0.0, deadline - monotonic())
                if left or not wait:
                    self._begin_pulls(queues, max_messages, left)
                self._take_in()
                if any(self._waiting[queue] for queue in queues) or not left:
                    return self._take(queues, max_messages)
                self._pulls.wait(min(left, _PAUSE))

    def _begin_pulls(self, queues: Sequence[QueueName], max_messages: int, wait: float) -> None:
        for queue in queues:
            if self._waiting[queue]:
                return  # it can be served from this: leave the others to idle readers
            if monotonic() >= self._not_before.get(queue, 0.0):
                self._pulls.begin(queue, max_messages, wait)

    def _ask(self, queue: QueueName, max_messages: int, deadline: float) -> Any:
        name = self._subscription(queue)
        request = types.PullRequest(subscription=name, max_messages=max_messages)
        return self._subscriber.pull.future(
            request, timeout=deadline, metadata=_routing(request, name)
        )

    def _take_in(self) -> None:
        for queue, future in self._pulls.answers():
            with translated(self.uri, self._subscription(queue)):
                messages = messages_of(future)
            if not messages:
                self._not_before[queue] = monotonic() + _PAUSE
            self._waiting[queue] += self.accept(_message(queue, item) for item in messages)

    def extend_held(self) -> None:
        """Extend what is held, and what has arrived since the last pull."""
        if self._pulls.has_answers() and self._pulling.acquire(blocking=False):
            try:
                with suppress(QueueError):  # the next pull meets it again
                    self._take_in()
            finally:
                self._pulling.release()
        super().extend_held()

    def _take(self, queues: Sequence[QueueName], max_messages: int) -> list[Delivery]:
        taken: list[Delivery] = []
        for queue in queues:
            waiting = self._waiting[queue]
            while waiting and len(taken) < max_messages:
                taken.append(waiting.popleft())
        return taken

    def _subscription(self, queue: QueueName) -> str:
        if queue not in self._subscriptions:
            raise QueueError(f"{self.uri}: no subscription is named for the {queue} queue")
        return self._subscriptions[queue]

    # What becomes of deliveries

    def ack_messages(self, deliveries: Sequence[Delivery]) -> int:
        """Acknowledge messages.  Only where the subscription delivers exactly once does the server
        tell which came too late."""
        return sum(self._ack(*each) for each in self._by_subscription(deliveries))

    def _ack(self, name: str, ack_ids: list[str]) -> int:
        late = 0

        def attempt() -> None:
            nonlocal late
            # The bare protocol buffer, as in `send_messages`.
            bare = types.AcknowledgeRequest.pb()(subscription=name, ack_ids=ack_ids)
            request = types.AcknowledgeRequest.wrap(bare)
            try:
                self._call(self._subscriber.acknowledge, request, name, _TIMEOUT)
            except QueueError as error:
                results = _results(error)
                if not results:
                    raise
                again = [i for i in ack_ids if results.get(i, "").startswith("TRANSIENT")]
                late += sum(results.get(i, "").startswith("PERMANENT") for i in ack_ids)
                ack_ids[:] = again
                if again:
                    raise QueueUnavailable(
                        f"{name}: {len(again)} acks failed in passing"
                    ) from error

        self.retry.call(attempt)
        return late

    def nack_messages(self, deliveries: Sequence[Delivery]) -> None:
        self.extend_messages(deliveries, 0)

    def extend_messages(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        """Extend by 600 seconds at most.  Messages that are not held any more are passed over."""
        deadline = min(int(seconds), _LONGEST_LEASE)
        for name, ack_ids in self._by_subscription(deliveries):
            request = types.ModifyAckDeadlineRequest(
                subscription=name, ack_ids=ack_ids, ack_deadline_seconds=deadline
            )
            try:
                self._call(self._subscriber.modify_ack_deadline, request, name, _TIMEOUT)
            except QueueError as error:
                if not _results(error):
                    raise

    def _by_subscription(self, deliveries: Sequence[Delivery]) -> list[tuple[str, list[str]]]:
        sorted_out: dict[str, list[str]] = {}
        for delivery in deliveries:
            name = self._subscription(delivery.queue)
            sorted_out.setdefault(name, []).append(str(delivery.handle))
        return list(sorted_out.items())

    def close(self) -> None:
        """Close it; what was pulled and not asked for is given back at once."""
        super().close()
        with self._pulling:
            self._pulls.let_end()
            with suppress(QueueError):
                self._take_in()
            self._pulls.cancel()
            waiting = [delivery for queue in self._waiting.values() for delivery in queue]
            for queue in self._waiting.values():
                queue.clear()
        self._context.close()
        if waiting:
            # By another channel: a pull that is cancelled may go on taking from the subscription
            # as long as its own is there.
            with suppress(QueueError):
                self.nack_messages(waiting)
            self._context.close()

    # Calling

    @property
    def _publisher(self) -> Any:
        return self._context.transport(PublisherGrpcTransport, self.uri)

    @property
    def _subscriber(self) -> Any:
        return self._context.transport(SubscriberGrpcTransport, self.uri)

    def _call(self, method: Callable[..., Any], request: Any, name: str, timeout: float) -> Any:
        with translated(self.uri, name):
            return method(request, timeout=timeout, metadata=_routing(request, name))


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("it is no name of a topic or a subscription")
    return text


def _prefixed(prefix: str, ending: str) -> str:
    try:
        return _name(f"{prefix}-{ending}")
    except ValueError:
        raise InvalidURI("pubsub: the prefix must be letters, digits and . _ ~ + % -") from None


def _routing(request: Any, name: str) -> list[tuple[str, str]]:
    """The header that the service routes a request by."""
    for field in ("topic", "subscription", "name", "resource"):
        if getattr(request, field, None) == name:
            return [("x-goog-request-params", f"{field}={name}")]
    return []


def _message(queue: QueueName, item: Any) -> Message:
    about = partial(_about, item.message)
    return Message(queue, item.message.data, item.ack_id, item.delivery_attempt, about)


def _about(message: Any) -> dict[str, object]:
    """Return what a message says beside its body, as far as it says anything."""
    about = {
        "attributes": dict(message.attributes),
        "ordering_key": message.ordering_key,
        "message_id": message.message_id,
        "publish_time": message.publish_time.ToJsonString() if message.publish_time.seconds else "",
    }
    return {name: value for name, value in about.items() if value}


def _results(error: QueueError) -> dict[str, str]:
    """Return what became of each ack id, where the service says so.

    Source of the rule: Pub/Sub's "exactly-once delivery", acknowledgement failures.
    """
    if not isinstance(error.__cause__, grpc.RpcError):
        return {}
    known: Any = from_grpc_error  # it carries no types
    info = getattr(known(error.__cause__), "_error_info", None)
    return dict(info.metadata) if info else {}
