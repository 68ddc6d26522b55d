# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What commands say of a store in which they found nothing, or not all that looks like a crash."""

import click

from crashmover.cli.console import say
from crashmover.cli.exit_codes import ExitCode
from crashmover.external.roles import CrashSource

expect_some_option = click.option(
    "--expect-some",
    is_flag=True,
    envvar="CRASHMOVER_EXPECT_SOME",
    show_envvar=True,
    help="End with exit code 1 where there was no crash to look at: for cron.",
)


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
