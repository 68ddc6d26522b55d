# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover check``."""

import json
import logging
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import click

from crashmover.cli import console, exit_codes, signals
from crashmover.cli.exit_codes import ExitCode
from crashmover.cli.options import (
    Settings,
    destination_option,
    range_options,
    source_option,
    to_crash_id,
)
from crashmover.cli.progress import progress, progress_option
from crashmover.cli.selecting import (
    check_selection,
    expect_some_option,
    ids_from_option,
    kinds_option,
    listed,
    named_ids,
    verdict,
)
from crashmover.engine.checker import Checker, Finding, Verdict
from crashmover.engine.distinct import refuse_check_of_itself
from crashmover.registry import open_source


@click.command("check", epilog=exit_codes.HELP)
@source_option(
    help="Store with the crashes as they should be; repeated: a crash comes from the first that"
    " has it."
)
@destination_option(help="Store that should have them; repeated: each of these is checked.")
@ids_from_option
@range_options
@kinds_option
@click.option(
    "--digest",
    is_flag=True,
    help="Read every part on both sides and compare SHA-256. A crash also differs where the"
    " source's raw or processed crash is not a JSON object, or where a dump is missing or differs"
    " by the checksums in the raw crash.",
)
@click.option("--all", "everything", is_flag=True, help="Print the crashes that are ok, too.")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Work on N batches of crashes at a time; between buckets and file systems, at"
    " most.  Without it: as many as raise the rate, as far as the stores allow.",
)
@expect_some_option
@click.option("--json", "as_json", is_flag=True, help="Print an object for each, one a line.")
@progress_option
@click.argument("crash_ids", nargs=-1, type=to_crash_id, metavar="[CRASH_ID]...")
@click.pass_obj
def command(settings: Settings, /, crash_ids: tuple[str, ...], **options: Any) -> None:
    """Check whether stores have the crashes that another has; nothing is changed.

    Checks the crashes named as CRASH_ID or by --ids-from, or those of the days from --since to
    --until, or all of the source.  Prints the crashes that are not ok, one a line, with what is
    wrong behind a "#", as --ids-from takes them: missing, differs, missing dump, processed
    missing, failed.  What only a destination has is not looked for.  To bring what
    is missing, give them to "copy --existing compare".  A source that holds something else, such as
    crashes in another layout, is not taken for an empty one: that ends with exit code 1.

    \b
    Examples:
      crashmover check -s ./crashes -d prod --since yesterday --until yesterday
      crashmover check -s ./crashes -d /archive --digest > bad.txt
      crashmover check -s prod -d archive --ids-from ids.txt --all --json
    """
    given = options["ids_from"]
    check_selection(crash_ids, given, options["since"], options["until"])
    with ExitStack() as stack:
        source = stack.enter_context(settings.open(open_source, options["sources"]))
        destination = stack.enter_context(settings.open(open_source, options["destinations"]))
        names = ("kinds", "digest", "workers")
        checker = Checker(source, destination, **{name: options[name] for name in names})
        ids: Iterable[str]
        total = None
        if crash_ids or given:
            ids = named = stack.enter_context(named_ids(crash_ids, given))
            total = len(named)
        else:
            days = options["since"], options["until"]
            ids = listed(source).new_crashes(*days, checker.marker)
        stack.enter_context(checker)
        checker.verify_access()
        for store in (source, *destination.stores):
            console.warn(store.reading_risks())
        if not options["digest"]:  # which finds out whether a store is sound in itself
            refuse_check_of_itself(source, destination.stores)
        bar = stack.enter_context(progress(options["progress"], total))
        found = Findings(options, is_named=total is not None, stores=len(destination.stores))
        stopper = signals.Stopper(checker.stop)
        with signals.handling(stopper):
            code = stopper.end_of(lambda: found.take(checker.run(ids), bar))
        if code in (ExitCode.OK, ExitCode.FAILED):
            selected, some = found.sound, options["expect_some"]
            code = max(code, verdict(source, selected, expect_some=some, was_listed=total is None))
    raise click.exceptions.Exit(code)


class Findings:
    """Prints what is found, and counts it.

    :param options: of the command: whether to print what is ok, too, and whether as objects
    :param is_named: whether the crashes were named: then one that the source does not have is
        a mistake, and otherwise it was removed since it was listed
    :param stores: how many are checked; of several, each line says which it is about
    """

    def __init__(self, options: dict[str, Any], *, is_named: bool, stores: int) -> None:
        self._fine = {Verdict.OK} if is_named else {Verdict.OK, Verdict.GONE}
        self._everything: bool = options["everything"]
        self._line = self._as_json if options["as_json"] else self._as_text
        self._with_store = stores > 1
        self._counts: Counter[Verdict] = Counter()
        self._bytes = 0

    def take(self, findings: Iterable[Finding], bar: console.Progress) -> int:
        """Print all that are found, and in the end how many there were; return the exit code."""
        try:
            for finding in findings:
                is_fine = finding.status in self._fine
                self._counts[finding.status] += 1
                self._bytes += finding.bytes
                bar.advance(finding.bytes, failed=not is_fine)
                if self._everything or not is_fine:
                    bar.show(self._line(finding))
        finally:
            is_fine = set(self._counts) <= self._fine
            level = logging.INFO if is_fine else logging.WARNING
            console.say(self._summary(), level=level, **self._figures())
        return ExitCode.OK if is_fine else ExitCode.FAILED

    @property
    def sound(self) -> int:
        """How many crashes the source had."""
        return self._counts.total() - self._counts[Verdict.GONE]

    def _as_json(self, finding: Finding) -> str:
        parts = finding.difference.as_dict()
        error = {"error": finding.error} if finding.error else {}
        about = {"crash_id": finding.crash_id, "status": finding.status, "store": finding.store}
        return json.dumps({**about, **parts, **error})

    def _as_text(self, finding: Finding) -> str:
        whole = finding.status in (Verdict.MISSING, Verdict.PROCESSED_MISSING)
        parts = "" if whole else str(finding.difference)
        store = finding.store if self._with_store else ""
        said = ": ".join(filter(None, (store, finding.error or parts)))
        wrong = f"{finding.status} ({said})" if said else finding.status
        return console.printable(f"{finding.crash_id}  # {wrong}")

    def _figures(self) -> dict[str, int]:
        counts = {Verdict.OK: 0, **self._counts}
        named = {verdict.replace(" ", "_"): number for verdict, number in counts.items()}
        return {"checked": self._counts.total(), **named, "bytes": self._bytes}

    def _summary(self) -> str:
        from rich.filesize import decimal

        counts = {Verdict.OK: 0, **self._counts}
        shown = ", ".join(f"{status} {counts[status]:,}" for status in Verdict if status in counts)
        read = f"; {decimal(self._bytes)} compared" if self._bytes else ""
        return f"checked {sum(counts.values()):,}: {shown}{read}"
