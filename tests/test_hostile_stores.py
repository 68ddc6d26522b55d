# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What strangers have put into a store behind its back: gzip that is damaged or never ends, lists
of dumps, keys and rows that are not as they should be.  It fails its crash in one line or is passed
over, the others are copied, and the original stays."""

import gzip
import io
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from tests.cli_helpers import MAIN_DUMP, manifest, sample, sha256, statuses, stored
from tests.conftest import Figures, on_buckets, server_of_buckets
from tests.hostile import (
    PROCESSED,
    RAW,
    Bucket,
    Database,
    Directory,
    Ended,
    Store,
    invoke,
    measured,
)
from tests.servers.buckets import BucketServer
from tests.servers.postgresql import PostgreSQL

CRASH = sample(1, dumps={MAIN_DUMP: b"MDMP", "browser": b"MDMB"}, processed=b"{}")
OTHERS = [sample(n, leaf="0bbc", processed=b"{}") for n in range(3)]
ALL = [CRASH, *OTHERS]

slow = pytest.mark.slow


def copy(store: Store, to: Path, *args: str, passes_over: bool = False) -> tuple[Ended, str]:
    """Copy all; the others must arrive, whatever becomes of the crash, and nothing may be changed.

    :param passes_over: whether the listing meets what looks like a crash, and says so
    :return: how that ended, and what became of the crash
    """
    before = [store.stored(crash) for crash in ALL]
    report = to.with_suffix(".report")
    done = invoke("copy", "-s", store.uri, "-d", to, "--report", report, *args)
    found = statuses(report)
    assert [found.pop(crash.crash_id) for crash in OTHERS] == ["copied"] * len(OTHERS)
    assert manifest(*OTHERS).items() <= stored(to).items()
    assert [store.stored(crash) for crash in ALL] == before
    status = found.pop(CRASH.crash_id, "not listed")
    assert not found
    lines = (status == "failed") + passes_over
    assert (done.code, len(done.said)) == (int(lines > 0), lines), done.said
    assert any("passed over" in line for line in done.said) == passes_over
    assert (status == "copied") == CRASH.path(to).exists()
    return done, status


# Packed

PACKED = gzip.compress(b'{"signature": "f"}' * 1000)

DAMAGED: dict[str, bytes] = {
    "truncated": PACKED[:-9],
    "a header alone": PACKED[:10],
    "more behind it": PACKED + b"more",
    "half a second member": PACKED + PACKED[:20],
    "a second member that is damaged": PACKED + PACKED[:-5] + b"zzzzz",
    "another checksum": PACKED[:-8] + bytes(8),
    "another length": PACKED[:-4] + bytes(4),
    "not packed": b"{}",
    "nothing": b"",
    "a name that never ends": PACKED[:3] + b"\x08" + PACKED[4:10] + b"x" * 100_000,
    "of another method": PACKED[:2] + b"\x07" + PACKED[3:],
}
OBJECT = gzip.compress(b'{"signature": "f"}')

WHOLE: dict[str, bytes] = {
    "a second member": OBJECT + gzip.compress(b" " * 1000),
    "zeros behind it": OBJECT + bytes(1000),
    "many members of nothing": gzip.compress(b"") * 10_000 + OBJECT,
    "a member in pieces": gzip.compress(b"{") + gzip.compress(b"}"),
    "with a name": OBJECT[:3] + b"\x08" + OBJECT[4:10] + b"../../x\0" + OBJECT[10:],
}


QUICK = ("truncated", "a second member that is damaged")


@pytest.mark.parametrize(
    "what", [*QUICK, *(pytest.param(name, marks=slow) for name in DAMAGED if name not in QUICK)]
)
def test_damaged_gzip_fails_its_crash_alone(tmp_path: Path, what: str) -> None:
    store = Directory(tmp_path / "source")
    store.put(*ALL)
    store.exchange(CRASH, PROCESSED, DAMAGED[what])
    done, status = copy(store, tmp_path / "copies")
    assert status == "failed" and "is not whole gzip" in done.said[0]
    for option in (["--processed-crash"], ["--processed-crash", "--unredacted"]):
        shown = invoke("get", "-s", store.uri, CRASH.crash_id, *option)
        assert (shown.code, shown.out, len(shown.said)) == (1, b"", 1)
    overview = invoke("get", "-s", store.uri, CRASH.crash_id)
    assert (overview.code, len(overview.said)) == (1, 1)
    assert b"damaged" in overview.out and "is not whole gzip" in overview.said[0]


@slow
@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_gzip_that_is_odd_is_what_gzip_says(tmp_path: Path, data: bytes) -> None:
    store = Directory(tmp_path / "source")
    store.put(*ALL)
    store.exchange(CRASH, PROCESSED, data)
    assert copy(store, tmp_path / "copies", "--verify")[1] == "copied"
    packed = CRASH.path(tmp_path / "copies", PROCESSED).read_bytes()
    assert gzip.decompress(packed) == gzip.decompress(data)


BOMB = 300 << 20


@pytest.fixture
def bomb() -> bytes:
    """A small file that unpacks to 300 MB which look like a document."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        file.write(b'{"a": "')
        for _ in range(BOMB >> 20):
            file.write(b"x" * (1 << 20))
        file.write(b'"}')
    return packed.getvalue()


