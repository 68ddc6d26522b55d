# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Commands that are stopped: what they had in hand is whole or not there, and a rerun
completes.

A copy that reports into a pipe comes to a halt when the pipe is full, so that a signal always
finds it in the middle of its work.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli_helpers import (
    MAIN_DUMP,
    TIMEOUT,
    Manifest,
    Sample,
    by_crash_id,
    manifest,
    put,
    run,
    sample,
    snapshot,
    start,
    stored,
)

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
CRASHES = [sample(n, leaf=("0bba", "c0de")[n % 2]) for n in range(210)]
IGNORING_HANGUPS = ("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with more crashes than a copy has in hand when it comes to a halt."""
    return put(tmp_path_factory.mktemp("stores") / "source", *CRASHES)


@contextmanager
def copying(
    source: Path, destination: Path, *args: str, prefix: tuple[str, ...] = ()
) -> Iterator["subprocess.Popen[bytes]"]:
    """A copy in the middle of its work: it has reported its first crash."""
    where = ("-s", source, "-d", destination)
    options = ("--workers", "1", "--report", "/dev/stdout")
    with start("copy", *where, *options, *args, prefix=prefix) as process:
        try:
            assert process.stdout
            assert b'"copied"' in process.stdout.readline()
            yield process
        finally:
            process.kill()


def end_of(process: "subprocess.Popen[bytes]") -> tuple[int, list[bytes], bytes]:
    """Let the process end; return its exit code, the rest of its output, and its errors."""
    assert process.stdout and process.stderr
    lines = process.stdout.read().splitlines()
    return process.wait(TIMEOUT), lines, process.stderr.read()


def is_whole(crash: Sample, there: Manifest) -> bool:
    return manifest(crash).items() <= there.items()


def is_visible(crash: Sample, there: Manifest) -> bool:
    return f"{crash.directory}/{crash.crash_id}.json" in there


def assert_a_rerun_completes(source: Path, destination: Path) -> None:
    assert run("copy", "-s", source, "-d", destination).exit_code == 0
    assert stored(destination) == manifest(*CRASHES)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_copy_that_is_stopped_leaves_whole_crashes_and_nothing_else(
    source: Path, tmp_path: Path, number: signal.Signals
) -> None:
    before = snapshot(source)
    with copying(source, tmp_path, "--json") as process:
        process.send_signal(number)
        exit_code, lines, stderr = end_of(process)
    assert exit_code == 128 + number
    there = stored(tmp_path)
    arrived = [crash for crash in CRASHES if is_visible(crash, there)]
    assert there == manifest(*arrived)  # all of these whole, no temporary files
    assert len(arrived) < len(CRASHES)
    *report, summary = lines
    reported = by_crash_id(report)
    assert {outcome["status"] for outcome in reported.values()} == {"copied"}
    assert len(reported) == len(arrived) - 1  # the first line was read before
    assert reported.keys() < {crash.crash_id for crash in arrived}
    assert json.loads(summary)["copied"] == len(arrived)
    assert stderr.startswith(f"copied {len(arrived)}, skipped 0, failed 0;".encode())
    assert stderr.count(b"\n") == 1
    assert snapshot(source) == before
    assert_a_rerun_completes(source, tmp_path)


def test_a_second_signal_ends_a_copy_at_once_and_no_crash_is_torn(
    source: Path, tmp_path: Path
) -> None:
    with copying(source, tmp_path) as process:
        while process.poll() is None:  # nobody reads what it says: it cannot end by itself
            process.terminate()
        assert process.returncode == 128 + signal.SIGTERM
    there = stored(tmp_path)
    assert all(is_whole(crash, there) for crash in CRASHES if is_visible(crash, there))
    assert_a_rerun_completes(source, tmp_path)


def test_a_copy_that_is_killed_has_torn_no_crash_and_reported_none_too_many(
    source: Path, tmp_path: Path
) -> None:
    with copying(source, tmp_path) as process:
        process.kill()
        exit_code, lines, _ = end_of(process)
    assert exit_code == -signal.SIGKILL
    there = stored(tmp_path)
    assert all(is_whole(crash, there) for crash in CRASHES if is_visible(crash, there))
    reported = by_crash_id(lines).keys()
    assert all(is_whole(crash, there) for crash in CRASHES if crash.crash_id in reported)
    assert_a_rerun_completes(source, tmp_path)


def test_a_copy_that_removes_its_source_and_is_stopped_loses_nothing(tmp_path: Path) -> None:
    source, destination = put(tmp_path / "source", *CRASHES), tmp_path / "destination"
    with copying(source, destination, "--remove-source") as process:
        process.terminate()
        assert end_of(process)[0] == 128 + signal.SIGTERM
    left, there = stored(source), stored(destination)
    assert left != {} and left.keys().isdisjoint(there)
    assert left | there == manifest(*CRASHES)
    args = ("copy", "-s", source, "-d", destination, "--remove-source")
    assert run(*args).exit_code == 0
    assert stored(source) == {}
    assert stored(destination) == manifest(*CRASHES)


def test_a_copy_that_was_told_to_ignore_hangups_does(source: Path, tmp_path: Path) -> None:
    with copying(source, tmp_path, prefix=IGNORING_HANGUPS) as process:
        process.send_signal(signal.SIGHUP)
        exit_code, lines, _ = end_of(process)
    assert (exit_code, len(lines)) == (0, len(CRASHES) - 1)
    assert stored(tmp_path) == manifest(*CRASHES)


def test_a_get_that_is_stopped_while_nobody_reads_ends_without_a_word(tmp_path: Path) -> None:
    crash = sample(dumps={MAIN_DUMP: b"MDMP" * 100_000})
    store = put(tmp_path / "store", crash)
    with start("get", "-s", store, crash.crash_id, "--dump", "") as process:
        assert process.stdout and process.stderr
        assert process.stdout.read(1) == b"M"
        process.terminate()
        assert (process.wait(TIMEOUT), process.stderr.read()) == (128 + signal.SIGTERM, b"")


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_save_that_is_stopped_has_changed_nothing(tmp_path: Path, number: signal.Signals) -> None:
    raw, dump = tmp_path / "raw.json", tmp_path / "dump"
    raw.write_bytes(b"{}")
    os.mkfifo(dump)
    store = put(tmp_path / "store", *CRASHES[:2])
    before = snapshot(tmp_path)
    args = ("save", "-d", store, "--raw-crash", raw, "--dump", dump, CRASHES[0].crash_id)
    with start(*args) as process, dump.open("wb"):  # which opens when it is being read
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, stdout, stderr) == (128 + number, b"", b"")
    assert snapshot(tmp_path) == before
