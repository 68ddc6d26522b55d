# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What the tests of the command line share: crashes to move, and ways to run a command.

The crashes are put down and read here without the package: what it does is held against the
layout as it is documented, not against itself.
"""

import gzip
import hashlib
import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from click.testing import CliRunner, Result

from crashmover.cli import main

MAIN_DUMP = "upload_file_minidump"
TIMEOUT = 60.0  # seconds for a process; reached only when something hangs

Argument = str | Path
Manifest = dict[str, str]

# -- Crashes -----------------------------------------------------------------------------


def make_id(n: int, *, leaf: str = "0bba", depth: str = "2", day: str = "261120") -> str:
    """The n-th crash id of a leaf directory."""
    return f"{leaf}{n:04x}-721c-460c-dead-a43c2{depth}{day}"


@dataclass(frozen=True)
class Sample:
    """A crash as its parts' bytes."""

    crash_id: str
    raw: bytes
    dumps: Mapping[str, bytes] = field(default_factory=dict)
    processed: bytes | None = None

    @property
    def directory(self) -> str:
        """Where it lies below a store's root."""
        pairs = [self.crash_id[2 * n : 2 * n + 2] for n in range(int(self.crash_id[-7]))]
        return "/".join([f"20{self.crash_id[-6:]}", "name", *pairs])

    @property
    def parts(self) -> dict[str, bytes]:
        """What follows the id in a file's name -> the part in it."""
        parts = {".json": self.raw}
        for name, data in self.dumps.items():
            parts[".dump" if name == MAIN_DUMP else f".{name}.dump"] = data
        return parts if self.processed is None else {**parts, ".jsonz": self.processed}

    @property
    def size(self) -> int:
        """The bytes of all parts."""
        return sum(map(len, self.parts.values()))

    def path(self, root: Path, suffix: str = ".json") -> Path:
        """The file of a part in a store."""
        return root / self.directory / f"{self.crash_id}{suffix}"


def sample(
    n: int = 1,
    *,
    leaf: str = "0bba",
    depth: str = "2",
    day: str = "261120",
    dumps: Mapping[str, bytes] | None = None,
    processed: bytes | None = None,
    **annotations: object,
) -> Sample:
    """A crash with a dump; its JSON is written as no program here would write it again."""
    crash_id = make_id(n, leaf=leaf, depth=depth, day=day)
    if dumps is None:
        dumps = {MAIN_DUMP: b"MDMP\x00\xff\x1b" + crash_id.encode()}
    raw = {
        "ProductName": "Firefox",
        "Comments": "Größe ≠ 火狐",
        "metadata": {"dump_checksums": {k: sha256(data) for k, data in dumps.items()}},
        "uuid": crash_id,
        **annotations,
    }
    body = json.dumps(raw, indent=3, ensure_ascii=False) + " \n"
    return Sample(crash_id, body.encode(), dumps, processed)


def samples(count: int) -> list[Sample]:
    """Crashes of all kinds, many of which share a directory."""
    return [_sample_of_kind(n) for n in range(count)]


def _sample_of_kind(n: int) -> Sample:
    dumps = {MAIN_DUMP: b"MDMP" + os.urandom(200)} if n % 7 else {}
    if n % 5 == 0:
        dumps["memory_report"] = os.urandom(100)
    return sample(
        n,
        leaf=("0bba", "0bbb", "c0de")[n % 3],
        depth="022214"[n % 6],
        day=("261119", "261120")[n % 2],
        dumps=dumps,
        processed=processed_crash(signature=f"f{n}") if n % 2 else None,
    )


def processed_crash(**keys: object) -> bytes:
    """A processed crash, with something in it that is not for everybody."""
    return json.dumps({"signature": "f", "email": "zoe@example.com", **keys}, indent=1).encode()


def put(root: Path, *crashes: Sample) -> Path:
    """Lay crashes into a store; return its root."""
    root.mkdir(parents=True, exist_ok=True)
    for crash in crashes:
        (root / crash.directory).mkdir(parents=True, exist_ok=True)
        for suffix, data in crash.parts.items():
            packed = gzip.compress(data) if suffix == ".jsonz" else data
            crash.path(root, suffix).write_bytes(packed)
    return root


def manifest(*crashes: Sample) -> Manifest:
    """What `stored` returns for a store that holds these crashes and nothing else."""
    return {
        f"{crash.directory}/{crash.crash_id}{suffix}": sha256(data)
        for crash in crashes
        for suffix, data in crash.parts.items()
    }


def stored(root: Path) -> Manifest:
    """Every file in a store, whatever it is -> the SHA-256 of what is in it, unpacked."""
    return {
        str(path.relative_to(root)): sha256(_content(path))
        for path in root.rglob("*")
        if path.is_file()
    }


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".jsonz" else data


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """All that would show that somebody was here: names, modes, times, contents."""
    return {str(path.relative_to(root)): _state(path) for path in [root, *root.rglob("*")]}


