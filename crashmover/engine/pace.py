# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Pace: how many batches are in flight at once, by the rate that is measured while a run goes on.

By Little's law, the rate is the number in flight divided by the seconds that a crash takes.  So a
batch that has finished tells the rate by how long it took, and no clock is needed.  The limit grows
in large steps while the rate follows, as the slow start of TCP does (RFC 5681), and it is halved
where a server asks for fewer requests.
"""

from collections.abc import Callable
from statistics import median
from typing import NamedTuple

_LARGE_STEP, _STEP = 4.0, 2.0  # the limit is multiplied by; the large one, if all is gained
_FIRST_STEP = 1.5, 6.0  # at least and at most; where a crash takes little, more seldom help
_NEAR = 0.08  # seconds: of a crash that takes as long, the first step would be 1
_ALL, _ENOUGH = 0.7, 0.35  # of a step that the rate has to gain, for a large step and for a step
_SOME = 1.15  # of the rate before: so much is gained if a step was too large
_ROOM = 1.2  # what was found to be right has so much room, as crashes take unequally long
_ROUNDS = 8  # until it is tried whether more is better by now; twice as many after each in vain
_LOOK = 1.5
_FALLEN, _AS_GOOD = 0.6, 0.85  # of the rate before
_LEAST = 4  # of this part of the first limit no more is taken away: some servers refuse at random
_SAMPLES = 6  # batches, at least, that make a round
_USED = 0.7  # of the limit has to be in flight: else a batch says nothing about the limit
_BATCH_SECONDS = 0.5  # that a batch should take
_BATCH_CHANGE = 2  # a batch that differs by this factor makes rates incomparable


class _Level(NamedTuple):
    """A limit, and the rate that was measured with it, in crashes a second."""

    limit: int
    rate: float


class Pace:
    """How many batches may be in flight, and how many crashes the next batch has.

    Where `start` is `most`, the limit is lower only after a server has asked for fewer requests.
    Not safe for threads: the caller holds a lock.

    :param start: how many batches may be in flight at first
    :param most: how many at most
    :param batch_for: returns how many crashes a batch may have where so many are in flight
    """

    def __init__(
        self, start: int, most: int, batch_for: Callable[[int], int] = lambda _limit: 1
    ) -> None:
        self.limit = self.highest = start
        """How many batches may be in flight now, and at most so far."""
        self.slowdowns = 0
        """How often servers have asked for fewer requests."""
        self._start = start
        self.most = max(start, most)
        """How many there may be at any time."""
        self._batch_for = batch_for
        self._batch = 1 if self.can_grow else batch_for(start)
        self._round = 0
        self._samples: list[float] = []  # seconds for each crash
        self._before: _Level | None = None  # while another limit is on trial: the one before it
        self._settled: float | None = None  # the rate of a limit that is on trial no more
        self._is_new = True  # as long as no other limit was on trial
        self._waited = 0  # rounds since one was
        self._patience = _ROUNDS
        self._slowed_in = -1  # the last round in which servers asked for fewer requests
        self._too_many: int | None = None  # the limit at which they did

    @property
    def can_grow(self) -> bool:
        """Whether there may ever be more than at first."""
        return self.most > self._start

    @property
    def _follows_rate(self) -> bool:
        """Whether the limit follows the rate now."""
        return self.can_grow or self.limit < self._start

    @property
    def batch(self) -> int:
        """How many crashes the next batch should have: at most as many as take half a second, so
        that a run soon knows how it goes, and soon ends when it is stopped."""
        return min(self._batch, self._batch_for(self.limit))

    def begin(self) -> int:
        """Return the round in which a batch begins, for `finish`."""
        return self._round

    def finish(self, began: int, crashes: int, seconds: float, busy: int, slowdowns: int) -> None:
        """Take note of a batch that has finished.

        :param began: what `begin` returned
        :param crashes: how many it had
        :param seconds: how long it took
        :param busy: how many batches were in flight, with this one
        :param slowdowns: how often in this run servers have asked for fewer requests
        """
        if slowdowns > self.slowdowns:
            self.slowdowns = slowdowns
            if began > self._slowed_in:  # else it is about requests of before the limit was lower
                self._slow_down()
        elif self._follows_rate and crashes and began == self._round and busy >= _USED * self.limit:
            self._samples.append(seconds / crashes)
            if len(self._samples) >= max(_SAMPLES, self.limit // 2):
                self._end_round(max(median(self._samples), 1e-6))

    def text(self) -> str:
        """Return what there is to say of a run, in one line; none if nothing has changed."""
        if self.highest == self._start and not self.slowdowns:
            return ""
        found = f"{self.highest} in flight at most, {self.limit} at the end"
        if not self.slowdowns:
            return found
        times = "once" if self.slowdowns == 1 else f"{self.slowdowns:,} times"
        return f"the server asked for fewer requests {times}: {found}"

    def _slow_down(self) -> None:
        self._slowed_in, self._too_many = self._round, self.limit
        self._settled = None
        self._patience = _ROUNDS
        self._begin_round(max(self.limit // 2, self._start // _LEAST))

    def _begin_round(self, limit: float, *, before: _Level | None = None) -> None:
        self.limit = max(1, min(round(limit), self.most))
        self.highest = max(self.highest, self.limit)
        self._before = before
        self._samples = []
        self._round += 1

    def _end_round(self, seconds: float) -> None:
        here = _Level(self.limit, self.limit / seconds)
        self._waited += 1
        if self._too_many:
            self._recover(self._too_many)
        elif self._before:
            self._judge(self._before, here)
        elif self._has_other_batch(seconds):
            self._settled = None
            self._begin_round(self.limit)
        elif self._is_new:
            self._is_new = False
            least, most = _FIRST_STEP
            self._try(here, max(least, min(seconds / _NEAR, most)))
        else:
            self._stay(here)

    def _has_other_batch(self, seconds: float) -> bool:
        """Choose how many crashes a batch has; return whether that makes rates incomparable."""
        if not self.can_grow:
            return False
        batch = max(1, min(int(_BATCH_SECONDS / seconds), self._batch_for(1)))
        if self._batch / _BATCH_CHANGE < batch < self._batch * _BATCH_CHANGE:
            return False
        before, self._batch = self.batch, batch
        return self.batch != before

    def _try(self, here: _Level, step: float) -> None:
        """Put another limit on trial, if there is one."""
        least = min(self._start, here.limit)
        limit = max(least, min(round(here.limit * step), self.most))
        self._waited = 0
        self._begin_round(limit, before=here if limit != here.limit else None)

    def _judge(self, before: _Level, here: _Level) -> None:
        """End the trial of a limit: go on, or settle."""
        step, gain = here.limit / before.limit, here.rate / before.rate
        if step < 1:
            self._settle(here if gain >= _AS_GOOD else before)
        elif gain - 1 >= _ENOUGH * (step - 1):
            self._patience = _ROUNDS
            self._try(here, _LARGE_STEP if gain - 1 >= _ALL * (step - 1) else _STEP)
        else:
            self._patience *= 2
            right = before.limit * (gain * _ROOM if gain > _SOME else 1)
            self._settle(_Level(min(here.limit, round(right)), max(before.rate, here.rate)))

    def _settle(self, level: _Level) -> None:
        self._settled = level.rate
        self._begin_round(level.limit)

    def _stay(self, here: _Level) -> None:
        """Keep the limit, unless the rate has fallen, or it is time to look at a higher one."""
        settled = self._settled or here.rate
        self._settled = 0.8 * settled + 0.2 * here.rate
        if here.rate < _FALLEN * settled:
            self._try(here, 1 / _STEP)
        elif self._waited >= self._patience:
            self._try(here, _LOOK)
        else:
            self._begin_round(self.limit)

    def _recover(self, too_many: int) -> None:
        """Approach the limit again at which servers asked for fewer requests."""
        if self.limit >= 7 * too_many // 8:
            self._too_many, self._is_new, self._waited = None, False, 0
            self._begin_round(self.limit)
        else:
            self._begin_round(min(self.limit + max(1, self.limit // 8), 7 * too_many // 8))
