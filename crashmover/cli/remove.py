# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover remove``."""

import datetime as dt
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import Any

import click

from crashmover.cli import console, exit_codes, signals
from crashmover.cli.console import say
from crashmover.cli.exit_codes import ExitCode
from crashmover.cli.options import Settings, range_options, source_option, to_crash_id
from crashmover.cli.selecting import (
    check_selection,
    expect_some_option,
    ids_from_option,
    named_ids,
    verdict,
)
from crashmover.engine.remover import RemovalResult, Remover, Status
from crashmover.errors import CrashMoverError
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.idset import CrashIDs
from crashmover.registry import open_storage

_HANDFUL = 5  # crashes that are removed without a question


@click.command("remove", epilog=exit_codes.HELP)
@source_option(help="Store to remove from; repeated: from all of them.")
@ids_from_option
@range_options
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be removed.")
@click.option(
    "--yes",
    is_flag=True,
    help=f"Do not ask.  More than {_HANDFUL} crashes are removed only with this, or when the"
    " question on the terminal is answered with yes.",
)
@expect_some_option
@click.option("--json", "as_json", is_flag=True, help="Print an object for each, one a line.")
@click.argument("crash_ids", nargs=-1, type=to_crash_id, metavar="[CRASH_ID]...")
@click.pass_obj
def command(settings: Settings, /, crash_ids: tuple[str, ...], **options: Any) -> None:
    """Remove crashes from a store, for good.

    In a bucket that keeps versions they stay as versions, until a lifecycle
    rule of the bucket deletes these; that is said before.

    Removes the crashes named as CRASH_ID or by --ids-from, or all of the days from --since to
    --until, which must both be said.  Prints the crash ids of those that are gone, one a line,
    each as soon as that is final.

    \b
    Examples:
      crashmover remove -s ./crashes 0bba929f-8721-460c-dead-a43c22071025
      crashmover remove -s prod --ids-from ids.txt --dry-run
      crashmover remove -s prod --since 2000-01-01 --until 93d --yes
    """
    _check_usage(crash_ids, options)
    with ExitStack() as stack:
        ids = stack.enter_context(named_ids(crash_ids, options["ids_from"]))
        storage = stack.enter_context(settings.open(open_storage, options["sources"]))
        remover = stack.enter_context(Remover(storage, dry_run=options["dry_run"]))
        console.warn(remover.verify_access())
        if not options["dry_run"] and not options["yes"]:
            _ask(storage, ids, options)
        if options["since"] and _is_no_store(storage, options):
            raise click.exceptions.Exit(ExitCode.FAILED)
        removals = remover.days(*_days(options)) if options["since"] else remover.crashes(ids)
        with signals.handling(signals.Stopper(remover.stop)) as stopper:
            counts: Counter[Status] = Counter()
            code = _run(removals, remover.stop, options, counts)
        if not stopper.number and code in (ExitCode.OK, ExitCode.FAILED):
            found = counts.total() - counts[Status.MISSING]
            some = options["expect_some"]
            code = max(code, verdict(storage, found, expect_some=some, was_listed=False))
    raise click.exceptions.Exit(stopper.number + ExitCode.SIGNAL if stopper.number else code)


def _check_usage(crash_ids: tuple[str, ...], options: dict[str, Any]) -> None:
    since, until = options["since"], options["until"]
    check_selection(crash_ids, options["ids_from"], since, until)
    if crash_ids or options["ids_from"]:
        return
    if not since and not until:
        raise click.UsageError("no crashes: name them, or --ids-from, or --since and --until")
    if not since or not until:
        missing = "--until" if since else "--since"
        raise click.UsageError(f"{missing} is missing: both ends of a range must be said")


def _days(options: dict[str, Any]) -> tuple[dt.date, dt.date]:
    return options["since"], options["until"]


# The question


def _is_no_store(storage: CrashStorageBase, options: dict[str, Any]) -> bool:
    """Return True, and say so, if there is something else than crashes: to remove days would also
    take dumps that have no raw crash, as with a wrong suffix all dumps seem to be."""
    with suppress(CrashMoverError):  # the removal says it
        if next(iter(storage.all_crashes(*_days(options))), None) is None:
            return verdict(storage, 0, expect_some=False, was_listed=False) != ExitCode.OK
    return False


def _ask(storage: CrashStorageBase, ids: CrashIDs, options: dict[str, Any]) -> None:
    """Return if these crashes are few, or the answer is yes."""
    if options["since"]:
        since, until = _days(options)
        count = sum(1 for _ in storage.all_crashes(since, until))
        days = f" of {since}" if since == until else f" of {since} to {until}"
    else:
        count, days = len(ids), ""
    if count <= _HANDFUL:
        return
    what = f"{count:,} crashes{days} from {storage.uri}"
    if not _can_ask(options["ids_from"]):
        raise click.UsageError(f"this would remove {what}: it needs --yes, or --dry-run")
    if not console.is_agreed(f"Remove {what}?"):
        say("nothing was removed")
        raise click.exceptions.Exit(ExitCode.USAGE)


def _can_ask(ids_from: Any) -> bool:
    """Return True if a person can be asked, and the answer is not taken for crash ids."""
    is_taken = getattr(ids_from, "name", "") == "<stdin>"
    return not is_taken and console.can_ask()


# The work


def _run(
    removals: Iterator[RemovalResult],
    stop: Callable[[], None],
    options: dict[str, Any],
    counts: Counter[Status],
) -> int:
    """Remove; say what became of each, and of all; return the exit code.

    :param counts: is filled
    """
    code: int = ExitCode.OK
    try:
        for removal in removals:
            counts[removal.status] += 1
            try:
                _tell(removal, options["as_json"])
            except OSError:
                stop()
                _tell_of_the_rest(removal, removals, counts)
                raise
    except CrashMoverError as error:
        say(f"crashmover: {error}")
        code = exit_codes.of_error(error)
    finally:
        is_amiss = code or counts[Status.FAILED] or counts[Status.MISSING]
        level = logging.WARNING if is_amiss else logging.INFO
        say(_summary(counts, dry_run=options["dry_run"]), level=level)
    if code == ExitCode.OK and (counts[Status.FAILED] or counts[Status.MISSING]):
        return ExitCode.FAILED
    return code


def _tell_of_the_rest(
    removal: RemovalResult, removals: Iterator[RemovalResult], counts: Counter[Status]
) -> None:
    """Say elsewhere what was removed before the reader of the output was gone: many are removed
    at once."""
    untold = [removal]
    for removal in removals:
        counts[removal.status] += 1
        untold.append(removal)
    for removal in untold:
        _say(removal)


def _say(removal: RemovalResult) -> None:
    crash_id, status = removal.crash_id, removal.status
    text = ": ".join(filter(None, (crash_id, status, removal.error)))
    say(text, crash_id=crash_id, status=status)


def _tell(removal: RemovalResult, as_json: bool) -> None:
    if removal.error is not None:
        _say(removal)
    if as_json:
        known = {key: value for key, value in asdict(removal).items() if value is not None}
        click.echo(json.dumps({**known, "error": removal.error}))
    elif removal.error is None:
        # What follows a # is no part of the id for --ids-from.
        parts = f"  # {', '.join(removal.parts)}" if removal.parts else ""
        click.echo(f"{removal.crash_id}{parts}")


def _summary(counts: Counter[Status], *, dry_run: bool) -> str:
    done = Status.WOULD_REMOVE if dry_run else Status.REMOVED
    shown = {done.value.replace("-", " "): done, "missing": Status.MISSING, "failed": Status.FAILED}
    return ", ".join(f"{name} {counts[status]:,}" for name, status in shown.items())