def _state(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    what = sha256(path.read_bytes()) if stat.S_ISREG(status.st_mode) else None
    return status.st_mode, status.st_mtime_ns, status.st_ino, what


# -- Running a command -------------------------------------------------------------------

# What would show through from whoever runs the tests.
_FOREIGN = (
    "CRASHMOVER_SOURCE",
    "CRASHMOVER_DESTINATION",
    "CRASHMOVER_QUEUE",
    "CRASHMOVER_CONFIG",
    "CRASHMOVER_LOG_FORMAT",
    "CRASHMOVER_QUIET",
    "CRASHMOVER_STATSD",
    "CRASHMOVER_EXPECT_SOME",
)
_FOREIGN_TO_TERMINALS = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "LINES")


def run(
    *args: Argument, stdin: bytes | None = None, env: Mapping[str, str | None] | None = None
) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(
        main,
        [str(arg) for arg in args],
        input=stdin,
        env={**dict.fromkeys(_FOREIGN), **(env or {})},
        prog_name="crashmover",
        catch_exceptions=False,
    )


def command_line(*args: Argument) -> list[str]:
    """What runs a command in a process of its own."""
    return [sys.executable, "-m", "crashmover", *map(str, args)]


def environment(**more: str) -> dict[str, str]:
    """The environment for such a process."""
    foreign = {*_FOREIGN, *_FOREIGN_TO_TERMINALS}
    ours = {name: value for name, value in os.environ.items() if name not in foreign}
    return {**ours, "TERM": "xterm", **more}


class Process(subprocess.Popen[bytes]):
    """A process that does not outlive a test that fails."""

    def __exit__(self, *exc: Any) -> None:
        if exc[0] is not None:
            self.kill()
        super().__exit__(*exc)


def start(
    *args: Argument, prefix: Sequence[str] = (), stdin: int | IO[Any] = subprocess.DEVNULL
) -> Process:
    """Start a command as a process whose standard output is a pipe as small as can be: it
    comes to a halt when it has written a page and nobody has read it."""
    return Process(
        [*prefix, *command_line(*args)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pipesize=4096,
        env=environment(),
    )


def run_process(
    *args: Argument, prefix: Sequence[str] = (), cwd: Path | None = None, **env: str
) -> "subprocess.CompletedProcess[bytes]":
    """Run a command as a process."""
    return subprocess.run(
        [*prefix, *command_line(*args)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=cwd,
        env=environment(**env),
        timeout=TIMEOUT,
    )


def run_on_terminal(*args: Argument, typed: bytes = b"", **env: str) -> tuple[int, bytes]:
    """Run a command on a terminal; return its exit code and all that the terminal got.

    :param typed: what somebody types, whether or not it is asked for
    """
    terminal, its_end = pty.openpty()
    os.write(terminal, typed)
    try:
        process = subprocess.Popen(
            command_line(*args),
            stdin=its_end,
            stdout=its_end,
            stderr=its_end,
            env=environment(**env),
        )
    finally:
        os.close(its_end)
    with process, open(terminal, "rb", buffering=0) as file:  # noqa: PTH123
        shown = b"".join(iter(lambda: _read_terminal(file), b""))
        return process.wait(TIMEOUT), shown


def _read_terminal(file: IO[bytes]) -> bytes:
    try:
        return file.read(1 << 16)
    except OSError:  # how Linux says that nobody has the other end any more
        return b""


# -- What must hold ----------------------------------------------------------------------


def assert_refused(result: Result, exit_code: int, *phrases: str) -> None:
    """One clear line on standard error, nothing on standard output, that exit code."""
    assert (result.exit_code, result.stdout) == (exit_code, ""), result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.endswith("\n")
    for phrase in phrases:
        assert phrase in result.stderr


def is_harmless(text: str) -> bool:
    """Whether a terminal that shows it shows it, and does nothing else."""
    return all(char.isprintable() or char == "\n" for char in text)


def report_of(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of a report, by crash id."""
    return by_crash_id(path.read_text("utf-8").splitlines())


def by_crash_id(lines: Iterable[str | bytes]) -> dict[str, dict[str, Any]]:
    """The lines of a report, by crash id; there is one for each crash."""
    outcomes = [json.loads(line) for line in lines]
    by_id = {outcome["crash_id"]: outcome for outcome in outcomes}
    assert len(by_id) == len(outcomes)
    return by_id


def statuses(path: Path) -> dict[str, str]:
    """What a report says became of each crash."""
    return {crash_id: outcome["status"] for crash_id, outcome in report_of(path).items()}


def all_of(status: str, *crashes: Sample) -> dict[str, str]:
    """What a report says, where that became of these crashes."""
    return {crash.crash_id: status for crash in crashes}


def without_risks(stderr: bytes) -> str:
    """Return what a command has said, but for the warning that its store is in memory: that is not
    what the test is about."""
    lines = stderr.decode().splitlines(keepends=True)
    return "".join(line for line in lines if "what is saved there is gone at a restart" not in line)


def without_warnings(stderr: str) -> str:
    """Return what a command has said, but for its warnings: a store may lie on a ground that
    deserves one."""
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("crashmover: warning: "))
