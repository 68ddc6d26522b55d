# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3 far away: as many workers as crashmover takes by default, against other numbers."""

from collections.abc import Iterator
from functools import partial

from tests.benchmarks.buckets import FROM_FS
from tests.benchmarks.contest import OURS, Command, Contender
from tests.benchmarks.distance import NEAR
from tests.benchmarks.measure import Argument
from tests.benchmarks.report import RATE, Row, at_least
from tests.benchmarks.report import compare as row
from tests.benchmarks.s3 import buckets
from tests.benchmarks.suite import Suite, copy


def workers(suite: Suite) -> Iterator[Row]:
    """Copy the same crashes with so many workers, and with as many as by default."""
    corpus, there = suite.corpus(suite.sizes.distance), buckets(suite, NEAR)

    def turn(*options: Argument) -> Command:
        def line(bucket: str) -> list[Argument]:
            return copy(corpus.root, there.uri(bucket), *options)

        return there.write(line, corpus)

    others = {f"--workers {n}": partial(turn, "--workers", str(n)) for n in suite.sizes.workers}
    contenders = [Contender(OURS, turn), *(Contender(name, one) for name, one in others.items())]
    results = suite.hold(f"{there.work(FROM_FS)}, workers", contenders)
    best = max(others, key=lambda name: results.median(name, RATE.of))
    yield row(there.work(FROM_FS), results, best, at_least(0.8))
