# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Stores together: from each to each, through all of them, and from the command line."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count, pairwise, product
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from crashmover import crashid
from crashmover.cli import main
from crashmover.crash import Kind
from crashmover.engine.mover import Existing, Mover, Status
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.registry import open_storage
from crashmover.testing import CRASH_ID, MAIN, PROCESSED, RAW, Contents, contents, crash_of, read
from tests.cli_helpers import stored
from tests.conftest import Figures, UseAWS
from tests.servers.buckets import Bucket
from tests.servers.gcs import FakeGCS
from tests.servers.postgresql import PostgreSQL
from tests.servers.s3 import S3Server
from tests.strict_gcs import StrictGCS

ROOT = Path(__file__).parent.parent
MIB = 1 << 20
STORES = ("memory", "fs", "s3", "gs", "postgresql", "poly")


@pytest.fixture
def new_uris(
    tmp_path: Path,
    s3_signed: S3Server,
    aws: UseAWS,
    gcs: StrictGCS,
    postgresql_server: PostgreSQL,
) -> Callable[[str], list[str]]:
    """Return the URIs of an empty store of a kind."""
    aws(s3_signed)
    numbers = count()

    def uris(kind: str) -> list[str]:
        match kind:
            case "memory":
                return ["memory:"]
            case "fs":
                return [f"{tmp_path}/store-{next(numbers)}"]
            case "s3":
                return [s3_signed.uri(s3_signed.new_bucket())]
            case "gs":
                return [gcs.uri(gcs.new_bucket())]
            case "postgresql":
                return [postgresql_server.uri(schema=postgresql_server.new_name())]
        return [*uris("s3"), *uris("fs"), *uris("postgresql")]

    return uris


@pytest.fixture
def open_new(
    new_uris: Callable[[str], list[str]],
) -> Iterator[Callable[[str], CrashStorageBase]]:
    """Open an empty store of a kind."""
    with ExitStack() as stack:
        yield lambda kind: stack.enter_context(open_storage(new_uris(kind)))


def odd_crashes() -> dict[str, Contents]:
    """Crashes that a store might change: nothing, everything, too much, and no JSON."""
    every_byte = bytes(range(256)) * 40
    return {
        _id(0, "071025"): contents(),
        _id(1, "071025"): {RAW: b'{"a": 1, "a": 2} \x00\xff', MAIN: b""},
        _id(2, "261118"): {RAW: b"", PROCESSED: b"\xef\xbb\xbf{}"},
        _id(3, "261118"): {RAW: b"{}", MAIN: every_byte * 1100, (Kind.DUMP, "a.b-c_d"): every_byte},
        _id(4, "261231"): {RAW: b"[" * 70_000, PROCESSED: b"x" * (5 * MIB)},
    }


def is_sound(parts: Contents) -> bool:
    """Return True if what should be JSON is a JSON object."""
    try:
        return all(isinstance(json.loads(parts.get(key, b"{}")), dict) for key in (RAW, PROCESSED))
    except (ValueError, RecursionError):
        return False


def _id(number: int, day: str) -> str:
    return f"0bba{number:04x}-8721-460c-dead-a43c22{day}"


def pairs() -> Iterator[Any]:
    """Each store with each; what is not slow has each of them on either side."""
    for first, second in product(STORES, repeat=2):
        is_next = STORES[STORES.index(first) - 1] == second
        yield pytest.param(first, second, marks=() if is_next else pytest.mark.slow)


@pytest.mark.parametrize(("first", "second"), [*pairs()])
def test_from_each_store_to_each_no_byte_changes(
    open_new: Callable[[str], CrashStorageBase], first: str, second: str
) -> None:
    source, destination = open_new(first), open_new(second)
    crashes = odd_crashes()
    for crash_id, parts in crashes.items():
        source.save_crash(crash_of(parts, crash_id))
    verified = {o.crash_id: o for o in Mover(source, destination, verify=True).run(list(crashes))}
    refused = {each for each, outcome in verified.items() if outcome.status is Status.FAILED}
    assert refused == {each for each in crashes if not is_sound(crashes[each])}
    assert not refused & set(destination.new_crashes())
    for outcome in Mover(source, destination).run(refused):  # byte for byte, as it is
        assert outcome.status is Status.COPIED, outcome.error
    for store in (destination, *destination.stores):
        assert list(store.new_crashes()) == list(crashes)
        for crash_id, parts in crashes.items():
            assert read(store, crash_id) == parts
    for existing in (Existing.SKIP, Existing.COMPARE):
        again = Mover(source, destination, existing=existing).run(
            source.new_crashes(), lambda store: store.new_crashes()
        )
        assert {outcome.status for outcome in again} == {Status.SKIPPED}
    if len(source.stores) == 1:
        moving = Mover(source, destination, existing=Existing.COMPARE, remove_source=True)
        assert {outcome.status for outcome in moving.run(list(crashes))} == {Status.SKIPPED}
        assert list(source.new_crashes()) == []


