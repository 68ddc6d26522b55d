# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A rerun with nothing to do: all crashes are there already."""

import http.client
import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from tests.benchmarks import gcs
from tests.benchmarks.contest import OURS, Command, Contender, Results
from tests.benchmarks.corpus import DAYS
from tests.benchmarks.measure import Argument
from tests.benchmarks.memory import memory_row
from tests.benchmarks.report import MEMORY, SECONDS, Goal, Row, at_most
from tests.benchmarks.report import compare as row
from tests.benchmarks.s3 import client_environment
from tests.benchmarks.servers import ListingServer
from tests.benchmarks.suite import Suite, compare, copy
from tests.servers.gcs import uri_of

RCLONE, SIZE_ONLY = "rclone copy", "rclone --size-only"
PEERS: dict[str, list[Argument]] = {
    RCLONE: ["rclone", "copy", "--config", ""],
    SIZE_ONLY: ["rclone", "copy", "--config", "", "--size-only"],
}


def ours(
    suite: Suite, source: Argument, destination: Argument, env: Mapping[str, str]
) -> Contender:
    """Return us; we must have passed over every crash."""

    def turn() -> Command:
        output = suite.new_path()
        line = copy(source, destination, "--json")
        check = partial(all_skipped, output, suite.sizes.rerun)
        return Command(line, suite.sizes.rerun, check, env, output)

    return Contender(OURS, turn)


def all_skipped(output: Path, crashes: int) -> None:
    """Raise `WrongBytes` unless the summary says that there was nothing to do."""
    found = json.loads(output.read_text())
    wanted = {"copied": "0", "failed": "0", "skipped": str(crashes)}
    compare(lambda: {name: str(found[name]) for name in wanted}, lambda: wanted)


def peers(
    suite: Suite,
    source: Path,
    destination: Argument,
    env: Mapping[str, str],
    check: Callable[[], None],
) -> list[Contender]:
    """Return rclone: as it is, which compares times, and told to compare sizes alone."""
    return [
        Contender(
            name,
            partial(Command, [*line, source, destination], suite.sizes.rerun, check, env),
            "rclone",
        )
        for name, line in PEERS.items()
    ]


def rows(work: str, results: Results, goal: Goal | None) -> Iterator[Row]:
    yield row(work, results, RCLONE, goal, figure=SECONDS)
    yield row(work, results, SIZE_ONLY, figure=SECONDS)
    yield memory_row(f"{work}: memory", results.median(OURS, MEMORY.of))


# -- Between directories -------------------------------------------------------------------


def fs_to_fs(suite: Suite) -> Iterator[Row]:
    """The destination is made of the same files: links, that is.  No goal: no program has to ask
    a server here."""
    corpus, target = suite.small_corpus(suite.sizes.rerun), suite.new_path()
    subprocess.run(["cp", "-al", corpus.root, target], check=True)
    contenders = [
        ours(suite, corpus.root, target, {}),
        *peers(suite, corpus.root, target, {}, lambda: None),
    ]
    yield from rows("rerun fs -> fs", suite.hold("rerun fs -> fs", contenders), None)


# -- Between a directory and a bucket, and two buckets -------------------------------------


def listing_server(suite: Suite) -> ListingServer:
    """Start a server whose buckets hold all crashes."""
    if not (started := [one for one in suite.servers if isinstance(one, ListingServer)]):
        staged = suite.small_corpus(suite.sizes.rerun).stage(suite.new_path())
        started = [suite.start(ListingServer(staged))]
    return started[0]


def fs_to_s3(suite: Suite) -> Iterator[Row]:
    """S3 does not say along with a listing when a file was changed: rclone asks for each."""
    server = listing_server(suite)
    env = client_environment(server)
    yield from into_full_bucket(
        suite, "S3", server.uri("crashes"), ":s3:crashes", env, at_most(0.1)
    )


def fs_to_gcs(suite: Suite) -> Iterator[Row]:
    """Google says it along with a listing.  So there is no goal."""
    url = listing_server(suite).endpoint_url
    env = gcs.client_environment(suite, url)
    yield from into_full_bucket(suite, "GCS", uri_of(url, "crashes"), ":gcs:crashes", env, None)


def into_full_bucket(
    suite: Suite,
    name: str,
    uri: str,
    rclone_path: str,
    env: Mapping[str, str],
    goal: Goal | None,
) -> Iterator[Row]:
    """The bucket has all.  No program puts anything into it: the server would refuse that."""
    corpus, server = suite.small_corpus(suite.sizes.rerun), listing_server(suite)
    us = ours(suite, corpus.root, uri, env)
    contenders = [us, *peers(suite, server.tree, rclone_path, env, lambda: None)]
    work = f"rerun fs -> {name}"
    yield from rows(work, suite.hold(work, contenders), goal)
    yield from requests(suite, work, server, us)


def s3_to_s3(suite: Suite) -> Iterator[Row]:
    server = listing_server(suite)
    env = client_environment(server)
    yield from between(suite, "S3", server.uri("source"), server.uri("destination"), env)


def gcs_to_gcs(suite: Suite) -> Iterator[Row]:
    url = listing_server(suite).endpoint_url
    source, destination = uri_of(url, "source"), uri_of(url, "destination")
    env = gcs.client_environment(suite, url)
    yield from between(suite, "GCS", source, destination, env)


def between(
    suite: Suite, name: str, source: str, destination: str, env: Mapping[str, str]
) -> Iterator[Row]:
    """Two buckets: each is listed as one is."""
    us = ours(suite, source, destination, env)
    yield from requests(suite, f"rerun {name} -> {name}", listing_server(suite), us)


def requests(suite: Suite, work: str, server: ListingServer, us: Contender) -> Iterator[Row]:
    """Count the requests of one run: for each bucket listings, and one to see if it is there."""
    counts_of(server)
    suite.hold(f"{work}, requests", [us], 1)
    counts = counts_of(server)
    suite.say(f"  {dict(counts)}")
    # A page for each thousand, one that is not full for each day, and what else there may be.
    listings = suite.sizes.rerun // 1000 + DAYS + 10
    most = max((n for kind, n in counts.items() if kind.endswith(" LIST")), default=0)
    others = sum(n for kind, n in counts.items() if not kind.endswith(" LIST"))
    buckets = len({kind.split()[0] for kind in counts})
    yield Row(f"{work}: listings", "", str(most), value=most, goal=at_most(listings))
    yield Row(f"{work}: others", "", str(others), value=others, goal=at_most(buckets))


def counts_of(server: ListingServer) -> Counter[str]:
    """Return how many requests there were since the last time."""
    connection = http.client.HTTPConnection(server.host, server.port)
    try:
        connection.request("GET", "/-/requests")
        return Counter(json.loads(connection.getresponse().read()))
    finally:
        connection.close()
