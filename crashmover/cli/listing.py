# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover list``."""

import datetime as dt
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import click

from crashmover import crashid
from crashmover.cli import exit_codes
from crashmover.cli.console import inform, require_output, say, warn
from crashmover.cli.exit_codes import ExitCode
from crashmover.cli.options import Settings, check_range, range_options, source_option
from crashmover.cli.selecting import expect_some_option, verdict, word_for
from crashmover.crash import MARKERS, Kind
from crashmover.external.roles import ListedSource
from crashmover.registry import open_listed_source

_KINDS = {word_for(kind): kind for kind in MARKERS}


@dataclass
class Count:
    """How many crashes, and how many bytes they have, if that was asked for."""

    crashes: int = 0
    bytes: int | None = None
    without_bytes: int = 0

    def add(self, size: int | None) -> None:
        """Count one more."""
        self.crashes += 1
        if size is None:
            self.without_bytes += 1
        else:
            self.bytes = (self.bytes or 0) + size

    def as_dict(self) -> dict[str, int]:
        return {"crashes": self.crashes} | ({} if self.bytes is None else {"bytes": self.bytes})

    def texts(self) -> tuple[str, str]:
        """For people; the second is empty where bytes were not asked for."""
        if self.bytes is None:
            return f"{self.crashes:,}", ""
        from rich.filesize import decimal

        return f"{self.crashes:,}", decimal(self.bytes)


@click.command("list", epilog=exit_codes.HELP)
@source_option(help="Store to list; repeated: the crashes of all of them, each once.")
@range_options
@click.option(
    "--kind",
    type=click.Choice(list(_KINDS)),
    default="raw",
    show_default=True,
    help="List the crashes that have a raw crash, or those that have a processed crash.",
)
@click.option("--by-day", is_flag=True, help="Count the crashes of each day instead.")
@click.option(
    "--bytes",
    "with_bytes",
    is_flag=True,
    help="Say how many bytes they have: their parts, or with --kind processed that part.",
)
@expect_some_option
@click.option("--json", "as_json", is_flag=True, help="Print an object for each, one a line.")
@click.pass_obj
def command(
    settings: Settings,
    /,
    sources: tuple[str, ...],
    since: dt.date | None,
    until: dt.date | None,
    kind: str,
    by_day: bool,
    with_bytes: bool,
    expect_some: bool,
    as_json: bool,
) -> None:
    """List the crashes in a store, by day and id.

    Prints the crash ids, one a line, as --ids-from takes them; how many there were goes to
    standard error.  A store that holds something else, such as crashes in another layout, is not
    taken for an empty one: that ends with exit code 1, as does anything passed over that looks
    like a crash.

    \b
    Examples:
      crashmover list -s ./crashes --since yesterday
      crashmover list -s prod --since 7d --by-day --bytes
      crashmover list -s prod --kind processed --json | jq -r .crash_id
    """
    check_range(since, until)
    with settings.open(open_listed_source, sources) as storage:
        storage.tuning.retry.call(storage.verify_access)
        require_output()
        warn(storage.reading_risks())
        marker = _KINDS[kind]
        total = _print(_listed(storage, since, until, marker, with_bytes), by_day, as_json)
        code = verdict(storage, total.crashes, expect_some=expect_some, was_listed=True)
    crashes, size = total.texts()
    inform(f"listed {crashes}" + (f"; {size}" if size else ""), **total.as_dict())
    raise click.exceptions.Exit(ExitCode.FAILED if with_bytes and total.without_bytes else code)


def _print(sized: Iterable[tuple[str, int | None]], by_day: bool, as_json: bool) -> Count:
    """Print each crash, or each day; return how many there were."""
    total = Count()
    for day, crashes in groupby(sized, key=lambda item: crashid.date_of(item[0])):
        of_day = Count()
        for crash_id, size in crashes:
            of_day.add(size)
            total.add(size)
            if not by_day:
                click.echo(_line(crash_id, day, size, as_json))
        if by_day:
            row = json.dumps({"date": str(day), **of_day.as_dict()})
            columns = "  ".join((f"{day}", *(text.rjust(10) for text in of_day.texts())))
            click.echo(row if as_json else columns.rstrip())
    return total


def _line(crash_id: str, day: dt.date, size: int | None, as_json: bool) -> str:
    if as_json:
        known = {} if size is None else {"bytes": size}
        return json.dumps({"crash_id": crash_id, "date": str(day), **known})
    return crash_id if size is None else f"{crash_id}  {size}"


def _listed(
    storage: ListedSource,
    since: dt.date | None,
    until: dt.date | None,
    kind: Kind,
    with_bytes: bool,
) -> Iterator[tuple[str, int | None]]:
    """Yield each crash with its bytes; with None where these were not asked for, or cannot be
    found out.  Of the latter, say why."""
    if not with_bytes:
        for crash_id in storage.new_crashes(since, until, kind):
            yield crash_id, None
        return
    for crash_id, size in storage.crash_sizes(since, until, kind):
        if isinstance(size, int):
            yield crash_id, size
        else:
            say(f"{crash_id}: {size.brief()}", crash_id=crash_id)
            yield crash_id, None