MakeStore = Callable[[pytest.FixtureRequest, Path], Store]


def directory(request: pytest.FixtureRequest, tmp: Path) -> Store:
    return Directory(tmp / "copies")


def s3(request: pytest.FixtureRequest, tmp: Path) -> Store:
    return Bucket(server_of_buckets(request, "s3_signed"))


def gs(request: pytest.FixtureRequest, tmp: Path) -> Store:
    return Bucket(server_of_buckets(request, "fake_gcs"))


def database(request: pytest.FixtureRequest, tmp: Path) -> Store:
    return Database(request.getfixturevalue("postgresql_server"))


@slow
@pytest.mark.parametrize("make", [directory, s3, gs, database])
def test_a_bomb_streams_wherever_it_goes_and_nobody_looks_into_it(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    bomb: bytes,
    make: MakeStore,
    figures: Figures,
) -> None:
    source, to = Directory(tmp_path / "source"), make(request, tmp_path)
    source.put(*ALL)
    source.exchange(CRASH, PROCESSED, bomb)
    for args in ((), ("--verify",), ("--existing", "compare")):
        done = measured("copy", "-s", source.uri, "-d", to.uri, *args)
        assert (done.code, done.said) == (0, [])
    refused = measured("copy", "-s", source.uri, "-d", tmp_path / "redacted", "--redact")
    assert refused.code == 1 and "is too large to be read as JSON" in refused.said[0]
    assert stored(tmp_path / "redacted").keys() == manifest(*OTHERS).keys()
    for store in (source, to):
        where = ("get", "-s", store.uri, CRASH.crash_id)
        assert b"314,572,809 bytes" in measured(*where).out
        assert measured(*where, "--processed-crash").code == 1
    figures(runs=8)


@slow
@on_buckets("s3_strict", "fake_gcs")
@pytest.mark.parametrize("suffix", [RAW, ".dump", PROCESSED])
def test_what_says_of_itself_that_it_is_packed_is_copied_as_it_lies_in_its_bucket(
    bucket_server: BucketServer, tmp_path: Path, suffix: str
) -> None:
    store = Bucket(bucket_server)
    store.put(*ALL)
    store.put_object(store.key(CRASH, suffix), PACKED, encoding="gzip")
    assert copy(store, tmp_path / "copies")[1] == "copied"
    assert sha256(PACKED) in stored(tmp_path / "copies").values()


# Lists of dumps

