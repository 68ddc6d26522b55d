# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Which progress is shown: a bar, lines, or none."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from crashmover.cli import console
from crashmover.cli.console import Progress

progress_option = click.option(
    "--progress/--no-progress", default=None, help="Show progress; else only on a terminal."
)


@contextmanager
def progress(wanted: bool | None, total: int | None) -> Iterator[Progress]:
    """Show progress on standard error while this lasts.

    :param wanted: None: if that is a terminal.  Among messages for machines, and with --quiet,
        nothing is shown.
    :param total: how many crashes there are, where that is known
    """
    if wanted is None:
        wanted = sys.stderr.isatty()
    if not wanted or console.messages.as_json or console.messages.quiet:
        yield Progress()
        return
    from crashmover.cli.bar import Bar, Lines  # which import rich

    if not sys.stderr.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        yield Lines(total)
        return
    bar = Bar(total)
    if not bar.begin():
        yield Lines(total)
        return
    with bar.rich, console.written_by(bar.write):
        yield bar
