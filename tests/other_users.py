# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Commands run as another user: one that has no line in /etc/passwd, and no processes yet."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import pytest

from tests.cli_helpers import Argument, command_line
from tests.conftest import missing, wanted

ROOT = Path(__file__).parent.parent
TIMEOUT = 60.0  # seconds

_uids = count(1_000_650 + 1000 * (os.getpid() % 1000))

# The interpreter may lie below /root: this user may read, and write nothing that is not its own.
_CAPABILITY = "+dac_read_search"

_NOTHING: Mapping[str, str] = {}


class OtherUser:
    """A user of its own, and a directory that it may write to."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._uid = next(_uids)

    def run(
        self, *args: Argument, limit: int | None = None, env: Mapping[str, str] = _NOTHING
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in an environment that has only these variables.

        :param limit: how many processes and threads the user may have
        """
        line = [
            *("setpriv", f"--reuid={self._uid}", "--regid=0", "--clear-groups"),
            *(f"--inh-caps={_CAPABILITY}", f"--ambient-caps={_CAPABILITY}"),
            *([] if limit is None else ["prlimit", f"--nproc={limit}"]),
            *("env", "-i", "PATH=/usr/bin:/bin", f"PYTHONPATH={ROOT}"),
            *(f"{name}={value}" for name, value in env.items()),
        ]
        return _run([*line, *command_line(*args)], self.home)


@pytest.fixture
def other_user(request: pytest.FixtureRequest) -> Iterator[OtherUser]:
    wanted(request, "users")
    # Not below the directory of pytest, which only its own user may enter.
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o777)
        yield OtherUser(Path(home))


def _run(line: Sequence[str], cwd: Path) -> "subprocess.CompletedProcess[str]":
    if sys.platform != "linux" or os.geteuid() != 0:
        missing("users", "only root can be another user")
    try:
        done = subprocess.run(
            line,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=TIMEOUT,
        )
    except FileNotFoundError as error:
        missing("users", error)
    if done.returncode in (125, 126, 127) or done.stderr.startswith(("setpriv:", "prlimit:")):
        missing("users", done.stderr)
    return done
