# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Which crashes, and which of their parts: options that commands share, and what they say where
none was found."""

import datetime as dt
from collections.abc import Sequence
from typing import TextIO, assert_never

import click

from crashmover.cli.console import say
from crashmover.cli.exit_codes import ExitCode
from crashmover.cli.options import IdsFileType, check_range
from crashmover.crash import Kind
from crashmover.engine.plan import require_listed
from crashmover.errors import InvalidCrashID
from crashmover.external.roles import CrashSource, ListedSource
from crashmover.idset import CrashIDs


def word_for(kind: Kind) -> str:
    """Return what options call a kind of parts."""
    match kind:
        case Kind.RAW_CRASH:
            return "raw"
        case Kind.DUMP:
            return "dumps"
        case Kind.PROCESSED_CRASH:
            return "processed"
        case _:
            assert_never(kind)


_KINDS = {word_for(kind): kind for kind in Kind}


def _kinds(text: str) -> frozenset[Kind]:
    """Return the kinds of ``raw,dumps,processed``, or of some of these."""
    words = [word.strip() for word in text.split(",")]
    if unknown := [word for word in words if word not in _KINDS]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(_KINDS)}")
    return frozenset(_KINDS[word] for word in words)


ids_from_option = click.option(
    "--ids-from",
    type=IdsFileType(),
    metavar="FILE",
    help="Crash ids from a file, one a line; - for standard input.",
)

kinds_option = click.option(
    "--kinds",
    type=_kinds,
    default=",".join(_KINDS),
    metavar="KIND,...",
    help=f"Only these kinds of parts: {', '.join(_KINDS)}.",
)


expect_some_option = click.option(
    "--expect-some",
    is_flag=True,
    envvar="CRASHMOVER_EXPECT_SOME",
    show_envvar=True,
    help="End with exit code 1 where there was no crash to look at: for cron.",
)


def check_selection(
    crash_ids: Sequence[str],
    file: TextIO | None,
    since: dt.date | None,
    until: dt.date | None,
) -> None:
    """Refuse what cannot say which crashes are meant."""
    if (crash_ids or file) and (since or until):
        raise click.UsageError("either crash ids or a range of days")
    check_range(since, until)


def named_ids(crash_ids: Sequence[str], file: TextIO | None) -> CrashIDs:
    """Return the crash ids that were given as arguments, and those in the file of --ids-from."""
    ids = CrashIDs()
    try:
        for crash_id in crash_ids:
            ids.add(crash_id)
        ids.add_lines(file or (), getattr(file, "name", ""))
    except InvalidCrashID as error:
        ids.close()
        raise click.UsageError(f"--ids-from: {error}") from None
    return ids


def listed(source: CrashSource) -> ListedSource:
    """Return the source, whose crashes are going to be listed."""
    try:
        return require_listed(source)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def verdict(
    storage: CrashSource | None, selected: int, *, expect_some: bool, was_listed: bool
) -> ExitCode:
    """Say what is wrong with a selection that has ended; return the exit code for it.

    :param storage: where the crashes come from; None where they come from a queue alone
    :param selected: how many crashes were found there, those that were skipped too
    :param was_listed: whether they come from a listing of the store, which has ended
    :raises StorageError: the store cannot be read
    """
    lines: list[str] = []
    if storage and was_listed:
        lines += storage.passed_over()
    is_one_of_several = was_listed and storage is not None and len(storage.stores) > 1
    if storage and not lines and (is_one_of_several or not selected):
        lines += storage.tuning.retry.call(lambda: list(storage.strangers()))
    if not selected and not lines and expect_some:
        lines.append("--expect-some: there was no crash")
    for line in lines:
        say(f"crashmover: {line}")
    return ExitCode.FAILED if lines else ExitCode.OK
