# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Ending on a signal: what is in hand is finished or cleanly abandoned, never torn."""

import os
import signal
import sys
import threading
import time
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from crashmover.cli import console
from crashmover.cli.console import say
from crashmover.cli.exit_codes import ExitCode
from crashmover.errors import CrashMoverError
from crashmover.unbroken import is_in_unbroken

GRACE = 20.0
"""Seconds in which a command ends after a signal: what stops a service kills it after 30."""

_LAST = 5.0  # seconds in which what is held is given back after that

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_AGAIN = 0.01  # seconds until what came at a bad moment is tried once more
_TRIES = 100  # a second in all: what is imported may be on a server that hangs

_STOPPING = f"crashmover: finishing what is in hand, {GRACE:.0f} s at most; again to end at once\n"
_SHOW_CURSOR = "\x1b[?25h"  # which the bar has hidden


def _to_terminal(text: str) -> None:
    """Tell the person who has pressed a key.

    The bare call: what the signal interrupted may be in the middle of writing, or hold a lock.
    """
    if console.messages.as_json or not os.isatty(2):
        return
    with suppress(OSError):
        os.write(2, text.encode())


class Stopper:
    """A handler of signals: the first asks a command to stop, and the second ends it at once.

    :param stop: asks it
    :param abandon: gives back what it holds, where it has not ended in time
    :param grace: how many seconds that is; None: its calls have deadlines, which will do
    """

    def __init__(
        self,
        stop: Callable[[], None] = lambda: None,
        abandon: Callable[[], None] = lambda: None,
        grace: float | None = GRACE,
    ) -> None:
        self.number: int | None = None
        self._stop = stop
        self._abandon = abandon
        self._grace = grace
        self._is_over = False
        self._inner: Stopper | None = None
        self._working: Stopper = self  # the one that handles the signals now

    def __call__(self, number: int, _frame: FrameType | None = None) -> None:
        if self.number is not None:
            _to_terminal(_SHOW_CURSOR + "\n")
            os._exit(ExitCode.SIGNAL + number)
        _to_terminal("\r\x1b[K" + _STOPPING)
        self._begin(number)
        self._stop()

    def end_of(self, work: Callable[[], int]) -> int:
        """Do some work; return its exit code, or that of a signal which has come meanwhile: what
        failed after that is said, and no more."""
        code = 0
        try:
            code = work()
        except CrashMoverError as error:
            if self.number is None:
                raise
            say(f"crashmover: {error}")
        return code if self.number is None else ExitCode.SIGNAL + self.number

    def hand_over(self, inner: "Stopper") -> None:
        """Let another handle them while some work is done."""
        self._working = inner

    def take_over(self, inner: "Stopper") -> None:
        """Go on when the work is done for which another handled them."""
        self._inner, self._working = inner, self
        self.number = self.number or inner.number

    def over(self) -> None:
        """The command has ended."""
        self._is_over = True
        if self._inner:
            self._inner.over()

    def _begin(self, number: int) -> None:
        self.number = number
        if self._grace is not None:
            _start(self._end_in_time, self._grace)

    def _end_in_time(self, grace: float) -> None:
        time.sleep(grace)
        if not self._is_over:
            done = threading.Event()
            if _start(self._give_up, grace, done):
                done.wait(_LAST)
            os._exit(ExitCode.SIGNAL + (self.number or 0))

    def _give_up(self, grace: float, done: threading.Event) -> None:
        self._working._abandon()
        say(f"crashmover: not finished after {grace:.0f} s; the rest is given up")
        done.set()


class Unwinder(Stopper):
    """Ends by an exception, so that everything on the way out is cleaned up; but does not keep
    that from being done where we are on the way out already.  Each further signal is one more
    exception, which gets us out of a cleaning-up that takes long."""

    _tries = 0  # to raise the exception of the first signal

    def __call__(self, number: int, frame: FrameType | None = None) -> None:
        if self.number is None:
            self._begin(number)
            if self._inner:
                return
        # Importing a module may lose an exception, or make another of it.
        is_bad_moment = _is_importing(frame) or is_in_unbroken(frame)
        if is_bad_moment and self._tries < _TRIES and self.raise_later():
            return
        raise SystemExit(ExitCode.SIGNAL + number)

    def raise_later(self) -> bool:
        """Raise the exception a moment later, unless the command has ended then; return whether
        that can be done."""
        self._tries += 1
        return _start(self._send_again)

    def _send_again(self) -> None:
        time.sleep(_AGAIN)
        if self.number is not None and not self._is_over:
            os.kill(os.getpid(), self.number)


def _start(work: Callable[..., None], *args: object) -> bool:
    """Let a new thread do some work; return whether there is one.

    The bare function: `threading.Thread` takes a lock, which may be held by what the signal
    interrupted.
    """
    try:
        start_new_thread(work, args)
    except RuntimeError:  # no further thread is granted
        return False
    return True


def _is_importing(frame: FrameType | None) -> bool:
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


@contextmanager
def handling(stopper: Stopper) -> Iterator[Stopper]:
    """Let it handle each signal that asks us to end."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    outer = next((each for each in before.values() if isinstance(each, Stopper)), None)
    if outer:
        outer.hand_over(stopper)
    for number, previous in before.items():
        if previous is not signal.SIG_IGN:  # nohup means it
            signal.signal(number, stopper)
    try:
        yield stopper
    finally:
        if not outer:
            stopper.over()
        for number, previous in before.items():
            signal.signal(number, previous)
        if outer:
            outer.take_over(stopper)


@contextmanager
def unwinding(unwinder: Unwinder) -> Iterator[None]:
    """Let it handle the signals, and raise what it has raised once more where Python has lost
    that, as it does where something is finalized."""
    before = sys.unraisablehook

    def hook(lost: "sys.UnraisableHookArgs") -> None:
        if unwinder.number is not None and isinstance(lost.exc_value, SystemExit):
            unwinder.raise_later()
        else:
            before(lost)

    sys.unraisablehook = hook
    try:
        with handling(unwinder):
            yield
    finally:
        sys.unraisablehook = before
