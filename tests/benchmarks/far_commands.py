# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``get``, ``list --bytes``, ``check`` and ``remove`` with a bucket far away.

A new connection is the first round trip of each.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.benchmarks.buckets import Buckets
from tests.benchmarks.contest import Command
from tests.benchmarks.corpus import DUMP, PROCESSED, Corpus, files_in
from tests.benchmarks.distance import FAR, GCS, S3, Store
from tests.benchmarks.measure import Argument
from tests.benchmarks.report import Row, at_most
from tests.benchmarks.suite import Suite, compare
from tests.benchmarks.trips import against_trips, rounds, taken


def far_s3(suite: Suite) -> Iterator[Row]:
    commands = Commands(suite, S3)
    yield from commands.reads()
    # One request deletes 1,000 objects: all raw crashes, and then all the rest.
    yield from commands.removals(2)


def far_gcs(suite: Suite) -> Iterator[Row]:
    commands = Commands(suite, GCS)
    yield from commands.reads()
    # Each object takes a request of its own.
    yield from commands.removals(rounds(commands.corpus.count) + rounds(commands.others))


@dataclass(frozen=True)
class Commands:
    """The commands with the buckets of one store.

    :param store: that is far away
    """

    suite: Suite
    store: Store

    def reads(self) -> Iterator[Row]:
        """Hold those that change nothing, with one bucket."""
        corpus = self.corpus
        bucket = self.store.buckets(self.suite, None).filled(corpus)
        # The raw crash, its list of dumps and the processed crash at once; then the dumps.
        look_at_one, look_at_all = 2, rounds(3 * corpus.count) + rounds(self._dumps)
        yield from self._hold("get", 1 + look_at_one, partial(self._get, bucket))
        trips = taken(self.suite, f"get, {self._name}", FAR)
        yield Row(f"get, {self._name}: round trips", "", str(trips), value=trips, goal=at_most(3))
        # Which days and which dumps there are; then the pages of each, one after the other.
        pages = -(-corpus.count // 1000)
        yield from self._hold("list --bytes", 1 + 1 + pages, partial(self._list, bucket))
        one, every = [self._usual], corpus.crash_ids
        check = partial(self._check, bucket)
        yield from self._hold("check one", 1 + look_at_one, partial(check, one))
        yield from self._hold("check", 1 + look_at_all, partial(check, every))

    def removals(self, trips_of_deletes: int) -> Iterator[Row]:
        """Hold those that remove crashes, each time from a bucket that has all.

        :param trips_of_deletes: the fewest in which all objects can be deleted, raw crashes first
        """
        # What is to be deleted is known as soon as the list of dumps is.
        find_one, find_all = 1, rounds(3 * self.corpus.count)
        one, every = [self._usual], self.corpus.crash_ids
        yield from self._hold("remove one", 1 + find_one + 2, partial(self._remove, one))
        least = 1 + find_all + trips_of_deletes
        yield from self._hold("remove", least, partial(self._remove, every))

    def _hold(self, command: str, trips: int, turn: Callable[[int], Command]) -> Iterator[Row]:
        yield from against_trips(self.suite, f"{command}, {self._name}", FAR, trips, turn)

    @property
    def corpus(self) -> Corpus:
        """The crashes of all commands."""
        return self.suite.corpus(self.suite.sizes.distance)

    @property
    def others(self) -> int:
        """How many objects there are beside the raw crashes."""
        return len(self.corpus.objects) - self.corpus.count

    @property
    def _dumps(self) -> int:
        return sum(part.kind == DUMP for part in self.corpus.parts)

    @property
    def _name(self) -> str:
        return self.store.buckets(self.suite, None).name

    @property
    def _usual(self) -> str:
        """A crash that has dumps and a processed crash."""
        parts = self.corpus.parts
        with_dumps = {part.crash_id for part in parts if part.kind == DUMP}
        ids = (part.crash_id for part in parts if part.kind == PROCESSED)
        return next(crash_id for crash_id in ids if crash_id in with_dumps)

    def _get(self, bucket: str, away: int) -> Command:
        there = self.store.buckets(self.suite, away)
        return Command(_line("get", there, bucket, self._usual), 1, lambda: None, there.env)

    def _list(self, bucket: str, away: int) -> Command:
        there, output = self.store.buckets(self.suite, away), self.suite.new_path()
        line = _line("list", there, bucket, "--bytes")
        check = partial(_are_listed, output, self.corpus)
        return Command(line, self.corpus.count, check, there.env, output)

    def _check(self, bucket: str, crash_ids: list[str], away: int) -> Command:
        """Its exit code says that all are there."""
        there = self.store.buckets(self.suite, away)
        line: list[Argument] = ["crashmover", "check", "--no-progress", "-s", self.corpus.root]
        line += ["-d", there.uri(bucket), "--ids-from", _written(self.suite, crash_ids)]
        return Command(line, len(crash_ids), lambda: None, there.env)

    def _remove(self, crash_ids: list[str], away: int) -> Command:
        there = self.store.buckets(self.suite, away)
        bucket = there.filled(self.corpus)
        line = _line(
            "remove", there, bucket, "--yes", "--ids-from", _written(self.suite, crash_ids)
        )
        gone = set(crash_ids)
        left = {
            key: digest
            for key, digest in self.corpus.objects.items()
            if key.rpartition("/")[2] not in gone
        }
        check = partial(_are_left, there.server.path_of(bucket), left)
        return Command(line, len(crash_ids), check, there.env)


def _line(command: str, there: Buckets, bucket: str, *options: Argument) -> list[Argument]:
    return ["crashmover", command, "-s", there.uri(bucket), *options]


def _written(suite: Suite, crash_ids: list[str]) -> Path:
    file = suite.new_path()
    file.write_text("\n".join(crash_ids))
    return file


def _are_listed(output: Path, corpus: Corpus) -> None:
    """Raise `WrongBytes` unless all crashes were listed, with the bytes of their parts."""
    sizes = dict.fromkeys(corpus.crash_ids, 0)
    for part in corpus.parts:
        sizes[part.crash_id] += part.size
    found = dict(line.split()[:2] for line in output.read_text().splitlines())
    compare(lambda: found, lambda: {crash_id: str(size) for crash_id, size in sizes.items()})


def _are_left(directory: Path, left: dict[str, str]) -> None:
    """Raise `WrongBytes` unless these objects are left; they are not needed any more."""
    compare(partial(files_in, directory), lambda: left)
    shutil.rmtree(directory)  # it takes memory
