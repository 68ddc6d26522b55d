# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Between a file system and buckets: against programs that move the same objects.

crashmover reads and writes the layout of a file system, and what it writes there is durable; the
others read and write plain files.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.contest import OURS, Command, Contender, Results
from tests.benchmarks.corpus import Corpus, Manifest, files_in
from tests.benchmarks.measure import Argument, measure
from tests.benchmarks.report import Row
from tests.benchmarks.servers import TmpfsFakeGCS, TmpfsRclone
from tests.benchmarks.suite import Suite, compare, copy, files_are

SCRIPTS = Path(__file__).parent / "peers"


class Peer(NamedTuple):
    """What puts the objects of a directory into a bucket, and gets them out again."""

    name: str
    program: str
    put: Callable[[Path, str], list[Argument]]
    get: Callable[[str, Path], list[Argument]]


@dataclass(frozen=True)
class Buckets:
    """The buckets of one server.

    :param name: of their kind, in the table
    :param env: what all clients need to know, each by the names that it goes by
    """

    name: str
    server: TmpfsRclone | TmpfsFakeGCS
    env: Mapping[str, str]

    def filled(self, corpus: Corpus) -> str:
        """Return a bucket that crashmover has put these crashes into."""
        bucket = self.server.new_bucket()
        measure(copy(corpus.root, self.server.uri(bucket)), self.env)
        compare(partial(files_in, self.server.path_of(bucket)), lambda: corpus.objects)
        return bucket

    def check(self, bucket: str, corpus: Corpus) -> None:
        """Raise `WrongBytes` unless a bucket holds these crashes; it is not needed any more."""
        directory = self.server.path_of(bucket)
        compare(partial(files_in, directory), lambda: corpus.objects)
        shutil.rmtree(directory)  # it takes memory

    def write(self, line: Callable[[str], list[Argument]], corpus: Corpus) -> Command:
        """Return the turn of a program that puts the crashes into a new bucket.

        :param line: the command, by the bucket
        """
        bucket = self.server.new_bucket()
        check = partial(self.check, bucket, corpus)
        return Command(line(bucket), corpus.count, check, self.env, servers=[self.server])

    def read(
        self,
        suite: Suite,
        line: Callable[[Path], list[Argument]],
        corpus: Corpus,
        wanted: Callable[[], Manifest],
    ) -> Command:
        """Return the turn of a program that gets the crashes into a directory.

        :param line: the command, by the directory
        :param wanted: the files that must be there then
        """
        target = suite.new_path()
        check = files_are(target, wanted)
        return Command(line(target), corpus.count, check, self.env, servers=[self.server])

    def peer_reader(self, suite: Suite, peer: Peer, bucket: str, corpus: Corpus) -> Contender:
        """Return a peer that gets these crashes from a bucket."""
        line = partial(peer.get, bucket)
        turn = partial(self.read, suite, line, corpus, lambda: corpus.objects)
        return Contender(peer.name, turn, peer.program)


Rows = Callable[[str, Results], Iterator[Row]]
"""Returns what a direction is held against, by its name and what the contest gave."""


def from_fs(
    suite: Suite, buckets: Buckets, peers: Sequence[Peer], corpus: Corpus, rows: Rows
) -> Iterator[Row]:
    """All of them fill buckets of their own."""
    staged = corpus.stage(suite.new_path())

    def ours(bucket: str) -> list[Argument]:
        return copy(corpus.root, buckets.server.uri(bucket))

    contenders = [Contender(OURS, partial(buckets.write, ours, corpus))]
    for peer in peers:
        turn = partial(buckets.write, partial(peer.put, staged), corpus)
        contenders.append(Contender(peer.name, turn, peer.program))
    work = f"fs -> {buckets.name}"
    yield from rows(work, suite.hold(work, contenders))


def to_fs(
    suite: Suite, buckets: Buckets, peers: Sequence[Peer], corpus: Corpus, rows: Rows
) -> Iterator[Row]:
    """All of them read the same bucket."""
    bucket = buckets.filled(corpus)
    ours = partial(copy, buckets.server.uri(bucket))
    contenders = [
        Contender(OURS, partial(buckets.read, suite, ours, corpus, lambda: corpus.files)),
        *(buckets.peer_reader(suite, peer, bucket, corpus) for peer in peers),
    ]
    work = f"{buckets.name} -> fs"
    yield from rows(work, suite.hold(work, contenders))
