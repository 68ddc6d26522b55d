# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What the tests of hostile input share: stores into which something is put behind their backs,
and what a command must never do, whatever it was given."""

import gzip
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crashmover.crash import Crash, Kind, Part
from crashmover.registry import open_storage
from tests.benchmarks.measure import run_to_end
from tests.cli_helpers import Argument, Sample, command_line, is_harmless, run
from tests.servers.buckets import BucketServer
from tests.servers.postgresql import PostgreSQL

MEMORY = 200 << 20
"""Bytes that a command may take with all its processes, whatever it is given."""

RAW, PROCESSED = ".json", ".jsonz"
_ROW = 1 << 20  # bytes of a part that are in a row at most
_KINDS = {RAW: Kind.RAW_CRASH, PROCESSED: Kind.PROCESSED_CRASH}

SUMMARY = re.compile(r"copied \d+( \(.*\))?, .*skipped \d+, failed \d+; .*\n|published \d+.*\n")


# -- Running a command -------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a command has ended.

    :param said: the lines on standard error but for the summary
    """

    code: int
    out: bytes
    said: list[str]
    memory: int = 0


def ended(code: int, out: bytes, errors: str, memory: int = 0) -> Ended:
    """Hold a command against what must be true of each: it says lines that do nothing to a
    terminal, and shows nobody where in the program it was."""
    assert is_harmless(errors), ascii(errors)
    assert "Traceback" not in errors, errors
    assert code in (0, 1, 2, 3, 4), errors
    assert memory < MEMORY, f"{memory >> 20} MB"
    lines = errors.splitlines(keepends=True)
    said = [line.rstrip("\n") for line in lines if not SUMMARY.fullmatch(line)]
    assert all(len(line) < 6000 for line in said), errors  # a path may be that long
    assert bool(said) == bool(code) or not said or "warning" in said[0], errors
    return Ended(code, out, said, memory)


def invoke(*args: Argument, stdin: bytes | None = None, **env: str) -> Ended:
    """Run a command in this process."""
    result = run(*args, stdin=stdin, env=env)
    return ended(result.exit_code, result.stdout_bytes, result.stderr)


def measured(*args: Argument, **env: str) -> Ended:
    """Run a command as a process, and look at its memory."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "output")
        found = run_to_end(command_line(*args), {**os.environ, **env}, output)
        return ended(found.code, output.read_bytes(), found.errors, found.memory)


# -- Stores that are tampered with -------------------------------------------------------


class Store(ABC):
    """A store that crashes are put into, and in which something is exchanged afterwards."""

    uri: str

    def put(self, *crashes: Sample) -> None:
        """Save crashes as anybody does."""
        with open_storage(self.uri) as storage:
            for crash in crashes:
                storage.save_crash(_crash(crash))

    @abstractmethod
    def exchange(self, crash: Sample, suffix: str, data: bytes) -> None:
        """Let a part hold something else."""

    def exchange_unpacked(self, crash: Sample, suffix: str, data: bytes) -> None:
        """As `exchange`, packed where the store packs that part."""
        self.exchange(crash, suffix, data)

    @abstractmethod
    def stored(self, crash: Sample) -> dict[str, bytes]:
        """What there is of a crash, to the byte as it is kept; read as no program here does."""


def _crash(crash: Sample) -> Crash:
    parts = [Part.of_bytes(Kind.RAW_CRASH, crash.raw)]
    parts += [Part.of_bytes(Kind.DUMP, data, name) for name, data in crash.dumps.items()]
    if crash.processed is not None:
        parts.append(Part.of_bytes(Kind.PROCESSED_CRASH, crash.processed))
    return Crash(crash.crash_id, parts)


class Directory(Store):
    """A directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def exchange(self, crash: Sample, suffix: str, data: bytes) -> None:
        crash.path(self.root, suffix).write_bytes(data)

    def exchange_unpacked(self, crash: Sample, suffix: str, data: bytes) -> None:
        packed = gzip.compress(data, 1) if suffix == PROCESSED else data
        self.exchange(crash, suffix, packed)

    def stored(self, crash: Sample) -> dict[str, bytes]:
        files = (self.root / crash.directory).glob(f"{crash.crash_id}*")
        return {path.name: path.read_bytes() for path in files}


class Bucket(Store):
    """A bucket, of any provider."""

    def __init__(self, server: BucketServer) -> None:
        self.server = server
        self.name = server.new_bucket()
        self.uri = server.uri(self.name)

    def key(self, crash: Sample, suffix: str) -> str:
        """Where a part is."""
        if suffix == RAW:
            return f"v1/raw_crash/20{crash.crash_id[-6:]}/{crash.crash_id}"
        what = "processed_crash" if suffix == PROCESSED else suffix.removesuffix(".dump")
        return f"v1/{what.strip('.') or 'dump'}/{crash.crash_id}"

    def put_object(self, key: str, data: bytes, encoding: str | None = None) -> None:
        """Put any object there."""
        self.server.put_object(self.name, key, data, encoding)

    def exchange(self, crash: Sample, suffix: str, data: bytes) -> None:
        self.put_object(self.key(crash, suffix), data)

    def stored(self, crash: Sample) -> dict[str, bytes]:
        return self.server.objects(self.name, crash.crash_id)


class Database(Store):
    """A schema of a database."""

    def __init__(self, server: PostgreSQL) -> None:
        self.schema = server.new_name()
        self.server = server
        self.uri = server.uri(schema=self.schema)

    def run(self, query: str, *parameters: object) -> Sequence[Any]:
        """Run a statement, in which ``{}`` is the table."""
        with self.server.connect() as connection:
            table = f"{self.schema}.crash_parts"
            done = connection.execute(query.replace("{}", table).encode(), parameters)
            return done.fetchall() if done.description else []

    def exchange(self, crash: Sample, suffix: str, data: bytes) -> None:
        which = (crash.crash_id, _KINDS.get(suffix, Kind.DUMP).value)
        where = "WHERE crash_id = %s AND kind = %s AND chunk = 0"
        self.run("UPDATE {} SET data = %s " + where, data[:_ROW], *which)
        for chunk, start in enumerate(range(_ROW, len(data), _ROW), 1):
            self.run(
                "INSERT INTO {} SELECT date_processed, crash_id, kind, name, %s, %s FROM {} "
                + where,
                *(chunk, data[start : start + _ROW], *which),
            )

    def stored(self, crash: Sample) -> dict[str, bytes]:
        rows = self.run(
            "SELECT kind, name, chunk, data FROM {} WHERE crash_id = %s", crash.crash_id
        )
        return {f"{kind}/{name}/{chunk}": bytes(data) for kind, name, chunk, data in rows}
