# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a copy leaves behind: its summary, and the report."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TextIO, cast

import click

from crashmover.cli import console
from crashmover.engine.mover import Outcome, Status

_LACK = "lack dumps that their raw crashes name"


class Summary:
    """What a run has done."""

    def __init__(self) -> None:
        self._counts: Counter[Status] = Counter()
        self._lacking = 0
        self._bytes = 0
        self._begun = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Count a crash."""
        self._counts[outcome.status] += 1
        self._lacking += outcome.status is Status.COPIED and bool(outcome.lacking_dumps)
        self._bytes += outcome.bytes

    @property
    def failed(self) -> int:
        return sum(self._counts[s] for s in (Status.FAILED, Status.CONFLICT, Status.MISSING))

    @property
    def all_there(self) -> int:
        """How many crashes there were, if every destination had each of them already; else 0."""
        skipped = self._counts[Status.SKIPPED]
        return skipped if skipped == self._counts.total() else 0

    @property
    def seen(self) -> int:
        """How many crashes there were, in whatever state."""
        return self._counts.total()

    @property
    def found(self) -> int:
        """How many crashes the source had."""
        return self.seen - self._counts[Status.MISSING]

    def as_dict(self) -> dict[str, Any]:
        would = {"would_copy": self._counts[Status.WOULD_COPY]}
        lacking = {"lacking_dumps": self._lacking}
        return {
            "copied": self._counts[Status.COPIED],
            **(would if any(would.values()) else {}),
            "skipped": self._counts[Status.SKIPPED],
            "failed": self.failed,
            **(lacking if self._lacking else {}),
            "bytes": self._bytes,
            "seconds": round(time.monotonic() - self._begun, 3),
        }

    def text(self) -> str:
        from rich.filesize import decimal

        counts = self.as_dict()
        size, seconds = decimal(counts.pop("bytes")), counts.pop("seconds")
        counts.pop("lacking_dumps", None)
        shown = {name: f"{name.replace('_', ' ')} {n:,}" for name, n in counts.items()}
        if self._lacking:
            is_one = self._lacking == 1
            says = "lacks dumps that its raw crash names" if is_one else _LACK
            shown["copied"] += f" ({self._lacking:,} {says})"
        return f"{', '.join(shown.values())}; {size} in {seconds:.1f} s"


@contextmanager
def writing_report(path: str | None) -> Iterator[Callable[[Outcome], None]]:
    """Give a function that writes an outcome to the report, at once."""
    if path is None:
        yield lambda outcome: None
        return
    with open_output(path, "w", "--report") as file:

        def write(outcome: Outcome) -> None:
            print(json.dumps(_line(outcome)), file=file, flush=True)

        yield write


def _line(outcome: Outcome) -> dict[str, Any]:
    line = asdict(outcome)
    if not outcome.lacking_dumps:
        del line["lacking_dumps"]
    return line


def open_output(path: str, mode: str, option: str) -> TextIO:
    """Open a file that an option names, ``w`` to begin it anew or ``a`` to keep what is in it.

    Each write goes to the end, so that a file may be truncated meanwhile, as log rotation does.

    :raises click.UsageError: it cannot be opened; the message names the option
    """
    console.refuse_closed(path, option)
    try:
        file = open(path, mode, encoding="utf-8", opener=_open_to_append)
        return cast(TextIO, file)
    except OSError as error:
        raise click.UsageError(f"{option}: {path}: {error.strerror}") from None


def _open_to_append(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_APPEND, 0o666)
