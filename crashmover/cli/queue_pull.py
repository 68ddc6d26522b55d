# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover queue-pull``."""

import json
import math
import sys
from contextlib import ExitStack, suppress
from typing import Any

import click

from crashmover.cli import exit_codes, signals
from crashmover.cli.console import require_output
from crashmover.cli.exit_codes import ExitCode
from crashmover.cli.options import Settings, queue_option
from crashmover.errors import QueueError
from crashmover.external.crashqueue_base import BATCH, CrashQueueBase, Delivery, QueueName
from crashmover.registry import open_queue

_WAIT = 5.0


@click.command("queue-pull", epilog=exit_codes.HELP)
@queue_option(required=True, help="Queue to take crash ids from.")
@click.option(
    "--from",
    "queues",
    type=click.Choice([name.value for name in QueueName]),
    multiple=True,
    help="Which of the queues; may be repeated.  All, if not said; priority comes first.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after N crash ids.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=_WAIT,
    show_default=True,
    metavar="S",
    help="Stop when nothing has come for S seconds.",
)
@click.option("--follow", is_flag=True, help="Go on until a signal comes.")
@click.option(
    "--no-ack",
    is_flag=True,
    help="Only look: give them all back at the end.  In a queue in a file, this does not count as"
    " a delivery.",
)
@click.option("--json", "as_json", is_flag=True, help="Print an object for each, one a line.")
@click.pass_obj
def command(settings: Settings, /, queue: str, **options: Any) -> None:
    """Take crash ids from a queue, and print them, one a line.

    A crash id is taken off the queue after its line is written; one whose line could not be
    written goes back.  With a ruleset the line is ID:RULESET, as queue-publish takes it.

    \b
    Examples:
      crashmover queue-pull -q prod --limit 100 > ids.txt
      crashmover queue-pull -q prod --from reprocessing --no-ack
    """
    if options["no_ack"] and options["follow"]:
        raise click.UsageError("--no-ack gives back at the end, and --follow has none")
    with ExitStack() as stack:
        opened = stack.enter_context(settings.open(open_queue, queue))
        opened.max_deliveries = None  # a person who takes a crash id out is to see it
        opened.verify_access()
        require_output()
        stopper = signals.Stopper(abandon=lambda: _give_back(opened))
        stack.enter_context(signals.handling(stopper))
        stack.enter_context(opened.keeping_leases())
        code = stopper.end_of(lambda: _pull(opened, stopper, options))
    raise click.exceptions.Exit(code)


def _give_back(queue: CrashQueueBase) -> None:
    """Let the queue hand out again, as far as it can be told to, what is not done."""
    with suppress(QueueError):
        queue.give_back()


def _pull(queue: CrashQueueBase, stopper: signals.Stopper, options: dict[str, Any]) -> int:
    shown: list[Delivery] = []
    count = 0
    waited = 0.0
    try:
        while stopper.number is None and count != options["limit"]:
            # In short waits, so that a signal is heard.
            left = math.inf if options["follow"] else max(0.0, options["wait"] - waited)
            step = min(1.0, left)
            room = min(BATCH, (options["limit"] or count + BATCH) - count)
            deliveries = queue.pull(options["queues"] or None, room, step)
            count += len(deliveries)
            waited = 0.0 if deliveries else waited + step
            if deliveries:
                _print(queue, deliveries, options["as_json"])
                if options["no_ack"]:
                    shown += deliveries
                else:
                    queue.ack(deliveries)
            elif waited >= options["wait"] and not options["follow"]:
                break
    finally:
        if shown:
            queue.give_back(shown)
    return ExitCode.OK


def _print(queue: CrashQueueBase, deliveries: list[Delivery], as_json: bool) -> None:
    """Print these; give them back if they could not be."""
    lines = (_as_json(delivery) if as_json else delivery.body for delivery in deliveries)
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except BaseException:
        with suppress(QueueError):
            queue.give_back(deliveries)
        raise


def _as_json(delivery: Delivery) -> str:
    return json.dumps(
        {
            "crash_id": delivery.crash_id,
            "queue": delivery.queue.value,
            "ruleset": delivery.ruleset,
            "attempt": delivery.attempt,
        }
    )
