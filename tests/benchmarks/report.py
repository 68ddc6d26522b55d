# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The table of all results, as text and as reStructuredText."""

import os
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from tests.benchmarks.contest import OURS, Results
from tests.benchmarks.measure import Sample


@dataclass(frozen=True)
class Goal:
    """What a figure must reach.

    :param most: the limit is an upper one
    :param text: how the limit is written, if not as a number
    """

    limit: float
    most: bool = False
    text: str = ""

    def holds(self, value: float) -> bool:
        return value <= self.limit if self.most else value >= self.limit

    def __str__(self) -> str:
        return f"{'<=' if self.most else '>='} {self.text or f'{self.limit:g}'}"


def at_least(limit: float) -> Goal:
    return Goal(limit)


def at_most(limit: float, text: str = "") -> Goal:
    return Goal(limit, most=True, text=text)


@dataclass(frozen=True)
class Row:
    """A line of the table.

    :param work: what was done
    :param peer: against whom; "" for a goal that needs nobody
    :param ours: our figure, for people
    :param theirs: the peer's
    :param value: what is held against the goal: the ratio, where there is a peer
    :param missing: why there is nothing
    """

    work: str
    peer: str
    ours: str = ""
    theirs: str = ""
    value: float | None = None
    goal: Goal | None = None
    missing: str = ""

    @property
    def holds(self) -> bool | None:
        """None where there is no goal, or nothing was measured."""
        if self.value is None or self.goal is None:
            return None
        return self.goal.holds(self.value)

    @property
    def verdict(self) -> str:
        """The same, for people."""
        if self.missing:
            return f"not run: {self.missing}"
        return {True: "holds", False: "does not hold", None: "-"}[self.holds]

    @property
    def cells(self) -> tuple[str, ...]:
        ratio = f"{self.value:.2f}" if self.value is not None and self.peer else "-"
        goal = str(self.goal or "-")
        return (
            self.work,
            self.peer or "-",
            self.ours or "-",
            self.theirs or "-",
            ratio,
            goal,
            self.verdict,
        )


class Figure(NamedTuple):
    """One of the figures in a sample, and how it is written."""

    of: Callable[[Sample], float]
    text: Callable[[float], str]


RATE = Figure(lambda sample: sample.count / sample.seconds, lambda value: f"{value:,.0f}/s")
SECONDS = Figure(lambda sample: sample.seconds, lambda value: f"{value:.3g} s")
CPU = Figure(lambda sample: sample.cpu, lambda value: f"{value:.3g} s")
SERVER_CPU = Figure(lambda sample: sample.server_cpu, CPU.text)
MEMORY = Figure(lambda sample: sample.memory, lambda value: f"{value / 1e6:.0f} MB")


def compare(
    work: str,
    results: Results,
    peer: str,
    goal: Goal | None = None,
    *,
    figure: Figure = RATE,
    ours: str = OURS,
) -> Row:
    """Return the row of our median against a peer's, and of the ratio of the two."""
    if peer in results.missing:
        return Row(work, peer, goal=goal, missing=results.missing[peer])
    mine, others = results.median(ours, figure.of), results.median(peer, figure.of)
    return Row(work, peer, figure.text(mine), figure.text(others), mine / others, goal)


def slower_end(work: str, results: Results, ends: Sequence[str], goal: Goal) -> Row:
    """Return the row of our rate against that of the slower of the two ends of our work."""
    for end in ends:
        if end in results.missing:
            return Row(work, end, goal=goal, missing=results.missing[end])
    return compare(work, results, min(ends, key=lambda end: results.median(end, RATE.of)), goal)


def both_ends(work: str, results: Results, ends: Sequence[str]) -> Row:
    """Return the row of our rate against that at which the two ends of our work, done at once
    with no cost of their own less, would keep every core busy all the time.

    Where one machine has both ends and the servers, nobody who does what they do is faster.
    """
    name = "both ends' CPU"
    for end in ends:
        if end in results.missing:
            return Row(work, name, missing=results.missing[end])
    samples = [results.medians(end) for end in ends]
    each = sum((sample.cpu + sample.server_cpu) / sample.count for sample in samples)
    mine, limit = results.median(OURS, RATE.of), (os.cpu_count() or 1) / each
    return Row(work, name, RATE.text(mine), RATE.text(limit), mine / limit)


# -- The table -----------------------------------------------------------------------------

HEAD = ("work", "peer", "crashmover", "peer's", "ratio", "goal", "")
WIDTHS = (26, 20, 10, 9, 6, 9, 13)
"""Of the columns; what is longer is broken.  That of the work must not be."""


def table(rows: Iterable[Row]) -> str:
    """Return the table for a terminal, no wider than 100 columns."""
    rule = "-" * len(_line(["="] * len(WIDTHS), fill="="))
    return "\n".join([*_lines(HEAD), rule, *_body(rows)])


def rst_table(rows: Iterable[Row]) -> str:
    """Return the same as a simple table of reStructuredText."""
    rule = _line(["="] * len(WIDTHS), fill="=")
    return "\n".join([rule, *_lines((*HEAD[:-1], "verdict")), rule, *_body(rows), rule])


def _body(rows: Iterable[Row]) -> list[str]:
    return [line for row in rows for line in _lines(row.cells)]


def _lines(cells: Sequence[str]) -> list[str]:
    """Return the lines of a row: a cell that is too long goes on in the next."""
    columns = [
        textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, WIDTHS, strict=True)
    ]
    return [_line(line) for line in zip_longest(*columns, fillvalue="")]


def _line(cells: Sequence[str], fill: str = " ") -> str:
    padded = (cell.ljust(width, fill) for cell, width in zip(cells, WIDTHS, strict=True))
    return " ".join(padded).rstrip()
