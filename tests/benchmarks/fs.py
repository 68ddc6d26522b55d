# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""From file system to file system: against programs that promise less, or as much."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks.contest import OURS, Command, Contender
from tests.benchmarks.measure import Argument
from tests.benchmarks.report import CPU, Row, at_least, compare
from tests.benchmarks.suite import Suite, copy, files_are

Line = Callable[[Path, Path], list[Argument]]
"""The command that copies one directory into another."""

CP, RSYNC, RCLONE = "cp -a; sync", "rsync -a", "rclone copy"
BARE, SAFE = "bare system calls", "the same, safely"
BARE_FILES: list[Argument] = [
    sys.executable,
    Path(__file__).with_name("peers") / "bare_files.py",
]
RSYNC_AND_SYNC, RCLONE_AND_SYNC = "rsync -a; sync", "rclone copy; sync"


def cp(source: Path, target: Path) -> list[Argument]:
    return ["cp", "-a", source, target]


def rsync(source: Path, target: Path) -> list[Argument]:
    return ["rsync", "-a", f"{source}/", target]


def rclone(source: Path, target: Path) -> list[Argument]:
    return ["rclone", "copy", "--config", "", source, target]


def bare(source: Path, target: Path) -> list[Argument]:
    return [*BARE_FILES, "files", source, target]


def safe(source: Path, target: Path) -> list[Argument]:
    return [*BARE_FILES, "safely", source, target]


def and_sync(line: Line) -> Line:
    """Return the line that forces to the disk, too, what the other has copied."""

    def both(source: Path, target: Path) -> list[Argument]:
        return ["sh", "-c", '"$@" && sync -f "$0"', target, *line(source, target)]

    return both


LINES: dict[str, tuple[Line, str]] = {
    OURS: (copy, "crashmover"),
    CP: (and_sync(cp), "cp"),
    BARE: (bare, sys.executable),
    SAFE: (safe, sys.executable),
    RSYNC: (rsync, "rsync"),
    RSYNC_AND_SYNC: (and_sync(rsync), "rsync"),
    RCLONE: (rclone, "rclone"),
    RCLONE_AND_SYNC: (and_sync(rclone), "rclone"),
}


def fs_to_fs(suite: Suite) -> Iterator[Row]:
    """All of them copy the same crashes into directories of their own."""
    corpus = suite.corpus(suite.sizes.fs)

    def contender(name: str, line: Line, program: str) -> Contender:
        def turn() -> Command:
            target = suite.new_path()
            command = line(corpus.root, target)
            return Command(command, corpus.count, files_are(target, lambda: corpus.files))

        return Contender(name, turn, program)

    results = suite.hold("fs -> fs", [contender(name, *line) for name, line in LINES.items()])
    for peer in (CP, RSYNC, RCLONE):
        yield compare("fs -> fs", results, peer, at_least(1))
    for peer in (RSYNC_AND_SYNC, RCLONE_AND_SYNC, BARE):  # which promise half as much
        yield compare("fs -> fs", results, peer)
    yield compare("fs -> fs", results, SAFE, at_least(0.95))  # which promises as much
    for peer in (BARE, SAFE):
        yield compare("fs -> fs: CPU", results, peer, figure=CPU)
