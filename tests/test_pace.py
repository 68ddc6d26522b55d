# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Pace: how many batches are in flight, against simulated servers, whose time is virtual."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import pytest

from crashmover.engine.pace import Pace
from tests.conftest import Figures

MOST = 400
FIXED = (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, MOST)


@dataclass
class Server:
    """How long a crash takes.

    :param latency: seconds, whatever else goes on
    :param capacity: crashes a second, one after the other; None: any number at the same time
    :param allowed: crashes a second; what comes sooner is told to slow down, and comes again later
    :param changes: after so many crashes the capacity is that
    """

    latency: float
    capacity: float | None = None
    allowed: float | None = None
    changes: tuple[int, float] | None = None
    seed: int = 1
    slowdowns: int = 0
    _free: float = 0.0
    _tokens: float = 0.0
    _filled: float = 0.0
    _served: int = 0
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def seconds(self, now: float) -> float:
        """Return how long a crash takes that is begun now."""
        self._served += 1
        if self.changes and self._served == self.changes[0]:
            self.capacity = self.changes[1]
        size = self._random.lognormvariate(0, 0.5)
        wait = self.latency * self._random.uniform(0.8, 1.2) + self._until_allowed(now)
        if self.capacity is None:
            return wait
        self._free = max(self._free, now) + size / self.capacity
        return wait + self._free - now

    def _until_allowed(self, now: float) -> float:
        waited = 0.0
        for turn in range(6 if self.allowed else 0):
            assert self.allowed
            time = max(self._filled, now + waited)
            self._tokens += (time - self._filled) * self.allowed
            self._tokens = min(self._tokens, self.allowed / 5)
            self._filled = time
            if self._tokens >= 1:
                self._tokens -= 1
                break
            self.slowdowns += 1
            waited += 0.2 * 2**turn * self._random.uniform(0.5, 1.5)
        return waited


def run(server: Server, pace: Pace, crashes: int) -> float:
    """Return how many seconds so many crashes take."""
    flying: list[tuple[float, int, float, int, int]] = []
    now, left, numbers = 0.0, crashes, count()
    while left or flying:
        while left and len(flying) < pace.limit:
            size = min(left, pace.batch)
            left -= size
            end = now
            for _ in range(size):
                end += server.seconds(end)
            heapq.heappush(flying, (end, next(numbers), now, pace.begin(), size))
        busy = len(flying)
        now, _, began_at, began, size = heapq.heappop(flying)
        pace.finish(began, size, now - began_at, busy, server.slowdowns)
    return now


class Fixed(Pace):
    """A number that nothing changes."""

    def __init__(self, number: int) -> None:
        super().__init__(number, number)

    def finish(self, *_args: object) -> None:
        """Learn nothing."""


