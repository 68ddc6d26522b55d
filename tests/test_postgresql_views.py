# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The views of a PostgreSQL store: no crash can make a query over many fail."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from crashmover import Crash, Kind, Part, open_storage
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.postgresql import schema as schemas
from crashmover.testing import CRASH_ID, NEIGHBOUR, PROCESSED, RAW, contents, crash_of, read
from tests.cli_helpers import run
from tests.conftest import Figures, mostly_slow
from tests.servers.postgresql import PostgreSQL

MIB = 1 << 20
ENCODINGS = ("UTF8", "LATIN1", "SQL_ASCII", "EUC_JP")

MENDED = {
    "zero": (rb'"a\u0000b"', "a\ufffdb"),
    "zero of a backslash": (rb'"\\u0000 \\\u0000"', "\\u0000 \\\ufffd"),
    "high half": (rb'"\ud83d"', "\ufffd"),
    "low half": (rb'"\uDE00x"', "\ufffdx"),
    "halves": (rb'"\ude00\ud83d\ud83d\ude00\ude00\ud83dx"', "\ufffd\ufffd\U0001f600\ufffd\ufffdx"),
    "escaped": (rb'"\u00e9\u20ac\ud83d\ude00"', "é€\U0001f600"),
    "plain": ('"Größe € \U0001f600"'.encode(), "Größe € \U0001f600"),
}
"""The value of a key, and what it is in the view of a database in UTF8."""

NULL = {
    "empty": b"",
    "half": b"{",
    "not UTF-8": b"\xff\xfe",
    "not UTF-8 within": b'{"a": "\xff"}',
    "byte of zero": b'{"a": "\x00"}',
    "mark": b"\xef\xbb\xbf{}",
    "NaN": b'{"a": NaN}',
    "list": b'[{"a": 1}]',
    "text": b'"a"',
    "number": b"3",
    "null": b"null",
    "large number": b'{"a": 1e400000}',
    "numbers that grow": b'{"a": [' + b",".join([b"1e131071"] * 9000) + b"]}",
    "deep": b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "nearly too deep": b'{"a": ' + b"[" * 13_000 + b"]" * 13_000 + b"}",
    "deep objects": b'{"a": ' * 12_500 + b"1" + b"}" * 12_500,
    "not closed": b"[" * 200_000,
}
AS_IT_IS = {
    "twice": b'{"ProductName": "A", "ProductName": "Firefox"}',
    "deep": b'{"ProductName": "Firefox", "a": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    "exponent": b'{"ProductName": "Firefox", "a": [1e99, -2.5E-12], "b": "\\"3e4000"}',
    "large": b'{"ProductName": "Firefox", "a": "' + b"x" * (2 * MIB) + b'"}',
}

QUERIES = (
    "SELECT {doc}->>'ProductName', count(*) FROM {view} GROUP BY 1",
    "SELECT count({doc}->'a'->'b'->>0) FROM {view}",
    "SELECT count({doc}#>>'{{a,b}}') FROM {view}",
    "SELECT count({doc}::jsonb) FROM {view}",
    "SELECT count({doc}::text) FROM {view}",
    "SELECT count({doc}::jsonb::text) FROM {view}",
    "SELECT count(*) FROM {view}, json_each_text({doc})",
    "SELECT count(*) FROM {view}, json_object_keys({doc})",
    "SELECT count(json_strip_nulls({doc})) FROM {view}",
    "SELECT count(*) FROM {view}, jsonb_each_text({doc}::jsonb)",
    "SELECT count(*) FROM {view} WHERE {doc}::jsonb @> '{{\"a\": 1}}'",
    "SELECT count(jsonb_path_query_first({doc}::jsonb, 'strict $.**.z')) FROM {view}",
    'SELECT count(*) FROM {view}, json_to_record({doc}) AS r("ProductName" text)',
)
"""Of every operator there is, one that goes as deep."""


@contextmanager
def database_of(server: PostgreSQL, encoding: str) -> Iterator[str]:
    name = server.new_name()
    options = f"ENCODING {encoding} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    with server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} {options}".encode())
    yield name


def ids(count: int) -> list[str]:
    return [f"{n:08x}{CRASH_ID[8:]}" for n in range(count)]


def save(storage: CrashStorageBase, documents: list[bytes]) -> None:
    crashes = [
        crash_of({RAW: data, PROCESSED: data}, crash_id)
        for crash_id, data in zip(ids(len(documents)), documents, strict=True)
    ]
    assert not any(storage.save_crashes(crashes))


