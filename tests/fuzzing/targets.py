# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a fuzzer calls: for each parser a function of bytes that raises where the parser does
anything but return what it promises, or raise the one error that is for it."""

import datetime as dt
import io
import json
import string
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

from crashmover import crashid
from crashmover.comparison import MeasuredCrash
from crashmover.config import Config
from crashmover.crash import ALL_KINDS, MAIN_DUMP, Crash, Kind, Part, canonical_dump_name
from crashmover.documents import json_object, json_part
from crashmover.errors import (
    CorruptCrash,
    CrashMoverError,
    InvalidConfig,
    InvalidCrashID,
    InvalidDumpName,
    InvalidURI,
)
from crashmover.external.bucket.client import BucketClient, Pages
from crashmover.external.bucket.layouts import SOCORRO, format_dump_names, parse_dump_names
from crashmover.external.bucket.listing import Catalog, MissingCache
from crashmover.external.bucket.rounds import Rounds
from crashmover.external.crashqueue_base import parse_body
from crashmover.external.fs.layouts import ID_LENGTH, Layout
from crashmover.idset import CrashIDs
from crashmover.minidump.reader import read_minidump
from crashmover.redaction import FORBIDDEN_KEYS, Redactor
from crashmover.registry import open_queue, open_storage
from crashmover.selection import parse_day
from crashmover.soundness import demand_soundness, names_no_other, read_dump_checksums
from crashmover.uri import StorageURI
from tests import minidumps
from tests.test_hostile_bytes import assert_as_gzip

PACKED = bytes.fromhex("1f8b08000000000002034bacaa02005b7154d303000000")
ID = "0bba929f-8721-460c-dead-a43c22071025"
OTHER = "c0de929f-8721-460c-dead-a43c20261120"


@dataclass(frozen=True)
class Target:
    """A parser to be fuzzed.

    :param seeds: what it begins with, and what was once found to matter
    """

    run: Callable[[bytes], None]
    seeds: list[bytes] = field(default_factory=list)


def assert_says_little(error: CrashMoverError) -> None:
    text = str(error)
    assert text.isprintable(), ascii(text)
    assert len(text) < 1200, text


def text_of(data: bytes) -> str:
    """Any text, of any characters, from any bytes."""
    return data.decode("utf-8", "surrogateescape")


# Names


def crash_id(data: bytes) -> None:
    try:
        found = crashid.parse(text_of(data))
    except InvalidCrashID as error:
        assert_says_little(error)
        return
    assert crashid.is_valid(found) and found == crashid.parse(found)
    assert f"20{found[-6:]}" == crashid.date_of(found).strftime("%Y%m%d")
    assert found in text_of(data).lower()


def dump_name(data: bytes) -> None:
    try:
        found = canonical_dump_name(text_of(data))
    except InvalidDumpName as error:
        assert_says_little(error)
        return
    assert found.isascii() and found.isprintable() and "/" not in found and found[0] != "."
    assert canonical_dump_name(found) == found


def file_name(data: bytes) -> None:
    """A file's name in a directory of crashes."""
    layout, name = Layout(), text_of(data).replace("/", "").replace("\0", "")
    if not crashid.is_valid(name[:ID_LENGTH]) or not layout.is_dump(name):
        return
    try:
        found = layout.dump_name(name)
    except InvalidDumpName as error:
        assert_says_little(error)
        return
    assert canonical_dump_name(found) == found


def body(data: bytes) -> None:
    """The body of a message."""
    try:
        found, ruleset = parse_body(data.decode("ascii"))
    except InvalidCrashID as error:
        assert_says_little(error)
        return
    except UnicodeDecodeError:
        return
    assert crashid.is_valid(found)
    assert ruleset is None or set(ruleset) <= RULESET_LETTERS
    assert data.decode() == (f"{found}:{ruleset}" if ruleset else found)


def day(data: bytes) -> None:
    with suppress(ValueError, OverflowError):
        assert isinstance(parse_day(text_of(data), dt.date(2026, 11, 20)), dt.date)


# What is typed, or in files


def uri(data: bytes) -> None:
    text = text_of(data)
    try:
        found = StorageURI.parse(text)
    except InvalidURI as error:
        assert_says_little(error)
        return
    assert str(found).isprintable()
    assert "\n" not in found.host + found.path + found.user
    assert len(found.password) < 4 or found.password not in repr(found).replace("***", "")
    for opening in (open_storage, open_queue):
        if ":" in text or "/" in text:  # anything else is a name
            with suppress(CrashMoverError):
                cast(Callable[[str], Any], opening)(text).close()


def config(data: bytes) -> None:
    path = _scratch("config.toml")
    path.write_bytes(data)
    try:
        found = Config.load(path)
        for name in found.storage:
            assert found.stores(name)
        for name in found.queue:
            assert found.queue_uri(name)
    except InvalidConfig as error:
        assert_says_little(error)


def _scratch(name: str) -> Path:
    """A file that is written again and again."""
    return Path(_directory().name, name)


