# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover get``."""

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, assert_never

import click

from crashmover.cli import exit_codes
from crashmover.cli.console import inform, refuse_closed, require_output, say
from crashmover.cli.exit_codes import ExitCode
from crashmover.cli.holding import Held, telling_what_is_there
from crashmover.cli.options import Settings, source_option, to_crash_id
from crashmover.cli.overview import as_text, load, overview
from crashmover.crash import Kind, Part, canonical_dump_name
from crashmover.documents import json_part
from crashmover.errors import CrashIDNotFound, DumpNotFound
from crashmover.external.roles import CrashSource
from crashmover.registry import open_source
from crashmover.soundness import mismatch, missing
from crashmover.spelling import refuse_taken
from crashmover.uri import refuse_tilde

_IN_MEMORY = 8 << 20  # bytes of a part; the rest waits on disk
_MOST_NAMED = 10  # unreadable parts that are named on standard error; all are among those shown


@click.command("get", epilog=exit_codes.HELP)
@source_option()
@click.option("--raw-crash", is_flag=True, help="Write the raw crash as stored.")
@click.option(
    "--processed-crash",
    is_flag=True,
    help="Write the processed crash, without what is protected.",
)
@click.option("--unredacted", is_flag=True, help="With what is protected, exactly as stored.")
@click.option("--dump", metavar="NAME", help='Write a dump as stored; "" is the main one.')
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Write every part into a directory; the processed crash without what is protected,"
    " unless --unredacted is given.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="File to write to, else standard output; with --all the directory, else ./CRASH_ID.",
)
@click.option("--json", "as_json", is_flag=True, help="Show the crash as JSON.")
@click.argument("crash_id", type=to_crash_id)
@click.pass_obj
def command(
    settings: Settings,
    /,
    sources: tuple[str, ...],
    crash_id: str,
    output: Path | None,
    as_json: bool,
    **what: Any,
) -> None:
    """Show what a store holds of a crash, or write parts of it.

    Without an option that names a part: each part with its size and where it lies, and what is
    public of the annotations, of the processed crash, and of each minidump of at most 64 MiB.
    Dumps of at most 64 MiB are compared with the checksums in the raw crash; a damaged or missing
    part is named, and the exit code is 1.

    CRASH_ID may be given as bp-ID, or as the URL of a report.

    \b
    Examples:
      crashmover get -s ./crashes 0bba929f-8721-460c-dead-a43c22071025
      crashmover get -s prod bp-0bba929f-8721-460c-dead-a43c22071025 --raw-crash
      crashmover get -s prod 0bba929f-8721-460c-dead-a43c22071025 \\
          --dump "" -o mini.dmp
      crashmover get -s prod 0bba929f-8721-460c-dead-a43c22071025 --all -o here/
      crashmover get -s prod 0bba929f-8721-460c-dead-a43c22071025 \\
          --json | jq .processed.signature
    """
    _check_usage(output, as_json, what)
    unredacted = what["unredacted"]
    with (
        settings.open(open_source, sources) as storage,
        telling_what_is_there(storage, crash_id),
    ):
        if what["everything"]:
            _write_all(storage, crash_id, unredacted, output or Path(crash_id))
        elif what["dump"] is not None:
            _write_dump(storage, crash_id, canonical_dump_name(what["dump"]), output)
        elif what["raw_crash"]:
            _write(storage, lambda: _find(storage, crash_id, Kind.RAW_CRASH), output)
        elif what["processed_crash"]:
            _write(storage, lambda: _processed(storage, crash_id, unredacted), output)
        else:
            shown = storage.tuning.retry.call(lambda: overview(storage, crash_id))
            require_output()
            click.echo(json.dumps(shown) if as_json else as_text(shown))
            damaged = [part for part in shown["parts"] if "error" in part]
            _end_if_damaged(shown["store"], crash_id, list(map(_damage, damaged)))


def _damage(part: Mapping[str, Any]) -> str:
    """Say which part is damaged, and in what."""
    label = f"{part['kind']} {part['name']}".strip()
    error: str = part["error"]
    return error if error.startswith((f"{label} ", f"{label}:")) else f"{label}: {error}"


def _end_if_damaged(store: str, crash_id: str, faults: list[str]) -> None:
    """Name what is damaged of a crash, and end with the exit code for that."""
    where = f"crashmover: {store}: {crash_id}"
    for fault in faults[:_MOST_NAMED]:
        say(f"{where}: {fault}", crash_id=crash_id)
    if len(faults) > _MOST_NAMED:
        more = f"{len(faults) - _MOST_NAMED:,} further parts are damaged"
        say(f"{where}: {more}", crash_id=crash_id)
    if faults:
        raise click.exceptions.Exit(ExitCode.FAILED)


def _check_usage(output: Path | None, as_json: bool, what: dict[str, Any]) -> None:
    """Refuse what does not go together."""
    asked = what["raw_crash"] + what["processed_crash"] + what["everything"]
    asked += what["dump"] is not None
    if asked > 1:
        raise click.UsageError("give one of --raw-crash, --processed-crash, --dump and --all")
    if what["unredacted"] and not (what["processed_crash"] or what["everything"]):
        raise click.UsageError("--unredacted goes with --processed-crash or --all")
    if output:
        refuse_closed(str(output), "-o")
        try:
            refuse_tilde(str(output))
        except ValueError as error:
            raise click.UsageError(f"-o: {error}") from None
    if output and not asked:
        raise click.UsageError("-o goes with --raw-crash, --processed-crash, --dump or --all")
    if as_json and asked:
        raise click.UsageError("--json shows the crash; parts are written as they are")
    if what["dump"] is not None:
        canonical_dump_name(what["dump"])
        if not output and sys.stdout.isatty():
            raise click.UsageError("a dump is binary: write it to a file with -o, or to a pipe")


