# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover copy`` as tests run it: two directories, and what is said."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli_helpers import (
    MAIN_DUMP,
    Argument,
    processed_crash,
    put,
    report_of,
    run,
    sample,
    statuses,
)

ONE, TWO, THREE = (sample(n, processed=processed_crash()) for n in (1, 2, 3))
WHOLE = sample(7, dumps={MAIN_DUMP: b"MDMP", "plugin": b"MDMP plugin"}, processed=processed_crash())
ABSENT = sample(99)


@dataclass(frozen=True)
class Copied:
    """How a copy went."""

    exit_code: int
    stdout: str
    stderr: str
    statuses: dict[str, str]
    report: dict[str, dict[str, object]]
    summary: dict[str, float]


@dataclass(frozen=True)
class Stores:
    """A source, a destination, and room for other files."""

    tmp: Path

    @property
    def source(self) -> Path:
        return self.tmp / "source"

    @property
    def destination(self) -> Path:
        return self.tmp / "destination"

    @property
    def report(self) -> Path:
        return self.tmp / "report"

    def copy(self, *args: Argument, stdin: bytes | None = None) -> Copied:
        """Copy from the one to the other."""
        return self.run("-s", self.source, "-d", self.destination, *args, stdin=stdin)

    def run(self, *args: Argument, stdin: bytes | None = None) -> Copied:
        """Copy as these arguments say, and read all that the command has to say."""
        result = run("copy", *args, "--json", "--report", self.report, stdin=stdin)
        return Copied(
            result.exit_code,
            result.stdout,
            result.stderr,
            statuses(self.report),
            report_of(self.report),
            json.loads(result.stdout),
        )


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """A source with three crashes, which share a directory; there is no destination yet."""
    put(tmp_path / "source", ONE, TWO, THREE)
    return Stores(tmp_path)


@pytest.fixture
def where(tmp_path: Path) -> tuple[Argument, ...]:
    """From a store with two crashes to one that is not there yet."""
    put(tmp_path / "source", sample(1), sample(2))
    return ("-s", tmp_path / "source", "-d", tmp_path / "destination")
