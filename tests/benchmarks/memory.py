# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Memory: with a dump that is larger than it, and in all the benchmarks together."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from tests.benchmarks import gcs, s3
from tests.benchmarks.buckets import FROM_FS, TO_FS, Buckets
from tests.benchmarks.contest import OURS, Command, Contender
from tests.benchmarks.corpus import Corpus, large
from tests.benchmarks.postgresql import client_of, filled_schema, rows_are, uri_of
from tests.benchmarks.report import MEMORY, Goal, Row, at_most
from tests.benchmarks.suite import MB, Suite, copy, files_are

MOST: Goal = at_most(100 * MB, "100 MB")


def memory_row(work: str, memory: float) -> Row:
    """Return the row of what we took at most."""
    return Row(work, "", MEMORY.text(memory), value=memory, goal=MOST)


def most_of_all(suite: Suite) -> list[Row]:
    """Return the row of the most memory that we took anywhere; say where that was."""
    taken = [
        (sample.memory, name)
        for name, found in suite.results.items()
        for us in found.ours
        for sample in found.samples[us]
    ]
    if not taken:
        return []
    most, where = max(taken)
    suite.say(f"most memory: {where}")
    return [memory_row("memory, all of the above", most)]


def large_dump(suite: Suite) -> Iterator[Row]:
    """One crash with a large dump, each way."""
    size = suite.sizes.large
    corpus = suite.made(f"a dump of {size / MB:.0f} MB", 1, large(size))
    works: dict[str, Callable[[], Command]] = {}
    for there in (s3.buckets(suite), gcs.buckets(suite)):
        source = there.uri(there.filled(corpus))
        works[there.work(FROM_FS)] = partial(to_bucket, there, corpus)
        works[there.work(TO_FS)] = partial(to_fs, suite, corpus, source, there.env)
    source = uri_of(suite.postgresql, filled_schema(suite, corpus))
    works["fs -> PostgreSQL"] = partial(to_postgresql, suite, corpus)
    works["PostgreSQL -> fs"] = partial(to_fs, suite, corpus, source, client_of(suite.postgresql))
    for work, turn in works.items():
        results = suite.hold(f"{work}, a dump of {size / MB:.0f} MB", [Contender(OURS, turn)], 1)
        yield memory_row(f"{work} of {size / MB:.0f} MB", results.median(OURS, MEMORY.of))


def to_bucket(there: Buckets, corpus: Corpus) -> Command:
    return there.write(lambda bucket: copy(corpus.root, there.uri(bucket)), corpus)


def to_postgresql(suite: Suite, corpus: Corpus) -> Command:
    server, schema = suite.postgresql, suite.postgresql.new_name()
    check = rows_are(server, schema, corpus)
    return Command(copy(corpus.root, uri_of(server, schema)), 1, check, client_of(server))


def to_fs(suite: Suite, corpus: Corpus, source: str, env: Mapping[str, str]) -> Command:
    target = suite.new_path()
    return Command(copy(source, target), 1, files_are(target, lambda: corpus.files), env)
