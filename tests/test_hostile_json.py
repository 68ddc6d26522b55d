# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""JSON that strangers sent, in every kind of store: copied byte for byte where nobody has to look
into it, and else read, or refused in one line, in no more memory than there is for it."""

import gzip
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn, cast

import pytest

from crashmover import documents
from crashmover.crash import Kind, Part
from crashmover.documents import json_object
from crashmover.errors import CorruptCrash
from tests.cli_helpers import Sample, is_harmless, sample, sha256, statuses
from tests.conftest import Figures, server_of_buckets
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

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

UUID = "deadbeef-721c-460c-dead-a43c22261120"

OBJECTS: dict[str, bytes] = {
    "NaN and infinity": b'{"UptimeTS": NaN, "CrashTime": -Infinity, "Version": 1e999}',
    "a lone surrogate": b'{"ProductName": "\\ud800", "\\udfff": 1}',
    "UTF-16": '{"ProductName": "\U0001f525"}'.encode("utf-16"),
    "UTF-32": b'{"a": 1}'.decode().encode("utf-32-be"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "the uuid of another": json.dumps({"uuid": UUID}).encode(),
    "a uuid that is none": b'{"uuid": ["../../../../etc/passwd"]}',
    "what a terminal acts on": b'{"ProductName": "\\u001b]0;owned\\u0007", "Version": "\\u202e"}',
    "one key again and again": b'{"a": 1' + b', "a": {}' * 1000 + b"}",
    "nearly too deep": b'{"ProductName": ' + b"[" * 900 + b"]" * 900 + b"}",
    "checksums that are a list": b'{"metadata": {"dump_checksums": ["upload_file_minidump"]}}',
    "checksums that are none": b'{"metadata": {"dump_checksums": {"upload_file_minidump": [1], '
    b'"../x": "0", "dump": null, "": 7, "\\u001b[2J": "aa"}}}',
    "metadata that is a number": b'{"metadata": 1e400}',
    "a number in digits of all scripts": '{"CrashTime": "١٢٣", "BuildID": "𝟙"}'.encode(),
}
"""What Python reads as a JSON object."""

OTHERS: dict[str, bytes] = {
    "too deep": b'{"a":' * 100_000,
    "a list that is too deep": b"[" * 100_000,
    "a list": b'["uuid"]',
    "text": b'"{}"',
    "an integer without end": b'{"CrashTime": ' + b"9" * 100_000 + b"}",
    "nothing": b"",
    "half": b'{"uuid": "',
    "no text": b'{"a": "\xff\xfe"}',
    "zeros": bytes(100),
    "a second document": b"{}{}",
}
"""What is none."""

DOCUMENTS = OBJECTS | OTHERS

STORES = [
    "fs",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("s3_signed", "fake_gcs", "postgresql")
    ),
]
MakeStore = Callable[[], Store]


@pytest.fixture(params=STORES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Makes an empty store of a kind."""
    if request.param == "fs":
        return lambda: Directory(tmp_path / "source")
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        return lambda: Database(server)
    bucket = Bucket(server_of_buckets(request, request.param))
    return lambda: bucket


def crashes(documents: dict[str, bytes]) -> dict[str, Sample]:
    """A crash for each document, and one that is like any other."""
    names = [*documents, "usual"]
    return {name: sample(n, leaf=f"{n:04x}", processed=b"{}") for n, name in enumerate(names)}


def plant(store: Store, planted: dict[str, Sample], suffix: str) -> None:
    store.put(*planted.values())
    for name in planted.keys() & DOCUMENTS:
        store.exchange_unpacked(planted[name], suffix, DOCUMENTS[name])


def copy(store: Store, to: Path, *args: str) -> tuple[Ended, dict[str, str]]:
    """Copy all; return how that ended, and what became of each crash."""
    report = to.with_suffix(".report")
    done = invoke("copy", "-s", store.uri, "-d", to, "--report", report, *args)
    return done, statuses(report)


@pytest.mark.parametrize("suffix", [RAW, PROCESSED])
def test_nobody_looks_into_what_is_copied(
    make: MakeStore, tmp_path: Path, figures: Figures, suffix: str
) -> None:
    store, planted = make(), crashes(DOCUMENTS)
    plant(store, planted, suffix)
    before = {name: store.stored(crash) for name, crash in planted.items()}
    done, found = copy(store, tmp_path / "copies")
    assert (done.code, set(found.values())) == (0, {"copied"})
    copies = Directory(tmp_path / "copies")
    for name, crash in planted.items():
        expected = DOCUMENTS.get(name, crash.parts[suffix])
        [part] = [part for part in there(copies, crash) if part.endswith(suffix)]
        assert there(copies, crash)[part] == expected, name
        assert store.stored(crash) == before[name]
    figures(copied=len(planted))


