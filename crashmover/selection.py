# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Which crashes: a day as people type it, and the ids in a queue."""

import datetime as dt
import re
from collections import deque
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from crashmover.external.crashqueue_base import CrashQueueBase, Delivery

_DAYS_AGO = re.compile(r"([0-9]{1,5})d", re.ASCII)


def parse_day(text: str, today: dt.date | None = None) -> dt.date:
    """Return the day that a person means by ``2026-11-20``, ``today``, ``yesterday`` or
    ``7d`` (seven days ago); days are UTC's, as in crash ids.

    :raises ValueError: it is none of these
    """
    today = today or dt.datetime.now(dt.UTC).date()
    typed = text.strip().lower()
    ago = {"today": 0, "yesterday": 1}.get(typed)
    if match := _DAYS_AGO.fullmatch(typed):
        ago = int(match.group(1))
    if ago is not None:
        return today - dt.timedelta(days=ago)
    if len(typed) == len("2026-11-20"):
        return dt.date.fromisoformat(typed)
    raise ValueError("not a day")


_STEP = 0.5  # seconds of one look at an empty queue: so soon a signal is heard
_HOLD = 60.0  # seconds until what failed is given back while a run goes on
_MOST_FAILED = 10_000  # of which a run that ends by itself keeps hold


class QueuedIDs:
    """Crash ids from a queue, for `Mover.run`; each is to be settled when its copy has ended.

    A crash id that comes twice is handed out once, and settled once for both.  What failed is
    not given back at once: it would be back at once, again and again.  It is kept to the end
    of the run, or for a minute where the run has no end.

    :param batch_size: how many to pull at once
    :param wait: end when nothing has come for so many seconds and nothing is in hand; None:
        never end
    :param keep: give everything back at the end, whatever became of it
    """

    def __init__(
        self, queue: "CrashQueueBase", *, batch_size: int, wait: float | None, keep: bool = False
    ) -> None:
        self._queue = queue
        self._batch_size = batch_size
        self._wait = wait
        self._keep = keep
        self._ready: deque[str] = deque()
        self._in_hand: dict[str, list[Delivery]] = {}
        self._done: list[Delivery] = []
        self._failed: dict[str, tuple[float, list[Delivery]]] = {}
        self._last = monotonic()
        self._lock = Lock()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str | None:
        """Return a crash id; None if there is none for now.

        :raises QueueError: the queue cannot be read, or did not take an ack
        """
        if not self._ready:
            self._settle_with_queue()
            self._pull()
        if self._ready:
            return self._ready.popleft()
        if self._has_ended():
            raise StopIteration
        return None

    def settle(self, crash_id: str, is_done: bool) -> None:
        """Take note of what became of it: it is acked soon if it is done, else nacked later."""
        with self._lock:
            deliveries = self._in_hand.pop(crash_id, [])
            if is_done and not self._keep:
                self._done += deliveries
            else:
                self._failed[crash_id] = (monotonic() + _HOLD, deliveries)

    def close(self, *, is_outage: bool = False) -> None:
        """Ack what is done, nack what failed, and give back all else, once.

        :param is_outage: a store is down: what failed is not to blame, and is given back, too
        :raises QueueError: the queue did not confirm it; what was not acked comes again
        """
        with self._lock:
            done, self._done = self._done, []
            unused = [d for found in self._in_hand.values() for d in found]
            failed = [d for _, found in self._failed.values() for d in found]
            self._in_hand.clear()
            self._failed.clear()
            self._ready.clear()
        try:
            self._queue.ack(done)
        finally:
            if is_outage or self._keep:
                unused, failed = [*unused, *failed], []
            try:
                self._queue.nack(failed)
            finally:
                self._queue.give_back(unused)

    @property
    def given_up_count(self) -> int:
        """How many crash ids the queue has put aside, as they were handed out too often."""
        return self._queue.given_up_count

    def _has_ended(self) -> bool:
        if self._wait is None or self._in_hand:
            return False
        return len(self._failed) >= _MOST_FAILED or monotonic() - self._last >= self._wait

    def _pull(self) -> None:
        if self._wait is not None and len(self._failed) >= _MOST_FAILED:
            return
        if self._in_hand:
            found = self._queue.pull_arrived(self._batch_size)
        else:
            step = _STEP if self._wait is None else min(_STEP, self._wait)
            found = self._queue.pull(max_messages=self._batch_size, wait=step)
        with self._lock:
            for delivery in found:
                self._add(delivery)
        if found or self._in_hand:
            self._last = monotonic()

    def _add(self, delivery: "Delivery") -> None:
        crash_id = delivery.crash_id
        if crash_id in self._in_hand:
            self._in_hand[crash_id].append(delivery)
        elif crash_id in self._failed:
            self._failed[crash_id][1].append(delivery)
        else:
            self._in_hand[crash_id] = [delivery]
            self._ready.append(crash_id)

    def _settle_with_queue(self) -> None:
        with self._lock:
            done, self._done = self._done, []
            back: list[Delivery] = []
            if self._wait is None:
                now = monotonic()
                for crash_id in [i for i, (when, _) in self._failed.items() if when <= now]:
                    back += self._failed.pop(crash_id)[1]
        try:
            self._queue.ack(done)
        finally:
            self._queue.nack(back)
