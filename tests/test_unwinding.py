# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A signal ends a command by an exception, wherever Python is at that moment: also where it loses
exceptions, or makes others of them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli_helpers import TIMEOUT, environment

SIGNAL = "os.kill(os.getpid(), signal.SIGTERM)"
FINALIZED = f"""
class Finalized:
    def __del__(self):
        {SIGNAL}
        [None for _ in range(10)]
"""
MODULES = {
    "in a module": f"import os, signal\n{SIGNAL}\nwhole = True",
    # A class that is made lets no exception through as it is, before Python 3.12.
    "in a class": f"""
import os, signal
class Field:
    def __set_name__(self, owner, name):
        {SIGNAL}
class Record:
    field = Field()
whole = True
""",
    # An exception is lost there.
    "where something is finalized": f"import os, signal\n{FINALIZED}\nFinalized()\nwhole = True",
}
PROGRAM = """
import os, signal, sys, time
from crashmover.cli.signals import Unwinder, unwinding
unwinder = Unwinder()
try:
    with unwinding(unwinder):
        {work}
        print("done", flush=True)
        time.sleep(30)
except SystemExit as end:
    sys.exit(end.code)
"""


def result_of(program: str, directory: Path) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        cwd=directory,
        env=environment(),
        timeout=TIMEOUT,
    )


@pytest.mark.parametrize("where", MODULES)
def test_a_signal_while_a_module_is_imported_ends_the_command_when_that_is_done(
    tmp_path: Path, where: str
) -> None:
    (tmp_path / "trap.py").write_text(MODULES[where])
    result = result_of(PROGRAM.format(work="import trap; assert trap.whole"), tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (143, b"done\n", b"")


def test_an_import_that_does_not_end_is_broken_off(tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text(f"import os, signal, time\n{SIGNAL}\ntime.sleep(30)\n")
    begun = time.monotonic()
    result = result_of(PROGRAM.format(work="import trap"), tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (143, b"", b"")
    assert time.monotonic() - begun < 10


def test_the_time_to_end_begins_with_a_signal_in_an_import(tmp_path: Path) -> None:
    """Also where no exception gets out of that."""
    (tmp_path / "trap.py").write_text(f"""
import os, signal, time
{SIGNAL}
while True:
    try:
        time.sleep(30)
    except BaseException:
        pass
""")
    program = PROGRAM.replace("Unwinder()", "Unwinder(grace=2.0)")
    result = result_of(program.format(work="import trap"), tmp_path)
    told = b"crashmover: not finished after 2 s; the rest is given up\n"
    assert (result.returncode, result.stdout, result.stderr) == (143, b"", told)


def test_what_is_abandoned_in_the_end_is_what_somebody_works_at_then(tmp_path: Path) -> None:
    """Though the signal had come before that."""
    (tmp_path / "trap.py").write_text(MODULES["in a module"])
    work = """import trap
        with handling(Stopper(abandon=lambda: print("given back", flush=True), grace=20.0)):
            time.sleep(30)"""
    program = PROGRAM.replace("Unwinder()", "Unwinder(grace=1.0)")
    program = program.replace("import Unwinder", "import Stopper, Unwinder, handling")
    result = result_of(program.format(work=work), tmp_path)
    assert (result.returncode, result.stdout) == (143, b"given back\n")
    assert b"crashmover: not finished after 1 s; the rest is given up" in result.stderr


def test_what_has_ended_is_not_killed_by_a_signal_of_its_last_import(tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text(MODULES["in a module"])
    end = "import trap; sys.stdout.write('done')"
    program = PROGRAM.replace("        print", "        #").replace("        time", "        #")
    program += "time.sleep(0.1)\nsys.exit(128 + unwinder.number)\n"
    result = result_of(program.format(work=end), tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (143, b"done", b"")


def test_a_signal_where_something_is_finalized_is_not_lost(tmp_path: Path) -> None:
    program = f"import os, signal\n{FINALIZED}\n{PROGRAM.format(work='Finalized()')}"
    result = result_of(program, tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (143, b"done\n", b"")


def test_another_exception_that_is_lost_is_still_told(tmp_path: Path) -> None:
    broken = "class Broken:\n    def __del__(self):\n        raise ValueError('of another kind')\n"
    program = broken + PROGRAM.format(work="Broken()").replace("time.sleep(30)", "sys.exit(5)")
    result = result_of(program, tmp_path)
    assert result.returncode == 5
    assert b"of another kind" in result.stderr
