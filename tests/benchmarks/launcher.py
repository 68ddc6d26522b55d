# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Runs a program, and writes what it took: ``launcher.py OUTPUT RESULT PROGRAM ARGUMENT...``.

A process is charged with the memory of the one that started it: so this one is small.  It
looks at the memory of all the program's processes together, again and again until the end.
"""

import json
import os
import signal
import sys
import time

_PAUSE = 0.05  # seconds between two looks at the memory


def run(output: str, result: str, command: list[str]) -> None:
    """Run a program with its standard output in one file, and put the result into another."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    opened = (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    begun = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=[opened], setsigmask=[])
    most = 0
    while not signal.sigtimedwait({signal.SIGCHLD}, _PAUSE):
        most = max(most, memory_of_tree(pid))
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - begun
    found = {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": max(most, usage.ru_maxrss * 1024),
    }
    with open(result, "w") as file:  # noqa: PTH123  # pathlib is not small
        json.dump(found, file)


def memory_of_tree(pid: int) -> int:
    """Return the bytes that a process and all below it take; what they share counts once."""
    return memory_of(pid) + sum(map(memory_of_tree, children_of(pid)))


def memory_of(pid: int) -> int:
    """Return a process's proportional set size, in bytes; 0 when it is gone."""
    for line in lines_of(f"/proc/{pid}/smaps_rollup"):
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that are there."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    lines = (lines_of(f"/proc/{pid}/task/{thread}/children") for thread in threads)
    return [int(child) for found in lines for line in found for child in line.split()]


def lines_of(path: str) -> list[str]:
    """Return what is in a file of /proc; nothing when its process is gone."""
    try:
        with open(path) as file:  # noqa: PTH123
            return file.readlines()
    except OSError:
        return []


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], sys.argv[3:])
