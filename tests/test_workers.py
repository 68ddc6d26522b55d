# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Workers: threads here, and processes in a program that has no other thread."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crashmover.engine.pace import Pace
from crashmover.engine.workers import Workers

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")

HEAD = """
import os, signal, sys, threading, time
from crashmover.engine.pace import Pace
from crashmover.engine.workers import Workers
from crashmover.errors import WorkerKilled
"""


@contextmanager
def workers_of(work: Callable[[int], Any], count: int = 2) -> Iterator[Workers[int, Any]]:
    workers = Workers(work, Pace(count, count), processes=False)
    try:
        yield workers
    finally:
        workers.close()


def said_by(script: str) -> list[str]:
    """Run a program that has one thread; return the lines that it has written."""
    command = [sys.executable, "-c", HEAD + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


# Threads


def test_each_task_has_its_own_result() -> None:
    with workers_of(lambda n: n * n) as workers:
        futures = [workers.submit(n) for n in range(20)]
        assert [future.result() for future in futures] == [n * n for n in range(20)]


def test_threads_work_at_the_same_time_in_this_process() -> None:
    together = threading.Barrier(3, timeout=10)

    def meet(_task: int) -> int:
        together.wait()
        return os.getpid()

    with workers_of(meet, 3) as workers:
        pids = [future.result() for future in [workers.submit(n) for n in range(3)]]
    assert pids == [os.getpid()] * 3


def test_what_a_thread_raises_is_raised_where_its_result_is_asked_for() -> None:
    def fail(task: int) -> None:
        raise ZeroDivisionError(f"task {task}")

    with workers_of(fail) as workers, pytest.raises(ZeroDivisionError, match="task 7"):
        workers.submit(7).result()


def test_closing_waits_for_what_was_submitted() -> None:
    done: list[int] = []
    with workers_of(done.append, 1) as workers:
        for n in range(50):
            workers.submit(n)
    assert done == list(range(50))


# Processes

PIDS = """
def work(task):
    return task, os.getpid()
workers = Workers(work, Pace({count}, {count}), processes={processes})
results = [future.result() for future in [workers.submit(n) for n in range(20)]]
workers.close()
assert [task for task, _ in results] == list(range(20))
print(os.getpid() in {{pid for _, pid in results}})
"""


@only_linux
@pytest.mark.parametrize(
    ("count", "processes", "here"),
    [(2, True, False), (2, False, True), (1, True, True)],
    ids=["asked for", "not asked for", "only one"],
)
def test_several_workers_are_processes_where_they_are_asked_for(
    count: int, processes: bool, here: bool
) -> None:
    assert said_by(PIDS.format(count=count, processes=processes)) == [str(here)]


def test_beside_another_thread_nothing_is_forked() -> None:
    go_on = "go_on = threading.Event(); threading.Thread(target=go_on.wait).start()"
    script = f"{go_on}\n{PIDS.format(count=2, processes=True)}\ngo_on.set()"
    assert said_by(script) == ["True"]


@only_linux
def test_processes_work_at_the_same_time() -> None:
    script = """
from multiprocessing import get_context
together = get_context("fork").Barrier(3)
def meet(_task):
    together.wait(10)
    return os.getpid()
workers = Workers(meet, Pace(3, 3), processes=True)
print(len({future.result() for future in [workers.submit(n) for n in range(3)]}))
workers.close()
"""
    assert said_by(script) == ["3"]


@only_linux
def test_large_tasks_and_results_pass_between_processes() -> None:
    script = """
workers = Workers(lambda task: task[::-1], Pace(2, 2), processes=True)
tasks = [os.urandom(1 << 20) for _ in range(6)]
futures = [workers.submit(task) for task in tasks]
print(all(future.result() == task[::-1] for task, future in zip(tasks, futures)))
workers.close()
"""
    assert said_by(script) == ["True"]


@only_linux
def test_a_worker_that_is_killed_fails_its_task_and_holds_up_nobody() -> None:
    script = """
def work(task):
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task
workers = Workers(work, Pace(2, 2), processes=True)
for future in [workers.submit(n) for n in range(4)]:
    try:
        print(future.result())
    except WorkerKilled as error:
        print(error)
workers.close()
"""
    assert said_by(script) == [
        "0",
        "1",
        "2",
        "a worker process has ended in the middle of its work",
    ]


@only_linux
def test_workers_that_were_all_killed_at_rest_are_said_and_closed() -> None:
    script = """
workers = Workers(lambda task: os.getpid(), Pace(2, 2), processes=True)
pids = set()
while len(pids) < 2:
    pids |= {future.result() for future in [workers.submit(n) for n in range(2)]}
for pid in pids:
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
print({type(workers.submit(n).exception()).__name__ for n in range(4)})
workers.close()
"""
    assert said_by(script) == ["{'WorkerKilled'}"]


@only_linux
def test_closing_leaves_no_process_behind() -> None:
    script = """
workers = Workers(lambda task: task, Pace(3, 3), processes=True)
workers.submit(1).result()
workers.close()
try:
    print(os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("none")
"""
    assert said_by(script) == ["none"]


@only_linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_worker_leaves_signals_to_its_parent(number: signal.Signals) -> None:
    script = f"""
def work(task):
    os.kill(os.getpid(), {number:d})
    return task
workers = Workers(work, Pace(2, 2), processes=True)
print([future.result() for future in [workers.submit(n) for n in range(4)]])
workers.close()
"""
    assert said_by(script) == ["[0, 1, 2, 3]"]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # whose new parent has not looked after it yet


@only_linux
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_workers_do_not_outlive_a_parent_that_is_killed(busy: bool) -> None:
    script = f"""
def work(task):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep({60 if busy else 0.1})
workers = Workers(work, Pace(2, 2), processes=True)
futures = [workers.submit(n) for n in range(2)]
if not {busy}:
    [future.result() for future in futures]
    os.write(1, b"idle\\n")
signal.pause()
"""
    command = [sys.executable, "-c", HEAD + script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as parent:
        assert parent.stdout
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        assert busy or parent.stdout.readline() == b"idle\n"
        assert all(is_running(pid) for pid in pids)
        parent.kill()
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(is_running(pid) for pid in pids)
