# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Buckets far away: what each program does by its own defaults, and the curves of the chart."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tests.benchmarks import gcs, s3
from tests.benchmarks.buckets import BETWEEN, FROM_FS, TO_FS, Buckets, Peer, between, from_fs, to_fs
from tests.benchmarks.chart import Curves, Panel
from tests.benchmarks.contest import OURS, Results
from tests.benchmarks.corpus import Corpus
from tests.benchmarks.measure import Argument
from tests.benchmarks.memory import memory_row
from tests.benchmarks.report import CPU, MEMORY, RATE, Goal, Row, at_least
from tests.benchmarks.report import compare as row
from tests.benchmarks.suite import Suite

NEAR, FAR = 30, 100
"""Milliseconds of a round trip."""

_MANY: list[Argument] = ["rclone", "copy", "--config", "", "--transfers", "64"]
RCLONE = "rclone, 64 at once"

Way = Callable[[Suite, Buckets, Sequence[Peer], Corpus], Results]
WAYS: dict[str, Way] = {FROM_FS: from_fs, TO_FS: to_fs, BETWEEN: between}


class Store(NamedTuple):
    """A kind of bucket, and who else copies to and from it."""

    buckets: Callable[[Suite, int | None], Buckets]
    peers: Sequence[Peer]


def rclone(scheme: str) -> Peer:
    """Return rclone with as many transfers as it needs for a server that is far away; by its
    default, four, it is as slow as these."""
    return Peer(
        RCLONE,
        "rclone",
        lambda source, bucket: [*_MANY, source, f"{scheme}{bucket}"],
        lambda bucket, to: [*_MANY, f"{scheme}{bucket}", to],
        lambda one, other: [*_MANY, f"{scheme}{one}", f"{scheme}{other}"],
    )


def chosen(peers: Sequence[Peer], *names: str) -> list[Peer]:
    return [peer for peer in peers if peer.name in names]


# The AWS command line has ten requests in flight: at 300 ms a run takes some minutes.
S3 = Store(s3.buckets, [*chosen(s3.PEERS, s3.S5CMD), rclone(":s3:")])
GCS = Store(gcs.buckets, [rclone(":gcs:"), *chosen(gcs.PEERS, gcs.GCLOUD)])


def hold(suite: Suite, store: Store, way: str, away: int) -> tuple[str, Results]:
    """Return a contest at a distance and what it is called; it is held once in a run."""
    buckets = store.buckets(suite, away)
    work = buckets.work(way)
    if work not in suite.results or not suite.results[work].samples:
        WAYS[way](suite, buckets, store.peers, suite.corpus(suite.sizes.distance))
    return work, suite.results[work]


def fastest(results: Results) -> str:
    """Return the peer that has copied most crashes a second."""
    others = [name for name in results.samples if name not in results.ours]
    return max(others, key=lambda name: results.median(name, RATE.of))


def rows(work: str, results: Results, peer: str, goal: Goal) -> Iterator[Row]:
    yield row(work, results, peer, goal)
    yield row(f"{work}: CPU", results, peer, figure=CPU)
    yield memory_row(f"{work}: memory", results.median(OURS, MEMORY.of))


def far_s3(suite: Suite) -> Iterator[Row]:
    """Against s5cmd, which has 256 requests in flight by its default."""
    for away in (NEAR, FAR):
        for way in (FROM_FS, TO_FS):
            yield from rows(*hold(suite, S3, way, away), s3.S5CMD, at_least(1.2))
    # s5cmd lets the server copy each object: no bytes go to the client.
    yield from rows(*hold(suite, S3, BETWEEN, FAR), s3.S5CMD, at_least(1))


def far_gcs(suite: Suite) -> Iterator[Row]:
    """Against the fastest client that there is."""
    for way, away in ((FROM_FS, NEAR), (TO_FS, NEAR), (FROM_FS, FAR), (TO_FS, FAR), (BETWEEN, FAR)):
        work, results = hold(suite, GCS, way, away)
        yield from rows(work, results, fastest(results), at_least(1.2))


# The chart


def for_chart(suite: Suite) -> Iterator[Row]:
    """Hold the contests of the chart that were not held before."""
    for store in (S3, GCS):
        for away in suite.sizes.distances:
            for way in (FROM_FS, TO_FS):
                work, results = hold(suite, store, way, away)
                if away not in (NEAR, FAR):  # of which there are other rows
                    yield row(work, results, fastest(results))


def panels(suite: Suite) -> list[Panel]:
    """Return what the contests of the chart have given: each that was held at every distance."""
    found = []
    for store in ("S3", "GCS"):
        for way in (FROM_FS, TO_FS):
            name = way.replace("{}", store)
            held = [suite.results.get(f"{name}, {away} ms") for away in suite.sizes.distances]
            results = [each for each in held if each and each.samples]
            if len(results) == len(held):
                found.append(Panel(name, suite.sizes.distances, curves(results)))
    return found


def curves(held: Sequence[Results]) -> Curves:
    """Return the crashes a second of each program, in each contest."""
    return {name: [each.median(name, RATE.of) for each in held] for name in held[0].samples}
