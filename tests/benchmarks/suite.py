# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What all benchmarks share: how much work there is, where it is done, and the servers."""

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from tests.benchmarks.contest import Contender, Results, WrongBytes, hold
from tests.benchmarks.corpus import (
    Corpus,
    Make,
    Manifest,
    differences,
    files_in,
    make_corpus,
    realistic,
    small,
)
from tests.benchmarks.measure import Argument
from tests.benchmarks.report import Row
from tests.benchmarks.servers import DurablePostgreSQL, LatencyProxy, TmpfsFakeGCS, TmpfsRclone
from tests.servers.process import ServerProcess

MB = 1_000_000

Server = TypeVar("Server", bound=ServerProcess)


@dataclass(frozen=True)
class Sizes:
    """How much work there is; the full measure: of fewer, a tenth of the time would be our start.

    :param runs: of each contender
    :param starts: the same, of what takes moments
    :param large: bytes of a large dump
    :param growth: ever more crashes
    :param distance: crashes to copy to and from a server far away
    :param distances: how far away it is in the chart: milliseconds of a round trip
    :param far_ids: crash ids in a queue far away
    """

    runs: int = 3
    starts: int = 15
    fs: int = 4000
    s3: int = 1000
    gcs: int = 1000
    postgresql: int = 5000
    ids: int = 100_000
    client_ids: int = 20_000
    rerun: int = 100_000
    large: int = 300 * MB
    growth: tuple[int, ...] = (1000, 10_000, 100_000)
    distance: int = 600
    distances: tuple[int, ...] = (0, 10, 30, 100, 300)
    far_ids: int = 20_000
    workers: tuple[int, ...] = (8, 16, 32, 64, 128, 256)


QUICK = Sizes(
    runs=1,
    starts=5,
    fs=300,
    s3=100,
    gcs=100,
    postgresql=100,
    ids=20_000,
    client_ids=2000,
    rerun=5000,
    large=50 * MB,
    growth=(200, 600, 2000),
    distance=24,
    distances=(0, 30, 100),
    far_ids=2000,
    workers=(4, 16, 64),
)


@dataclass
class Suite:
    """One run of the benchmarks.

    :param directory: on a disk, empty; nothing in it is removed before the end
    """

    sizes: Sizes
    directory: Path
    resources: ExitStack
    results: dict[str, Results] = field(default_factory=dict)
    corpora: dict[str, Corpus] = field(default_factory=dict)
    servers: list[ServerProcess] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Tell what is being done."""
        print(text, file=sys.stderr, flush=True)

    def new_path(self) -> Path:
        """Return a path where nothing is."""
        self._paths += 1
        return self.directory / f"{self._paths:04}"

    _paths: int = 0

    def hold(self, name: str, contenders: Sequence[Contender], runs: int = 0) -> Results:
        """Hold a contest, and keep what it gave."""
        self.say(f"{name}:")
        self.results[name] = Results()
        self.results[name] = hold(contenders, runs or self.sizes.runs, self.say)
        return self.results[name]

    # Crashes

    def corpus(self, crashes: int) -> Corpus:
        """Return crashes as large as they are, made when first asked for."""
        return self.made(f"{crashes:,} crashes", crashes, realistic)

    def small_corpus(self, crashes: int) -> Corpus:
        """Return crashes as small as can be."""
        return self.made(f"{crashes:,} small crashes", crashes, small)

    def made(self, name: str, crashes: int, make: Make) -> Corpus:
        """Return the crashes of this name."""
        if name not in self.corpora:
            self.say(f"making {name}")
            self.corpora[name] = make_corpus(self.new_path(), crashes, make)
        return self.corpora[name]

    # Servers

    def start(self, server: Server) -> Server:
        """Start a server that is stopped at the end."""
        self.resources.enter_context(server)
        self.servers.append(server)
        return server

    @cached_property
    def s3(self) -> TmpfsRclone:
        """The S3 server."""
        return self.start(TmpfsRclone())

    @cached_property
    def gcs(self) -> TmpfsFakeGCS:
        """The server of Google Cloud Storage."""
        return self.start(TmpfsFakeGCS())

    def port(self, server: ServerProcess, away: int | None) -> int:
        """Return the port by which a server is as far away as that.

        :param away: milliseconds of a round trip; 0, None: its own port
        """
        if not away:
            return server.port
        if (server.port, away) not in self._proxies:
            proxy = self.start(LatencyProxy(server.port, away / 1000))
            self._proxies[server.port, away] = proxy
        return self._proxies[server.port, away].port

    _proxies: dict[tuple[int, int], LatencyProxy] = field(default_factory=dict)

    @cached_property
    def postgresql(self) -> DurablePostgreSQL:
        """The PostgreSQL server."""
        return self.start(DurablePostgreSQL())


Benchmark = Callable[[Suite], Iterable[Row]]


@contextmanager
def new_suite(sizes: Sizes, parent: Path) -> Iterator[Suite]:
    """Return a suite; all that it made is gone afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as directory,
        ExitStack() as resources,
    ):
        yield Suite(sizes, Path(directory), resources)


# What we run, and how what it did is looked at


def copy(source: Argument, destination: Argument, *options: Argument) -> list[Argument]:
    """Return the command that copies all crashes."""
    return ["crashmover", "copy", "--no-progress", "-s", source, "-d", destination, *options]


def compare(found: Callable[[], Manifest], wanted: Callable[[], Manifest]) -> None:
    """Raise `WrongBytes` unless what was found is what is wanted."""
    if faults := differences(found(), wanted()):
        raise WrongBytes("; ".join(faults))


def files_are(root: Path, wanted: Callable[[], Manifest]) -> Callable[[], None]:
    """Return the check that a directory holds these files and no others."""
    return partial(compare, partial(files_in, root), wanted)