SERVERS: dict[str, Callable[[int], Server]] = {
    "near, or a busy client": lambda seed: Server(0.001, 370, seed=seed),
    "30 ms away": lambda seed: Server(0.15, 370, seed=seed),
    "100 ms away": lambda seed: Server(0.3, 600, seed=seed),
    "far away, and without bounds": lambda seed: Server(0.5, seed=seed),
    "slow": lambda seed: Server(1.0, 50, seed=seed),
    "slows down after a while": lambda seed: Server(0.2, 500, changes=(2000, 100), seed=seed),
    "becomes quick after a while": lambda seed: Server(0.2, 50, changes=(1000, 600), seed=seed),
    "allows 200 a second": lambda seed: Server(0.3, allowed=200, seed=seed),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_the_rate_comes_near_that_of_the_best_fixed_number(kind: str, figures: Figures) -> None:
    crashes = 6000
    best = min(run(SERVERS[kind](1), Fixed(n), crashes) for n in FIXED)
    ours = [run(SERVERS[kind](seed), Pace(16, MOST), crashes) for seed in range(1, 6)]
    figures(**{f"percent of the best rate, {kind}": round(100 * best / max(ours))})
    assert max(ours) <= 1.2 * best


@pytest.mark.parametrize("start", [16, 32])
def test_far_away_three_rounds_are_enough_to_grow(start: int) -> None:
    pace, server = Pace(start, MOST), Server(0.5)
    assert run(server, pace, 600) < 0.5 * 1.2 * 5
    assert pace.highest > 256


def test_near_by_the_limit_comes_back_to_where_it_was() -> None:
    pace = Pace(16, MOST)
    run(Server(0.001, 370), pace, 6000)
    assert pace.limit <= 64


def test_a_server_that_asks_for_fewer_requests_gets_fewer_of_them(figures: Figures) -> None:
    ours, theirs = Server(0.05, allowed=50), Server(0.05, allowed=50)
    pace = Pace(16, MOST)
    run(ours, pace, 2000)
    run(theirs, Fixed(MOST), 2000)
    figures(slowdowns=ours.slowdowns, without=theirs.slowdowns)
    assert ours.slowdowns < theirs.slowdowns / 5
    assert pace.limit < 16


def samples(pace: Pace, number: int, seconds: float = 1.0, *, busy: int | None = None) -> None:
    for _ in range(number):
        pace.finish(pace.begin(), 1, seconds, pace.limit if busy is None else busy, pace.slowdowns)


def test_a_fixed_number_stays_and_has_whole_batches() -> None:
    pace = Pace(4, 4, lambda workers: 64 // workers)
    samples(pace, 1000, 0.001)
    assert (pace.limit, pace.highest, pace.batch, pace.text()) == (4, 4, 16, "")


def test_even_a_fixed_number_is_lowered_where_a_server_asks_for_that() -> None:
    pace = Pace(8, 8, lambda workers: 64 // workers)
    pace.finish(pace.begin(), 1, 1.0, 8, 1)
    assert (pace.limit, pace.highest, pace.batch) == (4, 8, 8)
    for _ in range(30):
        samples(pace, 6)
    assert (pace.limit, pace.highest, pace.batch) == (8, 8, 8)


def test_it_is_lowered_once_for_all_that_were_sent_before_that() -> None:
    pace = Pace(64, MOST)
    began = pace.begin()
    for slowdowns in range(1, 60):
        pace.finish(began, 1, 1.0, 64, slowdowns)
    assert pace.limit == 32
    pace.finish(pace.begin(), 1, 1.0, 32, 60)
    assert pace.limit == 16


def test_there_is_always_one() -> None:
    pace = Pace(4, MOST)
    for slowdowns in range(1, 20):
        pace.finish(pace.begin(), 1, 1.0, pace.limit, slowdowns)
    assert (pace.limit, pace.batch) == (1, 1)


def test_after_that_it_comes_back() -> None:
    pace = Pace(64, MOST)
    pace.finish(pace.begin(), 1, 1.0, 64, 1)
    for _ in range(20):
        samples(pace, 64)
    assert pace.limit >= 56


def test_where_the_source_brings_too_few_nothing_is_learned() -> None:
    pace = Pace(16, MOST)
    samples(pace, 1000, busy=3)
    assert pace.limit == 16


def test_what_began_with_another_limit_says_nothing_about_this_one() -> None:
    pace = Pace(16, MOST)
    began = pace.begin()
    samples(pace, 8)
    assert pace.limit == 96
    for _ in range(1000):
        pace.finish(began, 1, 50.0, 96, 0)
    assert pace.limit == 96


def test_one_large_crash_among_small_ones_changes_nothing() -> None:
    plain, pace = Pace(16, MOST), Pace(16, MOST)
    for one in (plain, pace):
        samples(one, 7)
    pace.finish(pace.begin(), 1, 500.0, 16, 0)
    plain.finish(plain.begin(), 1, 1.0, 16, 0)
    assert pace.limit == plain.limit == 96


@pytest.mark.parametrize(("seconds", "batch"), [(0.5, 1), (0.1, 5), (0.001, 16)])
def test_a_batch_takes_half_a_second_at_most(seconds: float, batch: int) -> None:
    pace = Pace(16, MOST, lambda workers: 16)
    assert pace.batch == 1
    samples(pace, 8, seconds)
    assert pace.batch == batch
    assert pace.limit == (96 if batch == 1 else 16)  # one thing at a time


@pytest.mark.parametrize(
    ("slowdowns", "said"),
    [
        (0, "96 in flight at most, 96 at the end"),
        (1, "the server asked for fewer requests once: 96 in flight at most, 48 at the end"),
        (1037, "the server asked for fewer requests 1,037 times: 96 in flight at most, 48 at"),
    ],
)
def test_it_says_what_it_has_done(slowdowns: int, said: str) -> None:
    pace = Pace(16, MOST)
    samples(pace, 8)
    if slowdowns:
        pace.finish(pace.begin(), 1, 1.0, 96, slowdowns)
    assert pace.text().startswith(said)


def test_a_server_that_refuses_whatever_it_gets_leaves_a_quarter_in_flight() -> None:
    pace = Pace(32, 192)
    for slowdowns in range(1, 200):
        pace.finish(pace.begin(), 1, 0.1, pace.limit, slowdowns)
    assert pace.limit == 8
