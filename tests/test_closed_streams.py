# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Standard streams that are closed, full, or without a reader."""

import json
import subprocess
import time
from itertools import chain, combinations
from pathlib import Path

import pytest

from tests.cli_helpers import (
    TIMEOUT,
    Argument,
    command_line,
    environment,
    manifest,
    put,
    report_of,
    run,
    run_process,
    samples,
    stored,
)
from tests.conftest import Figures, mostly_slow

CRASHES = samples(8)
FIRST = CRASHES[0].crash_id
STREAMS = {"0": "<&-", "1": ">&-", "2": "2>&-"}
COMBINATIONS = list(chain.from_iterable(combinations(STREAMS, n) for n in (1, 2, 3)))
QUICK = [("1",), ("2",), ("0", "1", "2")]


def run_with(redirections: str, *args: Argument, cwd: Path) -> "subprocess.CompletedProcess[bytes]":
    line = ["sh", "-c", f'exec "$@" {redirections}', "sh", *command_line(*args)]
    return subprocess.run(line, capture_output=True, cwd=cwd, env=environment(), timeout=TIMEOUT)


# A command, its exit code, and that where standard output is closed.
COMMANDS: dict[str, tuple[list[str], int, int]] = {
    "copy": (["copy", "-s", "./source", "-d", "./new"], 0, 0),
    "copy --json": (["copy", "-s", "./source", "-d", "./new", "--json"], 0, 0),
    "copy --progress": (["copy", "-s", "./source", "-d", "./new", "--progress"], 0, 0),
    "copy from nowhere": (["copy", "-s", "./nothere", "-d", "./new"], 4, 4),
    "check": (["check", "-s", "./source", "-d", "./there"], 0, 0),
    "check what differs": (["check", "-s", "./source", "-d", "./empty"], 1, 1),
    "list": (["list", "-s", "./source"], 0, 2),
    "list nothing": (["list", "-s", "./nothere"], 4, 4),
    "get": (["get", "-s", "./source", FIRST], 0, 2),
    "get a part": (["get", "-s", "./source", FIRST, "--raw-crash"], 0, 2),
    "get a part into a file": (["get", "-s", "./source", FIRST, "--raw-crash", "-o", "f"], 0, 0),
    "get what is not there": (["get", "-s", "./empty", FIRST], 3, 3),
    "save": (["save", "-d", "./new", "--raw-crash", "raw.json", FIRST], 0, 0),
    "save by a new id": (["save", "-d", "./new", "--raw-crash", "raw.json"], 0, 2),
    "remove": (["remove", "-s", "./there", "--yes", *(c.crash_id for c in CRASHES)], 0, 0),
    "doctor": (["doctor", "-s", "./source", "-d", "./there"], 0, 0),
    "config": (["config"], 0, 2),
    "queue-publish": (["queue-publish", "-q", "sqlite:./q.db", FIRST], 0, 0),
    "queue-pull": (["queue-pull", "-q", "sqlite:./q.db", "--wait", "0"], 0, 2),
    "--version": (["--version"], 0, 0),
    "--help": (["--help"], 0, 0),
    "no command": ([], 2, 2),
    "nonsense": (["copy", "--nonsense"], 2, 2),
}


def prepare(root: Path) -> None:
    put(root / "source", *CRASHES)
    put(root / "there", *CRASHES)
    put(root / "empty")
    (root / "raw.json").write_text('{"ProductName": "Firefox"}')
    uri = f"sqlite:{root}/q.db"
    assert run("queue-publish", "-q", uri, "--create", CRASHES[1].crash_id).exit_code == 0


@pytest.mark.parametrize("closed", mostly_slow(COMBINATIONS, QUICK), ids="+".join)
def test_every_command_has_its_exit_code_whatever_is_closed(
    tmp_path: Path, figures: Figures, closed: tuple[str, ...]
) -> None:
    redirections = " ".join(STREAMS[number] for number in closed)
    for name, (args, usual, without_output) in COMMANDS.items():
        root = tmp_path / name.replace(" ", "_")
        prepare(root)
        done = run_with(redirections, *args, cwd=root)
        expected = without_output if "1" in closed else usual
        assert done.returncode == expected, (name, done.stderr)
        assert b"Traceback" not in done.stderr, name
        if expected == 2 != usual:
            assert "2" in closed or b"standard output is closed" in done.stderr
        # No message has landed in a file of the store.
        assert stored(root / "source") == manifest(*CRASHES), name
        if args[:1] == ["copy"] and expected == 0:
            assert stored(root / "new") == manifest(*CRASHES), name
    figures(commands=len(COMMANDS), combinations=1)


