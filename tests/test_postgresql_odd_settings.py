# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PostgreSQLCrashStorage under roles whose sessions are set up in odd ways: it does the same."""

import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from psycopg import sql

from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.registry import open_storage
from crashmover.testing import CRASH_ID, StorageConformance, contents, crash_of
from tests.cli_helpers import put, run, sample
from tests.conftest import Figures, mostly_slow
from tests.servers.postgresql import PostgreSQL

MONDAY, SUNDAY = dt.date(2007, 10, 22), dt.date(2007, 10, 28)

ODD = {
    "array_nulls": "off",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "datestyle": "German, DMY",
    "default_transaction_deferrable": "on",
    "default_transaction_isolation": "serializable",
    "escape_string_warning": "off",
    "extra_float_digits": "-15",
    "intervalstyle": "sql_standard",
    "lock_timeout": "20s",
    "quote_all_identifiers": "on",
    "search_path": "",
    "standard_conforming_strings": "off",
    "statement_timeout": "20s",
    "timezone": "America/St_Johns",
    "transform_null_equals": "on",
}
"""Each has another value by default."""

STYLES = [
    f"{style}, {order}"
    for style in ("ISO", "SQL", "Postgres", "German")
    for order in ("DMY", "MDY")
]


def role_with(server: PostgreSQL, schema: str, settings: Mapping[str, str]) -> str:
    """Make a role, and a schema of its own; return the URI of that with it."""
    name = server.new_name()
    role = sql.Identifier(name)
    with server.connect() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'pw'").format(role))
        make = sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}")
        connection.execute(make.format(sql.Identifier(schema), role))
        for key, value in settings.items():
            alter = sql.SQL("ALTER ROLE {} SET {} TO {}")
            connection.execute(alter.format(role, sql.Identifier(key), sql.Literal(value)))
    own = f"{server.user}:{server.password}@"
    return server.uri(schema=schema).replace(own, f"{name}:pw@")


class TestOddSettings(StorageConformance):
    @pytest.fixture
    def storage(self, postgresql_server: PostgreSQL) -> Iterator[CrashStorageBase]:
        uri = role_with(postgresql_server, postgresql_server.new_name(), ODD)
        with open_storage(uri) as storage:
            yield storage


def use_by_commands(uri: str, tmp_path: Path) -> None:
    """Run each command that reads or removes what is in a database."""
    crashes = [sample(number) for number in range(6)]  # all of one day
    ids = [each.crash_id for each in crashes]
    source = put(tmp_path / "source", *crashes)
    days = ("--since", "2026-11-20", "--until", "2026-11-20")
    assert run("copy", "-s", source, "-d", uri).exit_code == 0
    assert run("list", "-s", uri).stdout.split() == ids
    assert run("list", "-s", uri, *days).stdout.split() == ids
    assert run("list", "-s", uri, "--until", "2026-11-19").stdout == ""
    assert run("check", "-s", source, "-d", uri, "--digest").exit_code == 0
    done = run("copy", "-s", uri, "-d", tmp_path / "out", *days, "--verify")
    assert f"copied {len(ids)}" in done.stderr
    assert run("doctor", "-s", uri).exit_code == 0
    assert run("get", "-s", uri, ids[0]).exit_code == 0
    assert run("remove", "-s", uri, ids[0]).exit_code == 0
    done = run("remove", "-s", uri, "--since", "2026-11-16", "--until", "2026-11-22", "--yes")
    assert (done.exit_code, run("list", "-s", uri).stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("style", mostly_slow(STYLES, ["SQL, DMY", "German, MDY"]))
def test_commands_do_the_same_in_any_style_of_dates(
    postgresql_server: PostgreSQL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    style: str,
    figures: Figures,
) -> None:
    """Said by the role, and once more by the environment."""
    by_role = role_with(postgresql_server, postgresql_server.new_name(), {"datestyle": style})
    use_by_commands(by_role, tmp_path / "role")
    monkeypatch.setenv("PGDATESTYLE", style)
    use_by_commands(postgresql_server.uri(schema=postgresql_server.new_name()), tmp_path / "env")
    figures(settings=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ODD))
def test_commands_do_the_same_under_each_setting(
    postgresql_server: PostgreSQL, tmp_path: Path, name: str, figures: Figures
) -> None:
    uri = role_with(postgresql_server, postgresql_server.new_name(), {name: ODD[name]})
    use_by_commands(uri, tmp_path)
    figures(settings=1)


@pytest.mark.parametrize("style", ["SQL, DMY", "Postgres, MDY", "German, DMY"])
@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/Chicago", "Australia/Sydney"])
def test_a_week_begins_at_midnight_utc_whatever_zone_has_the_same_abbreviation(
    postgresql_server: PostgreSQL, style: str, zone: str
) -> None:
    """IST is Israel's time by default, and India's; a crash of a Monday shows it."""
    settings = {"datestyle": style, "timezone": zone}
    uri = role_with(postgresql_server, postgresql_server.new_name(), settings)
    ids = [f"{CRASH_ID[:-6]}{day:%y%m%d}" for day in (MONDAY, SUNDAY)]
    with open_storage(uri) as storage:
        for crash_id in ids:
            storage.save_crash(crash_of(contents(), crash_id))
        assert list(storage.new_crashes()) == ids
        removed = [crash_id for crash_id, _ in storage.remove_days(MONDAY, SUNDAY)]
        assert (removed, list(storage.new_crashes())) == (ids, [])
