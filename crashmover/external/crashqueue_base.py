# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""CrashQueueBase: what a queue of crash ids can do.

The author of a backend writes `from_uri`, `send_messages`, `receive_messages`, `ack_messages`,
`nack_messages` and `extend_messages`; the rest stands on these.
"""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import ClassVar, Self, TypeVar

from crashmover.errors import CrashIdsFailedToPublish, QueueError
from crashmover.external.leases import Leases, keeping
from crashmover.external.messages import BATCH, Delivery, Message, QueueName, batches, parse_body
from crashmover.external.quarantine import Quarantine
from crashmover.retry import RetryPolicy
from crashmover.uri import StorageURI

__all__ = ["BATCH", "CrashQueueBase", "Delivery", "Message", "QueueName", "parse_body"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PROBE = b"test"  # what a collector sends to find out whether it may publish
_TURN = 10  # of so many pulls, one begins with a queue of lower rank
_POLL = 0.1  # seconds between two looks at a queue that cannot be waited for


class CrashQueueBase(ABC):
    """Three queues of crash ids.  Safe for use from many threads; a context manager.

    What every queue promises:

    - `publish` returns only when the queue has every crash id; else the error names those
      that it has not confirmed.
    - A delivery is ours for `lease` seconds, and as long as it is extended.  Then, or when
      it is nacked, it is handed out again.  So a crash id can come twice, and is never lost.
    - Only crash ids are handed out.  A collector's probe is dropped.  What is malformed is
      nacked where a dead-letter policy takes care of it, and else acked once it is on disk
      in the quarantine file.

    :param quarantine: the file for malformed messages, else one in the platform's directory
        for state
    """

    uri: str
    """Where it is, redacted: what messages call it."""

    queues: tuple[QueueName, ...] = tuple(QueueName)
    """Those that can be pulled from."""

    lease: float = 60.0
    """Seconds for which a delivery is extended."""

    first_lease: float = 60.0
    """Seconds for which a delivery is ours when it arrives."""

    # A call that timed out already has taken as long as anyone waits.
    retry: ClassVar[RetryPolicy] = RetryPolicy(timeout=20.0)

    def __init__(self, quarantine: str | Path | None = None) -> None:
        self._quarantine = Quarantine(Path(quarantine) if quarantine else None)
        self._leases = Leases[Delivery]()
        self._pull_count = 0

    # What the author of a backend writes.  QueueUnavailable is tried again, by the base.

    @classmethod
    @abstractmethod
    def from_uri(cls, uri: StorageURI) -> Self:
        """Return the queue there, contacting nothing.

        :raises InvalidURI: the URI says something that this queue does not know
        """

    @abstractmethod
    def send_messages(self, queue: QueueName, bodies: Sequence[bytes]) -> None:
        """Publish all of these, `BATCH` at most; return when they are confirmed.

        :raises QueueError: they were not all confirmed
        """

    @abstractmethod
    def receive_messages(
        self, queues: Sequence[QueueName], max_messages: int, wait: float
    ) -> list[Delivery]:
        """Return what is there, from the first of these queues that has something; fill up
        from the others.  Every message must pass through `accept`.

        :param wait: seconds, for backends that can wait; others return at once
        """

    @abstractmethod
    def ack_messages(self, deliveries: Sequence[Delivery]) -> int:
        """Take these, `BATCH` at most, off the queue; return how many were ours no more."""

    @abstractmethod
    def nack_messages(self, deliveries: Sequence[Delivery]) -> None:
        """Let these, `BATCH` at most, be handed out again at once."""

    @abstractmethod
    def extend_messages(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        """Keep these, `BATCH` at most, for so many seconds from now."""

    # What stands here already, and a backend may do better

    def create(self) -> list[str]:
        """Make what is missing of the queues; return the names of what was made."""
        return []

    def verify_access(self) -> None:
        """Raise `QueueError` unless the queues can be read."""

    def diagnose(self) -> list[str]:
        """Find out, without publishing or pulling anything, whether the queues can be used; return
        what may go wrong with them later, or is not as it should be.

        :raises QueueError: they cannot be used
        """
        self.verify_access()
        return []

    def has_dead_letters(self, queue: QueueName) -> bool:
        """Whether the queue itself puts messages aside that are nacked too often."""
        return False

    def close(self) -> None:
        """Let go of connections.  What is held is handed out again when its lease ends."""

    # What is the same for all

    def publish(self, queue: QueueName | str, crash_ids: Sequence[str]) -> None:
        """Publish crash ids, each ``ID`` or ``ID:RULESET``.

        :raises InvalidCrashID: one is none; then nothing was published
        :raises CrashIdsFailedToPublish: some, or all, were not confirmed: exactly those
            that it names
        """
        name = QueueName(queue)
        for text in crash_ids:
            parse_body(text)
        failed: list[str] = []
        cause: QueueError | None = None
        for batch in batches(crash_ids):
            if cause is None:
                try:
                    self._try(partial(self.send_messages, name, [i.encode() for i in batch]))
                    continue
                except QueueError as error:
                    cause = error
            failed += batch
        if failed:
            raise CrashIdsFailedToPublish(failed, reason=str(cause)) from cause

    def pull(
        self,
        queues: Iterable[QueueName | str] | None = None,
        max_messages: int = BATCH,
        wait: float = 0.0,
    ) -> list[Delivery]:
        """Return crash ids, those of the priority queue first; none if there are none.

        Now and then a queue of lower rank comes first, so that none starves.

        :param queues: which; None: all that there are
        :param wait: seconds to wait for the first
        :raises QueueError: the queue cannot be read
        """
        deadline = monotonic() + wait
        names = self._in_order(self.queues if queues is None else queues)
        while True:
            left = max(0.0, deadline - monotonic())
            found = self._try(partial(self.receive_messages, names, max_messages, left))
            if found or monotonic() >= deadline:
                return found
            threading.Event().wait(min(_POLL, max(0.0, deadline - monotonic())))

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Take these off the queue, for good.

        :raises QueueError: the queue did not confirm it; they may be handed out again
        """
        self._leases.release(deliveries)
        late = 0
        for batch in batches(deliveries):
            late += self._try(partial(self.ack_messages, batch))
        if late:
            logger.warning(
                "%s: %d acknowledgements came too late; these will be handed out again",
                self.uri,
                late,
            )

    def nack(self, deliveries: Sequence[Delivery]) -> None:
        """Let these be handed out again at once.

        :raises QueueError: the queue did not confirm it; it happens when their leases end
        """
        self._leases.release(deliveries)
        for batch in batches(deliveries):
            self._try(partial(self.nack_messages, batch))

    def give_back(self) -> None:
        """Let all that is held be handed out again at once.

        :raises QueueError: as `nack`
        """
        self.nack(self._leases.held())

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        """Keep these for so many seconds from now.

        :raises QueueError: the queue did not confirm it
        """
        for batch in batches(deliveries):
            self._try(partial(self.extend_messages, batch, seconds))

    def accept(self, messages: Iterable[Message]) -> list[Delivery]:
        """For backends: return those that are crash ids, which are held from now on; drop
        probes; put aside what is malformed.

        :raises QueueError: that could not be done, and there is nothing else
        """
        deliveries: list[Delivery] = []
        failure: QueueError | None = None
        for message in messages:
            try:
                crash_id, ruleset = parse_body(message.body.decode("ascii"))
            except ValueError:  # InvalidCrashID and UnicodeDecodeError are
                try:
                    self._refuse(message)
                except QueueError as error:
                    failure = error
                    logger.warning("%s: a malformed message stays: %s", self.uri, error)
                continue
            deliveries.append(
                Delivery(message.queue, crash_id, ruleset, message.handle, message.attempt)
            )
        self._leases.hold(deliveries, monotonic() + self.first_lease / 3)
        if failure and not deliveries:
            raise failure
        return deliveries

    def keeping_leases(self) -> AbstractContextManager[None]:
        """Extend, while this lasts, the lease of every delivery that is neither acked nor
        nacked."""
        return keeping(self._extend_held, every=min(1.0, self.first_lease / 6))

    def new_crashes(self) -> Iterator[tuple[tuple[str], dict[str, Callable[[], None]]]]:
        """Yield what is in the queues as Socorro's processor takes it:
        ``((crash_id,), {"finished_func": ack})``."""
        while deliveries := self.pull():
            for delivery in deliveries:
                yield (delivery.body,), {"finished_func": partial(self.ack, [delivery])}

    def __iter__(self) -> Iterator[tuple[tuple[str], dict[str, Callable[[], None]]]]:
        return self.new_crashes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.uri}>"

    def _try(self, function: Callable[[], T]) -> T:
        return self.retry.call(function)

    def _in_order(self, queues: Iterable[QueueName | str]) -> list[QueueName]:
        asked = {QueueName(queue) for queue in queues}
        names = [name for name in QueueName if name in asked]
        self._pull_count += 1
        if self._pull_count % _TURN == 0 and len(names) > 1:
            first = names.pop(1 + self._pull_count // _TURN % (len(names) - 1))
            names.insert(0, first)
        return names

    def _extend_held(self) -> None:
        now = monotonic()
        for batch in batches(self._leases.due(now)):
            try:
                self.extend_messages(batch, self.lease)
                when = now + self.lease / 3
            except QueueError as error:
                logger.info("%s: leases could not be extended: %s", self.uri, error)
                when = now + min(5.0, self.lease / 6)
            self._leases.put_off(batch, when)

    def _refuse(self, message: Message) -> None:
        """Drop a probe.  Never ack what is malformed before it is safe elsewhere."""
        delivery = Delivery(message.queue, "", None, message.handle, message.attempt)
        if message.body == _PROBE:
            self.ack([delivery])
            return
        where = f"{self.uri}: {message.queue}"
        if self.has_dead_letters(message.queue):
            logger.warning("%s: a malformed message, left to its dead-letter policy", where)
            self.nack([delivery])
            return
        path = self._quarantine.add(self.uri, message.queue, message.body)
        logger.warning("%s: a malformed message, now in %s", where, path)
        self.ack([delivery])
