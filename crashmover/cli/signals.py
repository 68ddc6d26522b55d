# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Ending on a signal: what is in hand is finished or cleanly abandoned, never torn."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from crashmover.cli.exit_codes import ExitCode

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handling(handler: Callable[[int], None]) -> Iterator[None]:
    """Call `handler` with the number of each signal that asks us to end."""

    def handle(number: int, _frame: FrameType | None) -> None:
        handler(number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, previous in before.items():
        if previous is not signal.SIG_IGN:  # nohup means it
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def unwind(number: int) -> None:
    """End by an exception, so that everything on the way out is cleaned up."""
    raise SystemExit(ExitCode.SIGNAL + number)


class Stopper:
    """The first signal asks a command to stop; the second ends it at once.

    :param stop: asks it
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.number: int | None = None
        self._stop = stop

    def __call__(self, number: int) -> None:
        if self.number is not None:
            os._exit(ExitCode.SIGNAL + number)
        self.number = number
        self._stop()
