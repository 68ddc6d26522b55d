# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What the benchmarks run on and against."""

import compileall
import datetime as dt
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import crashmover
from tests.benchmarks.measure import MissingProgram, environment, program
from tests.servers import KINDS
from tests.servers.process import MissingServer

PROGRAMS = (
    ("crashmover", "--version"),
    ("cp", "--version"),
    ("rsync", "--version"),
    ("rclone", "version"),
    ("s5cmd", "version"),
    ("aws", "--version"),
    ("gcloud", "--version"),
)
PACKAGES = (
    "boto3",
    "obstore",
    "psycopg",
    "google-cloud-pubsub",
    "google-cloud-storage",
    "pyreqwest",
    "click",
)
SERVERS = ("postgresql", "pubsub", "s3-signed", "gcs")


def compile_ours() -> None:
    """Compile our modules, as installing them does; from the source tree, they are compiled by
    whoever runs them first."""
    compileall.compile_dir(Path(crashmover.__file__).parent, quiet=1)


def describe(directory: Path) -> dict[str, object]:
    """Return what it is, and the versions of all that takes part.

    :param directory: where the crashes lie
    """
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "cpu": _first(r"model name\s*: (.*)", Path("/proc/cpuinfo")) or platform.machine(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "file system": file_system(directory),
        "python": platform.python_version(),
        "programs": {line[0]: _version(line) for line in PROGRAMS},
        "packages": {name: _package_version(name) for name in PACKAGES},
        "servers": {name: _server_version(name) for name in SERVERS},
    }


def file_system(path: Path) -> str:
    """Return the type of the file system that a path is on."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    types = {Path(mount[1].replace("\\040", " ")): mount[2] for mount in mounts}
    path = path.resolve()
    return next((types[step] for step in (path, *path.parents) if step in types), "unknown")


def _first(pattern: str, file: Path) -> str:
    found = re.search(pattern, file.read_text())
    return found.group(1) if found else ""


def _version(line: Sequence[str]) -> str:
    try:
        program(line[0])
    except MissingProgram as error:
        return str(error)
    done = subprocess.run(line, capture_output=True, text=True, env=environment({}), check=False)
    return (done.stdout or done.stderr).partition("\n")[0]


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _server_version(name: str) -> str:
    try:
        return KINDS[name].version()
    except MissingServer as error:
        return f"{error} is missing"
