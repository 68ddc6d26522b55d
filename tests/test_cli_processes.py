# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A copy by several processes: it is as one by threads, whatever happens to one of them."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli_helpers import (
    TIMEOUT,
    Argument,
    by_crash_id,
    manifest,
    processed_crash,
    put,
    report_of,
    run_process,
    sample,
    samples,
    snapshot,
    start,
    stored,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are none")

CRASHES = samples(400)  # more than are in hand at a time
KILLED = "a worker process has ended in the middle of its work"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put(tmp_path_factory.mktemp("stores") / "source", *CRASHES)


def children_of(process: "subprocess.Popen[bytes]") -> list[int]:
    """The processes that the only thread that may fork has forked."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


@contextmanager
def copying(*args: Argument) -> Iterator["subprocess.Popen[bytes]"]:
    """A copy in the middle of its work, which stands still until its report is read."""
    with start("copy", *args, "--report", "/dev/stdout") as process:
        try:
            assert process.stdout
            assert b'"crash_id"' in process.stdout.readline()
            yield process
        finally:
            process.kill()


def end_of(process: "subprocess.Popen[bytes]") -> tuple[int, list[bytes], list[str]]:
    """Let it end; return its exit code, the rest of its report, and its errors."""
    stdout, stderr = process.communicate(timeout=TIMEOUT)
    return process.returncode, stdout.splitlines(), stderr.decode().splitlines()


def test_a_copy_from_disk_to_disk_is_the_work_of_several_processes(
    source: Path, tmp_path: Path
) -> None:
    before = snapshot(source)
    with copying("-s", source, "-d", tmp_path) as process:
        workers = children_of(process)
        exit_code, lines, errors = end_of(process)
    assert len(workers) > 1
    assert (exit_code, len(lines), len(errors)) == (0, len(CRASHES) - 1, 1)
    assert stored(tmp_path) == manifest(*CRASHES)
    assert snapshot(source) == before
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_one_worker_is_no_process(source: Path, tmp_path: Path) -> None:
    with copying("-s", source, "-d", tmp_path, "--workers", "1") as process:
        assert children_of(process) == []
        assert end_of(process)[0] == 0


def test_what_is_wrong_with_a_crash_is_said_in_one_line(tmp_path: Path) -> None:
    good, bad = sample(1), sample(2, processed=processed_crash())
    source = put(tmp_path / "source", good, bad)
    packed = bad.path(source, ".jsonz")
    packed.write_bytes(packed.read_bytes()[:-1])
    report = tmp_path / "report"
    done = run_process("copy", "-s", source, "-d", tmp_path / "to", "--report", report)
    reason = f"fs://{source}: {packed.name} is not whole gzip"
    failed, summary = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert failed == f"{bad.crash_id}: failed: {reason}"
    assert summary.startswith("copied 1, skipped 0, failed 1;")
    assert report_of(report)[bad.crash_id]["error"] == reason
    assert stored(tmp_path / "to") == manifest(good)


def test_a_destination_that_cannot_be_written_to_is_out_of_reach(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("precious")
    done = run_process("copy", "-s", source, "-d", tmp_path / "file" / "store")
    assert (done.returncode, done.stdout) == (4, b"")
    said = f"crashmover: fs://{tmp_path}/file/store: cannot be written to: Not a directory\n"
    assert done.stderr.decode() == said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_destination_that_goes_away_ends_the_run_by_threads_and_by_processes(
    source: Path, tmp_path: Path, workers: str
) -> None:
    destination = tmp_path / "to"
    with copying("-s", source, "-d", destination, "--workers", workers) as process:
        destination.rename(tmp_path / "gone")
        destination.write_text("no directory")
        exit_code, lines, errors = end_of(process)
    outcomes = by_crash_id(lines).values()
    failed = [outcome for outcome in outcomes if outcome["status"] == "failed"]
    assert exit_code == 4
    assert len(lines) < len(CRASHES)  # the run ends early
    *said, last, _summary = errors
    assert 0 < len(failed) == len(said)
    assert last == f"crashmover: fs://{destination}: cannot be written to: Not a directory"
    # One step opens it, another looks what it is, and a third probes it.
    reasons = (
        "cannot be saved: Not a directory",
        "cannot be saved: to is a symbolic link or no directory",
        "cannot be written to: Not a directory",
    )
    assert {outcome["error"] for outcome in failed} <= {
        f"fs://{destination}: {reason}" for reason in reasons
    }
    arrived = [crash for crash in CRASHES if crash.path(tmp_path / "gone").exists()]
    assert stored(tmp_path / "gone") == manifest(*arrived)


def test_a_disk_that_takes_no_more_fails_what_it_does_not_take(tmp_path: Path) -> None:
    small, large = sample(1), sample(2, dumps={"memory_report": bytes(1 << 20)})
    source = put(tmp_path / "source", small, large)
    limited = ("sh", "-c", "trap '' XFSZ; ulimit -f 512; exec \"$@\"", "sh")
    done = run_process("copy", "-s", source, "-d", tmp_path / "to", prefix=limited)
    failed, _summary = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert failed == (
        f"{large.crash_id}: failed: fs://{tmp_path}/to: cannot be saved: File too large"
    )
    assert stored(tmp_path / "to") == manifest(small)


def test_a_worker_that_is_killed_ends_the_copy_and_a_rerun_completes(
    source: Path, tmp_path: Path
) -> None:
    before = snapshot(source)
    exit_code, tries = 0, 0
    while exit_code == 0 and tries < 5:  # a worker that was done with all of its work is not missed
        tries += 1
        shutil.rmtree(tmp_path)
        with copying("-s", source, "-d", tmp_path) as process:
            killed, *others = children_of(process)
            os.kill(killed, signal.SIGKILL)
            exit_code, lines, errors = end_of(process)
        assert exit_code or stored(tmp_path) == manifest(*CRASHES)
    assert exit_code == 1
    assert errors[-2] == f"crashmover: {KILLED}"
    failed = [o for o in by_crash_id(lines).values() if o["status"] == "failed"]
    assert failed
    assert {outcome["error"] for outcome in failed} == {KILLED}
    assert not any(Path(f"/proc/{pid}").exists() for pid in others)
    there = stored(tmp_path)
    for crash in CRASHES:
        if crash.path(tmp_path).exists():
            assert manifest(crash).items() <= there.items()
    again = run_process("copy", "-s", source, "-d", tmp_path)
    assert again.returncode == 0
    assert stored(tmp_path) == manifest(*CRASHES)
    assert snapshot(source) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_of_them_ends_the_copy_as_one_to_the_first(
    source: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """A terminal sends it to every process."""
    with copying("-s", source, "-d", tmp_path) as process:
        for pid in (*children_of(process), process.pid):
            os.kill(pid, number)
        exit_code, lines, errors = end_of(process)
    assert exit_code == 128 + number
    assert {outcome["status"] for outcome in by_crash_id(lines).values()} == {"copied"}
    assert len(errors) == 1
    there = stored(tmp_path)
    arrived = [crash for crash in CRASHES if crash.path(tmp_path).exists()]
    assert there == manifest(*arrived)
    assert len(lines) == len(arrived) - 1  # the first line was read before
