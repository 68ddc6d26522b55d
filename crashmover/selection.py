# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Which crashes: the ids in a file, or a range of days."""

import datetime as dt
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from crashmover import crashid
from crashmover.errors import InvalidCrashID

_BOM = "\ufeff"
_DAYS_AGO = re.compile(r"([0-9]{1,5})d", re.ASCII)


def parse_day(text: str, today: dt.date | None = None) -> dt.date:
    """Return the day that a person means by ``2026-11-20``, ``today``, ``yesterday`` or
    ``7d`` (seven days ago); days are UTC's, as in crash ids.

    :raises ValueError: it is none of these
    """
    today = today or dt.datetime.now(dt.UTC).date()
    typed = text.strip().lower()
    ago = {"today": 0, "yesterday": 1}.get(typed)
    if match := _DAYS_AGO.fullmatch(typed):
        ago = int(match.group(1))
    if ago is not None:
        return today - dt.timedelta(days=ago)
    if len(typed) == len("2026-11-20"):
        return dt.date.fromisoformat(typed)
    raise ValueError("not a day")


class CrashIDs:
    """Crash ids, each once, in the order in which they were added first.

    They wait on disk, not in memory: all are read and checked before the first is handed
    out, so that a bad one stops a command before it has changed anything.
    """

    def __init__(self) -> None:
        # An unnamed database is a temporary file that is gone when it is closed.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE ids (number INTEGER PRIMARY KEY, id TEXT UNIQUE)")
        self._database.execute("BEGIN")

    def add(self, crash_id: str) -> None:
        """Add one that is valid."""
        self._database.execute("INSERT OR IGNORE INTO ids (id) VALUES (?)", (crash_id,))

    def add_lines(
        self,
        lines: Iterable[str],
        name: str,
        parse: Callable[[str], str] = crashid.parse,
    ) -> None:
        """Add those in a text, one a line, as people type them; blank lines and what follows
        a ``#`` do not count.

        :param name: of the file, for messages
        :param parse: returns what is meant by a line, or raises `InvalidCrashID`
        :raises InvalidCrashID: of a line, which it names
        """
        for number, line in enumerate(lines, 1):
            # A report's URL may have a fragment: a comment needs a blank before its #.
            if number == 1:
                line = line.removeprefix(_BOM)
            text = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
            if not text:
                continue
            try:
                self.add(parse(text))
            except InvalidCrashID as error:
                where = f"{name}, line {number}"
                reason = f"{where}: {error.reason}" if error.reason else where
                raise InvalidCrashID(text, reason) from error

    def __len__(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM ids").fetchone()
        return int(count)

    def __iter__(self) -> Iterator[str]:
        for (crash_id,) in self._database.execute("SELECT id FROM ids ORDER BY number"):
            yield crash_id

    def close(self) -> None:
        """Forget them."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