@pytest.mark.parametrize("suffix", [RAW, PROCESSED])
def test_what_is_verified_is_a_json_object(make: MakeStore, tmp_path: Path, suffix: str) -> None:
    store, planted = make(), crashes(DOCUMENTS)
    plant(store, planted, suffix)
    done, found = copy(store, tmp_path / "copies", "--verify")
    assert done.code == 1
    assert found == {
        crash.crash_id: "failed" if name in OTHERS else "copied" for name, crash in planted.items()
    }
    assert not any(there(Directory(tmp_path / "copies"), planted[name]) for name in OTHERS)


def there(store: Directory, crash: Sample) -> dict[str, bytes]:
    """What a copy on disk holds, unpacked."""
    found = store.stored(crash)
    return {k: gzip.decompress(v) if k.endswith(PROCESSED) else v for k, v in found.items()}


def test_what_is_redacted_is_read_or_refused(
    make: MakeStore, tmp_path: Path, figures: Figures
) -> None:
    store, planted = make(), crashes(DOCUMENTS)
    plant(store, planted, PROCESSED)
    before = {name: store.stored(crash) for name, crash in planted.items()}
    done, found = copy(store, tmp_path / "copies", "--redact")
    assert done.code == 1
    assert found == {
        crash.crash_id: "failed" if name in OTHERS else "copied" for name, crash in planted.items()
    }
    assert sorted(line[:36] for line in done.said) == sorted(planted[n].crash_id for n in OTHERS)
    assert {name: store.stored(crash) for name, crash in planted.items()} == before
    assert not any(there(Directory(tmp_path / "copies"), planted[name]) for name in OTHERS)
    figures(refused=len(OTHERS), read=len(OBJECTS))


@pytest.mark.parametrize(
    "names",
    [
        ["NaN and infinity", "what a terminal acts on", "too deep"],
        pytest.param(list(DOCUMENTS), marks=pytest.mark.slow),
    ],
    ids=["few", "all"],
)
def test_what_is_shown_of_it_is_harmless(
    make: MakeStore, figures: Figures, names: list[str]
) -> None:
    store, planted = make(), crashes(dict.fromkeys(names, b""))
    plant(store, planted, RAW)
    plant(store, planted, PROCESSED)
    for name, crash in planted.items():
        where = ("get", "-s", store.uri, crash.crash_id)
        shown = invoke(*where)
        damaged = name in OTHERS
        assert (shown.code, bool(shown.said)) == (damaged, damaged), name
        assert is_harmless(shown.out.decode()) and crash.crash_id.encode() in shown.out
        as_json = invoke(*where, "--json")
        assert as_json.code == damaged and as_json.out.count(b"\n") == 1
        assert strict_json(as_json.out)["crash_id"] == crash.crash_id
        redacted = invoke(*where, "--processed-crash")
        assert (redacted.code, len(redacted.said)) == ((1, 1) if name in OTHERS else (0, 0)), name
    figures(shown=len(planted))