# What is written


def _find(storage: CrashSource, crash_id: str, kind: Kind) -> Part:
    part = storage.load_crash(crash_id, {kind}).part(kind)
    if part is None:
        raise CrashIDNotFound(crash_id, uri=storage.uri, reason=f"no {kind}")
    return part


def _processed(storage: CrashSource, crash_id: str, unredacted: bool) -> Part:
    if unredacted:
        return _find(storage, crash_id, Kind.PROCESSED_CRASH)
    return json_part(Kind.PROCESSED_CRASH, storage.get_processed(crash_id))


def _write(storage: CrashSource, find: Callable[[], Part], output: Path | None) -> bytes:
    """Write a part, once all of it has been read: half a part is never passed on.  Return its
    SHA-256."""
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:

        def fetch() -> bytes:
            spool.seek(0)
            spool.truncate()
            digest = hashlib.sha256()
            for chunk in find().chunks():
                digest.update(chunk)
                spool.write(chunk)
            return digest.digest()

        digest = storage.tuning.retry.call(fetch)
        spool.seek(0)
        if output is None:
            require_output()
            _refuse_binary_on_terminal(spool)
            shutil.copyfileobj(spool, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            with _naming(output), _whole_file(output) as file:
                shutil.copyfileobj(spool, file)
    return digest


def _write_dump(storage: CrashSource, crash_id: str, name: str, output: Path | None) -> None:
    """Write a dump as it is stored, and then say if it is not what was received."""
    held = Held(None)

    def find() -> Part:
        nonlocal held
        crash = storage.load_crash(crash_id, {Kind.RAW_CRASH, Kind.DUMP})
        held = Held(crash.raw_crash)
        part = crash.part(Kind.DUMP, name)
        if part is None:
            reason = missing(name) if name in held.checksums else f"no dump {name}"
            raise DumpNotFound(crash_id, uri=storage.uri, reason=reason)
        return part

    digest = _write(storage, find, output)
    _warn_if_not_compared(held, crash_id)
    if held.expected(name) not in (None, digest):
        _end_if_damaged(storage.uri, crash_id, [mismatch(name)])


def _warn_if_not_compared(held: Held, crash_id: str) -> None:
    if held.why_not_compared:
        text = f"crashmover: dumps were not compared with their checksums: {held.why_not_compared}"
        say(text, level=logging.WARNING, crash_id=crash_id)


def _write_all(storage: CrashSource, crash_id: str, unredacted: bool, directory: Path) -> None:
    crash = storage.tuning.retry.call(lambda: load(storage, crash_id))
    with _naming(directory):
        directory.mkdir(parents=True, exist_ok=True)
    digests = {}
    written: list[Path] = []
    for part in crash.parts:
        path = directory / _file_name(crash_id, part)
        with _naming(directory):
            refuse_taken(written, path)
        written.append(path)
        digest = _write_part(storage, crash_id, part, unredacted, path)
        if part.kind is Kind.DUMP:
            digests[part.name] = digest
    held = storage.tuning.retry.call(lambda: Held(crash.raw_crash))
    _warn_if_not_compared(held, crash_id)
    faults = held.faults(crash, digests)
    _end_if_damaged(storage.uri, crash_id, faults)


def _write_part(
    storage: CrashSource, crash_id: str, part: Part, unredacted: bool, path: Path
) -> bytes:
    """Write a part, as far as it may be seen; return the SHA-256 of what was written."""
    match part.kind:
        case Kind.PROCESSED_CRASH if not unredacted:
            return _write_redacted(storage, crash_id, path)
        case Kind.RAW_CRASH | Kind.DUMP | Kind.PROCESSED_CRASH:
            return _write(storage, lambda: part, path)
        case _:
            assert_never(part.kind)


def _write_redacted(storage: CrashSource, crash_id: str, path: Path) -> bytes:
    """Write the processed crash without what is protected; say so if there was any.  Return the
    SHA-256 of what was written."""
    left_out = False

    def find() -> Part:
        nonlocal left_out
        stored = storage.get_unredacted_processed(crash_id)
        public = storage.redactor.redact(stored)
        left_out = public != stored
        return json_part(Kind.PROCESSED_CRASH, public)

    digest = _write(storage, find, path)
    if left_out:
        text = "processed_crash: protected fields left out; --unredacted keeps them"
        inform(text, crash_id=crash_id)
    return digest


def _file_name(crash_id: str, part: Part) -> str:
    match part.kind:
        case Kind.DUMP:
            return f"{crash_id}.{part.name}.dump"
        case Kind.RAW_CRASH | Kind.PROCESSED_CRASH:
            return f"{crash_id}.{part.kind}.json"
        case _:
            assert_never(part.kind)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which output an error is about, as it was given."""
    try:
        yield
    except OSError as error:
        raise click.UsageError(f"-o {path}: {error.strerror}") from None


def _refuse_binary_on_terminal(file: IO[bytes]) -> None:
    """What should be JSON may be anything: nothing but text is shown on a terminal."""
    if not sys.stdout.isatty():
        return
    text = file.read().decode("utf-8", "replace")
    if not all(char.isprintable() or char in "\r\n\t" for char in text) or "\ufffd" in text:
        raise click.UsageError("it is binary: write it to a file with -o, or to a pipe")
    file.seek(0)


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that is there in whole or not at all."""
    path = path.resolve()
    if path.exists() and not path.is_file():  # a device or a FIFO: not to be replaced
        with path.open("wb") as file:
            yield file
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
