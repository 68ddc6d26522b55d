# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Diagnosis: what is there of topics and subscriptions, and what is not as it should be."""

from collections.abc import Callable
from typing import Any

import grpc
from google.iam.v1 import iam_policy_pb2
from google.pubsub_v1 import types

from crashmover.errors import QueueError
from crashmover.external.pubsub.connection_context import code_of, short

ENOUGH = 40
"""Seconds of an ack deadline that are enough: the first extension of a lease may get no answer in
its 30 seconds, and the next one still comes in time."""

_DELETED = "_deleted-topic_"  # what a subscription says is its topic, when that is no more
_PUBLISH = "pubsub.topics.publish"
_PULL = "pubsub.subscriptions.consume"

See = Callable[[Callable[..., Any], Any, str], Any]
"""Make a call with a request about what has that name; return the answer, None where it is not to
be had.  It raises `QueueError` where there is none of that name."""


class Diagnosis:
    """Looks at topics and subscriptions, and takes note.

    :param publisher: the calls about topics
    :param subscriber: the calls about subscriptions
    """

    def __init__(self, see: See, publisher: Any, subscriber: Any) -> None:
        self.broken: list[str] = []
        """Why the queues cannot be used."""
        self.warnings: list[str] = []
        self._see = see
        self._publisher = publisher
        self._subscriber = subscriber
        self._can: set[str] = set()

    def topic(self, name: str) -> None:
        request = types.GetTopicRequest(topic=name)
        if self._look(self._publisher.get_topic, request, name)[0]:
            self._check_right(self._publisher, name, _PUBLISH, "publish to")

    def subscription(self, name: str, topic: str | None) -> None:
        """Look at a subscription.

        :param topic: that it should be of, where one is named
        """
        request = types.GetSubscriptionRequest(subscription=name)
        is_there, found = self._look(self._subscriber.get_subscription, request, name)
        if is_there:
            self._check_right(self._subscriber, name, _PULL, "pull from")
        if found:
            self._check_subscription(found, short(name), topic)

    def finish(self) -> None:
        """Conclude that nothing can be done with the queues at all, if that is so."""
        if not self.broken and not self._can:
            self.broken = self.warnings
            self.warnings = []

    def _look(self, method: Callable[..., Any], request: Any, name: str) -> tuple[bool, Any]:
        """Return whether it is there, and what is known of it."""
        try:
            return True, self._see(method, request, name)
        except QueueError as error:
            if code_of(error) is not grpc.StatusCode.NOT_FOUND:
                raise
        kind = "topic" if "/topics/" in name else "subscription"
        self.broken.append(f"there is no {kind} {short(name)}")
        return False, None

    def _check_right(self, service: Any, name: str, right: str, action: str) -> None:
        """Ask whether we may; an emulator does not know, and then we may."""
        request = iam_policy_pb2.TestIamPermissionsRequest(resource=name, permissions=[right])
        try:
            answer = self._see(service.test_iam_permissions, request, name)
        except QueueError as error:
            if code_of(error) is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            answer = None
        if answer is None or right in answer.permissions:
            self._can.add(right)
        else:
            self.warnings.append(f"no right to {action} {short(name)}")

    def _check_subscription(self, found: Any, name: str, topic: str | None) -> None:
        if found.topic == _DELETED:
            self.broken.append(f"the topic of {name} was deleted")
        elif topic and found.topic != topic:
            self.warnings.append(f"{name} is of the topic {short(found.topic)}")
        if found.detached:
            self.broken.append(f"{name} is detached from its topic")
        if found.push_config.push_endpoint:
            self.broken.append(f"{name} is pushed somewhere, and cannot be pulled from")
        if found.ack_deadline_seconds < ENOUGH:
            seconds = found.ack_deadline_seconds
            self.warnings.append(f"{name} has an ack deadline of {seconds} s, below {ENOUGH}")
