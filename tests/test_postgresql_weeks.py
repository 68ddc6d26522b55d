# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The partitions of a PostgreSQL store: twenty years of them, and those that are not as they
should be."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from crashmover import Crash, FSPermanentStorage, Kind, open_storage
from crashmover.errors import CrashIDNotFound, StorageError
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.postgresql.weeks import AT_ONCE, monday_of
from crashmover.testing import CRASH_ID, RAW, contents, crash_of, read
from tests.cli_helpers import run
from tests.conftest import Figures
from tests.servers.database import Database
from tests.servers.postgresql import PostgreSQL

WEEKS = 1040
FIRST_MONDAY = dt.date(2006, 12, 18)
MONDAY = dt.date(2026, 11, 16)
SUNDAY = dt.date(2026, 11, 22)
WEEK = dt.timedelta(weeks=1)


def crash_id(day: dt.date, number: int = 0) -> str:
    return f"0bba{number:04x}-8721-460c-dead-a43c22{day:%y%m%d}"


IDS = [crash_id(MONDAY + dt.timedelta(days=days)) for days in (-3, 0, 2, 6, 9)]
OF_WEEK = IDS[1:4]
OTHERS = [IDS[0], IDS[4]]


@pytest.fixture
def postgresql_server(each_postgresql: PostgreSQL) -> PostgreSQL:
    return each_postgresql


