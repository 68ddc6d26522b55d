# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""SocorroQueue: a queue as Socorro's processor iterates over it."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic

from crashmover.errors import QueueError
from crashmover.external.leases import Keeper, Leases
from crashmover.external.messages import Delivery

Item = tuple[tuple[str], dict[str, Callable[[], None]]]
"""``((crash_id,), {"finished_func": ack})``"""

_FEW = 10  # crash ids that an iterator takes at once: other consumers are to have some


class SocorroQueue(ABC):
    """What stands on `pull`, `ack` and `give_back`, for the processor of Socorro."""

    handed_out_for: float = 600.0
    """Seconds for which `new_crashes` keeps a crash id that its consumer has not finished."""

    def __init__(self) -> None:
        self._leases = Leases[Delivery]()
        self._keeper: Keeper | None = None
        self._iterators = 0
        self._untaken: list[list[Delivery]] = []
        self._counting = threading.Lock()

    # As `CrashQueueBase` says:

    @abstractmethod
    def pull(self, *, max_messages: int) -> list[Delivery]: ...

    @abstractmethod
    def ack(self, deliveries: Sequence[Delivery]) -> None: ...

    @abstractmethod
    def give_back(self, deliveries: Sequence[Delivery] | None = None) -> None: ...

    @property
    @abstractmethod
    def extend_every(self) -> float: ...

    @abstractmethod
    def extend_held(self) -> None: ...

    def new_crashes(self) -> Iterator[Item]:
        """Yield what is in the queues as Socorro's processor takes it.

        The leases of what is handed out are kept in the background until `finished_func` is called,
        for `handed_out_for` seconds at most, and not after `close`.  What the consumer has not
        taken yet is kept as long as the iterator lives, and given back when that or the queue is
        closed.
        """
        with self._iterating():
            while deliveries := self.pull(max_messages=_FEW):
                yield from self._handed_out(deliveries)

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

    @contextmanager
    def _iterating(self) -> Iterator[None]:
        with self._counting:
            self._iterators += 1
            self._keeper = self._keeper or Keeper(self._keep_handed_out, self.extend_every)
        self._keeper.start()
        try:
            yield
        finally:
            with self._counting:
                self._iterators -= 1

    def _keep_handed_out(self) -> bool:
        """Extend what is held; return True while an iterator lives or a consumer has something."""
        self.extend_held()
        return self._iterators > 0 or self._leases.has_ends()

    def __iter__(self) -> Iterator[Item]:
        return self.new_crashes()

    def stop_keeping(self) -> None:
        """Extend no more leases for iterators; give back what they have not handed out."""
        with self._counting:
            if self._keeper:
                self._keeper.stop()
            untaken = self._untaken[:]
        for rest in untaken:
            self._give_back_untaken(rest)
