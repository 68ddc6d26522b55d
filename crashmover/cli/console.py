# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What people see: messages, progress, log.  All that goes to standard error goes through here."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import click

from crashmover import streams

if TYPE_CHECKING:
    from crashmover.external.roles import CrashDestination

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
        self.write: Callable[[str], None] = _write
        """Writes a line."""
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
        self.write(_as_json(level, line, fields) if self.as_json else line)


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


messages = Messages()


def say(text: str, *, level: int = logging.ERROR, **fields: object) -> None:
    """Print a line on standard error: what failed, if no other level is said."""
    messages.put(level, text, **fields)


def inform(text: str, **fields: object) -> None:
    """Say what went well; with --quiet only after something did not."""
    messages.put(logging.INFO, text, **fields)


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


def warn(lines: Iterable[str]) -> None:
    """Log each line as a warning."""
    for line in lines:
        logger.warning("%s", line)


def warn_of_risks(store: "CrashDestination") -> None:
    """Say why what was saved may be lost all the same; a store that does not answer is silent."""
    from crashmover.errors import StorageError

    with suppress(StorageError):
        warn(store.durability_risks())


@contextmanager
def written_by(write: Callable[[str], None]) -> Iterator[None]:
    """Let a function write the lines while this lasts."""
    messages.write, before = write, messages.write
    try:
        yield
    finally:
        messages.write = before


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
    global messages
    messages = Messages(as_json=log_format == "json", quiet=quiet)
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    ours = logging.getLogger("crashmover")
    ours.handlers = [_Log()]
    ours.setLevel(levels[min(verbosity, 2)])
    ours.propagate = False
    _take_the_log_of_others(messages.as_json)


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
            if messages.as_json:
                messages.put(record.levelno, text, logger=record.name)
            else:
                messages.put(record.levelno, f"crashmover: {level}: {text}")


class Progress:
    """Shows how a copy goes; the base shows nothing."""

    def show(self, text: str) -> None:
        """Print a line of data."""
        click.echo(text)

    def advance(self, size: int, *, failed: bool) -> None:
        """Take note of one crash.

        :param size: how many bytes were moved
        """
