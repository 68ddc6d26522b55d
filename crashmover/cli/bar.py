# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The progress of a copy: on a terminal one line, however narrow that is; elsewhere a line now and
then."""

import datetime as dt
import math
import sys
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from crashmover.cli.console import Progress, inform, printable

_SPINNER = 2  # columns, with what parts it from the next
_BAR = 11  # at least; on narrower terminals than this there is none
_NARROW = 60
_LATELY = 30.0  # seconds
_NOW_AND_THEN = 10.0  # seconds


def fitting(words: Sequence[str], width: int) -> str:
    """Join the words as far as there is room; what stands first is wanted most."""
    shown = list(words)
    while len(shown) > 1 and len("  ".join(shown)) > width:
        shown.pop()
    return "  ".join(shown)


def figures(
    done: int, total: int | None, failed: int, rate: float, elapsed: float, size: int
) -> list[str]:
    """How many crashes, of how many where that is known; how many failed; rate and time; how
    much: what is wanted most comes first."""
    of, spent = "", _time(elapsed)
    if total is not None:
        left = math.ceil((total - done) / rate) if rate else None
        of, spent = f"/{total:,}", f"{_time(left)} left"
    return [f"{done:,}{of}", f"failed {failed:,}", f"{rate:,.0f}/s", spent, decimal(size)]


class Bar(Progress):
    """Always there, and always new.

    :param total: how many crashes there are, where that is known
    """

    def __init__(self, total: int | None) -> None:
        console = Console(stderr=True)
        has_bar = total is not None and console.width >= _NARROW
        columns: list[ProgressColumn] = [
            SpinnerColumn("dots" if console.encoding.startswith("utf") else "line"),
            _Figures(console, _SPINNER + (_BAR if has_bar else 0)),
        ]
        if has_bar:  # it has the room that the others leave
            columns.insert(1, BarColumn(None))
        self.rich = RichProgress(
            *columns, console=console, transient=True, speed_estimate_period=_LATELY
        )
        self._task = self.rich.add_task("copy", total=total, bytes=0, bad=0)
        self._bytes = 0
        self._bad = 0

    def begin(self) -> bool:
        """Start the bar; return False if the thread that draws it cannot be started."""
        try:
            self.rich.start()
        except RuntimeError:  # "can't start new thread"
            self.rich.live.auto_refresh = False  # there is no thread to be stopped
            self.rich.stop()
            return False
        return True

    def write(self, line: str) -> None:
        """Print a line above it."""
        self.rich.console.print(Text(line), soft_wrap=True)

    def show(self, text: str) -> None:
        if sys.stdout.isatty():  # the bar is there, too: make room for it
            self.write(printable(text))
        else:
            super().show(text)

    def advance(self, size: int, *, failed: bool) -> None:
        self._bytes += size
        self._bad += failed
        self.rich.update(self._task, advance=1, bytes=self._bytes, bad=self._bad)


class Lines(Progress):
    """A line now and then.

    :param total: how many crashes there are, where that is known
    """

    def __init__(self, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._done = self._bad = self._bytes = 0
        self._begun = self._said = clock()

    def advance(self, size: int, *, failed: bool) -> None:
        self._done += 1
        self._bad += failed
        self._bytes += size
        now = self._clock()
        if now - self._said >= _NOW_AND_THEN:
            self._said, elapsed = now, now - self._begun
            rate = self._done / elapsed
            words = figures(self._done, self._total, self._bad, rate, elapsed, self._bytes)
            inform("  ".join(words))


class _Figures(ProgressColumn):
    """The figures of a copy.

    :param taken: columns that are not for them
    """

    def __init__(self, console: Console, taken: int) -> None:
        super().__init__(Column(no_wrap=True))
        self._console = console
        self._taken = taken

    def render(self, task: Task) -> Text:
        bad, size = task.fields["bad"], task.fields["bytes"]
        total = None if task.total is None else int(task.total)
        elapsed = task.elapsed or 0.0
        words = figures(int(task.completed), total, bad, _rate(task), elapsed, size)
        shown = Text(fitting(words, self._console.width - self._taken))
        shown.highlight_regex("failed [1-9][0-9,]*", "red")
        return shown


def _rate(task: Task) -> float:
    """Crashes a second, lately; crashes come in batches, so that at first it is all of the time."""
    elapsed = task.elapsed or 0.0
    if elapsed > _LATELY and task.speed is not None:
        return task.speed
    return task.completed / elapsed if elapsed else 0.0


def _time(seconds: float | None) -> str:
    """``1:23:45``; it is not known at first how long it will take."""
    return "-:--:--" if seconds is None else str(dt.timedelta(seconds=int(seconds)))
