# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What people see: messages, progress, log.  All that goes to standard error goes through here."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import click

from crashmover import streams

if TYPE_CHECKING:
    from crashmover.external.roles import CrashDestination, CrashSource, Store

FORMATS = ("text", "json")
FORMAT_VARIABLE = "CRASHMOVER_LOG_FORMAT"

logger = logging.getLogger(__name__)


def printable(text: str) -> str:
    """Return one line that cannot do anything to a terminal: names and values in a crash
    come from strangers."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "replace").decode()
        for char in text
    )


class Messages:
    """Writes messages: lines for people, or objects for machines.

    :param as_json: an object a line
    :param quiet: say nothing until something is amiss
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._write: Callable[[str], None] = _write
        self._is_amiss = False

    def put(self, level: int, text: str, /, **fields: object) -> None:
        """Write one message.

        :param fields: what it is about, for machines; None where that is not known
        """
        if level > logging.INFO:
            self._is_amiss = True
        elif self.quiet and not self._is_amiss:
            return
        line = printable(text)
        self._write(_as_json(level, line, fields) if self.as_json else line)

    @contextmanager
    def written_by(self, write: Callable[[str], None]) -> Iterator[None]:
        """Let a function write the lines while this lasts."""
        self._write, before = write, self._write
        try:
            yield
        finally:
            self._write = before


def _write(line: str) -> None:
    # A full disk or a reader that is gone takes the messages, not the run that they are about.
    with suppress(OSError):
        click.echo(line, err=True)


def _as_json(level: int, text: str, fields: dict[str, object]) -> str:
    import datetime as dt
    import json

    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    message = {"time": now, "level": logging.getLevelName(level).lower(), "message": text}
    known = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(message | known)  # in which every control character is escaped


_messages = Messages()


def say(text: str, *, level: int = logging.ERROR, **fields: object) -> None:
    """Print a line on standard error: what failed, if no other level is said."""
    _messages.put(level, text, **fields)


def inform(text: str, **fields: object) -> None:
    """Say what went well; with --quiet only after something did not."""
    _messages.put(logging.INFO, text, **fields)


def require_output() -> None:
    """Refuse to go on if standard output is closed.

    For commands whose only result is what they print.  The others change something, or answer by
    their exit code, and go on as with ``> /dev/null``.

    :raises click.UsageError: it is closed
    """
    if streams.is_output_closed():
        raise click.UsageError(streams.OUTPUT_LOST)


def refuse_closed(path: str, option: str) -> None:
    """Refuse the path of a standard stream that is closed, such as ``/dev/stdout``.

    :raises click.UsageError: it is such a path
    """
    if name := streams.closed_name(path):
        raise click.UsageError(f"{option}: {path}: {name} is closed")


def can_ask() -> bool:
    """Return True if a person sits at a terminal, and sees what is asked."""
    return all(stream and stream.isatty() for stream in (sys.stdin, sys.stderr))


def is_agreed(question: str) -> bool:
    """Ask on standard error; whatever is not yes is no."""
    click.echo(printable(f"{question} [y/N] "), nl=False, err=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def warn_before_writing(*stores: "Store") -> None:
    """Say what should be known before these are written to."""
    for store in stores:
        for caution in store.cautions():
            logger.warning("%s", caution)


def warn_of_risks(store: "CrashDestination") -> None:
    """Say why what was saved may be lost all the same; a store that does not answer is silent."""
    from crashmover.errors import StorageError

    with suppress(StorageError):
        for risk in store.durability_risks():
            logger.warning("%s", risk)


def warn_of_reading(*stores: "CrashSource", removing: bool = False) -> None:
    """Say why what is read from these may not be what is there."""
    for store in stores:
        for risk in store.reading_risks(removing=removing):
            logger.warning("%s", risk)


def warn_of_differences(store: "CrashDestination") -> None:
    """Say what a store will keep otherwise than was asked for.

    :raises StorageError: what was asked for cannot be kept at all
    """
    for difference in store.try_saving():
        logger.warning("%s", difference)


def is_json() -> bool:
    """Return True if messages are for machines."""
    return _messages.as_json


def is_quiet() -> bool:
    """Return True if only what is amiss is to be said."""
    return _messages.quiet


def written_by(write: Callable[[str], None]) -> AbstractContextManager[None]:
    """Let a function write the lines while this lasts."""
    return _messages.written_by(write)


def format_asked_for(words: Sequence[str]) -> str:
    """Guess the format before the command line is understood: it may never be."""
    found = os.environ.get(FORMAT_VARIABLE, "")
    for word, following in pairwise([*words, ""]):
        name, _, value = word.partition("=")
        if name == "--log-format":
            found = value or following
    return found


def set_up(log_format: str, *, verbosity: int = 0, quiet: bool = False) -> None:
    """Say from now on how messages are shown, and send the log there: warnings; with one -v
    what is tried again, too; with two what became of every crash."""
    global _messages
    _messages = Messages(as_json=log_format == "json", quiet=quiet)
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    ours = logging.getLogger("crashmover")
    ours.handlers = [_Log()]
    ours.setLevel(levels[min(verbosity, 2)])
    ours.propagate = False
    _take_the_log_of_others(_messages.as_json)


def _take_the_log_of_others(wanted: bool) -> None:
    """Where every line is JSON, so is what libraries say; else Python prints their warnings."""
    everyone = logging.getLogger()
    for handler in [each for each in everyone.handlers if isinstance(each, _Log)]:
        everyone.removeHandler(handler)
        logging.captureWarnings(False)
    if wanted:
        everyone.addHandler(_Log(logging.WARNING))
        logging.captureWarnings(True)


class _Log(logging.Handler):
    """Makes messages of what is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        # A library that logs amiss, or a standard error without a reader, must fail no crash.
        with suppress(Exception):
            text, level = record.getMessage(), record.levelname.lower()
            if _messages.as_json:
                _messages.put(record.levelno, text, logger=record.name)
            else:
                _messages.put(record.levelno, f"crashmover: {level}: {text}")


class Progress:
    """Shows how a copy goes; the base says nothing but what failed."""

    def failed(self, text: str, **fields: object) -> None:
        """Name something that failed."""
        _messages.put(logging.ERROR, text, **fields)

    def show(self, text: str) -> None:
        """Print a line of data."""
        click.echo(text)

    def advance(self, size: int, *, failed: bool) -> None:
        """Take note of one crash.

        :param size: how many bytes were moved
        """
