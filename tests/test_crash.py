# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The model: names of dumps, parts, crashes, and the mappings of the Socorro API."""

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import product
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crashmover.crash import ALL_KINDS, MAIN_DUMP, Crash, Kind, Part, canonical_dump_name
from crashmover.dumps import FileDumpsMapping, MemoryDumpsMapping, dump_parts
from crashmover.errors import CorruptCrash, InvalidCrashID, InvalidDumpName, StorageError
from crashmover.partfiles import file_of_chunks, open_file
from crashmover.parts import CHUNK, PUMP

ID = "0bba929f-8721-460c-dead-a43c22071025"

quick = settings(deadline=None, max_examples=100)

GOOD_NAMES = [
    "upload_file_minidump",
    "upload_file_minidump_flash1",
    "memory_report",
    "json",
    "a",
    "7",
    "-",
    "_",
    "a.b",
    "a..b.",
    "Content-1_x.Y",
    "a" * 100,
]

BAD_NAMES = [
    "a" * 101,
    "a\n",
    "\na",
    "a\r",
    "a\0",
    "a b",
    " ",
    ".",
    "..",
    ".a",
    "a/b",
    "../a",
    "a\\b",
    "a:b",
    "a%2Fb",
    "*",
    "\u00e9",
    "\uff41",
    "\u0661",
    "\ud800",
]

RESERVED_NAMES = ["raw_crash", "dump_names", "processed_crash", "crash_report"]


# Names of dumps


@pytest.mark.parametrize("name", [None, "", "dump", "upload_file_minidump"])
def test_the_main_dump_has_one_name_whatever_it_was_called(name: str | None) -> None:
    assert canonical_dump_name(name) == "upload_file_minidump"


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_good_name_stays_as_it_is(name: str) -> None:
    assert canonical_dump_name(name) == name


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_bad_name_is_refused_in_one_line_that_says_what_is_good(name: str) -> None:
    with pytest.raises(InvalidDumpName, match=r"\Anot a dump name: .*: use 1 to 100 of .*\Z"):
        canonical_dump_name(name)


@pytest.mark.parametrize("name", RESERVED_NAMES)
def test_a_name_that_layouts_need_is_reserved(name: str) -> None:
    with pytest.raises(InvalidDumpName, match=f"'{name}': that name is reserved"):
        canonical_dump_name(name)


def test_what_is_no_text_is_no_name() -> None:
    with pytest.raises(InvalidDumpName):
        canonical_dump_name(b"dump")  # type: ignore[arg-type]


@quick
@given(st.text())
@example("a" * 5000)
def test_any_text_is_a_safe_name_or_is_refused_in_one_short_line(text: str) -> None:
    try:
        name = canonical_dump_name(text)
    except InvalidDumpName as error:
        assert str(error).isprintable()
        assert len(str(error)) < 200
    else:
        assert re.fullmatch(r"(?!\.)[A-Za-z0-9_.-]{1,100}", name)
        assert canonical_dump_name(name) == name


# Parts


def test_where_a_part_lies_is_worked_out_for_whoever_asks_and_nobody_else() -> None:
    asked = []

    def locate() -> str:
        asked.append(1)
        return "/crashes/a.json"

    part = Part(Kind.RAW_CRASH, "", lambda: io.BytesIO(b"{}"), 2, locate=locate)
    assert (part.read(), part.find_size(), list(part.chunks())) == (b"{}", 2, [b"{}"])
    assert not asked
    assert part.location == "/crashes/a.json"
    assert Part.of_bytes(Kind.RAW_CRASH, b"{}").location is None


def part_of(data: bytes, size: int | None) -> Part:
    """A dump whose store says that it has `size` bytes."""
    return Part(Kind.DUMP, "memory_report", lambda: io.BytesIO(data), size)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
