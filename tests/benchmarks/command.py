# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The command line of the benchmarks."""

import argparse
import dataclasses
import json
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import (
    chart,
    distance,
    far_batches,
    far_commands,
    fs,
    gcs,
    growth,
    latency,
    memory,
    postgresql,
    queues,
    rerun,
    s3,
    startup,
)
from tests.benchmarks.machine import compile_ours, describe, file_system
from tests.benchmarks.report import Row, rst_table, table
from tests.benchmarks.suite import QUICK, Benchmark, Sizes, Suite, new_suite

BENCHMARKS: dict[str, Benchmark] = {
    "fs-fs": fs.fs_to_fs,
    "fs-s3": s3.fs_to_s3,
    "s3-fs": s3.s3_to_fs,
    "fs-gcs": gcs.fs_to_gcs,
    "gcs-fs": gcs.gcs_to_fs,
    "fs-postgresql": postgresql.fs_to_postgresql,
    "postgresql-fs": postgresql.postgresql_to_fs,
    "s3-postgresql": postgresql.s3_to_postgresql,
    "queues": queues.both,
    "rerun-s3": rerun.fs_to_s3,
    "rerun-fs": rerun.fs_to_fs,
    "rerun-s3-s3": rerun.s3_to_s3,
    "rerun-gcs": rerun.fs_to_gcs,
    "rerun-gcs-gcs": rerun.gcs_to_gcs,
    "growth": growth.fs_to_fs,
    "latency": latency.workers,
    "far-s3": distance.far_s3,
    "far-gcs": distance.far_gcs,
    "far-s3-commands": far_commands.far_s3,
    "far-gcs-commands": far_commands.far_gcs,
    "far-postgresql": far_batches.postgresql,
    "far-queues": far_batches.queues,
    "chart": distance.for_chart,
    "large": memory.large_dump,
    "help": startup.show_help,
    "get": startup.get,
}

BUILD = Path(__file__).parents[2] / "build"

_ROOM = 50 << 30  # bytes that a full run takes, as no file is removed before the end


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return 0 unless one could not be run, or did it wrong."""
    options = parser().parse_args(args)
    sizes = QUICK if options.quick else Sizes()
    if options.runs:
        sizes = dataclasses.replace(sizes, runs=options.runs)
    if not options.quick and not options.only:
        exit_without_room(options.directory)
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # leave nothing behind
    with new_suite(sizes, options.directory) as suite:
        compile_ours()
        machine = describe(suite.directory)  # which also makes every program warm
        suite.say(f"{machine['cores']} x {machine['cpu']}, {machine['file system']}")
        rows, failures = run(suite, options.only or list(BENCHMARKS))
        record = {"machine": machine, **as_json(suite, rows, failures)}
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n")
        if options.chart:
            draw(suite, options.chart)
        print((rst_table if options.rst else table)(rows), flush=True)
        for name, reason in failures.items():
            print(f"FAILED: {name}: {reason}", flush=True)
        took = time.monotonic() - begun
        suite.say(f"done in {took:.0f} s; to remove what was made takes some minutes more")
    return 1 if failures else 0


def draw(suite: Suite, file: Path) -> None:
    """Draw the chart, if what it shows was measured."""
    if panels := distance.panels(suite):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(chart.draw(panels))
        suite.say(f"drawn: {file}")


def exit_without_room(directory: Path) -> None:
    """Exit unless a full run has room in a directory, which need not be there yet."""
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < _ROOM:
        sys.exit(f"{directory}: {free >> 30} GiB are free, and {_ROOM >> 30} are needed")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure crashmover against others at the same work, in turns. What is being"
        " done goes to standard error, the table of results to standard output.",
    )
    parser.add_argument("--quick", action="store_true", help="less of everything: some minutes")
    parser.add_argument(
        "--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS)
    )
    parser.add_argument("--runs", type=int, metavar="N", help="of each program")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the chart there, as SVG")
    parser.add_argument("--rst", action="store_true", help="print the table for the README")
    parser.add_argument(
        "--directory", type=Path, default=BUILD, help="where to work: on a disk (build)"
    )
    return parser


def run(suite: Suite, names: Sequence[str]) -> tuple[list[Row], dict[str, str]]:
    """Run these benchmarks; return their rows, and why others have none."""
    rows: list[Row] = []
    failures = {}
    for name in names:
        try:
            rows += BENCHMARKS[name](suite)
        except Exception as error:
            suite.say(traceback.format_exc())
            failures[name] = f"{type(error).__name__}: {error}".partition("\n")[0]
    return [*rows, *memory.most_of_all(suite)], failures


def as_json(suite: Suite, rows: Sequence[Row], failures: dict[str, str]) -> dict[str, object]:
    """Return all that was found out."""
    return {
        "sizes": dataclasses.asdict(suite.sizes),
        "corpora": {
            name: {
                "crashes": corpus.count,
                "parts": len(corpus.parts),
                "bytes": corpus.size,
            }
            for name, corpus in suite.corpora.items()
        },
        "data of servers": {
            type(server).__name__: file_system(server.directory) for server in suite.servers
        },
        "rows": [dataclasses.asdict(row) | {"holds": row.holds} for row in rows],
        "contests": {name: dataclasses.asdict(found) for name, found in suite.results.items()},
        "medians": {
            name: {one: dataclasses.asdict(found.medians(one)) for one in found.samples}
            for name, found in suite.results.items()
        },
        "failures": failures,
    }