def strict_json(text: bytes) -> dict[str, object]:
    """Read it as a program does that is stricter than Python."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    found = json.loads(text.decode("ascii"), parse_constant=refuse)
    assert isinstance(found, dict)
    return found


def test_a_checksum_of_a_dump_that_is_not_there_fails_its_crash_alone(
    make: MakeStore, tmp_path: Path
) -> None:
    store, planted = make(), crashes({"liar": b"", "liar again": b""})
    store.put(*planted.values())
    sums: dict[str, object] = {"../x": sha256(b""), "dump_names": sha256(b""), "a": sha256(b"")}
    store.exchange(
        planted["liar"], RAW, json.dumps({"metadata": {"dump_checksums": sums}}).encode()
    )
    main = {"metadata": {"dump_checksums": {"": "0" * 64}}}
    store.exchange(planted["liar again"], RAW, json.dumps(main).encode())
    done, found = copy(store, tmp_path / "copies", "--verify")
    assert done.code == 1 and len(done.said) == 2
    assert found[planted["usual"].crash_id] == "copied"
    assert [found[planted[name].crash_id] for name in ("liar", "liar again")] == ["failed"] * 2


# -- Documents without end ---------------------------------------------------------------

SIZE = 40 << 20

LARGE: dict[str, Callable[[int], bytes]] = {
    "lists": lambda size: b'{"a": [' + b"[]," * (size // 3) + b"0]}",
    "objects": lambda size: b'{"a": [' + b'{"":{"":0}},' * (size // 12) + b"0]}",
    "keys": lambda size: b"{" + b"".join(b'"%08x":0,' % n for n in range(size // 13)) + b'"":0}',
    "numbers": lambda size: b'{"a": [' + b"1e9," * (size // 4) + b"0]}",
    "strings": lambda size: b'{"a": [' + b'"ab",' * (size // 5) + b"0]}",
    "one text": lambda size: b'{"a": "' + b"a" * size + b'"}',
    "one wide text": lambda size: b'{"a": "' + b"a" * size + b'\xf0\x9f\x94\xa5"}',
    "one text that becomes wide": lambda size: b'{"a": "' + b"a" * size + b'\\ud83d\\udd25"}',
}
"""Documents of about so many bytes, which take up to 35 times as much memory when they are read."""

MakeDocument = Callable[[int], bytes]


def largest_that_is_read(make_document: MakeDocument) -> bytes:
    low, high = 1 << 10, SIZE
    while high - low > 100_000:
        middle = (low + high) // 2
        try:
            documents.text_of(Part.of_bytes(Kind.RAW_CRASH, make_document(middle)))
            low = middle
        except documents.LargeDocument:
            high = middle
    return make_document(low)


@pytest.mark.parametrize("make_document", LARGE.values(), ids=LARGE)
def test_a_document_of_a_megabyte_is_always_read(make_document: MakeDocument) -> None:
    data = make_document(1 << 20)
    assert documents.text_of(Part.of_bytes(Kind.RAW_CRASH, data)) == data.decode()


def test_a_usual_document_of_eight_megabytes_is_read() -> None:
    frame = {"frame": 7, "function": "std::f<int>(char const*)", "file": "/builds/worker/f.cpp"}
    data = json.dumps({"threads": [{"frames": [frame] * 50}] * 1550}, indent=1).encode()
    assert len(data) > 8 << 20
    assert documents.text_of(Part.of_bytes(Kind.PROCESSED_CRASH, data)) == data.decode()


@pytest.mark.parametrize("size", [None, SIZE], ids=["a stream", "of known size"])
def test_what_is_too_large_is_read_no_further_than_that_shows(size: int | None) -> None:
    read = 0

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: "WriteableBuffer", /) -> int:
            nonlocal read
            read += len(memoryview(buffer))
            return len(memoryview(buffer))

    part = Part(Kind.PROCESSED_CRASH, "", lambda: cast(BinaryIO, Endless()), size)
    with pytest.raises(CorruptCrash, match="processed_crash is too large to be read as JSON"):
        json_object(part)
    assert read < 20 << 20


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        *(("fs", shape) for shape in LARGE),
        *itertools.product(
            ["s3_signed", "fake_gcs", "postgresql"], ["objects", "one text that becomes wide"]
        ),
    ],
    indirect=["make"],
)
def test_large_documents_take_no_more_memory_than_there_is(
    make: MakeStore, tmp_path: Path, figures: Figures, shape: str
) -> None:
    store = make()
    readable = {f"readable {n}": largest_that_is_read(LARGE[shape]) for n in range(3)}
    too_large = {f"too large {n}": LARGE[shape](SIZE) for n in range(2)}
    planted = crashes(readable | too_large)
    store.put(*planted.values())
    for name, data in (readable | too_large).items():
        for suffix in (RAW, PROCESSED):
            store.exchange_unpacked(planted[name], suffix, data)
    where = ("-s", store.uri, "-d", str(tmp_path / "copies"))
    refused = sorted(planted[name].crash_id for name in too_large)
    peaks = []
    for args in (("--redact",), ("--verify",)):
        done = measured("copy", *where, *args, "--existing", "overwrite", "--no-progress")
        assert (done.code, sorted(line[:36] for line in done.said)) == (1, refused)
        assert all("is too large to be read as JSON" in line for line in done.said)
        peaks.append(done.memory)
    for name in ("readable 0", "too large 0"):
        shown = measured("get", "-s", store.uri, planted[name].crash_id, "--processed-crash")
        assert shown.code == (1 if name in too_large else 0)
        peaks.append(shown.memory)
    figures(runs=len(peaks), above_100_MB=sum(peak > 100 << 20 for peak in peaks))