LISTS_REFUSED: dict[str, bytes] = {
    "a path": b'["../../../etc/passwd"]',
    "a path from the root": b'["/etc/passwd"]',
    "a name that starts with a dot": b'[".x"]',
    "a reserved name": b'["dump_names"]',
    "another reserved name": b'["raw_crash"]',
    "what a terminal acts on": b'["\\u001b]0;owned\\u0007\\n"]',
    "what a terminal acts on, as it is": b'["\x1b]0;owned\x07"]',
    "a long name": b'["' + b"x" * 10_000 + b'"]',
    "a null within": b'["a\\u0000"]',
    "a number": b"[1e999]",
    "an object": b'{"upload_file_minidump": 1}',
    "an object in it": b'[{"upload_file_minidump": 1}]',
    "text": b'"upload_file_minidump"',
    "too deep": b"[" * 50_000,
    "an integer without end": b"[" + b"9" * 50_000 + b"]",
    "not JSON": b"upload_file_minidump",
    "nothing": b"",
    "no text": b"\xff\xfe\x80",
    "hundreds of thousands": json.dumps([f"d{n}" for n in range(300_000)]).encode(),
}
LISTS_OF_WHAT_IS_NOT_THERE: dict[str, tuple[bytes, int, list[str]]] = {
    "one": (
        b'["upload_file_minidump", "absent"]',
        1,
        ["dump absent is listed and not there", "the raw crash has a checksum of it"],
    ),
    "thousands": (
        json.dumps([f"d{n:04}" for n in range(7000)]).encode(),
        7000,
        [
            *(f"dump d{n:04} is listed and not there" for n in range(10)),
            "6,992 further parts are damaged",
        ],
    ),
}
LISTS_READ: dict[str, tuple[bytes, int]] = {
    "the same twice": (b'["dump", "upload_file_minidump", "", null, "browser", "browser"]', 2),
    "none": (b"[]", 0),
    "UTF-16": ('["dump"]'.encode("utf-16"), 1),
    "a byte order mark": (b'\xef\xbb\xbf["dump"]', 1),
}


def with_list(server: BucketServer, data: bytes) -> Bucket:
    """Return a store of which one crash has this list of dumps."""
    store = Bucket(server)
    store.put(*ALL)
    store.put_object(f"v1/dump_names/{CRASH.crash_id}", data)
    return store


@slow
@on_buckets("s3_signed", "fake_gcs")
@pytest.mark.parametrize("data", LISTS_REFUSED.values(), ids=LISTS_REFUSED)
def test_a_list_of_dumps_that_is_none_fails_its_crash_alone(
    bucket_server: BucketServer, tmp_path: Path, data: bytes
) -> None:
    store = with_list(bucket_server, data)
    assert copy(store, tmp_path / "copies")[1] == "failed"
    shown = invoke("get", "-s", store.uri, CRASH.crash_id)
    assert (shown.code, shown.out, len(shown.said)) == (1, b"", 1)
    raw = invoke("get", "-s", store.uri, CRASH.crash_id, "--raw-crash")
    assert (raw.code, raw.out) == (0, CRASH.raw)


@slow
@on_buckets("s3_signed", "fake_gcs")
@pytest.mark.parametrize(
    ("data", "count", "faults"),
    LISTS_OF_WHAT_IS_NOT_THERE.values(),
    ids=LISTS_OF_WHAT_IS_NOT_THERE,
)
def test_a_list_of_dumps_that_are_not_there_fails_its_crash_alone_and_that_is_shown(
    bucket_server: BucketServer, tmp_path: Path, data: bytes, count: int, faults: list[str]
) -> None:
    store = with_list(bucket_server, data)
    assert copy(store, tmp_path / "copies")[1] == "failed"
    shown = invoke("get", "-s", store.uri, CRASH.crash_id)
    assert shown.code == 1
    assert shown.out.count(b"is listed and not there") == count
    assert [line.rpartition(": ")[2] for line in shown.said] == faults


@slow
@on_buckets("s3_signed", "fake_gcs")
@pytest.mark.parametrize(("data", "count"), LISTS_READ.values(), ids=LISTS_READ)
def test_a_list_of_dumps_that_is_odd_is_read(
    bucket_server: BucketServer, tmp_path: Path, data: bytes, count: int
) -> None:
    store = with_list(bucket_server, data)
    assert copy(store, tmp_path / "copies")[1] == "copied"
    files = list((tmp_path / "copies").rglob(f"{CRASH.crash_id}*.dump"))
    assert len(files) == count


