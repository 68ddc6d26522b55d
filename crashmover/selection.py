# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Which crashes: the ids in a file, or a range of days."""

import datetime as dt
import re
import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from crashmover import crashid
from crashmover.errors import InvalidCrashID

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


class CrashIDFile:
    """The crash ids in a text, one a line; blank lines and what follows ``#`` do not count.

    All of it is read and checked before the first id is handed out, so that a bad line
    stops a command before it has changed anything; the ids wait on disk, not in memory.

    :param lines: of the file
    :param name: of the file, for messages
    :raises InvalidCrashID: of a line, which it names
    """

    def __init__(self, lines: Iterable[str], name: str) -> None:
        self._spool = tempfile.TemporaryFile("w+", encoding="ascii")
        self.count = 0
        try:
            for number, line in enumerate(lines, 1):
                self._add(line, f"{name}, line {number}")
        except BaseException:
            self._spool.close()
            raise

    def _add(self, line: str, where: str) -> None:
        # A report's URL may have a fragment: a comment needs a blank before its #.
        text = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        if not text:
            return
        try:
            self._spool.write(crashid.parse(text) + "\n")
        except InvalidCrashID as error:
            raise InvalidCrashID(text, where) from error
        self.count += 1

    def __iter__(self) -> Iterator[str]:
        self._spool.seek(0)
        for line in self._spool:
            yield line.rstrip("\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._spool.close()
