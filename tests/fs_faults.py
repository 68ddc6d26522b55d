# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Saves to a file system of which each call in turn is the last, or fails.

A program, because it forks.  ``python -m tests.fs_faults kill SCENARIO DIRECTORY`` kills a save
at its first call that changes something, then at its second, and so on until none is left.
``... fail SCENARIO DIRECTORY ERRNO once|lasting|all`` lets the call fail instead: it alone, or
those that follow as well, or even those that remove something, so that nothing can be tidied
up.  All calls but those that force something to the disk are really made.  ``... cut SCENARIO
DIRECTORY NUMBER FLAG`` takes the power away from the file system at a call; all is done there
by then that comes before, and forced to the disk as it should be.

After each it looks at what a reader finds, and does the same once more.  What it prints is
JSON: what there was to see, and a line for each promise that was broken.
"""

import ctypes
import errno
import fcntl
import json
import os
import signal
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn
from unittest.mock import patch

from crashmover import crashid, partfiles
from crashmover.errors import CrashIDNotFound, StorageError
from crashmover.external.fs import (
    crashstorage,
    durable,
    emptying,
    forcing,
    locks,
    removing,
    settling,
    staging,
    syscalls,
)
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    contents,
    crash_of,
    read,
    without,
)
from crashmover.testing.samples import Key

REMOVING = frozenset({"rmdir", "unlink"})
FAILING = frozenset(
    {"close", "fchmod", "fsync", "ftruncate", "mkdir", "open", "rename", "syncfs", "utime", "write"}
)
CHANGING = FAILING | REMOVING | {"copy_file_range", "flock"}

GROUP = [f"{n:08x}-8721-460c-dead-a43c22071025" for n in range(8)]
"""As many crashes as are forced to the disk by one call for all."""

Fault = Callable[[str], None]


# What is saved


@dataclass(frozen=True)
class Scenario:
    """What is there, and what is done then.

    :param saved: of each crash; empty where it is removed
    :param by_day: whether it is removed with all of its day
    :param is_old: whether it counts as having been there for long before that
    """

    before: Contents | None
    saved: Contents
    crash_ids: list[str] = field(default_factory=lambda: [CRASH_ID])
    by_day: bool = False
    is_old: bool = False

    @property
    def neighbour(self) -> str:
        """A crash that must stay."""
        return NEIGHBOUR[:-6] + "071026" if self.by_day else NEIGHBOUR

    @property
    def after(self) -> Contents | None:
        """What is there in the end."""
        if not self.saved:
            return None
        before = self.before or {}
        return (only(before, PROCESSED) if RAW in self.saved else before) | self.saved

    def act(self, storage: FSPermanentStorage) -> list[Exception | None]:
        """Do it; return for each crash what went wrong."""
        if self.saved:
            return storage.save_crashes([crash_of(self.saved, each) for each in self.crash_ids])
        try:
            if self.by_day:
                day = crashid.date_of(CRASH_ID)
                age = -(10**18) if self.is_old else settling.SETTLED_NS
                with patch.object(emptying, "SETTLED_NS", age):
                    return [error for _, error in storage.remove_days(day, day)]
            storage.remove(CRASH_ID)
        except Exception as error:
            return [error]
        return [None]

    def is_whole(self, found: Contents | None) -> bool:
        """Whether a reader may find this: the raw crash with all of its dumps, as they were or
        as they will be.  What is saved without a raw crash is exchanged part by part, and so is
        the processed crash."""
        states = [state for state in (self.before, self.after) if state is not None]
        by_itself = {PROCESSED, *([] if RAW in self.saved else self.saved)}
        return found is None or (
            without(found, *by_itself) in [without(state, *by_itself) for state in states]
            and all(found.get(key) in [state.get(key) for state in states] for key in by_itself)
        )


def only(parts: Contents, *keys: Key) -> Contents:
    return {key: data for key, data in parts.items() if key in keys}


SCENARIOS = {
    "new": Scenario(None, contents("b")),
    "other dumps": Scenario(contents("a"), without(contents("b"), BROWSER)),
    "same dumps": Scenario(contents("a"), contents("a") | {RAW: b"[]"}),
    "dumps added": Scenario(without(contents("a"), BROWSER), {BROWSER: b"late", MAIN: b"MDMPx"}),
    "processed crash": Scenario(contents("a"), {PROCESSED: contents("b")[PROCESSED]}),
    "removed": Scenario(contents("a"), {}),
    "day removed": Scenario(contents("a"), {}, by_day=True, is_old=True),
    "group": Scenario(None, contents("b"), GROUP),
    "group replaced": Scenario(contents("a"), without(contents("b"), BROWSER), GROUP),
    "group removed": Scenario(contents("a"), {}, GROUP, by_day=True, is_old=True),
    "group removed at once": Scenario(contents("a"), {}, GROUP, by_day=True),
}


# The system, of which a call may fail


class System:
    """Stands between the store and the system, and lets a call fail that changes something.

    :param forces: whether anything is forced to the disk: that takes long, and no reader can
        tell as long as there is power
    """

    def __init__(self, *, forces: bool = False) -> None:
        self.forces = forces
        self._count = 0
        self._fault: Fault | None = None

    def install(self) -> None:
        """Let the store call this from now on."""
        for module in (
            crashstorage,
            durable,
            emptying,
            forcing,
            locks,
            partfiles,
            removing,
            staging,
        ):
            vars(module)["os"] = _Module(self, os)
        vars(locks)["fcntl"] = _Module(self, fcntl)
        vars(syscalls)["libc"] = lambda: _Libc(self)

    @contextmanager
    def failing(
        self, at: int, fault: Fault, calls: frozenset[str] = CHANGING, *, lasting: bool = False
    ) -> Iterator[None]:
        """Let a call fail.

        :param at: its number, from 1
        :param fault: is called before it, and may raise what it shall raise
        :param calls: that are counted
        :param lasting: whether all that follow fail, too
        """
        self._count = 0
        self._at, self._fault, self._calls, self._lasting = at, fault, calls, lasting
        try:
            yield
        finally:
            self._fault = None

    def notice(self, name: str) -> None:
        """Count a call."""
        if self._fault is None or name not in self._calls:
            return
        self._count += 1
        if self._count == self._at or (self._lasting and self._count > self._at):
            self._fault(name)


class _Module:
    """A module of which some functions are looked at."""

    def __init__(self, system: System, module: ModuleType) -> None:
        self._system = system
        self._module = module

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._module, name)
        return partial(self._call, name, function) if name in CHANGING else function

    def _call(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if name != "open" or args[1] & os.O_CREAT:
            try:
                self._system.notice(name)
            except OSError:
                if name == "close":  # which closes all the same: close(2)
                    function(*args)
                raise
        if name == "fsync" and not self._system.forces:
            return None
        return function(*args, **kwargs)


_libc = syscalls.libc


class _Libc:
    """The C library, of which `syncfs` is looked at."""

    def __init__(self, system: System) -> None:
        self._system = system

    def __getattr__(self, name: str) -> Any:
        return getattr(_libc(), name)

    def syncfs(self, fd: int) -> int:
        try:
            self._system.notice("syncfs")
        except OSError as error:
            ctypes.set_errno(error.errno or 0)
            return -1
        result: int = _libc().syncfs(fd) if self._system.forces else 0
        return result


# What must be true afterwards


def broken_promises(scenario: Scenario, root: Path, *, done: bool) -> Iterator[str]:
    """Yield what a reader should not find.

    :param done: whether it was said to be done
    """
    with FSPermanentStorage(root) as storage:
        listed = set(storage.new_crashes())
        for crash_id in scenario.crash_ids:
            found = contents_of(storage, crash_id)
            if not scenario.is_whole(found):
                yield f"{crash_id} is torn: {sorted(found or {})}"
            if done and found != scenario.after:
                yield f"{crash_id} is not as it was said to be"
            if (crash_id in listed) != (found is not None and RAW in found):
                yield f"{crash_id} is listed: {crash_id in listed}"
        if read(storage, scenario.neighbour) != contents("n"):
            yield "the neighbour is not what it was"


def contents_of(storage: FSPermanentStorage, crash_id: str) -> Contents | None:
    try:
        return read(storage, crash_id)
    except CrashIDNotFound:
        return None


FUSE_HIDDEN = ".fuse_hidden"
"""How the name of a file begins that was open when it was removed or replaced: libfuse removes it
when it is closed, and with ``dir_cache=no`` of sshfs 3.7.3 forgets some."""


def temporary_files(root: Path) -> list[str]:
    """Return the names of what is hidden below a root, but for what libfuse has hidden."""
    names = sorted(path.name for path in root.rglob(".*"))
    return [name for name in names if not name.startswith(FUSE_HIDDEN)]


def unfinished(scenario: Scenario, root: Path) -> Iterator[str]:
    """Do it once more; yield what is not as if it had been done only once.  And nothing of it
    may get into what is saved later."""
    with FSPermanentStorage(root) as storage:
        errors = [error for error in scenario.act(storage) if error]
        if errors and not (isinstance(errors[0], CrashIDNotFound) and not scenario.saved):
            yield f"cannot be done once more: {errors[0]}"
    yield from broken_promises(scenario, root, done=True)
    if scenario.by_day and (root / f"20{CRASH_ID[-6:]}").exists():
        yield "the day is not cleared away"
    later = only(contents("z"), RAW, MAIN)
    with FSPermanentStorage(root) as storage:
        for crash_id in scenario.crash_ids:
            storage.save_crash(crash_of(later, crash_id))
            if without(found := read(storage, crash_id), PROCESSED) != later:
                yield f"{crash_id}, saved later, has more than that: {sorted(found)}"
    if left := temporary_files(root):
        yield f"left over: {left}"


# Faults


def prepare(scenario: Scenario, root: Path) -> None:
    with FSPermanentStorage(root) as storage:
        storage.save_crash(crash_of(contents("n"), scenario.neighbour))
        if scenario.before:
            for crash_id in scenario.crash_ids:
                storage.save_crash(crash_of(scenario.before, crash_id))


def kill(name: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_each(
    system: System, scenario: Scenario, directory: Path
) -> tuple[Counter[str], list[str]]:
    """Kill a save before each of its calls; return what was to see, and what is broken."""
    seen: Counter[str] = Counter()
    broken: list[str] = []
    while True:
        number = seen.total() + 1
        root = directory / str(number)
        prepare(scenario, root)
        if not (pid := os.fork()):
            with system.failing(number, kill):
                errors = scenario.act(FSPermanentStorage(root))
            os._exit(any(errors))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status != -signal.SIGKILL:
            broken += [] if status == 0 else [f"{number}: exit code {status}"]
            return seen, broken + [f"{number}: {line}" for line in unfinished(scenario, root)]
        seen[what_is_there(scenario, root)] += 1
        lines = [*broken_promises(scenario, root, done=False), *unfinished(scenario, root)]
        broken += [f"{number}: {line}" for line in lines]


def what_is_there(scenario: Scenario, root: Path) -> str:
    with FSPermanentStorage(root) as storage:
        found = [contents_of(storage, crash_id) for crash_id in scenario.crash_ids]
    if all(one == scenario.after for one in found):
        return "all"
    return "none" if all(one in (None, scenario.before) for one in found) else "some"


def fail_each(
    system: System, scenario: Scenario, directory: Path, number_of_error: int, how: str
) -> tuple[Counter[str], list[str]]:
    """Let each call of a save fail; return what was to see, and what is broken."""
    seen: Counter[str] = Counter()
    broken: list[str] = []
    failed: list[str] = []
    tidy = how != "all" and bool(scenario.saved)
    calls = FAILING if tidy else FAILING | REMOVING

    def fail(name: str) -> None:
        failed.append(name)
        raise OSError(number_of_error, os.strerror(number_of_error))

    while True:
        number = seen.total() + 1
        root = directory / str(number)
        prepare(scenario, root)
        failed.clear()
        with system.failing(number, fail, calls, lasting=how != "once"):
            errors = scenario.act(FSPermanentStorage(root))
        if not failed:
            return seen, broken
        seen["said" if any(errors) else "got over"] += 1
        lines = list(wrong_with(errors, failed[0]))
        lines += broken_promises(scenario, root, done=not any(errors))
        if tidy and (left := temporary_files(root)):
            lines.append(f"left over: {left}")
        lines += unfinished(scenario, root)
        broken += [f"{number}, {failed[0]}: {line}" for line in lines]


def wrong_with(errors: list[Exception | None], call: str) -> Iterator[str]:
    """Yield what is wrong with what a save says that a call of it failed."""
    for error in errors:
        if error is not None and not isinstance(error, StorageError):
            yield f"raises {error!r}"
        elif error and "\n" in str(error):
            yield f"more than a line: {error}"
    if call not in ("close", "rmdir") and not any(errors):
        yield "nothing is said"


def cut_at(system: System, scenario: Scenario, root: Path, number: int, flag: int) -> None:
    """Take the power away at a call; where there are fewer, do nothing more."""
    with system.failing(number, lambda _name: cut_power(root, flag)):
        errors = scenario.act(FSPermanentStorage(root))
    assert not any(errors), errors


def cut_power(root: Path, flag: int) -> NoReturn:
    """Let nothing more get to the disk, and end with `POWER_CUT`."""
    fcntl.ioctl(os.open(root, os.O_RDONLY), _SHUTDOWN, struct.pack("I", flag))
    os._exit(POWER_CUT)


POWER_CUT = 99
"""The exit code of a process whose file system is gone."""

_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN of Linux


def main(what: str, name: str, place: str, *more: str) -> None:
    scenario, directory = SCENARIOS[name], Path(place)
    system = System(forces=what == "cut")
    system.install()
    if what == "cut":
        cut_at(system, scenario, directory, *map(int, more))
        return
    if what == "kill":
        seen, broken = kill_each(system, scenario, directory)
    else:
        error, how = more
        seen, broken = fail_each(system, scenario, directory, getattr(errno, error), how)
    json.dump({"calls": seen.total(), "seen": seen, "broken": broken}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
