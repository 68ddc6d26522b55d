# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover queue-publish``."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import Any

import click

from crashmover import crashid, streams
from crashmover.cli import exit_codes, signals
from crashmover.cli.console import inform, say
from crashmover.cli.exit_codes import ExitCode
from crashmover.cli.options import (
    Settings,
    check_range,
    queue_option,
    range_options,
    source_option,
)
from crashmover.cli.selecting import expect_some_option, ids_from_option, verdict
from crashmover.errors import CrashIdsFailedToPublish, InvalidCrashID
from crashmover.external.crashqueue_base import BATCH, CrashQueueBase, QueueName, parse_body
from crashmover.external.roles import ListedSource
from crashmover.idset import CrashIDs
from crashmover.registry import open_listed_source, open_queue


def _body(text: str) -> str:
    """Return a crash id as people type it, or ``ID:RULESET``."""
    try:
        return _parse(text)
    except InvalidCrashID as error:
        raise click.BadParameter(str(error)) from None


def _parse(text: str) -> str:
    try:
        return crashid.parse(text)
    except InvalidCrashID:
        typed, colon, ruleset = text.strip().rpartition(":")
        if not colon:
            raise
        body = f"{crashid.parse(typed)}:{ruleset}"
        parse_body(body)
        return body


@click.command("queue-publish", epilog=exit_codes.HELP)
@queue_option(required=True, help="Queue to publish to.")
@click.option(
    "--to",
    type=click.Choice([name.value for name in QueueName]),
    default=QueueName.STANDARD.value,
    show_default=True,
    help="Which of the queues.",
)
@ids_from_option
@source_option(required=False, help="Store whose crashes of --since to --until are published.")
@range_options
@click.option("--rate", type=click.FloatRange(min=0.01), metavar="N", help="At most N a second.")
@expect_some_option
@click.option("--create", is_flag=True, help="Make what is missing of the queues first.")
@click.argument("crash_ids", nargs=-1, type=_body, metavar="[CRASH_ID]...")
@click.pass_obj
def command(settings: Settings, /, crash_ids: tuple[str, ...], **options: Any) -> None:
    """Publish crash ids to a queue.

    Publishes those named as CRASH_ID or by --ids-from, or those of a store's days.  Either may
    be ID:RULESET.  What the queue did not confirm is printed on standard output, to be
    published again.

    \b
    Examples:
      crashmover queue-publish -q prod --to priority \\
          0bba929f-8721-460c-dead-a43c22071025
      crashmover queue-publish -q prod --to reprocessing --rate 50 \\
          -s ./crashes --since 7d
      crashmover queue-publish -q prod --ids-from ids.txt > unpublished.txt
    """
    with ExitStack() as stack:
        ids, source = _selected(stack, settings, crash_ids, options)
        counted = _Counted(ids)
        queue = stack.enter_context(settings.open(open_queue, options["queue"]))
        if options["create"]:
            for name in queue.create():
                inform(f"created {name}")
        # What was not published is printed first, however long that takes.
        stopper = stack.enter_context(signals.handling(signals.Stopper(grace=None)))
        publish = partial(_publish, queue, options["to"], counted, options["rate"], stopper)
        code = stopper.end_of(publish)
        if code == ExitCode.OK and not (options["create"] and source is None):
            some, was_listed = options["expect_some"], source is not None
            code = verdict(source, counted.count, expect_some=some, was_listed=was_listed)
    raise click.exceptions.Exit(code)


def _selected(
    stack: ExitStack, settings: Settings, crash_ids: tuple[str, ...], options: dict[str, Any]
) -> tuple[Iterator[str], ListedSource | None]:
    """Return the crash ids, and the store that they are listed in, if they are."""
    file, since, until = options["ids_from"], options["since"], options["until"]
    if since or until:
        if crash_ids or file:
            raise click.UsageError("either crash ids or a range of days")
        if not options["sources"]:
            raise click.UsageError("a range of days is one of a store: -s is missing")
        check_range(since, until)
        source = stack.enter_context(settings.open(open_listed_source, options["sources"]))
        source.verify_access()
        return source.new_crashes(since, until), source
    if not crash_ids and not file and not options["create"]:
        raise click.UsageError("no crash ids: name them, or --ids-from, or -s with --since")
    ids = stack.enter_context(CrashIDs())
    for crash_id in crash_ids:
        ids.add(crash_id)
    try:
        ids.add_lines(file or (), getattr(file, "name", ""), _parse)
    except InvalidCrashID as error:
        raise click.UsageError(f"--ids-from: {error}") from None
    return iter(ids), None


class _Counted(Iterator[str]):
    """Hands on crash ids, and counts them."""

    def __init__(self, ids: Iterator[str]) -> None:
        self._ids = ids
        self.count = 0

    def __next__(self) -> str:
        crash_id = next(self._ids)
        self.count += 1
        return crash_id


def _publish(
    queue: CrashQueueBase,
    to: str,
    ids: Iterator[str],
    rate: float | None,
    stopper: signals.Stopper,
) -> int:
    """Publish; print what was not; return the exit code."""
    # These ids are in no queue: they must be printed somewhere.
    nowhere = streams.is_output_closed()
    published = 0
    code: int = ExitCode.OK
    begun = time.monotonic()
    size = BATCH if rate is None else max(1, min(BATCH, int(rate)))
    while stopper.number is None and code == ExitCode.OK and (batch := list(islice(ids, size))):
        failed: list[str] = []
        try:
            queue.publish(to, batch)
        except CrashIdsFailedToPublish as error:
            say(f"crashmover: {error}")
            failed, code = error.crash_ids, exit_codes.of_error(error)
        published += len(batch) - len(failed)
        for crash_id in failed:
            click.echo(crash_id, err=nowhere)
        if rate is not None:
            _pause(begun + published / rate, stopper)
    left = 0
    if stopper.number or code != ExitCode.OK:
        for crash_id in ids:
            click.echo(crash_id, err=nowhere)
            left += 1
    text = f"published {published:,}" + (f"; {left:,} not tried" if left else "")
    inform(text, published=published, not_tried=left)
    return code


def _pause(until: float, stopper: signals.Stopper) -> None:
    """Sleep until then, or until a signal asks us to stop."""
    while stopper.number is None and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.2))
