# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover copy``."""

import datetime as dt
import fcntl
import json
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from threading import Event, Timer
from typing import Any, TextIO, cast

import click

from crashmover.cli import console, exit_codes, signals
from crashmover.cli.exit_codes import ExitCode
from crashmover.cli.options import (
    CrashIDType,
    DurationType,
    Settings,
    destination_option,
    range_options,
    source_option,
)
from crashmover.crash import ALL_KINDS, Kind
from crashmover.errors import InvalidCrashID, StorageError
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.mover import Existing, Mover, Outcome, Status
from crashmover.redactor import Redactor
from crashmover.selection import CrashIDs

_KINDS = {"raw": Kind.RAW_CRASH, "dumps": Kind.DUMP, "processed": Kind.PROCESSED_CRASH}


class KindsType(click.ParamType):
    """``raw,dumps,processed``, or some of these."""

    name = "kinds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> frozenset[Kind]:
        if isinstance(value, frozenset):
            return value
        words = [word.strip() for word in value.split(",")]
        if unknown := [word for word in words if word not in _KINDS]:
            self.fail(f"{unknown[0]!r} is none of {', '.join(_KINDS)}", param, ctx)
        return frozenset(_KINDS[word] for word in words)


@click.command("copy", epilog=exit_codes.HELP)
@source_option
@destination_option
@click.option(
    "--ids-from",
    type=click.File("r", encoding="utf-8", errors="replace"),
    metavar="FILE",
    help="Crash ids from a file, one a line; - for standard input.",
)
@range_options
@click.option(
    "--kinds",
    type=KindsType(),
    default=ALL_KINDS,
    metavar="KIND,...",
    help="Only these kinds of parts: raw, dumps, processed.",
)
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
    help="Read every part back and compare SHA-256, and hold dumps against the checksums in"
    " the raw crash.",
)
@click.option(
    "--remove-source",
    is_flag=True,
    help="Remove a crash from the source once every destination has all of it, durably. One"
    " that was skipped without being compared stays.",
)
@click.option("--redact", is_flag=True, help="Leave protected keys out of processed crashes.")
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be copied.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop after N crashes; those that are skipped do not count.",
)
@click.option(
    "--workers", type=click.IntRange(1, 256), metavar="N", help="Threads; the stores know best."
)
@click.option(
    "--max-duration",
    type=DurationType(),
    metavar="TIME",
    help="Begin no further crash after this time: 90s, 10m, 1h30m.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write what became of each crash, one JSON line each.",
)
@click.option(
    "--lock",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Do nothing, and end with exit code 4, while another run holds this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option(
    "--progress/--no-progress", default=None, help="Show progress; else only on a terminal."
)
@click.argument("crash_ids", nargs=-1, type=CrashIDType())
@click.pass_obj
def command(settings: Settings, /, crash_ids: tuple[str, ...], **options: Any) -> None:
    """Copy crashes from one store to others.

    Copies the crashes named as CRASH_ID or by --ids-from, or those of the days from --since
    to --until, or all.  A crash arrives whole or not at all, byte for byte; what was
    reported as copied is on the disk.  A run that was stopped is simply run again.

    \b
    Examples:
      crashmover copy -s ./crashes -d /archive
      crashmover copy -s ./crashes -d prod --since yesterday --until yesterday --verify
      crashmover copy -s prod -d ./here bp-0bba929f-8721-460c-dead-a43c22071025
      crashmover copy -s ./crashes -d /archive --ids-from ids.txt --remove-source \\
          --report report.jsonl
    """
    _check_usage(crash_ids, options)
    _allow_open_files()
    with ExitStack() as stack:
        source = stack.enter_context(settings.open_storage(options["sources"]))
        destination = stack.enter_context(settings.open_storage(options["destinations"]))
        mover = _mover(source, destination, options)
        ids, total, listings = _selected(stack, source, mover.marker, crash_ids, options)
        if options["lock"]:
            stack.enter_context(_locked(options["lock"]))
        mover.verify_access()
        report = stack.enter_context(_report(options["report"]))
        bar = stack.enter_context(console.progress(options["progress"], total))
        code = _run(mover, ids, listings, options, report, bar)
    raise click.exceptions.Exit(code)


def _check_usage(crash_ids: tuple[str, ...], options: dict[str, Any]) -> None:
    since, until = options["since"], options["until"]
    if (crash_ids or options["ids_from"]) and (since or until):
        raise click.UsageError("either crash ids or a range of days")
    if since and until and since > until:
        raise click.UsageError(f"--since {since} is after --until {until}")


def _allow_open_files() -> None:
    """Many workers hold many files open at a time: use what the system grants us."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _mover(
    source: CrashStorageBase, destination: CrashStorageBase, options: dict[str, Any]
) -> Mover:
    names = ("kinds", "verify", "remove_source", "dry_run", "limit", "workers")
    try:
        return Mover(
            source,
            destination,
            existing=Existing(options["existing"]),
            redactor=Redactor() if options["redact"] else None,
            **{name: options[name] for name in names},
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


Listings = Callable[[CrashStorageBase], Iterator[str]]


def _selected(
    stack: ExitStack,
    source: CrashStorageBase,
    marker: Kind,
    crash_ids: tuple[str, ...],
    options: dict[str, Any],
) -> tuple[Iterator[str], int | None, Listings | None]:
    """Return the crash ids, how many they are, and how to list the same in another store."""
    file = options["ids_from"]
    if crash_ids or file:
        ids = stack.enter_context(CrashIDs())
        for crash_id in crash_ids:
            ids.add(crash_id)
        try:
            ids.add_lines(file or (), getattr(file, "name", ""))
        except InvalidCrashID as error:
            raise click.UsageError(f"--ids-from: {error}") from None
        return iter(ids), len(ids), None

    def listings(store: CrashStorageBase) -> Iterator[str]:
        since: dt.date | None = options["since"]
        return store.new_crashes(since, options["until"], marker)

    return listings(source), None, listings


def _run(
    mover: Mover,
    ids: Iterator[str],
    listings: Listings | None,
    options: dict[str, Any],
    report: Callable[[Outcome], None],
    bar: console.Progress,
) -> int:
    """Copy; say how it went; return the exit code."""
    summary = _Summary()
    stopper = signals.Stopper(mover.stop)
    failure = None
    with signals.handling(stopper), _time_limit(options["max_duration"], mover) as expired:
        try:
            for outcome in mover.run(ids, listings):
                summary.add(outcome)
                report(outcome)
                bar.advance(outcome)
                if outcome.error:
                    bar.failed(f"{outcome.crash_id}: {outcome.status}: {outcome.error}")
        except StorageError as error:
            failure = error
    if failure:
        bar.failed(f"crashmover: {failure}")
    if expired.is_set():
        bar.failed("crashmover: stopped by --max-duration; another run copies the rest")
    bar.failed(summary.text())
    if options["as_json"]:
        click.echo(json.dumps(summary.as_dict()))
    if stopper.number:
        return ExitCode.SIGNAL + stopper.number
    if failure:
        return exit_codes.of_error(failure)
    return ExitCode.FAILED if summary.failed else ExitCode.OK


class _Summary:
    """What a run has done."""

    def __init__(self) -> None:
        self._counts: Counter[Status] = Counter()
        self._bytes = 0
        self._begun = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        self._counts[outcome.status] += 1
        self._bytes += outcome.bytes

    @property
    def failed(self) -> int:
        return sum(self._counts[s] for s in (Status.FAILED, Status.CONFLICT, Status.MISSING))

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
def _report(path: str | None) -> Iterator[Callable[[Outcome], None]]:
    """Give a function that writes an outcome to the report, at once."""
    if path is None:
        yield lambda outcome: None
        return
    with _open(path, "w", "--report") as file:

        def write(outcome: Outcome) -> None:
            print(json.dumps(asdict(outcome)), file=file, flush=True)

        yield write


@contextmanager
def _locked(path: str) -> Iterator[None]:
    with _open(path, "a", "--lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.say(f"crashmover: another run holds {path}; nothing was done")
            raise click.exceptions.Exit(ExitCode.UNAVAILABLE) from None
        yield


def _open(path: str, mode: str, option: str) -> TextIO:
    try:
        return cast(TextIO, Path(path).open(mode, encoding="utf-8"))
    except OSError as error:
        raise click.UsageError(f"{option}: {path}: {error.strerror}") from None


@contextmanager
def _time_limit(seconds: float | None, mover: Mover) -> Iterator[Event]:
    """Stop the mover after so many seconds; give what says whether that has happened."""
    expired = Event()
    if seconds is None:
        yield expired
        return

    def expire() -> None:
        expired.set()
        mover.stop()

    timer = Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
