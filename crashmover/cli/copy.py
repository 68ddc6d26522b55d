# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover copy``."""

import datetime as dt
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from crashmover.cli import console, exit_codes, metrics, process, signals
from crashmover.cli.exit_codes import ExitCode
from crashmover.cli.options import (
    Settings,
    destination_option,
    queue_option,
    range_options,
    source_option,
    to_crash_id,
    to_seconds,
)
from crashmover.cli.progress import progress, progress_option
from crashmover.cli.report import Summary, writing_report
from crashmover.cli.selecting import (
    check_selection,
    expect_some_option,
    ids_from_option,
    kinds_option,
    listed,
    named_ids,
    verdict,
)
from crashmover.crash import Kind
from crashmover.engine.mover import Existing, Mover, Outcome
from crashmover.errors import CrashMoverError, StorageError
from crashmover.external.roles import CrashDestination, CrashSource, ListedSource
from crashmover.registry import open_destination, open_queue, open_source
from crashmover.selection import QueuedIDs


@click.command("copy", epilog=exit_codes.HELP)
@source_option()
@destination_option()
@ids_from_option
@range_options
@queue_option(
    required=False,
    help="Queue that crash ids come from.  One is acked when every destination has its crash,"
    " and else given back.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    metavar="S",
    help="With -q: stop when nothing has come for S seconds.",
)
@click.option("--follow", is_flag=True, help="With -q: go on until a signal comes.")
@kinds_option
@click.option(
    "--existing",
    type=click.Choice([existing.value for existing in Existing]),
    default=Existing.SKIP.value,
    show_default=True,
    help="What to do about a crash that the destination has: skip passes over it; compare looks"
    " at every part, adds what is missing and rewrites a processed crash that differs, and"
    " reports a raw crash or dump that differs; overwrite copies without looking.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Read every part back and compare SHA-256. A crash fails before it is visible at any"
    " destination where its raw or processed crash is not a JSON object, or where a dump is missing"
    " or differs by the checksums in the raw crash.",
)
@click.option(
    "--remove-source",
    is_flag=True,
    help="Remove a crash from the source once every destination has all of it, durably. One"
    " that was skipped without being compared stays. First it is proved that source and"
    " destination are two stores.",
)
@click.option("--redact", is_flag=True, help="Leave protected keys out of processed crashes.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Change nothing; say how many would be copied, and in --report which.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop after N crashes; those that are skipped do not count.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Work on N crashes (or batches of them) at a time; between buckets and file systems, at"
    " most.  Without it: as many as raise the rate, as far as the stores allow.",
)
@click.option(
    "--max-duration",
    type=to_seconds,
    metavar="TIME",
    help="Begin no further batch of crashes after this time: 90s, 10m, 1h30m.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write what became of each crash, one JSON line each; the file is begun anew.  It may be"
    " truncated meanwhile; if it is renamed, it is written to under its new name.",
)
@click.option(
    "--lock",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Do nothing, and end with exit code 4, while another run holds this file.",
)
@expect_some_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option(
    "--statsd",
    type=metrics.to_address,
    metavar="HOST:PORT",
    envvar="CRASHMOVER_STATSD",
    show_envvar=True,
    help="Send the figures of the run to this statsd server when it ends.",
)
@progress_option
@click.argument("crash_ids", nargs=-1, type=to_crash_id, metavar="[CRASH_ID]...")
@click.pass_obj
def command(settings: Settings, /, crash_ids: tuple[str, ...], **options: Any) -> None:
    """Copy crashes from one store to others.

    Copies the crashes named as CRASH_ID or by --ids-from, or those of the days from --since
    to --until, or those in a queue, or all.  A source that holds something else, such as crashes in
    another layout, is not taken for an empty one: that ends with exit code 1.

    A crash arrives whole or not at all, byte for byte; what was reported as copied is on the
    disk.  A run that was stopped is simply run again.

    \b
    Examples:
      crashmover copy -s ./crashes -d /archive
      crashmover copy -s ./crashes -d prod --since 7d --until yesterday --verify
      crashmover copy -s prod -d ./here bp-0bba929f-8721-460c-dead-a43c22071025
      crashmover copy -s ./crashes -d /archive --ids-from ids.txt \\
          --remove-source --report report.jsonl
      crashmover copy -s prod -d /archive -q pubsub://project/prefix --follow
    """
    _check_usage(crash_ids, options)
    process.allow_open_files()
    process.keep_memory_together()
    with ExitStack() as stack:
        source = stack.enter_context(settings.open(open_source, options["sources"]))
        destination = stack.enter_context(settings.open(open_destination, options["destinations"]))
        mover = _mover(source, destination, options)
        if options["queue"]:
            selected = _from_queue(stack, settings, mover, options)
        else:
            selected = _selected(stack, source, mover.marker, crash_ids, options)
        if options["lock"]:
            stack.enter_context(process.locked(options["lock"]))
        if not options["dry_run"]:
            console.warn(destination.cautions())
            console.warn(source.cautions() if options["remove_source"] else ())
        stack.enter_context(mover)
        mover.verify_access()
        removing = options["remove_source"] and not options["dry_run"]
        console.warn(source.reading_risks(removing=removing))
        if not options["dry_run"]:
            console.warn_of_risks(destination)
        report = stack.enter_context(writing_report(options["report"]))
        bar = stack.enter_context(progress(options["progress"], selected.total))
        code = _run(source, mover, selected, options, report, bar)
    raise click.exceptions.Exit(code)


