# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Large documents are looked into one after the other; small ones wait for nobody."""

import subprocess
import sys
import threading

from crashmover import documents
from crashmover.crash import Kind, Part

SMALL = Part.of_bytes(Kind.RAW_CRASH, b"{}")
LARGE = Part.of_bytes(Kind.RAW_CRASH, bytes(1 << 20))
STREAM = Part(Kind.PROCESSED_CRASH, "", SMALL.open)


def test_a_large_document_waits_for_another_and_a_small_one_does_not() -> None:
    entered = {part: threading.Event() for part in (STREAM, LARGE)}

    def enter(part: Part) -> None:
        with documents.in_turn(part):
            entered[part].set()

    threads = [threading.Thread(target=enter, args=(part,)) for part in entered]
    with documents.in_turn(LARGE):
        for thread in threads:
            thread.start()
        with documents.in_turn(SMALL), documents.in_turn(SMALL):
            assert not any(event.is_set() for event in entered.values())
    for thread in threads:
        thread.join(20)
    assert all(event.is_set() for event in entered.values())


BY_PROCESSES = """
import os, signal, sys
from crashmover import documents
from crashmover.crash import Kind, Part
large = Part.of_bytes(Kind.RAW_CRASH, bytes(1 << 20))
documents.share_turns()
(held, holding), (asked, asking) = os.pipe(), os.pipe()
first = os.fork()
if not first:
    with documents.in_turn(large):
        os.write(holding, b"1")
        signal.pause()
assert os.read(held, 1) == b"1"
second = os.fork()
if not second:
    os.write(asking, b"2")
    with documents.in_turn(large):
        os.write(holding, b"2")
    os._exit(0)
assert os.read(asked, 1) == b"2"
os.set_blocking(held, False)
try:
    print("both at once", os.read(held, 1))
except BlockingIOError:
    print("one waits")
os.set_blocking(held, True)
os.kill(first, signal.SIGKILL)
print("goes on:", os.read(held, 1).decode(), os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]))
"""


def test_so_it_is_beside_processes_and_one_that_is_killed_keeps_nobody_waiting() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BY_PROCESSES], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["one waits", "goes on: 2 0"], done.stderr


def test_what_is_kept_for_later_is_kept_to_the_byte() -> None:
    for data in (b"", b"{}", bytes(range(256)) * 5000):
        with documents.kept(data) as file:
            assert file.read() == data
