# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Mounts for tests, of which none outlives the run, even if a signal kills the run.

As root the tests have a mount namespace of their own: the kernel unmounts all of it when the last
process of the run ends.  A FUSE server would keep the namespace, so it dies with the tests.
Source: mount_namespaces(7), unshare(2).
"""

import ctypes
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_SLAVE = 1 << 14, 1 << 19
_PR_SET_PDEATHSIG = 1
_START_S = 10.0  # until a FUSE server has mounted
_STOP_S = 10.0  # until it has ended
_libc = ctypes.CDLL(None, use_errno=True)

Argument = str | Path


class CannotMount(Exception):
    """The text says why, in one line."""


@cache
def own_mounts() -> str:
    """Give this process a mount namespace of its own; threads that run already keep theirs.

    :return: why this process cannot mount anything; ``""`` if it can
    """
    if not hasattr(_libc, "unshare"):
        return "be on Linux"
    if os.geteuid():
        return "be root"
    # What others unmount meanwhile is unmounted here, too: not kept busy.
    if _libc.unshare(_CLONE_NEWNS) or _libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None):
        return f"be allowed to mount ({os.strerror(ctypes.get_errno())})"
    return ""


def command(*arguments: Argument) -> str:
    """Run a command that makes or mounts something; return what it prints.

    :raises CannotMount: it fails, or is not installed
    """
    try:
        done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    except OSError as error:
        raise CannotMount(f"{arguments[0]}: {error.strerror}") from None
    if done.returncode:
        raise CannotMount(f"{arguments[0]}: {' '.join(done.stderr.split()) or done.returncode}")
    return done.stdout


@contextmanager
def mounted(at: Path, *arguments: Argument) -> Iterator[Path]:
    """Mount something at a directory, which is made.

    :param arguments: the command, without the directory at its end
    """
    at.mkdir(parents=True, exist_ok=True)
    command(*arguments, at)
    try:
        yield at
    finally:
        unmount(at)


@contextmanager
def served(at: Path, *arguments: Argument) -> Iterator[Path]:
    """Let a FUSE server mount something at a directory, which is made.

    :param arguments: the command, without the directory at its end; it must stay in the foreground
    """
    at.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                [*arguments, at],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_the_tests,
            )
        except OSError as error:
            raise CannotMount(f"{arguments[0]}: {error.strerror}") from None
        try:
            _wait_until_mounted(at, process)
        except CannotMount as error:
            _end(process)
            log.seek(0)
            said = " ".join(log.read().decode("utf-8", "replace").split())
            raise CannotMount(f"{arguments[0]}: {said or error}") from None
        try:
            yield at
        finally:
            if not unmount(at):
                process.kill()
            _end(process)


def unmount(at: Path) -> bool:
    """Unmount a directory, if it is mounted; where something still uses it, once nothing does.

    :return: whether it is done at once
    """
    at_once = not subprocess.run(["umount", at], check=False, capture_output=True).returncode
    if not at_once:
        subprocess.run(["umount", "-l", at], check=False, capture_output=True)
    return at_once


@contextmanager
def loop_device(image: Path) -> Iterator[Path]:
    """Lend a block device whose bytes are a file's, to be opened by what stays.

    On leaving, the kernel is told to free it when its last user ends, and that may be later.
    """
    device = Path(command("losetup", "--show", "-f", image).strip())
    try:
        yield device
    finally:
        command("losetup", "-d", device)


def image_of(image: Path, megabytes: int, *mkfs: Argument) -> Path:
    """Make a file that holds a new file system.

    :param mkfs: the command that makes it, without the file at its end
    """
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    command(*mkfs, image)
    return image


def _wait_until_mounted(at: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_S
    while not at.is_mount():
        if process.poll() is not None:
            raise CannotMount(f"it has ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise CannotMount(f"it has not mounted within {_START_S:.0f} s")
        time.sleep(0.01)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Wait until a FUSE server ends, as it does when it is unmounted; else kill it."""
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _die_with_the_tests() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
