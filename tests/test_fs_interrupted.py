# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A signal in the middle of a save leaves no file of it, between whichever two steps of Python it
comes."""

import dis
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from crashmover import Crash, open_storage
from crashmover.crash import Kind, Part
from crashmover.external import fs
from crashmover.unbroken import is_in_unbroken
from tests.conftest import Figures

CRASH_ID = "0bba929f-8721-460c-dead-a43c22261118"
DIRECTORY = str(Path(fs.__file__).parent)

# After these, and where a function begins, CPython looks whether a signal has come.
LOOKS = ("RESUME", "CALL", "JUMP_BACKWARD", "POP_JUMP_BACKWARD")


def crash(raw: bytes, dump: bytes) -> Crash:
    dumps = Part.of_bytes(Kind.DUMP, dump, "upload_file_minidump")
    return Crash(CRASH_ID, [Part.of_bytes(Kind.RAW_CRASH, raw), dumps])


OLD, NEW = crash(b'{"old": 1}', b"old"), crash(b"{}", b"MDMP" * 100)


class Interrupt:
    """Ends the program as the command's handler does, when it comes for the Nth time to a place
    where it might."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.where = ""
        self._places: dict[CodeType, set[int]] = {}

    def __call__(self, frame: FrameType, _event: str, _arg: object) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(DIRECTORY):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, _arg: object) -> Callable[..., Any] | None:
        code = frame.f_code
        if code not in self._places:
            self._places[code] = set(places(code))
        if event == "opcode" and frame.f_lasti in self._places[code]:
            self.left -= 1
            if self.left <= 0 and not is_in_unbroken(frame):
                self.where = f"{code.co_filename}:{frame.f_lineno}"
                sys.settrace(None)
                raise SystemExit(143)
        return self._step


def places(code: CodeType) -> Iterator[int]:
    before = ""
    for instruction in dis.get_instructions(code):
        if before.startswith(LOOKS):
            yield instruction.offset
        before = instruction.opname


def interrupted(path: Path, number: int) -> str:
    """Save NEW and interrupt that; return where, or "" if it has ended before."""
    interrupt = Interrupt(number)
    with open_storage(path) as storage:
        before = sys.gettrace()
        sys.settrace(interrupt)
        try:
            storage.save_crash(NEW)
        except SystemExit:
            pass
        finally:
            sys.settrace(before)
    return interrupt.where


def files(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.rglob("*") if each.is_file()}


# What is open then is closed by the end of the process.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("old", [None, OLD], ids=["new", "over another"])
@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_signal_between_any_two_steps_leaves_nothing_of_a_save(
    tmp_path: Path, figures: Figures, old: Crash | None, every: int
) -> None:
    def whole(name: str, saved: Crash) -> dict[str, bytes]:
        with open_storage(tmp_path / name) as storage:
            storage.save_crash(saved)
        return files(tmp_path / name)

    states = [whole("new", NEW), {}, *([whole("old", old)] if old else [])]
    runs = 0
    while True:
        path = tmp_path / str(runs)
        path.mkdir()
        if old:
            whole(path.name, old)
        where = interrupted(path, every * runs + 1)
        assert files(path) in states, where
        if not where:
            break
        runs += 1
    assert runs * every > 100
    figures(interrupted=runs)