@cache
def _directory() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory()


def ids(data: bytes) -> None:
    """A file of crash ids."""
    file = io.TextIOWrapper(io.BytesIO(data), "utf-8", "replace")
    with CrashIDs() as found:
        try:
            found.add_lines(file, "ids.txt")
        except InvalidCrashID as error:
            assert_says_little(error)
            return
        listed = list(found)
    assert len(listed) == len(set(listed)) == len(found_in(data, listed))
    assert all(map(crashid.is_valid, listed))


def found_in(data: bytes, crash_ids: list[str]) -> list[str]:
    return [each for each in crash_ids if each.encode() in data.lower()]


# What is in a store


def json_document(data: bytes) -> None:
    try:
        found = json_object(Part.of_bytes(Kind.RAW_CRASH, data))
    except CorruptCrash as error:
        assert_says_little(error)
        return
    assert repr(found) == repr(json.loads(data))


def redaction(data: bytes) -> None:
    try:
        found = json_object(Part.of_bytes(Kind.PROCESSED_CRASH, data))
    except CorruptCrash:
        return
    before = repr(found)
    part = json_part(Kind.PROCESSED_CRASH, Redactor().redact(found))
    assert repr(found) == before
    redacted = json_object(part)
    for path in FORBIDDEN_KEYS:
        *above, last = path.split(".")
        value: Any = redacted
        for name in above:
            value = value.get(name) if isinstance(value, dict) else None
        assert not isinstance(value, dict) or last not in value, path


def checksums(data: bytes) -> None:
    """The checksums of dumps in a raw crash."""
    parts = [
        Part.of_bytes(Kind.RAW_CRASH, data),
        Part.of_bytes(Kind.DUMP, b"MDMP", MAIN_DUMP),
    ]
    crash = MeasuredCrash(Crash(ID, parts), hashing=True)
    demand_soundness(crash, parts[0], ALL_KINDS)
    if fault := crash.find_fault():
        assert_says_little(CorruptCrash(fault))
    try:
        named = read_dump_checksums(parts[0])
    except CorruptCrash:
        return
    assert not names_no_other(data, {MAIN_DUMP}) or named.keys() <= {MAIN_DUMP}


def dump_names(data: bytes) -> None:
    """The list of dumps in a bucket."""
    try:
        names = parse_dump_names(data)
    except CorruptCrash as error:
        assert_says_little(error)
        return
    listed = json.loads(data)
    assert isinstance(listed, list)
    assert set(names) == set(map(canonical_dump_name, listed)) and len(names) == len(set(names))
    assert sorted(parse_dump_names(format_dump_names(names))) == sorted(names)


def gzip(data: bytes) -> None:
    """A packed file, of which the first byte says how it is read."""
    assert_as_gzip(data[1:], 1 + (data[0] if data else 0))


def minidump(data: bytes) -> None:
    try:
        found = read_minidump(io.BytesIO(data))
    except CorruptCrash as error:
        assert_says_little(error)
        return
    assert max(48 * (found.threads or 0), 108 * (found.modules or 0)) <= len(data)
    for text in (found.os_version, found.main_module):
        assert text is None or 0 < len(text) <= len(data) + 40
        json.dumps(text).encode("ascii")


RULESET_LETTERS = {*string.ascii_letters, *string.digits, *"_.-"}
LAST = dt.date(2030, 1, 1)


class FakeObjects:
    """A bucket's keys, listed as a server does."""

    def __init__(self, keys: list[str]) -> None:
        self._keys = sorted(set(keys), key=str.encode)
        self.rounds = Rounds()

    def has_key(self, prefix: str, after: str = "") -> bool:
        return any(self.list_objects(prefix, after))

    def list_objects(self, prefix: str, after: str = "", *, surely: bool = True) -> Pages:
        found = [key for key in self._keys if key.startswith(f"{prefix}/") and key > after]
        for start in range(0, len(found), 3):
            yield [(key, 0, "") for key in found[start : start + 3]]

    def list_keys(
        self, prefix: str, after: str = "", *, surely: bool = True
    ) -> Iterator[list[str]]:
        for page in self.list_objects(prefix, after, surely=surely):
            yield [key for key, _, _ in page]

    def list_directory(self, prefix: str) -> tuple[list[str], list[str]]:
        below = [k[len(prefix) + 1 :] for k in self._keys if k.startswith(f"{prefix}/")]
        directories = dict.fromkeys(name.split("/")[0] for name in below if "/" in name)
        return list(directories), [name for name in below if "/" not in name]