@slow
@on_buckets("s3_signed", "fake_gcs")
def test_a_list_of_dumps_without_end_takes_no_more_memory_than_there_is(
    bucket_server: BucketServer, tmp_path: Path, figures: Figures
) -> None:
    store = Bucket(bucket_server)
    store.put(*ALL)
    store.put_object(f"v1/dump_names/{CRASH.crash_id}", b'["' + b"x" * (250 << 20) + b'"]')
    done = measured("copy", "-s", store.uri, "-d", tmp_path / "copies")
    assert (done.code, len(done.said)) == (1, 1) and "dump_names is too long" in done.said[0]
    assert stored(tmp_path / "copies") == manifest(*OTHERS)
    figures(runs=1)


# Keys

DAY = f"v1/raw_crash/20{CRASH.crash_id[-6:]}"

KEYS = [
    f"{DAY}/",
    f"{DAY}//x",
    f"{DAY}/../x",
    f"{DAY}/./{CRASH.crash_id}",
    f"{DAY}/\x1b[31mx",
    f"{DAY}/{CRASH.crash_id}/deeper",
    f"{DAY}/{CRASH.crash_id}/0",
    f"{DAY}/{CRASH.crash_id}.json",
    f"{DAY}/{CRASH.crash_id.upper()}",
    f"{DAY}/a%2f..%2fb",
    f"{DAY}/火\u202e",
    f"{DAY}/{'x' * 900}",
    f"v1/raw_crash/{CRASH.crash_id}x",
    f"v1/raw_crash/99999999/{CRASH.crash_id}",
    f"v1/raw_crash/20260101/{CRASH.crash_id}",
    "v1/raw_crash/",
    "v2/raw_crash/",
    "v2/raw_crash/0bb/",
    "v2/raw_crash/0bb//x",
    "v2/raw_crash/0bb/x",
    f"v2/raw_crash/0bb/{CRASH.crash_id}",
    "v1/processed_crash/",
    "v1/processed_crash/../x",
    f"v1/processed_crash/x/{OTHERS[0].crash_id}",
]


KEYS_LIKE_CRASHES = {
    f"{DAY}/{CRASH.crash_id.upper()}",
    f"v1/raw_crash/20260101/{CRASH.crash_id}",
}


KEYS_UNREADABLE_ON_S3 = [f"{DAY}/{CRASH.crash_id}\n", f"{DAY}/{CRASH.crash_id}//x"]


@slow
@pytest.mark.parametrize(
    ("bucket_server", "key"),
    [
        *product(["s3_strict", "fake_gcs"], KEYS),
        *product(["fake_gcs"], KEYS_UNREADABLE_ON_S3),
    ],
    ids=ascii,
    indirect=["bucket_server"],
)
def test_a_key_that_is_nobodys_is_passed_over(
    bucket_server: BucketServer, tmp_path: Path, key: str
) -> None:
    store = Bucket(bucket_server)
    store.put(*ALL)
    store.put_object(key, b"{}")
    passes_over = key in KEYS_LIKE_CRASHES
    assert copy(store, tmp_path / "copies", passes_over=passes_over)[1] == "copied"
    done = invoke("copy", "-s", store.uri, "-d", tmp_path / "processed", "--kinds", "processed")
    assert (done.code, done.said) == (0, [])
    assert len(stored(tmp_path / "processed")) == len(ALL)


@slow
@on_buckets("s3_strict")
@pytest.mark.parametrize("key", KEYS_UNREADABLE_ON_S3)
def test_a_key_that_the_client_cannot_read_is_said_and_crashes_are_copied_by_name(
    bucket_server: BucketServer, tmp_path: Path, key: str
) -> None:
    store = Bucket(bucket_server)
    store.put(*ALL)
    store.put_object(key, b"{}")
    done = invoke("copy", "-s", store.uri, "-d", tmp_path / "copies")
    assert (done.code, len(done.said)) == (1, 1)
    assert "invalid path" in done.said[0] and CRASH.crash_id in done.said[0]
    ids = [crash.crash_id for crash in ALL]
    assert invoke("copy", "-s", store.uri, "-d", tmp_path / "copies", *ids).code == 0
    assert stored(tmp_path / "copies") == manifest(*ALL)


# Rows

WHERE = f"crash_id = '{CRASH.crash_id}' AND kind = 'dump' AND name = 'browser'"
CHECKS = "ALTER TABLE {} DROP CONSTRAINT crash_parts_kind_check, DROP CONSTRAINT crash_parts_check"
ROW = "INSERT INTO {} SELECT date_processed, crash_id, %s, %s, %s, %s FROM {} WHERE chunk = 0 AND "

