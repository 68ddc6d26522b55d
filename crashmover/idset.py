# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Crash ids on disk: each once, in the order of adding or by day."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Self

from crashmover import crashid
from crashmover.errors import InvalidCrashID

_BOM = "\ufeff"
_LONGEST = 10_000  # characters of a line
_ADD = "INSERT OR IGNORE INTO ids (id) VALUES (?)"


class CrashIDs:
    """Crash ids, each once, on disk and not in memory."""

    def __init__(self) -> None:
        import sqlite3  # only where ids are named

        # An unnamed database is a temporary file that is gone when it is closed.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE ids (number INTEGER PRIMARY KEY, id TEXT UNIQUE)")
        self._database.execute("BEGIN")

    def add(self, *crash_ids: str) -> None:
        """Add ids that are valid."""
        self._database.executemany(_ADD, ((each,) for each in crash_ids))

    def add_lines(
        self,
        lines: Iterable[str],
        name: str,
        parse: Callable[[str], str] = crashid.parse,
    ) -> None:
        """Add the ids in a text, one a line, as people type them.

        Blank lines and what follows a ``#`` do not count.  All lines are read and checked here, so
        that a bad one stops a command before it has changed anything.  Of a file, a line is read
        no further than one can be long.

        :param name: of the file, for messages
        :param parse: returns what is meant by a line, or raises `InvalidCrashID`
        :raises InvalidCrashID: of a line, which it names
        """
        if readline := getattr(lines, "readline", None):
            lines = iter(partial(readline, _LONGEST), "")
        self._database.executemany(_ADD, ((each,) for each in _parsed(lines, name, parse)))

    def __len__(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM ids").fetchone()
        return int(count)

    def __iter__(self) -> Iterator[str]:
        """Yield them in the order in which they were added first."""
        return self._ordered("number")

    def by_day(self) -> Iterator[str]:
        """Yield them in the order of `crashid.sort_key`."""
        return self._ordered("substr(id, -6), id")

    def _ordered(self, by: str) -> Iterator[str]:
        for (crash_id,) in self._database.execute(f"SELECT id FROM ids ORDER BY {by}"):
            yield crash_id

    def close(self) -> None:
        """Forget them."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _parsed(lines: Iterable[str], name: str, parse: Callable[[str], str]) -> Iterator[str]:
    """Yield what is meant by each line; as `CrashIDs.add_lines` says."""
    for number, line in enumerate(lines, 1):
        if len(line) >= _LONGEST:
            raise InvalidCrashID(line, f"{name}, line {number}: it is too long")
        text = line.removeprefix(_BOM) if number == 1 else line
        if "#" in text:  # a report's URL may have a fragment: a comment needs a blank before it
            text = re.split(r"(?:^|\s)#", text, maxsplit=1)[0]
        if not (text := text.strip()):
            continue
        try:
            yield parse(text)
        except InvalidCrashID as error:
            where = f"{name}, line {number}"
            reason = f"{where}: {error.reason}" if error.reason else where
            raise InvalidCrashID(text, reason) from error