def listing(data: bytes) -> None:
    """The keys of a bucket, one a line."""
    lines = [line for line in data.decode("utf-8", "replace").split("\n") if line]
    client = cast(BucketClient, FakeObjects(lines))
    one = Catalog(client, SOCORRO, dt.date(2000, 1, 1), LAST, MissingCache())
    names = {line.rpartition("/")[2] for line in lines}
    ids = sorted(filter(crashid.is_valid, names), key=crashid.sort_key)
    in_range = [each for each in ids if dt.date(2000, 1, 1) <= crashid.date_of(each) <= LAST]
    raw = [each for each in in_range if not set(SOCORRO.raw_crash_keys(each)).isdisjoint(lines)]
    assert list(one.raw_crashes()) == raw
    processed = [each for each in in_range if SOCORRO.processed_crash_key(each) in lines]
    assert list(one.processed_crashes()) == processed


# All of them

_JSON = [b"{}", b'{"a": [1, 2.5e3, null, true, "\\u00e9"]}', b"[" * 2000, b'{"a": NaN}']

TARGETS: dict[str, Target] = {
    "crash_id": Target(
        crash_id,
        [ID.encode(), f" BP-{ID.upper()} ".encode(), f"https://x/r/{ID}?q#f".encode()],
    ),
    "dump_name": Target(dump_name, [b"", b"dump", b"upload_file_minidump_browser", b"../x"]),
    "file_name": Target(
        file_name, [f"{ID}{end}".encode() for end in (".json", ".dump", ".x.dump", "..dump")]
    ),
    "body": Target(
        body,
        [ID.encode(), f"{ID}:rules".encode(), b"test", f"{ID}:".encode(), f"{ID}:a\n".encode()],
    ),
    "day": Target(day, [b"2026-11-20", b"today", b"7d", b"99999d", b"2026-W47-5"]),
    "uri": Target(
        uri,
        [
            b"fs:///var/crashes?umask=027",
            b"./crashes",
            b"s3://bucket/prefix?endpoint_url=http://127.0.0.1:9000&region=us-west-2",
            b"postgresql://user:secret@h1:5432,h2:5433/db?schema=crashes",
            b"pubsub://project/prefix",
            b"sqlite:///var/lib/queue.db?lease=60",
            b"memory:",
            b"s3://[::1]:80/x%2f",
            b"fs:///a%0a%00%1b[2J",
            b"s3://zoe:hunter2@bucket/a/../b",
            "s3://bucket:１２/x".encode(),
        ],
    ),
    "config": Target(
        config,
        [
            b'[storage]\nprod = "s3://a"\nall = ["prod", "b"]\nb = "/b"\n[queue]\nq = "sqlite:/q"',
            b'[storage]\na = ["b", "b"]\nb = ["a"]\n',
            b'storage."a".b = 1',
            b"a" + b".a" * 300 + b" = 1",
        ],
    ),
    "ids": Target(
        ids,
        [
            f"\ufeff{ID}\r\n# c\n\n{OTHER} # c".encode(),
            ID.encode("utf-16"),
            b"a" * 10_001,
            f"https://x/{ID}#f\r{OTHER.upper()}".encode(),
        ],
    ),
    "json": Target(json_document, [*_JSON, "{}".encode("utf-16"), b"\xef\xbb\xbf{}"]),
    "redaction": Target(
        redaction,
        [*_JSON, b'{"url": 1, "json_dump": {"sensitive": 1, "a": 2}, "memory_info": null}'],
    ),
    "checksums": Target(
        checksums,
        [
            *_JSON,
            b'{"metadata": ["dump_checksums"]}',
            b'{"metadata": {"dump_checksums": 1e999}}',
            b'{"metadata": {"dump_checksums": {"": "' + b"0" * 64 + b'", "../x": "00"}}}',
        ],
    ),
    "dump_names": Target(
        dump_names, [b'["dump", "a"]', b'[null, ""]', b'["../x"]', b"[[]]", b'"a"']
    ),
    "gzip": Target(
        gzip,
        [
            b"\x10" + PACKED,
            b"\x00" + PACKED * 2,
            b"\x10\x00" + PACKED,
            b"\x02" + PACKED + b"\x00\x00" + PACKED + b"\x00",
            b"\x02" + PACKED[:-1],
            b"\x10" + PACKED[:3] + b"\x02" + PACKED[4:10] + b"\x00\x00" + PACKED[10:],
        ],
    ),
    "minidump": Target(minidump, minidumps.SAMPLES),
    "listing": Target(
        listing,
        [
            "\n".join(
                [
                    f"v1/raw_crash/20071025/{ID}",
                    "v1/raw_crash/20071025/",
                    f"v1/raw_crash/{OTHER}",
                    f"v2/raw_crash/0bb/20071025/{ID}",
                    f"v2/raw_crash/20261120/{OTHER}",
                    f"v1/processed_crash/{ID}",
                ]
            ).encode(),
            f"v1/raw_crash/20261120/{ID}\nv2/raw_crash/20261120/{ID}".encode(),
            f"v1/raw_crash/{ID}/x\nv1/processed_crash/x/{ID}\nv2/raw_crash/0bb/x/{ID}".encode(),
            f"v2/raw_crash/0bb/{ID}\nv2/raw_crash/0bb/x/y".encode(),
        ],
    ),
}
