# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Signals to commands whose PostgreSQL hangs: because somebody else holds a lock, or because the
whole server has stopped while they wait for it."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg import sql

from crashmover.cli.signals import GRACE
from tests.cli_helpers import Argument, command_line, environment, manifest, put, run, stored
from tests.conftest import Figures, wanted
from tests.servers.postgresql import PostgreSQL
from tests.signalled import Ended, in_queue, send, wait_until
from tests.signalled_scenes import CRASHES, fill

CRASH = CRASHES[5]
FEW = CRASHES[:60]
NUMBERS: dict[str, tuple[signal.Signals, ...]] = {
    "terminated": (signal.SIGTERM,),
    "interrupted": (signal.SIGINT,),
    "interrupted and terminated": (signal.SIGINT, signal.SIGTERM),
    "terminated and interrupted": (signal.SIGTERM, signal.SIGINT),
}

_WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND backend_type = 'client backend'
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put(tmp_path_factory.mktemp("stores") / "source", *FEW)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[PostgreSQL]:
    """One that no other test uses, for it is stopped now and then."""
    wanted(request, "postgresql")
    with PostgreSQL() as server:
        yield server


@contextmanager
def locked(server: PostgreSQL, schema: str) -> Iterator[None]:
    """Let nobody else at the table, as who changes it does."""
    statement = sql.SQL("LOCK TABLE {}.crash_parts IN ACCESS EXCLUSIVE MODE")
    with server.connect() as connection, connection.transaction():
        connection.execute(statement.format(sql.Identifier(schema)))
        yield


def is_waited_for(server: PostgreSQL) -> bool:
    """Whether somebody waits for a lock."""
    with server.connect() as connection:  # within a transaction the answer would never change
        row = connection.execute(_WAITING).fetchone()
    return bool(row and row[0])


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("is_stopped", "how"),
    [
        pytest.param(False, "terminated", id="locked"),
        pytest.param(False, "interrupted and terminated", id="locked, twice"),
        pytest.param(True, "interrupted", id="stopped"),
        pytest.param(True, "terminated and interrupted", id="stopped, twice"),
    ],
)
@pytest.mark.parametrize("what", ["get", "save", "copy to", "copy from", "copy of a queue"])
def test_a_command_whose_database_hangs_ends_in_time(
    server: PostgreSQL,
    source: Path,
    tmp_path: Path,
    figures: Figures,
    what: str,
    is_stopped: bool,
    how: str,
) -> None:
    """A second signal ends it at once.  What is given back by a queue is there again."""
    schema = server.new_name()
    uri, out, database = server.uri(schema=schema), tmp_path / "out", tmp_path / "queue.db"
    assert run("copy", "-s", source, "-d", uri, CRASH.crash_id).exit_code == 0
    fill(f"sqlite:{database}", {CRASH.crash_id})
    raw = CRASH.path(source)
    commands: dict[str, list[Argument]] = {
        "get": ["get", "-s", uri, CRASH.crash_id, "--all", "-o", out],
        "save": ["save", "-d", uri, "-d", out, "--raw-crash", raw],
        "copy to": ["copy", "-s", source, "-d", uri, "--existing", "overwrite"],
        "copy from": ["copy", "-s", uri, "-d", out, CRASH.crash_id],
        "copy of a queue": ["copy", "-s", uri, "-d", out, "-q", f"sqlite:{database}", "--follow"],
    }
    with locked(server, schema):
        ended = signalled(commands[what], NUMBERS[how], server, is_stopped)
    assert not [*ended.faults()], ended
    assert ended.code > 128
    if len(ended.numbers) > 1:
        assert ended.seconds < GRACE, "a second signal does not end it sooner"
    elif what == "copy of a queue":
        assert in_queue(database) == ({CRASH.crash_id}, 0)
    assert_whole(source, uri, out, what)
    figures(runs=1, **{"at_once" if ended.seconds < GRACE / 2 else "after_the_grace_time": 1})


def signalled(
    command: list[Argument],
    numbers: tuple[signal.Signals, ...],
    server: PostgreSQL,
    is_stopped: bool,
) -> Ended:
    """Run a command until it waits for the lock, and send it signals then."""
    line = command_line(*command)
    with subprocess.Popen(line, stderr=subprocess.PIPE, env=environment()) as process:
        try:
            wait_until(lambda: is_waited_for(server), "it does not come as far as the lock")
            if is_stopped:
                server.pause()
            seconds, sent = send(process, numbers, pause=0.3)
            assert process.stderr
            stderr = process.stderr.read().decode()
        finally:
            server.resume()
            process.kill()
    return Ended(process.returncode, b"", stderr, sent, seconds)


def assert_whole(source: Path, uri: str, out: Path, what: str) -> None:
    """Nothing is torn, in the files or in the database, and a copy to the latter completes."""
    there = stored(out) if out.exists() and what.startswith("copy") else {}
    assert not [name for name in there if "/." not in name], "a crash is torn"
    found = out.with_name("found")
    if what == "copy to":
        assert run("copy", "-s", uri, "-d", found).exit_code == 0
        arrived = [crash for crash in FEW if crash.path(found).exists()]
        assert stored(found) == manifest(*arrived), "a crash is torn"
        assert CRASH in arrived
    assert run("copy", "-s", source, "-d", uri).exit_code == 0
    assert run("copy", "-s", uri, "-d", found).exit_code == 0
    assert manifest(*FEW).items() <= stored(found).items()
