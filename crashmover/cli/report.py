# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a copy leaves behind for whoever ran it: its summary, and the report."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO, cast

import click

from crashmover.mover import Outcome, Status


class Summary:
    """What a run has done."""

    def __init__(self) -> None:
        self._counts: Counter[Status] = Counter()
        self._bytes = 0
        self._begun = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Count a crash."""
        self._counts[outcome.status] += 1
        self._bytes += outcome.bytes

    @property
    def failed(self) -> int:
        return sum(self._counts[s] for s in (Status.FAILED, Status.CONFLICT, Status.MISSING))

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
        return {
            "copied": self._counts[Status.COPIED],
            **(would if any(would.values()) else {}),
            "skipped": self._counts[Status.SKIPPED],
            "failed": self.failed,
            "bytes": self._bytes,
            "seconds": round(time.monotonic() - self._begun, 3),
        }

    def text(self) -> str:
        from rich.filesize import decimal

        counts = self.as_dict()
        size, seconds = decimal(counts.pop("bytes")), counts.pop("seconds")
        shown = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in counts.items())
        return f"{shown}; {size} in {seconds:.1f} s"


@contextmanager
def writing_report(path: str | None) -> Iterator[Callable[[Outcome], None]]:
    """Give a function that writes an outcome to the report, at once."""
    if path is None:
        yield lambda outcome: None
        return
    with open_output(path, "w", "--report") as file:

        def write(outcome: Outcome) -> None:
            print(json.dumps(asdict(outcome)), file=file, flush=True)

        yield write


def open_output(path: str, mode: str, option: str) -> TextIO:
    try:
        return cast(TextIO, Path(path).open(mode, encoding="utf-8"))
    except OSError as error:
        raise click.UsageError(f"{option}: {path}: {error.strerror}") from None
