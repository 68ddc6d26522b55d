# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What it takes to start: ``--help``, and one crash from S3."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.benchmarks.contest import OURS, Command, Contender
from tests.benchmarks.corpus import RAW, Manifest, sha256
from tests.benchmarks.measure import Argument
from tests.benchmarks.report import SECONDS, Row, at_most
from tests.benchmarks.report import compare as row
from tests.benchmarks.s3 import buckets, client_environment
from tests.benchmarks.suite import Suite, compare

CLICK, AWS, S5CMD = "python: import click", "aws s3 cp", "s5cmd cat"


def show_help(suite: Suite) -> Iterator[Row]:
    """Our help, and no more than what it needs."""

    def turn(line: Sequence[Argument]) -> Command:
        return Command(line, 1, lambda: None)

    contenders = [
        Contender(OURS, partial(turn, ["crashmover", "--help"])),
        Contender(CLICK, partial(turn, [sys.executable, "-c", "import click"]), sys.executable),
    ]
    results = suite.hold("--help", contenders, suite.sizes.starts)
    yield row("--help", results, CLICK, at_most(2), figure=SECONDS)


def get(suite: Suite) -> Iterator[Row]:
    """The raw crash of one crash, written to standard output."""
    corpus = suite.corpus(suite.sizes.s3)
    bucket = buckets(suite).filled(corpus)
    part = next(part for part in corpus.parts if part.kind == RAW)
    url = f"s3://{bucket}/{part.key}"
    lines: dict[str, tuple[list[Argument], str]] = {
        OURS: (
            ["crashmover", "get", "-s", suite.s3.uri(bucket), part.crash_id, "--raw-crash"],
            "crashmover",
        ),
        AWS: (["aws", "s3", "cp", url, "-"], "aws"),
        S5CMD: (["s5cmd", "cat", url], "s5cmd"),
    }

    def turn(line: Sequence[Argument]) -> Command:
        output = suite.new_path()
        check = output_is(output, part.sha256)
        return Command(line, 1, check, client_environment(suite.s3), output)

    contenders = [
        Contender(name, partial(turn, line), program) for name, (line, program) in lines.items()
    ]
    results = suite.hold("get one raw crash from S3", contenders, suite.sizes.starts)
    yield row("get from S3", results, AWS, at_most(0.5), figure=SECONDS)
    yield row("get from S3", results, S5CMD, figure=SECONDS)


def output_is(file: Path, digest: str) -> Callable[[], None]:
    """Return the check of what a program has printed."""

    def found() -> Manifest:
        return {"standard output": sha256(file.read_bytes())}

    return partial(compare, found, lambda: {"standard output": digest})
