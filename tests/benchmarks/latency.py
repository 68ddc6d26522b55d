# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""S3 over a slow network: the workers that we take without being asked, against others."""

from collections.abc import Iterator
from functools import partial

from tests.benchmarks.contest import OURS, Command, Contender
from tests.benchmarks.measure import Argument
from tests.benchmarks.report import RATE, Row, at_least
from tests.benchmarks.report import compare as row
from tests.benchmarks.s3 import buckets, client_environment
from tests.benchmarks.servers import LatencyProxy
from tests.benchmarks.suite import Suite, copy

DELAY = 0.03
"""Seconds that each request takes longer."""


def workers(suite: Suite) -> Iterator[Row]:
    """Copy the same crashes with so many workers, and with as many as we think right."""
    corpus, server = suite.corpus(suite.sizes.latency), suite.s3
    proxy = suite.start(LatencyProxy(server.port, DELAY))

    def turn(*options: Argument) -> Command:
        bucket = server.new_bucket()
        uri = server.uri(bucket, endpoint_url=proxy.endpoint_url)
        check = partial(buckets(suite).check, bucket, corpus)
        env = client_environment(server, proxy.endpoint_url)
        return Command(copy(corpus.root, uri, *options), corpus.count, check, env)

    others = {f"--workers {n}": partial(turn, "--workers", str(n)) for n in suite.sizes.workers}
    contenders = [Contender(OURS, turn), *(Contender(name, one) for name, one in others.items())]
    results = suite.hold(f"fs -> S3, {DELAY * 1000:.0f} ms away", contenders)
    best = max(others, key=lambda name: results.median(name, RATE.of))
    yield row("fs -> S3, 30 ms away", results, best, at_least(0.8))
