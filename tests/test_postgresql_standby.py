# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A standby as a source, whatever its primary's default isolation is."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.registry import open_storage
from crashmover.testing import CRASH_ID, contents, crash_of, read
from tests.cli_helpers import assert_refused, run, run_process
from tests.conftest import Figures, postgresql_versions, wanted
from tests.servers.postgresql import PostgreSQL
from tests.servers.standby import Standby

IDS = [f"{n:08x}{CRASH_ID[8:]}" for n in range(300)]
DAYS = ("--since", "2007-10-25", "--until", "2007-10-25")


@pytest.fixture(params=postgresql_versions(), scope="module")
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[PostgreSQL, Standby]]:
    """A primary whose default is serializable, and its standby."""
    wanted(request, "postgresql")
    with PostgreSQL(request.param) as primary:
        with primary.connect() as connection:
            for text in (
                "ALTER SYSTEM SET default_transaction_isolation = 'serializable'",
                "ALTER SYSTEM SET default_transaction_deferrable = on",
                "ALTER SYSTEM SET max_standby_streaming_delay = '100ms'",
                "ALTER SYSTEM SET autovacuum = off",
            ):
                connection.execute(text.encode())
        primary.stop()
        standby = Standby(primary, request.param)
        with standby:
            primary.start()
            yield primary, standby


@pytest.mark.slow
def test_a_standby_is_read_by_every_command(
    pair: tuple[PostgreSQL, Standby], tmp_path: Path, figures: Figures
) -> None:
    primary, standby = pair
    schema = primary.new_name()
    with open_storage(primary.uri(schema=schema)) as storage:
        storage.save_crashes([crash_of(contents(each), each) for each in IDS])
    standby.wait_until_it_has(primary)
    source, out = standby.uri(schema=schema), tmp_path / "out"
    assert run("list", "-s", source, *DAYS).stdout.split() == IDS
    assert run("copy", "-s", source, "-d", out, *DAYS, "--verify").exit_code == 0
    assert run("check", "-s", source, "-d", out, "--digest").exit_code == 0
    assert run("get", "-s", source, IDS[0]).exit_code == 0
    assert run("doctor", "-s", source).exit_code == 0
    assert all(read(FSPermanentStorage(out), each) == contents(each) for each in IDS)
    assert_refused(run("copy", "-s", out, "-d", source, "--existing", "overwrite"), 4, "read-only")
    assert_refused(run("remove", "-s", source, *DAYS, "--yes"), 4, "read-only")
    figures(copied=len(IDS))


@pytest.mark.slow
def test_what_a_standby_cancels_is_read_again(
    pair: tuple[PostgreSQL, Standby], tmp_path: Path, figures: Figures
) -> None:
    """While crashes are removed from the primary, and their rows vacuumed."""
    primary, standby = pair
    schema = primary.new_name()
    stay, go = IDS[::2], IDS[1::2]
    with open_storage(primary.uri(schema=schema)) as storage:
        storage.save_crashes([crash_of(contents(each), each) for each in IDS])
        standby.wait_until_it_has(primary)
        copied = 0
        with ThreadPoolExecutor(1) as pool:
            for turn in range(4):
                out = tmp_path / str(turn)
                command = ("copy", "-s", standby.uri(schema=schema), "-d", out, "--verify")
                copying = pool.submit(run_process, *command, *DAYS)
                for start in range(turn, len(go), 8):
                    storage.remove_crashes(go[start : start + 1])
                    with primary.connect() as connection:
                        connection.execute(f"VACUUM {schema}.crash_parts".encode())
                done = copying.result()
                found = FSPermanentStorage(out)
                there = set(found.new_crashes())
                assert there >= set(stay), done.stderr
                assert all(read(found, each) == contents(each) for each in there)
                copied += len(there)
    figures(copied=copied, torn=0)