def test_ids_that_cannot_be_printed_stay_in_the_queue(tmp_path: Path) -> None:
    prepare(tmp_path)
    pull = ["queue-pull", "-q", "sqlite:./q.db", "--wait", "0"]
    assert run_with(">&-", *pull, cwd=tmp_path).returncode == 2
    done = run_process(*pull, cwd=tmp_path)
    assert done.stdout.decode() == f"{CRASHES[1].crash_id}\n"


INPUTS = {
    "--ids-from -": ["copy", "-s", "./source", "-d", "./new", "--ids-from", "-"],
    "--ids-from /dev/stdin": ["copy", "-s", "./source", "-d", "./new", "--ids-from", "/dev/stdin"],
    "queue-publish": ["queue-publish", "-q", "sqlite:./q.db", "--ids-from", "-"],
    "remove": ["remove", "-s", "./source", "--ids-from", "-", "--yes"],
    "--raw-crash": ["save", "-d", "./new", "--raw-crash", "/dev/stdin", FIRST],
    "--dump": ["save", "-d", "./new", "--raw-crash", "raw.json", "--dump", "/dev/fd/0", FIRST],
}


@pytest.mark.parametrize("args", INPUTS.values(), ids=INPUTS)
def test_a_closed_input_is_no_empty_file(tmp_path: Path, args: list[str]) -> None:
    prepare(tmp_path)
    done = run_with("<&-", *args, cwd=tmp_path)
    assert done.returncode == 2 and b"standard input is closed" in done.stderr
    assert stored(tmp_path / "source") == manifest(*CRASHES)
    assert not (tmp_path / "new").exists()


def test_a_report_to_a_closed_output_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path)
    args = ["copy", "-s", "./source", "-d", "./new", "--report", "/dev/stdout"]
    done = run_with(">&-", *args, cwd=tmp_path)
    assert done.returncode == 2 and b"standard output is closed" in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&- >/dev/full", "2>&1 >/dev/full"])
def test_messages_that_go_nowhere_end_no_run(tmp_path: Path, redirection: str) -> None:
    prepare(tmp_path)
    args = ["copy", "-s", "./source", "-d", "./new"]
    assert run_with(redirection, *args, cwd=tmp_path).returncode == 0
    assert stored(tmp_path / "new") == manifest(*CRASHES)


def test_a_reader_of_messages_that_leaves_ends_no_run(tmp_path: Path) -> None:
    prepare(tmp_path)
    args = ["-vv", "copy", "-s", "./source", "-d", "./new"]
    with subprocess.Popen(
        command_line(*args), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE
    ) as process:
        assert process.stderr
        process.stderr.close()
        assert process.wait(TIMEOUT) == 0
    assert stored(tmp_path / "new") == manifest(*CRASHES)


# --report, and what rotates logs


def test_a_report_that_is_truncated_meanwhile_has_no_hole(tmp_path: Path) -> None:
    crashes = samples(400)
    put(tmp_path / "source", *crashes)
    report = tmp_path / "report.jsonl"
    args = ["copy", "-s", "./source", "-d", "./new", "--report", "report.jsonl", "--workers", "1"]
    process = subprocess.Popen(command_line(*args), cwd=tmp_path, env=environment())
    deadline = time.monotonic() + TIMEOUT
    while not (report.exists() and report.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.001)
    with report.open("r+b") as file:
        file.truncate()
    assert process.wait(TIMEOUT) == 0
    data = report.read_bytes()
    assert b"\0" not in data
    assert all(json.loads(line)["status"] == "copied" for line in data.splitlines())


def test_a_report_is_begun_anew_and_goes_into_pipes(tmp_path: Path) -> None:
    prepare(tmp_path)
    args = ["copy", "-s", "./source", "-d", "./new", "--report"]
    for _ in range(2):
        assert run_process(*args, "report.jsonl", cwd=tmp_path).returncode == 0
    assert report_of(tmp_path / "report.jsonl").keys() == {c.crash_id for c in CRASHES}
    piped = run_process(*args, "/dev/stdout", cwd=tmp_path)
    assert piped.returncode == 0 and piped.stdout.count(b"\n") == len(CRASHES)