def _check_usage(crash_ids: tuple[str, ...], options: dict[str, Any]) -> None:
    since, until = options["since"], options["until"]
    check_selection(crash_ids, options["ids_from"], since, until)
    if crash_ids or options["ids_from"] or since or until:
        origin = click.get_current_context().get_parameter_source("queue")
        if options["queue"] and origin is ParameterSource.COMMANDLINE:
            raise click.UsageError("either a queue, or crash ids, or a range of days")
        options["queue"] = None  # the environment's is for runs that name nothing else
    if options["follow"] and not options["queue"]:
        raise click.UsageError("--follow is of a queue: -q is missing")


def _mover(source: CrashSource, destination: CrashDestination, options: dict[str, Any]) -> Mover:
    names = ("kinds", "verify", "remove_source", "dry_run", "limit", "workers")
    try:
        return Mover(
            source,
            destination,
            existing=Existing(options["existing"]),
            redactor=source.redactor if options["redact"] else None,
            **{name: options[name] for name in names},
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


Listings = Callable[[ListedSource], Iterator[str]]


class _Selected(NamedTuple):
    """The crash ids, how many they are, and how to list the same in another store."""

    ids: Iterable[str | None]
    total: int | None = None
    listings: Listings | None = None
    queued: QueuedIDs | None = None


def _from_queue(
    stack: ExitStack, settings: Settings, mover: Mover, options: dict[str, Any]
) -> _Selected:
    queue = stack.enter_context(settings.open(open_queue, options["queue"]))
    queue.verify_access()
    stack.enter_context(queue.keeping_leases())
    wait = None if options["follow"] else options["wait"]
    queued = QueuedIDs(queue, batch_size=mover.batch_size, wait=wait, keep=options["dry_run"])
    return _Selected(iter(queued), queued=queued)


def _selected(
    stack: ExitStack,
    source: CrashSource,
    marker: Kind,
    crash_ids: tuple[str, ...],
    options: dict[str, Any],
) -> _Selected:
    if crash_ids or options["ids_from"]:
        ids = stack.enter_context(named_ids(crash_ids, options["ids_from"]))
        return _Selected(iter(ids), len(ids))

    def listings(store: ListedSource) -> Iterator[str]:
        since: dt.date | None = options["since"]
        return store.new_crashes(since, options["until"], marker)

    return _Selected(listings(listed(source)), None, listings)


def _run(
    source: CrashSource,
    mover: Mover,
    selected: _Selected,
    options: dict[str, Any],
    report: Callable[[Outcome], None],
    bar: console.Progress,
) -> int:
    """Copy; say how it went; return the exit code."""
    summary = Summary()
    queued = selected.queued
    stopper = signals.Stopper(mover.stop, lambda: _give_back(queued))
    failure: CrashMoverError | None = None
    ahead = {"ahead": 1} if queued else {}  # no more than can be started now
    time_limit = process.time_limit(options["max_duration"], mover.stop)
    with signals.handling(stopper), time_limit as expired:
        try:
            for outcome in mover.run(selected.ids, selected.listings, **ahead):
                if queued:
                    queued.settle(outcome.crash_id, outcome.error is None)
                summary.add(outcome)
                report(outcome)
                bar.advance(outcome.bytes, failed=outcome.error is not None)
                if outcome.error:
                    crash_id, status = outcome.crash_id, outcome.status.value
                    text = f"{crash_id}: {status}: {outcome.error}"
                    console.say(text, crash_id=crash_id, status=status)
        except CrashMoverError as error:
            failure = error
        except BaseException:  # the report could not be written, for one
            _give_back(queued)
            raise
        try:
            if queued:
                queued.close(is_outage=isinstance(failure, StorageError))
        except CrashMoverError as error:
            failure = failure or error
    if failure:
        console.say(f"crashmover: {failure}")
    is_whole = not (failure or stopper.number or expired.is_set() or options["limit"])
    code = _verdict(source, selected, options, summary) if is_whole else ExitCode.OK
    if expired.is_set():
        text = "crashmover: stopped by --max-duration; another run copies the rest"
        console.say(text, level=logging.WARNING)
    _tell(summary, options)
    if stopper.number:
        return ExitCode.SIGNAL + stopper.number
    if failure:
        return exit_codes.of_error(failure)
    given_up = queued.given_up_count if queued else 0
    return ExitCode.FAILED if summary.failed or given_up else code


def _verdict(
    source: CrashSource, selected: _Selected, options: dict[str, Any], summary: Summary
) -> ExitCode:
    """Say what is wrong with the selection; return the exit code for it."""
    was_listed, some = selected.listings is not None, options["expect_some"]
    storage = None if selected.queued and not summary.seen else source
    return verdict(storage, summary.found, expect_some=some, was_listed=was_listed)


def _tell(summary: Summary, options: dict[str, Any]) -> None:
    """Say what the run has done, to whom it may concern."""
    console.inform(summary.text(), **summary.as_dict())
    if options["remove_source"] and (there := summary.all_there):
        console.inform(f"all {there:,} crashes were in the destination already")
    if options["as_json"]:
        click.echo(json.dumps(summary.as_dict()))
    if options["statsd"]:
        metrics.send(options["statsd"], summary.as_dict())


def _give_back(queued: QueuedIDs | None) -> None:
    """Let the queue hand out again, as far as it can be told to, what is not done."""
    if queued:
        with suppress(CrashMoverError):
            queued.close()