def ask_everything(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    queries = [
        query.format(doc=document, view=view)
        for document, view in (
            ("raw_crash", "raw_crashes"),
            ("processed_crash", "processed_crashes"),
        )
        for query in QUERIES
    ]
    for query in queries:
        connection.execute(query.encode()).fetchall()
    return len(queries)


def document_of(value: bytes) -> bytes:
    return b'{"ProductName": "Firefox", "a": ' + value + b"}"


@pytest.mark.parametrize("encoding", mostly_slow(ENCODINGS, ["UTF8", "LATIN1"]))
def test_every_query_over_odd_crashes_works(
    each_postgresql: PostgreSQL, encoding: str, figures: Figures
) -> None:
    mended = [document_of(value) for value, _ in MENDED.values()]
    mended.append(b'{"\\u0000": 1, "ProductName": "Firefox"}')
    good = [*mended, *AS_IT_IS.values()]
    documents = [*good, *NULL.values()]
    with database_of(each_postgresql, encoding) as database:
        with open_storage(each_postgresql.uri(database)) as storage:
            save(storage, documents)
            for crash_id, data in zip(ids(len(documents)), documents, strict=True):
                assert read(storage, crash_id) == {RAW: data, PROCESSED: data}
        with each_postgresql.connect(database, client_encoding="UTF8") as connection:
            for setting in ("on", "off"):
                connection.execute(f"SET standard_conforming_strings = {setting}".encode())
                count = ask_everything(connection)
                products = connection.execute(
                    QUERIES[0].format(doc="raw_crash", view="raw_crashes")
                )
                assert dict(products.fetchall()) == {"Firefox": len(good), None: len(NULL)}
    figures(odd_crashes=len(documents), queries=2 * count)


def test_what_is_replaced_and_what_is_kept(each_postgresql: PostgreSQL) -> None:
    with database_of(each_postgresql, "UTF8") as database:
        with open_storage(each_postgresql.uri(database)) as storage:
            save(storage, [document_of(value) for value, _ in MENDED.values()])
        with each_postgresql.connect(database) as connection:
            query = "SELECT raw_crash->>'a' FROM raw_crashes ORDER BY uuid"
            found = [value for (value,) in connection.execute(query).fetchall()]
            whole = connection.execute("SELECT raw_crash::text FROM raw_crashes").fetchall()
    assert found == [value for _, value in MENDED.values()]
    assert all(json.loads(text) for (text,) in whole)


def test_what_an_encoding_lacks_is_a_question_mark(each_postgresql: PostgreSQL) -> None:
    with database_of(each_postgresql, "LATIN1") as database:
        with open_storage(each_postgresql.uri(database)) as storage:
            save(storage, ['{"a": "Größe"}'.encode(), '{"a": "Größe €"}'.encode()])
        with each_postgresql.connect(database) as connection:
            query = "SELECT raw_crash->>'a' FROM raw_crashes ORDER BY uuid"
            assert connection.execute(query).fetchall() == [("Größe",), ("Gr??e ?",)]


def test_a_document_of_more_than_32_mib_is_null(each_postgresql: PostgreSQL) -> None:
    with database_of(each_postgresql, "UTF8") as database:
        with open_storage(each_postgresql.uri(database)) as storage:
            storage.save_crash(crash_of(contents(), NEIGHBOUR))

            def chunks() -> Iterator[bytes]:
                yield b'{"a": "'
                yield from [b"x" * MIB] * 32
                yield b'"}'

            raw = Part.of_chunks(Kind.RAW_CRASH, chunks, size=None)
            storage.save_crash(Crash(CRASH_ID, [raw]))
        with each_postgresql.connect(database) as connection:
            found = connection.execute("SELECT uuid::text, raw_crash IS NULL FROM raw_crashes")
            assert dict(found.fetchall()) == {CRASH_ID: True, NEIGHBOUR: False}


# Tables of crashmover 0.1.0

OLD_FUNCTION = """
    CREATE OR REPLACE FUNCTION {0}.crash_json(data bytea) RETURNS json
    LANGUAGE plpgsql IMMUTABLE STRICT AS $$
    BEGIN
        RETURN convert_from(data, 'UTF8')::json;
    EXCEPTION
        WHEN data_exception OR program_limit_exceeded THEN
            RETURN NULL;
    END
    $$;
    COMMENT ON FUNCTION {0}.crash_json(bytea) IS NULL;
"""


def test_old_views_are_warned_of_and_mended_by_the_script(postgresql_server: PostgreSQL) -> None:
    name = postgresql_server.new_name()
    uri = postgresql_server.uri(schema=name)
    with open_storage(uri) as storage, postgresql_server.connect() as connection:
        storage.save_crash(crash_of({RAW: document_of(rb'"\u0000"'), PROCESSED: b"{}"}))
        query = f"SELECT raw_crash->>'a' FROM {name}.raw_crashes".encode()
        connection.execute(OLD_FUNCTION.format(name).encode())
        with pytest.raises(psycopg.errors.UntranslatableCharacter):
            connection.execute(query)
        done = run("doctor", "-s", uri)
        assert done.exit_code == 0
        assert "its views are of an older version" in done.stderr + done.stdout
        assert f"python -m crashmover.external.postgresql --schema {name}" in (
            done.stderr + done.stdout
        )
        storage.save_crash(crash_of(contents(), NEIGHBOUR))  # it works on as it was
        connection.execute(schemas.script(name).encode())
        assert ("\ufffd",) in connection.execute(query).fetchall()
        assert "older version" not in run("doctor", "-s", uri).stdout
