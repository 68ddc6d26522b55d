# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Between a file system and buckets: against programs that move the same objects.

crashmover reads and writes the layout of a file system, and what it writes there is durable; the
others read and write plain files.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.contest import OURS, Command, Contender, Results
from tests.benchmarks.corpus import Corpus, Manifest, files_in
from tests.benchmarks.measure import Argument, measure
from tests.benchmarks.servers import TmpfsFakeGCS, TmpfsRclone
from tests.benchmarks.suite import Suite, compare, copy, files_are

SCRIPTS = Path(__file__).parent / "peers"


class Peer(NamedTuple):
    """What puts the objects of a directory into a bucket, and gets them out again."""

    name: str
    program: str
    put: Callable[[Path, str], list[Argument]]
    get: Callable[[str, Path], list[Argument]]
    move: Callable[[str, str], list[Argument]] | None = None
    """Copies from one bucket to another."""


@dataclass(frozen=True)
class Buckets:
    """The buckets of one server.

    :param name: of their kind, in the table
    :param env: what all clients need to know, each by the names that it goes by
    :param endpoint_url: by which all clients reach the server
    :param away: milliseconds of a round trip to it; None: the benchmark is not about distance
    """

    name: str
    server: TmpfsRclone | TmpfsFakeGCS
    env: Mapping[str, str]
    endpoint_url: str
    away: int | None = None

    def work(self, way: str) -> str:
        """Return what a contest is called, by the way that crashes go: ``fs -> {}``."""
        far = "" if self.away is None else f", {self.away} ms"
        return way.replace("{}", self.name) + far

    def uri(self, bucket: str) -> str:
        """Return the URI of a bucket, at its distance."""
        return self.server.uri(bucket, endpoint_url=self.endpoint_url)

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


FROM_FS, TO_FS, BETWEEN = "fs -> {}", "{} -> fs", "{} -> {}"


def from_fs(suite: Suite, buckets: Buckets, peers: Sequence[Peer], corpus: Corpus) -> Results:
    """All of them fill buckets of their own."""
    staged = corpus.stage(suite.new_path())

    def ours(bucket: str) -> list[Argument]:
        return copy(corpus.root, buckets.uri(bucket))

    contenders = [Contender(OURS, partial(buckets.write, ours, corpus))]
    for peer in peers:
        turn = partial(buckets.write, partial(peer.put, staged), corpus)
        contenders.append(Contender(peer.name, turn, peer.program))
    return suite.hold(buckets.work(FROM_FS), contenders)


def to_fs(suite: Suite, buckets: Buckets, peers: Sequence[Peer], corpus: Corpus) -> Results:
    """All of them read the same bucket."""
    bucket = buckets.filled(corpus)
    ours = partial(copy, buckets.uri(bucket))
    contenders = [
        Contender(OURS, partial(buckets.read, suite, ours, corpus, lambda: corpus.files)),
        *(buckets.peer_reader(suite, peer, bucket, corpus) for peer in peers),
    ]
    return suite.hold(buckets.work(TO_FS), contenders)


def between(suite: Suite, buckets: Buckets, peers: Sequence[Peer], corpus: Corpus) -> Results:
    """All of them copy the same bucket, those peers that can."""
    bucket = buckets.filled(corpus)

    def ours(target: str) -> list[Argument]:
        return copy(buckets.uri(bucket), buckets.uri(target))

    contenders = [Contender(OURS, partial(buckets.write, ours, corpus))]
    for peer in peers:
        if peer.move:
            turn = partial(buckets.write, partial(peer.move, bucket), corpus)
            contenders.append(Contender(peer.name, turn, peer.program))
    return suite.hold(buckets.work(BETWEEN), contenders)