# Through all of them


def crashmover(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def manifest_of(root: Path) -> dict[tuple[str, str, str], str]:
    """What is in a file-system store: (id, kind, name) -> SHA-256 of its bytes."""
    found = {}
    with open_storage(str(root)) as storage:
        for crash_id in storage.new_crashes():
            for part in storage.load_crash(crash_id).parts:
                key = (crash_id, part.kind.value, part.name)
                found[key] = hashlib.sha256(part.read()).hexdigest()
    return found


@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_many_crashes_go_through_every_store_and_come_back(
    tmp_path: Path,
    s3_signed: S3Server,
    aws: UseAWS,
    fake_gcs: FakeGCS,
    postgresql_server: PostgreSQL,
    figures: Figures,
    count: int,
) -> None:
    aws(s3_signed)
    schema = postgresql_server.new_name()
    first, bucket, last = Bucket(fake_gcs), Bucket(s3_signed), Bucket(fake_gcs)
    stores = [
        str(tmp_path / "collector"),
        first.uri("crashes"),
        bucket.uri("crashes"),
        postgresql_server.uri(schema=schema),
        last.uri("crashes"),
        str(tmp_path / "archive"),
    ]
    make = [sys.executable, str(ROOT / "examples" / "sample_crashes.py"), stores[0]]
    subprocess.run([*make, "--crashes", str(count)], check=True, capture_output=True, timeout=100)
    for source, destination in pairwise(stores):
        result = crashmover("copy", "-s", source, "-d", destination)
        assert result.output.startswith(f"copied {count}, skipped 0, failed 0;")
        result = crashmover("copy", "-s", source, "-d", destination)
        assert result.output.startswith(f"copied 0, skipped {count}, failed 0;")
    manifest = manifest_of(tmp_path / "collector")
    kinds = Counter(kind for _, kind, _ in manifest)
    assert kinds["raw_crash"] == count < kinds["dump"] and kinds["processed_crash"] > count / 3
    assert manifest_of(tmp_path / "archive") == manifest
    assert stored(tmp_path / "archive") == stored(tmp_path / "collector")
    expected = {key_in_bucket(*key): digest for key, digest in manifest.items()}
    for each in (first, bucket, last):
        assert objects_of(each) == expected
    with postgresql_server.connect() as connection:
        assert rows_of(connection, schema) == manifest
        check_views(connection, schema, manifest)
    figures(crashes=count, **kinds)


def test_the_example_takes_crashes_through_every_store(
    tmp_path: Path, s3_signed: S3Server, postgresql_server: PostgreSQL
) -> None:
    done = subprocess.run(
        ["bash", ROOT / "examples" / "through_every_store.sh", "30"],
        cwd=tmp_path,
        env={
            **s3_signed.credentials,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "BUCKET": s3_signed.uri(s3_signed.new_bucket()),
            "DATABASE": postgresql_server.uri(schema=postgresql_server.new_name()),
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("copied 30, skipped 0, failed 0") == 3
    assert json.loads(done.stdout)["skipped"] == 30  # for they are the same, to the byte


def key_in_bucket(crash_id: str, kind: str, name: str) -> str:
    match kind:
        case "raw_crash":
            return f"crashes/v1/raw_crash/20{crash_id[-6:]}/{crash_id}"
        case "dump":
            return f"crashes/v1/{'dump' if name == 'upload_file_minidump' else name}/{crash_id}"
    return f"crashes/v1/processed_crash/{crash_id}"


def objects_of(bucket: Bucket) -> dict[str, str]:
    """Every object but the lists of dumps, which must say what is there."""
    found = {}
    dumps: dict[str, set[str]] = {}
    lists: dict[str, set[str]] = {}
    for key, data in bucket.objects().items():
        _, _, name, *_, crash_id = key.split("/")
        if name == "dump_names":
            lists[crash_id] = set(json.loads(data))
            continue
        found[key] = hashlib.sha256(data).hexdigest()
        dumps.setdefault(crash_id, set())
        if name not in ("raw_crash", "processed_crash"):
            dumps[crash_id].add("upload_file_minidump" if name == "dump" else name)
    assert lists == dumps
    return found


def rows_of(connection: psycopg.Connection[Any], schema: str) -> dict[tuple[str, str, str], str]:
    query = f"""
        SELECT crash_id::text, kind, name, string_agg(data, '' ORDER BY chunk)
        FROM {schema}.crash_parts GROUP BY 1, 2, 3
    """
    rows = connection.execute(query.encode()).fetchall()
    return {(row[0], row[1], row[2]): hashlib.sha256(row[3]).hexdigest() for row in rows}


def check_views(
    connection: psycopg.Connection[Any], schema: str, manifest: dict[tuple[str, str, str], str]
) -> None:
    for kind, view in (("raw_crash", "raw_crashes"), ("processed_crash", "processed_crashes")):
        query = f"SELECT uuid::text, {kind}::text, date_processed::date FROM {schema}.{view}"
        rows = connection.execute(query.encode()).fetchall()
        digests = {row[0]: hashlib.sha256(row[1].encode()).hexdigest() for row in rows}
        assert digests == {key[0]: value for key, value in manifest.items() if key[1] == kind}
        for crash_id, _, day in rows:
            assert day == crashid.date_of(crash_id)


# From the command line


@pytest.fixture
def unusable(
    s3_signed: S3Server, aws: UseAWS, fake_gcs: FakeGCS, postgresql_server: PostgreSQL
) -> dict[str, tuple[str, str]]:
    """What may be wrong -> a URI, and what is said about it."""
    aws(s3_signed)
    password = postgresql_server.password
    return {
        "bucket": (s3_signed.uri("no-such-bucket"), "no such bucket"),
        "bucket of Google's": (fake_gcs.uri("no-such-bucket"), "no such bucket"),
        "server": ("s3://crashes?endpoint_url=http://127.0.0.1:1", "connection refused"),
        "password": (
            postgresql_server.uri().replace(password, "cAnArY"),
            "password authentication failed",
        ),
        "database": (postgresql_server.uri("nowhere"), 'database "nowhere" does not exist'),
        "tables": (postgresql_server.uri(schema="nothing"), "there are no tables"),
    }


@pytest.mark.parametrize(
    "what", ["bucket", "bucket of Google's", "server", "password", "database", "tables"]
)
def test_a_store_that_refuses_ends_a_command_with_one_line_and_4(
    unusable: dict[str, tuple[str, str]], what: str, tmp_path: Path
) -> None:
    uri, reason = unusable[what]
    shown = open_storage(uri).uri
    copies: list[tuple[str | Path, ...]] = [("copy", "-s", uri, "-d", tmp_path / "out")]
    if what not in ("tables", "server"):  # a server is waited for, each time
        (tmp_path / "raw.json").write_text("{}")
        copies.append(("copy", "-s", tmp_path, "-d", uri))
        copies.append(("save", "-d", uri, "--raw-crash", tmp_path / "raw.json"))
        copies.append(("get", "-s", uri, CRASH_ID))
    for arguments in copies:
        result = crashmover(*arguments)
        assert result.exit_code == 4, (arguments, result.output)
        [line] = result.output.strip().splitlines()
        assert line.startswith(f"crashmover: {shown}: ")
        assert reason in line.lower()
        assert "cAnArY" not in line
    assert not (tmp_path / "out").exists()


def test_a_wrong_secret_ends_a_command_with_one_line_and_4(
    s3_signed: S3Server, aws: UseAWS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    aws(s3_signed)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "cAnArY" * 6)
    uri = s3_signed.uri(s3_signed.new_bucket())
    for arguments in (
        ("copy", "-s", uri, "-d", tmp_path / "out"),
        ("copy", "-s", tmp_path, "-d", uri),
        ("get", "-s", uri, CRASH_ID),
    ):
        result = crashmover(*arguments)
        assert result.exit_code == 4
        [line] = result.output.strip().splitlines()
        assert line == f"crashmover: {uri}: the secret key does not fit the access key"


def test_a_crash_is_saved_fetched_and_copied_by_the_commands(
    new_uris: Callable[[str], list[str]], tmp_path: Path
) -> None:
    (tmp_path / "raw.json").write_bytes(contents()[RAW])
    (tmp_path / "mini.dmp").write_bytes(contents()[MAIN])
    for kind in ("s3", "gs", "postgresql"):
        [uri] = new_uris(kind)
        saved = crashmover(
            "save", "-d", uri, "--raw-crash", tmp_path / "raw.json", "--dump",
            tmp_path / "mini.dmp", CRASH_ID,
        )  # fmt: skip
        assert (saved.exit_code, saved.output) == (0, f"{CRASH_ID}\n")
        shown = crashmover("get", "-s", uri, CRASH_ID)
        assert f"dump upload_file_minidump  {len(contents()[MAIN]):,} bytes" in shown.output
        fetched = crashmover("get", "-s", uri, CRASH_ID, "--dump", "", "-o", tmp_path / "out")
        assert fetched.exit_code == 0
        assert (tmp_path / "out").read_bytes() == contents()[MAIN]
        missing = crashmover("get", "-s", uri, CRASH_ID.replace("0bba", "0bbb"))
        assert missing.exit_code == 3
        assert "no such crash" in missing.output