@pytest.fixture
def storage(database: Database) -> Iterator[CrashStorageBase]:
    with open_storage(database.uri) as storage:
        assert not any(storage.save_crashes([crash_of(contents(), each) for each in IDS]))
        yield storage


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A directory with the same crashes."""
    with open_storage(str(tmp_path / "source")) as source:
        source.save_crashes([crash_of(contents(), each) for each in IDS])
    return str(tmp_path / "source")


# Twenty years


def make_weeks(
    connection: psycopg.Connection[tuple[object, ...]], schema: str, count: int = WEEKS
) -> None:
    """Make the partitions of the last so many weeks before 2026-11-23."""
    step = 20  # weeks in a transaction: each takes some locks
    query = (
        f"SELECT {schema}.make_partition(%s::date + 7 * i)"
        " FROM generate_series(%s::int, %s::int) AS i"
    )
    for start in range(WEEKS - count, WEEKS, step):
        connection.execute(query.encode(), (FIRST_MONDAY, start, start + step - 1))


def calls_about_a_week(storage: CrashStorageBase) -> dict[str, Callable[[], object]]:
    """Every way of using a store that is about one week; the last ones remove what they find."""
    day = MONDAY + dt.timedelta(days=2)

    def loaded() -> Crash:
        crash = storage.load_crash(OF_WEEK[0])
        assert all(part.read() for part in crash.parts)
        return crash

    return {
        "verify_access": lambda: storage.verify_access(),
        "verify_access, write": lambda: storage.verify_access(write=True),
        "probe_write": lambda: list(storage.durability_risks()),
        "diagnose": lambda: list(storage.diagnose()),
        "load_crash": loaded,
        "load_crashes": lambda: [read(storage, each) for each in OF_WEEK],
        "has_crash": lambda: storage.has_crash(OF_WEEK[0]),
        "dumps_alone": lambda: storage.dumps_alone(OF_WEEK[0]),
        "new_crashes": lambda: list(storage.new_crashes(MONDAY, SUNDAY)),
        "processed": lambda: list(storage.new_crashes(day, day, Kind.PROCESSED_CRASH)),
        "all_crashes": lambda: list(storage.all_crashes(MONDAY, SUNDAY)),
        "passed_over": lambda: list(storage.passed_over()),
        "save_crash": lambda: storage.save_crash(crash_of(contents("b"), OF_WEEK[0])),
        "save_crashes": lambda: storage.save_crashes([crash_of(contents(), i) for i in OF_WEEK]),
        "create_crashes": lambda: storage.create_crashes([crash_of(contents(), crash_id(day, 9))]),
        "save_keeping_dumps": lambda: storage.save_keeping_dumps(
            crash_of({RAW: b'{"a": 1}'}, OF_WEEK[0])
        ),
        "remove_loaded": lambda: storage.remove_loaded(loaded()),
        "remove": lambda: storage.remove(OF_WEEK[1]),
        "remove_days": lambda: list(storage.remove_days(day, SUNDAY)),
    }


def commands_about_a_week(uri: str, source: str, to: Path) -> Iterator[Sequence[str]]:
    """The commands that are about one week; the last one removes it."""
    days = ("--since", f"{MONDAY}", "--until", f"{SUNDAY}")
    yield "copy", "-s", source, "-d", uri, *days, "--verify"
    yield "copy", "-s", source, "-d", uri, *days, "--existing", "overwrite"
    yield "list", "-s", uri, *days
    yield "check", "-s", source, "-d", uri, "--digest", *days
    yield "get", "-s", uri, OF_WEEK[0]
    yield "doctor", "-s", uri
    yield "copy", "-s", uri, "-d", f"{to / 'a'}", *days, "--verify"
    yield "copy", "-s", uri, "-d", f"{to / 'b'}", *days, "--remove-source"
    yield "copy", "-s", source, "-d", uri, *days
    yield "remove", "-s", uri, *days, "--dry-run"
    yield "remove", "-s", uri, OF_WEEK[0]
    yield (
        "remove",
        "-s",
        uri,
        f"--since={MONDAY}",
        f"--until={SUNDAY - dt.timedelta(days=1)}",
        "--yes",
    )


@pytest.mark.parametrize("weeks", [60, pytest.param(WEEKS, marks=pytest.mark.slow)])
def test_a_statement_locks_only_the_weeks_that_it_is_about(
    database: Database,
    storage: CrashStorageBase,
    source: str,
    tmp_path: Path,
    weeks: int,
    figures: Figures,
) -> None:
    """Another session keeps every other week locked: a call that needs one of these fails."""
    make_weeks(database.connection, database.schema, weeks)
    others = f"""
        SELECT format('LOCK TABLE %%s IN ACCESS EXCLUSIVE MODE', inhrelid::regclass)
        FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = '{database.schema}.crash_parts'::regclass
            AND relname NOT IN ('crash_parts_{MONDAY:%Y%m%d}', 'crash_parts_' || %s)
        ORDER BY inhrelid
    """
    today = dt.date.today()
    this_week = f"{today - dt.timedelta(days=today.weekday()):%Y%m%d}"
    with database.server.connect() as holder, holder.transaction():
        statements = holder.execute(others.encode(), (this_week,)).fetchall()
        for (statement,) in statements:
            holder.execute(statement)
        done = 0
        with open_storage(f"{database.uri}&timeout=10") as other:
            for name, call in calls_about_a_week(other).items():
                try:
                    call()
                except StorageError as error:
                    pytest.fail(f"{name}: {error}")
                done += 1
        for words in commands_about_a_week(f"{database.uri}&timeout=10", source, tmp_path):
            ended = run(*words)
            assert ended.exit_code == 0, (words, ended.stderr)
            done += 1
    figures(weeks=weeks, locked=len(statements), calls_and_commands=done)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_twenty_years_need_few_locks(
    database: Database, source: str, tmp_path: Path, figures: Figures
) -> None:
    """On a server that has not room for the locks of a statement about all weeks."""
    programs = database.server.programs
    with PostgreSQL(programs, max_connections=25, max_locks_per_transaction=32) as server:
        uri = server.uri(schema="crashes")
        with open_storage(uri) as storage, server.connect() as connection:
            storage.save_crash(crash_of(contents()))
            make_weeks(connection, "crashes")
            days = [FIRST_MONDAY + WEEK * number for number in range(0, WEEKS, 10)]
            many = [crash_of({RAW: b"{}"}, crash_id(day)) for day in days]
            for at in range(0, len(many), storage.tuning.batch):
                assert not any(storage.save_crashes(many[at : at + storage.tuning.batch]))
            with pytest.raises(psycopg.errors.OutOfMemory):
                connection.execute("SELECT count(*) FROM crashes.crash_parts")
            expected = sorted([CRASH_ID, *(crash.crash_id for crash in many)], key=lambda i: i[-6:])
            assert list(storage.new_crashes()) == expected
            assert list(storage.new_crashes(days[5], days[-5])) == [
                each
                for each in expected
                if f"{days[5]:%y%m%d}" <= each[-6:] <= f"{days[-5]:%y%m%d}"
            ]
        commands = [
            ("copy", "-s", uri, "-d", f"{tmp_path / 'a'}", "--verify"),
            ("copy", "-s", uri, "-d", f"{tmp_path / 'b'}", "--workers", "16"),
            ("check", "-s", uri, "-d", f"{tmp_path / 'a'}", "--digest"),
            ("copy", "-s", f"{tmp_path / 'a'}", "-d", uri),
            ("copy", "-s", source, "-d", uri),
            ("doctor", "-s", uri),
            ("copy", "-s", uri, "-d", f"{tmp_path / 'c'}", "--remove-source", "--limit=20"),
            ("remove", "-s", uri, "--since=2006-01-01", "--until=2015-06-30", "--yes"),
        ]
        for words in commands:
            ended = run(*words)
            assert ended.exit_code == 0, (words, ended.stderr)
    figures(weeks=WEEKS, crashes=len(expected), commands=len(commands))


def test_a_listing_leaves_no_day_out_whatever_the_partitions(
    database: Database, storage: CrashStorageBase
) -> None:
    """More weeks than a statement is about, and a default partition with rows in between."""
    database.run("CREATE TABLE other PARTITION OF crash_parts DEFAULT")
    start = dt.date(2020, 1, 6)
    for number in range(2 * AT_ONCE + 3):
        database.rows("SELECT make_partition(%s)", start + 2 * number * WEEK)
    every = [start + dt.timedelta(days=3) * number for number in range(4 * AT_ONCE * 2)]
    crashes = [crash_of({RAW: b"{}"}, crash_id(day)) for day in every]
    errors = [storage.save_crashes(crashes[at : at + 40]) for at in range(0, len(crashes), 40)]
    assert not any(map(any, errors))
    expected = [crash_id(day) for day in every] + IDS
    assert list(storage.new_crashes()) == expected
    assert list(storage.new_crashes(every[1], every[-2])) == expected[1 : len(every) - 1]
    assert [i for i, _ in storage.remove_days(every[1], every[-2])] == expected[1 : len(every) - 1]
    assert list(storage.new_crashes()) == [expected[0], *expected[len(every) - 1 :]]


# Detached, or nearly


def detach(database: Database, *, is_pending: bool) -> None:
    detached = f"ALTER TABLE crash_parts DETACH PARTITION crash_parts_{MONDAY:%Y%m%d}"
    if not is_pending:
        database.run(detached)
        return
    with database.server.connect() as reader, reader.transaction():
        reader.execute(f"SELECT count(*) FROM {database.schema}.crash_parts".encode())
        database.run("SET statement_timeout = '200ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            database.run(f"{detached} CONCURRENTLY")
        database.run("RESET statement_timeout")


@pytest.mark.parametrize("is_pending", [True, False], ids=["pending", "detached"])
def test_a_week_that_is_out_of_sight_is_said(
    database: Database, storage: CrashStorageBase, source: str, tmp_path: Path, is_pending: bool
) -> None:
    detach(database, is_pending=is_pending)
    hidden = f"crashes of the week of {MONDAY} are out of sight"
    way_out = "FINALIZE" if is_pending else "attach it, drop it, or rename it"
    uri = database.uri
    days = ("--since", f"{MONDAY}", "--until", f"{SUNDAY}")
    more = ("--since", "2026-11-01", "--until", "2026-11-30")
    assert hidden not in run("list", "-s", uri, "--since", "2026-11-23").stderr
    # With how many lines say it, besides warnings, where that is pending or detached.
    commands: list[tuple[int, int, Sequence[str]]] = [
        (1, 1, ("doctor", "-s", uri)),
        (1, 0, ("list", "-s", uri)),
        (1, 0, ("list", "-s", uri, *days)),
        (1, 0, ("copy", "-s", uri, "-d", f"{tmp_path / 'a'}")),
        (3, 3, ("copy", "-s", source, "-d", uri, "--existing", "overwrite")),
        (1, 1, ("remove", "-s", uri, OF_WEEK[0])),
        (1, 1, ("remove", "-s", uri, *days, "--yes")),
        (1, 1, ("remove", "-s", uri, *more, "--yes")),
    ]
    for pending, detached, words in commands:
        ended = run(*words)
        lines = [line for line in (ended.stdout + ended.stderr).splitlines() if hidden in line]
        said = [line for line in lines if "warning:" not in line]
        assert len(said) == (pending if is_pending else detached), (words, lines)
        assert ended.exit_code == int(bool(said) and words[0] != "doctor"), (words, ended.stderr)
        assert lines and all(way_out in line for line in lines)
    rows = database.rows(f"SELECT count(DISTINCT crash_id) FROM crash_parts_{MONDAY:%Y%m%d}")
    assert rows == [(len(OF_WEEK),)]
    # The owner ends it, and all is well.
    if is_pending:
        name = f"crash_parts_{MONDAY:%Y%m%d}"
        database.run(f"ALTER TABLE crash_parts DETACH PARTITION {name} FINALIZE")
    database.run(f"DROP TABLE crash_parts_{MONDAY:%Y%m%d}")
    assert run("copy", "-s", source, "-d", uri).exit_code == 0
    assert list(storage.new_crashes()) == IDS


@pytest.mark.parametrize("is_pending", [True, False], ids=["pending", "detached"])
def test_other_weeks_go_on(database: Database, storage: CrashStorageBase, is_pending: bool) -> None:
    detach(database, is_pending=is_pending)
    results = storage.save_crashes([crash_of(contents("b"), each) for each in IDS])
    assert [error is None for error in results] == [True, False, False, False, True]
    assert all("out of sight" in str(error) for error in results if error)
    results = storage.remove_crashes([*IDS, crash_id(MONDAY + WEEK, 7)])
    assert [error is None for error in results[:5]] == [True, False, False, False, True]
    assert [type(each) is CrashIDNotFound for each in results[1:]] == [False] * 4 + [True]


def test_a_crash_that_goes_out_of_sight_is_not_taken_for_removed(
    database: Database, storage: CrashStorageBase
) -> None:
    loaded = storage.load_crash(OF_WEEK[0])
    assert all(part.read() for part in loaded.parts)
    detach(database, is_pending=True)
    with pytest.raises(StorageError, match="out of sight"):
        storage.remove_loaded(loaded)


def test_where_only_hidden_weeks_are_that_is_no_empty_store(
    database: Database, storage: CrashStorageBase
) -> None:
    storage.remove_crashes(OTHERS)
    detach(database, is_pending=False)
    assert len(list(storage.strangers())) == 1
    for words in (["list"], ["get", OF_WEEK[0]], ["doctor"]):  # each says it once
        ended = run(words[0], "-s", database.uri, *words[1:])
        assert (ended.stdout + ended.stderr).count("are out of sight") == 1, ended.stderr
        assert bool(ended.exit_code) == (words != ["doctor"])
    storage.save_crash(crash_of(contents(), OTHERS[0]))
    assert list(storage.strangers()) == []


# Partitions of other ranges


def test_a_default_partition_is_used_and_warned_of(
    database: Database, storage: CrashStorageBase
) -> None:
    database.run("CREATE TABLE rest PARTITION OF crash_parts DEFAULT")
    day = dt.date(2027, 2, 1)
    insert = "INSERT INTO crash_parts VALUES (%s, %s, 'raw_crash', '', 0, '{}')"
    midnight = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
    database.connection.execute(insert, (midnight, crash_id(day, 1)))
    with open_storage(database.uri) as other:  # whose week cannot get a partition now
        other.save_crash(crash_of(contents(), crash_id(day)))
        assert read(other, crash_id(day)) == contents()
        assert [i for i, _ in other.remove_days(day, day)] == [crash_id(day), crash_id(day, 1)]
    assert "default partition, rest" in run("doctor", "-s", database.uri).stdout


def test_a_month_that_was_made_by_hand_is_used_and_warned_of(
    database: Database, storage: CrashStorageBase
) -> None:
    database.run(
        "CREATE TABLE crash_parts_january PARTITION OF crash_parts"
        " FOR VALUES FROM ('2027-01-01Z') TO ('2027-02-01Z')"
    )
    within, after = dt.date(2027, 1, 13), dt.date(2027, 2, 2)
    last_week = dt.date(2027, 1, 28)
    with open_storage(database.uri) as other:
        results = other.save_crashes(
            [crash_of(contents(), crash_id(day)) for day in (within, last_week, after)]
        )
    assert results[:2] == [None, None]
    if results[2]:  # the rest of its last week cannot get a partition
        assert "cannot get a partition" in str(results[2])
    assert "crash_parts_january" in run("doctor", "-s", database.uri).stdout


def test_names_of_partitions() -> None:
    names = {
        "crash_parts_20261116": MONDAY,
        "crash_parts_20261117": None,
        "crash_parts_2026": None,
        "crash_parts_20261331": None,
        "crash_parts_2026111": None,
        "crash_parts_january": None,
        "20261116": None,
        "crash_parts_20261116_old": None,
    }
    assert {name: monday_of(name) for name in names} == names


def test_a_store_of_directories_is_not_asked(tmp_path: Path) -> None:
    assert list(FSPermanentStorage(tmp_path).diagnose()) == []