def test_a_part_gives_its_bytes_a_chunk_at_a_time(size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    of_file = Part.of_file(Kind.DUMP, tmp_path / "file")
    for part in (Part.of_bytes(Kind.DUMP, data), of_file, part_of(data, None)):
        chunks = list(part.chunks())
        assert b"".join(chunks) == data
        assert all(0 < len(chunk) <= CHUNK for chunk in chunks)


@pytest.mark.parametrize("size", [0, 1, 2, 4, 100, CHUNK + 1])
def test_a_part_that_is_longer_or_shorter_than_announced_is_corrupt(size: int) -> None:
    with pytest.raises(CorruptCrash, match=rf"\Adump memory_report: .*\b{size}\b"):
        part_of(b"abc", size).read()


class Short(io.RawIOBase):
    """A raw file that gives less than it is asked for, as a socket does."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        return self._file.readinto(memoryview(buffer)[:1000])


class OnlyReads:
    """What some drivers give: it is closed, and it has `read`."""

    def __init__(self, data: bytes) -> None:
        self.read = io.BytesIO(data).read

    def __enter__(self) -> BinaryIO:
        return cast(BinaryIO, self)

    def __exit__(self, *_exc: object) -> None:
        pass


Opener = Callable[[bytes, Path], AbstractContextManager[BinaryIO]]


def _chunks_of(data: bytes) -> Iterator[bytes]:
    """In pieces of any size, some of which are empty."""
    yield b""
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]
        yield b""


def _file_of(data: bytes, path: Path) -> BinaryIO:
    path.write_bytes(data)
    return open_file(path, lambda error: error)


FILES: dict[str, Opener] = {
    "file": _file_of,
    "memory": lambda data, _: io.BytesIO(data),
    "chunks": lambda data, _: file_of_chunks(_chunks_of(data)),
    "buffered": lambda data, _: cast(BinaryIO, io.BufferedReader(Short(data))),
    "short reads": lambda data, _: cast(BinaryIO, Short(data)),
    "read only": lambda data, _: OnlyReads(data),
}


def pumped(part: Part) -> bytes:
    there = bytearray()
    part.pump(there.extend)
    return bytes(there)


WAYS: dict[str, Callable[[Part], bytes]] = {
    "pump": pumped,
    "read": Part.read,
    "chunks": lambda part: b"".join(part.chunks()),
}

each_file = pytest.mark.parametrize("opener", FILES.values(), ids=FILES)
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@each_file
@each_way
def test_a_part_gives_the_same_bytes_in_whatever_way_it_is_read(
    tmp_path: Path, opener: Opener, way: Callable[[Part], bytes]
) -> None:
    for size in (0, 1, 999, CHUNK - 1, CHUNK, CHUNK + 1, PUMP - 1, PUMP, PUMP + 1, 2 * PUMP + 7):
        data = os.urandom(size)
        for announced in (size, None):
            part = Part(Kind.DUMP, "", lambda data=data: opener(data, tmp_path / "f"), announced)  # type: ignore[misc]
            assert way(part) == data


@each_file
@each_way
def test_a_body_of_another_length_is_corrupt_in_whatever_way_it_is_read(
    tmp_path: Path, opener: Opener, way: Callable[[Part], bytes]
) -> None:
    for size, off in product((3, CHUNK, PUMP, 2 * PUMP + 7), (-3, -1, 1, 2, 3 * PUMP)):
        body = partial(opener, bytes(size + off), tmp_path / "file")
        said = f"read {size + off} bytes of {size}"
        if off > 0:
            said = f"there are more than {size} bytes"
        with pytest.raises(CorruptCrash, match=rf"\Adump {MAIN_DUMP}: {said}\Z"):
            way(Part(Kind.DUMP, "", body, size))


def test_a_part_can_be_pumped_while_another_is(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(os.urandom(2 * PUMP))
    (tmp_path / "other").write_bytes(os.urandom(2 * PUMP))
    one, other = (Part.of_file(Kind.DUMP, tmp_path / name) for name in ("one", "other"))
    there = bytearray()

    def write(piece: memoryview) -> None:
        assert pumped(other) == (tmp_path / "other").read_bytes()
        there.extend(piece)

    one.pump(write)
    assert there == (tmp_path / "one").read_bytes()


class Endless(io.RawIOBase):
    """A body that never ends, and a reader's patience that does."""

    reads = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        self.reads += 1
        assert self.reads < 100, "still reading"
        return b"x" * size


def test_a_part_that_is_longer_than_announced_is_not_read_to_its_end() -> None:
    part = Part(Kind.DUMP, "", lambda: Endless(), 10)  # type: ignore[arg-type, return-value]
    with pytest.raises(CorruptCrash, match=r"\b10\b"):
        part.read()


def test_a_part_can_be_read_by_two_at_the_same_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    for part in (Part.of_bytes(Kind.DUMP, b"abc"), Part.of_file(Kind.DUMP, tmp_path / "file")):
        with part.open() as one, part.open() as other:
            assert one.read(2) == b"ab"
            assert other.read() == b"abc"
            assert one.read() == b"c"


def test_a_part_closes_what_it_read_whatever_happened() -> None:
    opened: list[io.BytesIO] = []

    def open_it() -> io.BytesIO:
        opened.append(io.BytesIO(b"abc"))
        return opened[-1]

    Part(Kind.RAW_CRASH, "", open_it).read()
    with pytest.raises(CorruptCrash):
        Part(Kind.RAW_CRASH, "", open_it, 7).read()
    assert [file.closed for file in opened] == [True, True]


def test_whether_a_part_is_there_is_found_out_with_as_little_as_possible() -> None:
    known = Part(Kind.DUMP, "", lambda: pytest.fail("it was read"), 3)
    asked = Part(Kind.DUMP, "", lambda: pytest.fail("it was read"), ask_size=lambda: 4)
    opened = Part(Kind.DUMP, "", lambda: Endless())  # type: ignore[arg-type, return-value]
    assert [part.check() for part in (known, asked, opened)] == [3, 4, None]
    assert [part.find_size() for part in (known, asked)] == [3, 4]


def test_a_part_of_chunks_begins_anew_each_time_and_reads_no_more_than_is_asked_for() -> None:
    given: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(3):
            given.append(number)
            yield bytes([number]) * CHUNK

    part = Part.of_chunks(Kind.DUMP, chunks, "memory_report", 3 * CHUNK)
    assert part.key == (Kind.DUMP, "memory_report")
    with part.open() as one, part.open() as other:
        assert given == []
        assert one.read(2) == other.read(2) == bytes(2)
        assert given == [0, 0]
    assert part.read() == b"".join(bytes([number]) * CHUNK for number in range(3))


def test_a_part_of_chunks_ends_whoever_makes_them_when_it_is_closed() -> None:
    ended: list[bool] = []

    def chunks() -> Iterator[bytes]:
        try:
            yield b"ab"
            yield b"cd"
        finally:
            ended.append(True)

    with Part.of_chunks(Kind.DUMP, chunks).open() as file:
        assert file.read(1) == b"a"
        assert not ended
    assert ended
    with pytest.raises(CorruptCrash):
        Part.of_chunks(Kind.DUMP, chunks, size=3).read()
    assert len(ended) == 2


def test_what_goes_wrong_with_a_chunk_is_raised_as_it_is() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"ab"
        raise StorageError("gone")

    for way in WAYS.values():
        with pytest.raises(StorageError, match="gone"):
            way(Part.of_chunks(Kind.DUMP, chunks))


def test_chunks_that_no_generator_gives_are_read_too() -> None:
    assert Part.of_chunks(Kind.RAW_CRASH, lambda: iter([b"{", b"}"])).read() == b"{}"


@pytest.mark.parametrize("name", [None, "", "dump"])
def test_a_part_without_a_name_is_the_main_dump(name: str) -> None:
    assert Part.of_bytes(Kind.DUMP, b"", name).key == (Kind.DUMP, MAIN_DUMP)


@pytest.mark.parametrize("name", ["../x", "x\n", "raw_crash"])
def test_a_part_never_has_a_bad_name(name: str) -> None:
    with pytest.raises(InvalidDumpName):
        Part.of_bytes(Kind.DUMP, b"", name)


@pytest.mark.parametrize("kind", sorted(ALL_KINDS - {Kind.DUMP}))
def test_only_dumps_have_names(kind: Kind) -> None:
    with pytest.raises(ValueError, match=f"a {kind} has no name"):
        Part.of_bytes(kind, b"{}", "name")


def test_messages_call_a_part_by_its_kind_and_a_dump_by_its_name() -> None:
    assert Part.of_bytes(Kind.RAW_CRASH, b"").label == "raw_crash"
    assert Part.of_bytes(Kind.PROCESSED_CRASH, b"").label == "processed_crash"
    assert Part.of_bytes(Kind.DUMP, b"").label == "dump upload_file_minidump"


def test_a_part_of_a_file_knows_its_size_and_reads_it_only_when_needed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    part = Part.of_file(Kind.DUMP, str(path))
    path.write_bytes(b"xyz")
    assert part.size == 3
    assert part.read() == b"xyz"


def test_a_file_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Part.of_file(Kind.DUMP, tmp_path / "none")
    assert Path(caught.value.filename) == tmp_path / "none"


def test_a_file_that_went_away_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    part = Part.of_file(Kind.DUMP, path)
    path.unlink()
    with pytest.raises(StorageError) as caught:
        part.read()
    assert str(caught.value) == f"{path} cannot be read: No such file or directory"


def test_a_directory_is_no_part(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        Part.of_file(Kind.DUMP, tmp_path).read()
    assert str(caught.value) == f"{tmp_path} cannot be read: Is a directory"


@pytest.mark.parametrize("data", [b"", b"ab", b"abcd"])
def test_a_file_that_changed_its_length_is_corrupt(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    part = Part.of_file(Kind.DUMP, path)
    path.write_bytes(data)
    with pytest.raises(CorruptCrash, match=r"\Adump upload_file_minidump: .*\b3\b"):
        part.read()


def test_a_read_error_is_the_error_of_whoever_owns_the_file(tmp_path: Path) -> None:
    cannot_be_read = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    with (
        open_file(cannot_be_read, lambda error: StorageError(f"ours: {error.strerror}")) as file,
        pytest.raises(StorageError, match=r"\Aours: Bad file descriptor\Z"),
    ):
        file.read()


# Crashes


def test_a_crash_hands_out_its_parts() -> None:
    raw = Part.of_bytes(Kind.RAW_CRASH, b"{}")
    main = Part.of_bytes(Kind.DUMP, b"1")
    other = Part.of_bytes(Kind.DUMP, b"2", "memory_report")
    processed = Part.of_bytes(Kind.PROCESSED_CRASH, b"{}")
    crash = Crash(ID, [other, processed, raw, main])
    assert crash.raw_crash is raw
    assert crash.processed_crash is processed
    assert crash.dumps == [other, main]
    assert crash.part(Kind.DUMP, MAIN_DUMP) is main
    assert crash.part(Kind.DUMP, "none") is None


def test_a_crash_need_not_have_every_part() -> None:
    crash = Crash(ID, [])
    assert (crash.raw_crash, crash.processed_crash, crash.dumps) == (None, None, [])


@pytest.mark.parametrize("crash_id", ["", ID + "\n", ID.upper(), ID[:-6] + "260230"])
def test_a_crash_has_a_valid_id(crash_id: str) -> None:
    with pytest.raises(InvalidCrashID):
        Crash(crash_id, [])


@pytest.mark.parametrize(
    ("parts", "label"),
    [
        ([Part.of_bytes(Kind.RAW_CRASH, b"{}")] * 2, "raw_crash"),
        ([Part.of_bytes(Kind.PROCESSED_CRASH, b"{}")] * 2, "processed_crash"),
        ([Part.of_bytes(Kind.DUMP, b"", "a")] * 2, "dump a"),
        ([Part.of_bytes(Kind.DUMP, b"", n) for n in ("", "dump")], f"dump {MAIN_DUMP}"),
    ],
)
def test_a_crash_has_no_part_twice(parts: list[Part], label: str) -> None:
    with pytest.raises(CorruptCrash) as caught:
        Crash(ID, parts)
    assert str(caught.value) == f"{ID}: {label} is there twice"


# Mappings of dumps


def test_dumps_in_memory_become_files_named_by_crash_and_dump(tmp_path: Path) -> None:
    dumps = MemoryDumpsMapping({"upload_file_minidump": b"one", "memory_report": b"two"})
    assert dumps.as_memory_dumps_mapping() is dumps
    files = dumps.as_file_dumps_mapping(ID, tmp_path)
    assert files == {
        "upload_file_minidump": str(tmp_path / f"{ID}.upload_file_minidump.TEMPORARY.dump"),
        "memory_report": str(tmp_path / f"{ID}.memory_report.TEMPORARY.dump"),
    }
    assert {name: Path(path).read_bytes() for name, path in files.items()} == dumps
    assert len(os.listdir(tmp_path)) == 2


def test_the_files_of_dumps_may_have_another_suffix(tmp_path: Path) -> None:
    files = MemoryDumpsMapping(a=b"one").as_file_dumps_mapping(ID, str(tmp_path), ".mini")
    assert files == {"a": str(tmp_path / f"{ID}.a.TEMPORARY.mini")}


def test_dumps_in_files_stay_there_and_can_be_read_into_memory(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"one")
    files = FileDumpsMapping(a=str(tmp_path / "one"))
    assert files.as_file_dumps_mapping(ID, tmp_path / "elsewhere") is files
    memory = files.as_memory_dumps_mapping()
    assert isinstance(memory, MemoryDumpsMapping)
    assert memory == {"a": b"one"}
    assert os.listdir(tmp_path) == ["one"]


@pytest.mark.parametrize("name", ["", "dump", None])
def test_the_main_dump_gets_its_own_name_in_a_file(tmp_path: Path, name: str) -> None:
    files = MemoryDumpsMapping({name: b"one"}).as_file_dumps_mapping(ID, tmp_path)
    assert list(files) == [MAIN_DUMP]


@pytest.mark.parametrize("name", ["../x", "/x", "x\n", "dump_names"])
def test_dumps_of_which_one_has_a_bad_name_write_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidDumpName):
        MemoryDumpsMapping({"a": b"one", name: b"two"}).as_file_dumps_mapping(ID, tmp_path)
    assert os.listdir(tmp_path) == []


def test_dumps_of_a_bad_crash_id_write_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidCrashID):
        MemoryDumpsMapping(a=b"one").as_file_dumps_mapping(f"../{ID}", tmp_path)
    assert os.listdir(tmp_path) == []


def test_two_names_for_one_dump_never_lose_one_of_two_files(tmp_path: Path) -> None:
    dumps = MemoryDumpsMapping({"": b"one", "dump": b"two"})
    with pytest.raises(CorruptCrash, match=f"dump {MAIN_DUMP} is there twice"):
        dumps.as_file_dumps_mapping(ID, tmp_path)
    assert os.listdir(tmp_path) == []


def test_every_mapping_of_dumps_stands_for_the_same_parts(tmp_path: Path) -> None:
    plain = {"": b"one", "memory_report": b"two"}
    memory = MemoryDumpsMapping(plain)
    for dumps in (plain, memory, memory.as_file_dumps_mapping(ID, tmp_path)):
        parts = {part.key: part.read() for part in dump_parts(dumps)}
        assert parts == {(Kind.DUMP, MAIN_DUMP): b"one", (Kind.DUMP, "memory_report"): b"two"}


@pytest.mark.parametrize("dumps", [None, {}, MemoryDumpsMapping(), FileDumpsMapping()])
def test_no_dumps_are_no_parts(dumps: MemoryDumpsMapping | None) -> None:
    assert dump_parts(dumps) == []


def test_a_mapping_of_missing_files_says_which(tmp_path: Path) -> None:
    dumps = FileDumpsMapping(a=str(tmp_path / "none"))
    for read in (dumps.as_parts, dumps.as_memory_dumps_mapping):
        with pytest.raises(FileNotFoundError) as caught:
            read()
        assert Path(caught.value.filename) == tmp_path / "none"
