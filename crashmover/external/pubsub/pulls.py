# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Pulls: the requests for messages that are on their way, one for each subscription at most.

A server goes on with a pull after its client has cancelled it, or has gone, and leases to it what
comes next.  Google's emulator does so until a second before the deadline that the client gave
(version 0.8.20).  So no pull is cancelled here while its server may still answer it.  Each has a
deadline so near that its end can be waited for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from threading import Event
from time import monotonic
from typing import Any

import grpc
from google.pubsub_v1 import types

from crashmover.external.messages import QueueName

MARGIN = 1.0
"""Seconds before its deadline at which a server answers a pull, though it has nothing."""

LONGEST = 2.0
"""Seconds that a server is to wait for messages at most: as long an end may take."""

_IN_VAIN = 0.5  # seconds that the last answer may be late

Ask = Callable[[QueueName, int, float], Any]
"""Send a pull of so many messages of a queue, with a deadline in seconds; return its future."""


class Pulls:
    """The pulls on their way.  Not safe for use from several threads at once."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._futures: dict[QueueName, Any] = {}
        self._ends = 0.0
        self._arrived = Event()

    def begin(self, queue: QueueName, max_messages: int, wait: float) -> None:
        """Ask for messages, unless that is on its way.

        :param wait: seconds that the caller is going to wait; 0: it comes back some time
        """
        if queue in self._futures:
            return
        deadline = MARGIN + (min(wait, LONGEST) or LONGEST)
        future = self._ask(queue, max_messages, deadline)
        self._futures[queue] = future
        self._ends = max(self._ends, monotonic() + deadline)
        future.add_done_callback(lambda _: self._arrived.set())

    def wait(self, seconds: float) -> None:
        """Wait until one is answered, for so many seconds at most."""
        self._arrived.wait(seconds)
        self._arrived.clear()

    def has_answers(self) -> bool:
        return any(future.done() for future in list(self._futures.values()))

    def answers(self) -> Iterator[tuple[QueueName, Any]]:
        """Take the futures that are done, one by one; each with its queue."""
        for queue, future in list(self._futures.items()):
            if future.done():
                del self._futures[queue]
                yield queue, future

    def let_end(self) -> None:
        """Wait until the server has answered all, for as long as that may take."""
        while not all(future.done() for future in self._futures.values()):
            left = self._ends + _IN_VAIN - monotonic()
            if left <= 0:
                break
            self.wait(left)

    def cancel(self) -> None:
        for future in self._futures.values():
            with suppress(grpc.RpcError):
                future.cancel()
        self._futures.clear()


def messages_of(future: Any) -> Sequence[Any]:
    """Return what a pull has brought: nothing, if its deadline is over.

    :raises grpc.RpcError: it failed
    """
    try:
        messages: Sequence[Any] = types.PullResponse.pb(future.result()).received_messages
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
        return ()
    return messages
