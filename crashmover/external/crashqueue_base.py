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
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import ClassVar, Self

from crashmover.errors import CrashIdsFailedToPublish, QueueError
from crashmover.external.leases import Keeper, Leases, keeping
from crashmover.external.messages import BATCH, Delivery, Message, QueueName, batches, parse_body
from crashmover.external.quarantine import Quarantine
from crashmover.retry import RetryPolicy
from crashmover.uri import StorageURI

__all__ = ["BATCH", "CrashQueueBase", "Delivery", "Message", "QueueName", "parse_body"]

logger = logging.getLogger(__name__)

Item = tuple[tuple[str], dict[str, Callable[[], None]]]
"""``((crash_id,), {"finished_func": ack})``, as Socorro's processor takes it."""

_FEW = 10  # crash ids that an iterator takes at once: other consumers are to have some
_PROBE = b"test"  # what a collector sends to find out whether it may publish
_TURN = 10  # of so many pulls, one begins with a queue of lower rank
_OVERTAKEN = 2.0  # seconds to wait for an extension that is on its way
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
    - A crash id that was handed out `max_deliveries` times and never acked goes to that file, too.

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

    @property
    def first_extension(self) -> float:
        """Seconds after which a delivery that has arrived is extended first."""
        return self.first_lease / 3

    answer_time: float = 0.0
    """Seconds that the queue may need to answer a pull: a shorter wait counts as so much."""

    handed_out_for: float = 600.0
    """Seconds for which `new_crashes` keeps a crash id that its consumer has not finished."""

    max_deliveries: int | None = None
    """How often a crash id is handed out before it is put aside; None: without an end, or the
    queue itself sees to it."""

    # A call that timed out already has taken as long as anyone waits.
    retry: ClassVar[RetryPolicy] = RetryPolicy(timeout=20.0)

    def __init__(self, quarantine: str | Path | None = None) -> None:
        self._quarantine = Quarantine(Path(quarantine) if quarantine else None)
        self._leases = Leases[Delivery]()
        self._extending = threading.RLock()
        self._keeper: Keeper | None = None  # of what iterators have handed out
        self._iterators = 0
        self._untaken: list[list[Delivery]] = []
        self._counting = threading.Lock()
        self._pull_count = 0
        self.given_up_count = 0
        """How many crash ids were put aside because they were handed out too often."""

    # What the author of a backend writes.  Here, QueueUnavailable is tried again.

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

    def return_messages(self, deliveries: Sequence[Delivery]) -> None:
        """Let these, `BATCH` at most, be handed out again at once, as if they never had been:
        for queues that count how often.  Others nack them."""
        self.nack_messages(deliveries)

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
        """Return what may go wrong with the queues later, or is not as it should be.  Publishes
        and pulls nothing.

        :raises QueueError: they cannot be used
        """
        self.verify_access()
        return []

    def diagnose_quarantine(self) -> list[str]:
        """Return a warning if a malformed message could not be put aside now."""
        return self._quarantine.diagnose()

    def has_dead_letters(self, queue: QueueName) -> bool:
        """Whether the queue itself puts messages aside that are nacked too often."""
        return False

    def close(self) -> None:
        """Let go of connections.  What is held is handed out again when its lease ends.  A backend
        that has its own calls this one first."""
        with self._counting:
            if self._keeper:
                self._keeper.stop()
            untaken = self._untaken[:]
        for rest in untaken:
            self._give_back_untaken(rest)

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
        confirmed = 0
        for batch in batches(crash_ids):
            bodies = [text.encode() for text in batch]
            try:
                self.retry.call(partial(self.send_messages, name, bodies))
            except QueueError as error:
                failed = list(crash_ids[confirmed:])
                raise CrashIdsFailedToPublish(failed, reason=str(error)) from error
            confirmed += len(batch)

    def pull(
        self,
        queues: Iterable[QueueName | str] | None = None,
        max_messages: int = BATCH,
        wait: float = 0.0,
    ) -> list[Delivery]:
        """Return crash ids, those of the priority queue first; none if there are none.

        Now and then a queue of lower rank comes first, so that none starves.

        :param queues: which; None: all
        :param wait: seconds to wait for the first, `answer_time` at least
        :raises QueueError: the queue cannot be read
        """
        deadline = monotonic() + max(wait, self.answer_time)
        names = self._in_order(self.queues if queues is None else queues)
        while True:
            left = max(0.0, deadline - monotonic())
            found = self.retry.call(partial(self.receive_messages, names, max_messages, left))
            if found or monotonic() >= deadline:
                return found
            threading.Event().wait(min(_POLL, max(0.0, deadline - monotonic())))

    def pull_arrived(self, max_messages: int = BATCH) -> list[Delivery]:
        """Return crash ids that have arrived by now.  The queue is asked for more, where it needs
        time to answer, and its answer is not waited for.

        :raises QueueError: the queue cannot be read
        """
        names = self._in_order(self.queues)
        return self.retry.call(partial(self.receive_messages, names, max_messages, 0.0))

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Take these off the queue, for good.

        :raises QueueError: the queue did not confirm it; they may be handed out again
        """
        self._leases.release(deliveries)
        late = 0
        for batch in batches(deliveries):
            late += self.retry.call(partial(self.ack_messages, batch))
        if late:
            logger.warning(
                "%s: %d acknowledgements came too late; these will be handed out again",
                self.uri,
                late,
            )

    def nack(self, deliveries: Sequence[Delivery]) -> None:
        """Let these be handed out again at once: they could not be dealt with.  One that was handed
        out `max_deliveries` times is put aside instead.

        :raises QueueError: the queue did not confirm it; it happens when their leases end
        """
        back = [each for each in deliveries if not self._is_given_up(each, 0)]
        self._send_back(back, self.nack_messages)

    def give_back(self, deliveries: Sequence[Delivery] | None = None) -> None:
        """Let these be handed out again at once, unused: where the queue counts how often it hands
        out a crash id, this time does not count.

        :param deliveries: None: all that is held
        :raises QueueError: as `nack`
        """
        back = self._leases.held() if deliveries is None else deliveries
        self._send_back(back, self.return_messages)

    def _send_back(
        self, deliveries: Sequence[Delivery], send: Callable[[Sequence[Delivery]], None]
    ) -> None:
        self._leases.release(deliveries)
        # An extension that is on its way would overtake this, and lease them again.
        is_ours = self._extending.acquire(timeout=_OVERTAKEN)
        try:
            for batch in batches(deliveries):
                self.retry.call(partial(send, batch))
        finally:
            if is_ours:
                self._extending.release()

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        """Keep these for so many seconds from now.

        :raises QueueError: the queue did not confirm it
        """
        for batch in batches(deliveries):
            self.retry.call(partial(self.extend_messages, batch, seconds))

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
            delivery = Delivery(message.queue, crash_id, ruleset, message.handle, message.attempt)
            if not self._is_given_up(delivery, 1):
                deliveries.append(delivery)
        self._leases.hold(deliveries, monotonic() + self.first_extension)
        if failure and not deliveries:
            raise failure
        return deliveries

    def keeping_leases(self) -> AbstractContextManager[None]:
        """Extend, while this lasts, the lease of each delivery that is not acked or nacked."""
        return keeping(self.extend_held, self.extend_every)

    @property
    def extend_every(self) -> float:
        """Seconds between two looks at which leases are to be extended."""
        return min(1.0, self.first_lease / 6)

    # For iterators, as Socorro's processor uses them

    def new_crashes(self) -> Iterator[Item]:
        """Yield what is in the queues as Socorro's processor takes it.

        The leases of what is handed out are kept in the background until `finished_func` is called,
        for `handed_out_for` seconds at most, and not after `close`.  What the consumer has not
        taken yet is kept as long as the iterator lives, and given back when that or the queue is
        closed.
        """
        with self._counting:
            self._iterators += 1
            self._keeper = self._keeper or Keeper(self._keep_handed_out, self.extend_every)
        try:
            self._keeper.start()
            while deliveries := self.pull(max_messages=_FEW):
                yield from self._handed_out(deliveries)
        finally:
            with self._counting:
                self._iterators -= 1

    def _handed_out(self, deliveries: list[Delivery]) -> Iterator[Item]:
        rest = deliveries[::-1]
        self._untaken.append(rest)
        try:
            while rest:
                delivery = rest.pop()
                self._leases.end_at(delivery, monotonic() + self.handed_out_for)
                yield (delivery.body,), {"finished_func": partial(self.ack, [delivery])}
        finally:
            self._give_back_untaken(rest)

    def _give_back_untaken(self, rest: list[Delivery]) -> None:
        with self._counting:
            self._untaken = [each for each in self._untaken if each is not rest]
            back = rest[:]
            rest.clear()
        if back:
            with suppress(QueueError):
                self.give_back(back)

    def _keep_handed_out(self) -> bool:
        """Extend what is held; return True while an iterator lives or a consumer has something."""
        self.extend_held()
        return self._iterators > 0 or self._leases.has_ends()

    def __iter__(self) -> Iterator[Item]:
        return self.new_crashes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.uri}>"

    def _in_order(self, queues: Iterable[QueueName | str]) -> list[QueueName]:
        asked = {QueueName(queue) for queue in queues}
        names = [name for name in QueueName if name in asked]
        self._pull_count += 1
        if self._pull_count % _TURN == 0 and len(names) > 1:
            first = names.pop(1 + self._pull_count // _TURN % (len(names) - 1))
            names.insert(0, first)
        return names

    def extend_held(self) -> None:
        """Extend the leases that are due, of all that is held."""
        now = monotonic()
        for due in batches(self._leases.due(now)):
            with self._extending:
                batch = self._leases.still_held(due)
                try:
                    if batch:
                        self.extend_messages(batch, self.lease)
                    when = now + self.lease / 3
                except QueueError as error:
                    logger.info("%s: leases could not be extended: %s", self.uri, error)
                    when = now + min(5.0, self.lease / 6)
            self._leases.put_off(batch, when)

    def _is_given_up(self, delivery: Delivery, more: int) -> bool:
        """Put a crash id aside that no consumer could deal with.  Return False if it has not been
        handed out often enough, or if that failed.

        :param more: 1 if it has been handed out once too often already
        """
        if not self.max_deliveries or delivery.attempt < self.max_deliveries + more:
            return False
        reason = f"handed out {self.max_deliveries} times, and never acknowledged"
        where = f"{self.uri}: {delivery.queue}"
        about = {"reason": reason, "attempts": self.max_deliveries}
        try:
            path = self._quarantine.add(self.uri, delivery.queue, delivery.body.encode(), about)
            self.ack([delivery])
        except QueueError as error:
            logger.warning("%s: %s stays: %s", where, delivery.body, error)
            return False
        self.given_up_count += 1
        logger.warning("%s: %s was %s; now in %s", where, delivery.body, reason, path)
        return True

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
        path = self._quarantine.add(
            self.uri, message.queue, message.body, {"reason": "malformed", **message.about()}
        )
        logger.warning("%s: a malformed message, now in %s", where, path)
        self.ack([delivery])