Change = tuple[str, tuple[object, ...]]


def update(what: str, *values: object) -> Change:
    return "UPDATE {} SET " + f"{what} WHERE {WHERE}", values


def insert(kind: str, name: str, chunk: int, data: bytes = b"x") -> Change:
    return f"{ROW}{WHERE}", (kind, name, chunk, data)


ROWS_REFUSED: dict[str, Change] = {
    "the first piece missing": update("chunk = 1"),
    "a piece missing": insert("dump", "browser", 2),
    "a piece before the first": insert("dump", "browser", -1),
    "a piece that is large": update("data = %s", bytes(2 << 20)),
    "a name that is a path": update("name = '../../x'"),
    "a name that starts with a dot": update("name = '.x'"),
    "a reserved name": update("name = 'raw_crash'"),
    "a name that a terminal acts on": update("name = %s", "\x1b]0;owned\x07\n"),
    "a long name": update("name = %s", "x" * 2000),
    "no name": update("name = ''"),
    "one dump by two names": insert("dump", "dump", 0),
    "a raw crash with a name": insert("raw_crash", "x", 0),
    "two processed crashes": insert("processed_crash", "x", 0),
}
ROWS_READ: dict[str, Change] = {
    "a kind that is none": insert("crash_report", "", 0),
    "a kind that a terminal acts on": insert("\x1b[2J", "", 0),
    "pieces put there in another order": insert("dump", "browser", 1),
    "a piece of nothing": update("data = ''"),
}


@pytest.fixture
def rows(postgresql_server: PostgreSQL) -> Database:
    store = Database(postgresql_server)
    store.put(*ALL)
    store.run(CHECKS)
    return store


@slow
@pytest.mark.parametrize(("query", "values"), ROWS_REFUSED.values(), ids=ROWS_REFUSED)
def test_rows_that_are_no_crash_fail_it_alone(
    rows: Database, tmp_path: Path, query: str, values: tuple[object, ...]
) -> None:
    rows.run(query, *values)
    assert copy(rows, tmp_path / "copies")[1] == "failed"
    shown = invoke("get", "-s", rows.uri, CRASH.crash_id)
    assert (shown.code, shown.out, len(shown.said)) == (1, b"", 1)


@slow
@pytest.mark.parametrize(("query", "values"), ROWS_READ.values(), ids=ROWS_READ)
def test_rows_that_are_odd_are_read_or_nobodys(
    rows: Database, tmp_path: Path, query: str, values: tuple[object, ...]
) -> None:
    rows.run(query, *values)
    assert copy(rows, tmp_path / "copies", "--kinds", "raw,dumps,processed")[1] == "copied"


@slow
def test_a_crash_id_that_is_none_is_not_listed(rows: Database, tmp_path: Path) -> None:
    """A UUID can be anything: of no day, or of another than its row's."""
    for uuid in ("0bba0001-721c-460c-dead-a43c22261131", "0bba0001-721c-460c-dead-a43c22261118"):
        rows.run(
            "INSERT INTO {} SELECT date_processed, %s, kind, name, chunk, data FROM {}"
            f" WHERE crash_id = '{CRASH.crash_id}'",
            uuid,
        )
    assert copy(rows, tmp_path / "copies", passes_over=True)[1] == "copied"


@slow
@pytest.mark.parametrize("kind", ["raw_crash", "dump"])
def test_a_row_without_end_takes_no_more_memory_than_there_is(
    rows: Database, tmp_path: Path, kind: str, figures: Figures
) -> None:
    where = f"WHERE crash_id = '{CRASH.crash_id}' AND kind = %s"
    rows.run("UPDATE {} SET data = %s " + where, bytes(120 << 20), kind)
    done = measured("copy", "-s", rows.uri, "-d", tmp_path / "copies")
    assert (done.code, len(done.said)) == (1, 1) and "too large" in done.said[0]
    assert stored(tmp_path / "copies") == manifest(*OTHERS)
    shown = measured("get", "-s", rows.uri, CRASH.crash_id)
    assert (shown.code, len(shown.said)) == (1, 1)
    figures(runs=2)
