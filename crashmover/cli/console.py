# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What people see: messages, progress, log."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click


def printable(text: str) -> str:
    """Return one line that cannot do anything to a terminal: names and values in a crash
    come from strangers."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "replace").decode()
        for char in text
    )


def say(text: str) -> None:
    """Print a line on standard error."""
    click.echo(printable(text), err=True)


def set_up_log(verbosity: int) -> None:
    """Send the log to standard error: warnings; with one -v what is tried again, too; with two
    what became of every crash."""
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logger = logging.getLogger("crashmover")
    logger.handlers = [handler]
    logger.setLevel(levels[min(verbosity, 2)])
    logger.propagate = False


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(f"crashmover: {record.levelname.lower()}: {record.getMessage()}")


class Progress:
    """Shows how a copy goes; the base says nothing but what failed."""

    def failed(self, text: str) -> None:
        """Name something that failed."""
        say(text)

    def show(self, text: str) -> None:
        """Print a line of data."""
        click.echo(text)

    def advance(self, size: int, *, failed: bool) -> None:
        """Take note of one crash.

        :param size: how many bytes were moved
        """


class _Bar(Progress):
    """A bar where the number of crashes is known, and counts, rate and time."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        total_columns = [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True)]
        self.rich = RichProgress(
            SpinnerColumn(),
            *(total_columns if total is not None else [TextColumn("{task.completed:,}")]),
            TextColumn(
                "{task.fields[rate]:,.0f}/s  {task.fields[bytes]}  failed {task.fields[bad]}"
            ),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self.rich.add_task("copy", total=total, rate=0, bytes="", bad=0)
        self._bytes = 0
        self._bad = 0

    def failed(self, text: str) -> None:
        self.rich.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def show(self, text: str) -> None:
        if sys.stdout.isatty():  # the bar is there, too: make room for it
            self.failed(text)
        else:
            super().show(text)

    def advance(self, size: int, *, failed: bool) -> None:
        from rich.filesize import decimal

        self._bytes += size
        self._bad += failed
        rate = self.rich.tasks[0].speed or 0
        self.rich.update(
            self._task, advance=1, rate=rate, bytes=decimal(self._bytes), bad=self._bad
        )


@contextmanager
def progress(wanted: bool | None, total: int | None) -> Iterator[Progress]:
    """Show progress on standard error while this lasts.

    :param wanted: None means: if that is a terminal
    :param total: how many crashes there are, where that is known
    """
    if wanted is None:
        wanted = sys.stderr.isatty()
    if not wanted:
        yield Progress()
        return
    bar = _Bar(total)
    with bar.rich:
        yield bar
