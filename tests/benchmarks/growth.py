# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Ever more crashes, as small as can be: as many a second, and no more memory."""

from collections.abc import Iterator
from functools import partial

from tests.benchmarks.contest import Command, Contender
from tests.benchmarks.corpus import Corpus
from tests.benchmarks.report import MEMORY, RATE, Figure, Goal, Row, at_least, at_most
from tests.benchmarks.suite import Suite, copy, files_are


def fs_to_fs(suite: Suite) -> Iterator[Row]:
    """Copy so many, and more, and more."""
    counts = suite.sizes.growth

    def turn(corpus: Corpus) -> Command:
        target = suite.new_path()
        check = files_are(target, lambda: corpus.files)
        return Command(copy(corpus.root, target), corpus.count, check)

    contenders = [
        Contender(name_of(count), partial(turn, suite.small_corpus(count))) for count in counts
    ]
    results = suite.hold("growth", contenders)

    def row(work: str, count: int, figure: Figure, goal: Goal) -> Row:
        most, text = name_of(counts[-1]), figure.text
        ours, theirs = (results.median(name, figure.of) for name in (most, name_of(count)))
        return Row(
            f"{work} of {most}", f"{count:,} of them", text(ours), text(theirs), ours / theirs, goal
        )

    yield row("rate", counts[-2], RATE, at_least(0.7))
    yield row("memory", counts[0], MEMORY, at_most(1.3))


def name_of(count: int) -> str:
    """Return what a contender is called that copies so many crashes."""
    return f"{count:,} crashes"
