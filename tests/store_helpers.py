# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What the tests of several stores do with each of them."""

import subprocess
import sys
from collections.abc import Callable

from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.testing import CRASH_ID, contents, crash_of


def every_call(storage: CrashStorageBase) -> list[Callable[[], object]]:
    """Each way of using a store that contacts its server, reading first."""
    return [
        lambda: storage.load_crash(CRASH_ID),
        lambda: storage.has_crash(CRASH_ID),
        lambda: storage.save_crash(crash_of(contents("b"))),
        lambda: storage.remove(CRASH_ID),
        lambda: list(storage.new_crashes()),
        lambda: storage.verify_access(),
        lambda: storage.verify_access(write=True),
    ]


def peak_of_copy(source: str, destination: str) -> int:
    """Copy in a process of its own and return how much memory it took, in bytes."""
    script = """
import pathlib, sys
from crashmover.cli import main
try:
    main(["copy", "-s", sys.argv[1], "-d", sys.argv[2]])
finally:
    # Not ru_maxrss, in which the memory of whoever started the process counts.
    status = pathlib.Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) * 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, source, destination],
        check=True,
        capture_output=True,
        text=True,
        timeout=110,
    )
    return int(done.stdout.split()[-1])
