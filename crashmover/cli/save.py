# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover save``."""

import re
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_never

import click

from crashmover import crashid, streams
from crashmover.cli import console, exit_codes
from crashmover.cli.options import Settings, destination_option, to_crash_id
from crashmover.crash import Crash, Kind, Part
from crashmover.documents import LONGEST, LargeDocument, json_object
from crashmover.errors import CorruptCrash, CrashMoverError
from crashmover.registry import open_destination

_NAMED = re.compile(r"([A-Za-z0-9_.-]*)=(.*)", re.ASCII | re.DOTALL)


class FileType(click.Path):
    """A file that is there and can be read."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, readable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse a standard input that is closed: it would look like an empty file."""
        if name := streams.closed_name(str(value)):
            self.fail(f"{value}: {name} is closed", param, ctx)
        return super().convert(value, param, ctx)


_FILE = FileType()


class DumpType(click.ParamType):
    """``[NAME=]FILE``."""

    name = "dump"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Part:
        match = _NAMED.fullmatch(value)
        name, path = match.groups() if match else ("", value)
        try:
            found = _FILE.convert(path, param, ctx)
            return _part(Kind.DUMP, found, name, ctx or click.get_current_context())
        except (CrashMoverError, OSError) as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        return [click.shell_completion.CompletionItem(incomplete, type="file")]


@click.command("save", epilog=exit_codes.HELP)
@destination_option()
@click.option(
    "--raw-crash", required=True, type=_FILE, metavar="FILE", help="The annotations: JSON."
)
@click.option(
    "--dump",
    "dumps",
    type=DumpType(),
    metavar="[NAME=]FILE",
    multiple=True,
    help="A dump; without a name, the main one (upload_file_minidump).  May be repeated.",
)
@click.option("--processed-crash", type=_FILE, metavar="FILE", help="The processor's report: JSON.")
@click.argument("crash_id", required=False, type=to_crash_id)
@click.pass_obj
def command(
    settings: Settings,
    /,
    destinations: tuple[str, ...],
    raw_crash: Path,
    dumps: tuple[Part, ...],
    processed_crash: Path | None,
    crash_id: str | None,
) -> None:
    """Save one crash from files, and print its crash id.

    That is CRASH_ID where it is given, else the raw crash's own "uuid", else a new one.  A
    crash that the store has by that id is replaced.

    \b
    Examples:
      crashmover save -d ./crashes --raw-crash raw.json --dump minidump.dmp
      crashmover save -d prod --raw-crash raw.json \\
          --dump memory_report=report.json.gz --processed-crash processed.json \\
          0bba929f-8721-460c-dead-a43c22071025
    """
    raw = _json(Kind.RAW_CRASH, raw_crash, "--raw-crash")
    processed = _json(Kind.PROCESSED_CRASH, processed_crash, "--processed-crash")
    crash_id = crash_id or _own_id(raw)
    if crash_id is None:
        console.require_output()  # the new crash id is printed there, and nowhere else
        crash_id = crashid.create()
    if processed and _own_id(processed) not in (None, crash_id):
        raise click.UsageError("--processed-crash: it is of another crash: its uuid differs")

    def given(kind: Kind) -> Sequence[Part | None]:
        match kind:
            case Kind.RAW_CRASH:
                return [raw]
            case Kind.DUMP:
                return dumps
            case Kind.PROCESSED_CRASH:
                return [processed]
            case _:
                assert_never(kind)

    crash = _crash(crash_id, [part for kind in Kind for part in given(kind) if part])
    with settings.open(open_destination, destinations) as storage:
        console.warn(storage.cautions())
        console.warn(storage.try_saving())
        storage.tuning.retry.call(lambda: storage.save_crash(crash))
        console.warn_of_risks(storage)
    click.echo(crash_id)


def _json(kind: Kind, path: Path | None, option: str) -> Part | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            part = Part.of_bytes(kind, file.read(LONGEST + 1))
        json_object(part)
    except LargeDocument:
        raise click.UsageError(f"{option}: {path} is too large to be read as JSON") from None
    except CorruptCrash:
        raise click.UsageError(f"{option}: {path} is not a JSON object") from None
    except OSError as error:
        raise click.UsageError(f"{option}: {path}: {error.strerror}") from None
    return part


def _own_id(part: Part | None) -> str | None:
    """Return the crash id that a raw or processed crash says it has."""
    uuid = json_object(part).get("uuid") if part else None
    return None if uuid is None else crashid.validate(uuid)


def _part(kind: Kind, path: Path, name: str, ctx: click.Context) -> Part:
    """A part that can be read again: what is no regular file is read now, once, and kept on disk
    until the command ends."""
    if stat.S_ISREG(path.stat().st_mode):
        return Part.of_file(kind, path, name)
    kept = ctx.with_resource(tempfile.NamedTemporaryFile())
    with path.open("rb") as file:
        shutil.copyfileobj(file, kept)
    kept.flush()
    return Part.of_file(kind, kept.name, name)


def _crash(crash_id: str, parts: list[Part]) -> Crash:
    try:
        return Crash(crash_id, parts)
    except CorruptCrash as error:
        raise click.UsageError(f"--dump: {error.reason}") from None
