# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Round trips: a command with a server far away, against the fewest round trips that can be.

What is to be reached is the command's own time without distance, and so many round trips more.
Each of these numbers is said where it is used, with its reason.
"""

from collections.abc import Callable, Iterator
from functools import partial

from tests.benchmarks.contest import OURS, Contender, Turn
from tests.benchmarks.report import SECONDS, Row, at_most
from tests.benchmarks.suite import Suite

IN_FLIGHT = 400
"""Requests that may be in flight at once: what needs more takes several round trips."""

GOAL = at_most(1.5)

_NEAR = "no distance"


def rounds(requests: int) -> int:
    """Return how many round trips so many requests take, none of which waits for another."""
    return -(-requests // IN_FLIGHT)


def against_trips(
    suite: Suite, work: str, away: int, trips: int, turn: Callable[[int], Turn]
) -> Iterator[Row]:
    """Hold the contest of one command, with distance and without.

    :param away: milliseconds of a round trip
    :param trips: the fewest that can be, from the first connection on
    :param turn: makes one at a distance
    """
    work = f"{work}, {away} ms"
    contenders = [Contender(OURS, partial(turn, away)), Contender(_NEAR, partial(turn, 0))]
    results = suite.hold(work, contenders)
    far, near = (results.median(name, SECONDS.of) for name in (OURS, _NEAR))
    fewest, taken = near + trips * away / 1000, (far - near) * 1000 / away
    suite.say(f"  {work}: {taken:.1f} round trips, of {trips}")
    text = SECONDS.text
    yield Row(work, f"{trips} round trips", text(far), text(fewest), far / fewest, GOAL)


def taken(suite: Suite, work: str, away: int) -> int:
    """Return how many round trips the command of such a contest has taken."""
    results = suite.results[f"{work}, {away} ms"]
    far, near = (results.median(name, SECONDS.of) for name in (OURS, _NEAR))
    return round((far - near) * 1000 / away)
