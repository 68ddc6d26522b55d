# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""With ``--verify``, a crash that is not what its raw crash says is visible at no destination, at
no time; and its source is read once."""

import io
import json
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack
from pathlib import Path

import pytest

from crashmover.crash import ALL_KINDS, Crash, Kind, Part
from crashmover.engine.mover import Existing, Mover, Outcome, Status
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.external.poly import PolyCrashStorage
from crashmover.registry import open_storage
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    crash_of,
    read,
)
from tests.cli_helpers import sha256
from tests.conftest import UseAWS
from tests.servers.gcs import FakeGCS
from tests.servers.postgresql import PostgreSQL
from tests.servers.s3 import S3Server

SIZES = {"small": 100, "middling": 300 << 10, "large": (9 << 20) + 1}


class ByFile(InMemoryCrashStorage):
    """A store of another author, which opens parts and reads as many bytes as were announced."""

    uri = "memory:by-file"

    def save_crash(self, crash: Crash) -> None:
        parts = []
        for part in crash.parts:
            with part.open() as file:
                data = b"".join(iter(lambda file=file: file.read(1000), b""))  # type: ignore[misc]
            parts.append(Part.of_bytes(part.kind, data, part.name))
        super().save_crash(Crash(crash.crash_id, parts))


class BySize(InMemoryCrashStorage):
    """Another, which never looks for the end of a file."""

    uri = "memory:by-size"

    def save_crash(self, crash: Crash) -> None:
        parts = []
        for part in crash.parts:
            with part.open() as file:
                assert part.size is not None
                data, left = b"", part.size
                while left:
                    piece = file.read(left)
                    data, left = data + piece, left - len(piece)
            parts.append(Part.of_bytes(part.kind, data, part.name))
        super().save_crash(Crash(crash.crash_id, parts))


Open = Callable[[], CrashStorageBase]


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(
    params=[
        "fs",
        "s3_signed",
        pytest.param("fake_gcs", marks=pytest.mark.slow),
        "postgresql",
        "memory",
        "by file",
        "by size",
        "many",
    ]
)
def destination(
    request: pytest.FixtureRequest,
    opened: ExitStack,
    tmp_path: Path,
    aws: UseAWS,
    s3_signed: S3Server,
    fake_gcs: FakeGCS,
    postgresql_server: PostgreSQL,
) -> CrashStorageBase:
    makers: dict[str, Open] = {
        "fs": lambda: open_storage(str(tmp_path / "destination")),
        "s3_signed": lambda: open_storage(aws(s3_signed).uri(s3_signed.new_bucket())),
        "fake_gcs": lambda: open_storage(fake_gcs.uri(fake_gcs.new_bucket())),
        "postgresql": lambda: open_storage(
            postgresql_server.uri(schema=postgresql_server.new_name())
        ),
        "memory": InMemoryCrashStorage,
        "by file": ByFile,
        "by size": BySize,
    }
    if request.param == "many":
        return opened.enter_context(PolyCrashStorage([make() for make in makers.values()]))
    return opened.enter_context(makers[request.param]())


class Counted(InMemoryCrashStorage):
    """A source that counts how often each part is opened, and looks at the destination whenever
    some of it is read."""

    def __init__(self, *, is_sized: bool) -> None:
        super().__init__()
        self.opened: dict[str, int] = {}
        self.watch: Callable[[], None] = lambda: None
        self._is_sized = is_sized

    def load_crash(self, crash_id: str, kinds: Set[Kind] = ALL_KINDS) -> Crash:
        found = super().load_crash(crash_id, kinds)
        return Crash(crash_id, [self._counted(part) for part in found.parts])

    def _counted(self, part: Part) -> Part:
        data = part.read()
        store = self

        class File(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                store.watch()
                return super().read(size)

        def open_file() -> File:
            store.opened[part.name or part.kind] = store.opened.get(part.name or part.kind, 0) + 1
            return File(data)

        size = len(data) if self._is_sized else None
        return Part(part.kind, part.name, open_file, size, version=part.version)


def crash_with(size: int, *, version: int = 2) -> Contents:
    """A crash of two dumps, of which the second is of this size."""
    dumps = {MAIN: b"MDMP", BROWSER: bytes(range(256)) * (size // 256) + b"!" * (size % 256)}
    checksums = {name: sha256(data) for (_, name), data in dumps.items()}
    said = {"dump_checksums": checksums}
    raw = said if version == 1 else {"metadata": said}
    return {RAW: json.dumps(raw).encode(), **dumps, PROCESSED: b'{"signature": "f"}'}


def moved(source: CrashStorageBase, to: CrashStorageBase, existing: Existing) -> dict[str, Outcome]:
    mover = Mover(source, to, verify=True, existing=existing)
    return {outcome.crash_id: outcome for outcome in mover.run([CRASH_ID, NEIGHBOUR])}


@pytest.mark.parametrize("is_sized", [True, False])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_dump_of_other_bytes_makes_no_crash(
    destination: CrashStorageBase, size: int, is_sized: bool
) -> None:
    if not is_sized and any(isinstance(store, BySize) for store in destination.stores):
        pytest.skip("a store that reads by size needs one")
    source, good = Counted(is_sized=is_sized), crash_with(size)
    wrong = good | {BROWSER: good[BROWSER][:-1] + b"?"}
    source.save_crash(crash_of(wrong))
    source.save_crash(crash_of(good, NEIGHBOUR))
    seen: list[str] = []

    def watch() -> None:
        seen.extend(s.uri for s in destination.stores if "memory" in s.uri and has(s))

    source.watch = watch
    found = moved(source, destination, Existing.SKIP)
    assert found[CRASH_ID].status is Status.FAILED and found[CRASH_ID].attempts == 1
    assert f"dump {BROWSER[1]} does not match its checksum" in (found[CRASH_ID].error or "")
    assert found[NEIGHBOUR].status is Status.COPIED
    assert not seen and not any(map(has, destination.stores))
    assert list(destination.new_crashes()) == [NEIGHBOUR]
    source.save_crash(crash_of(good))  # it is mended
    assert moved(source, destination, Existing.SKIP)[CRASH_ID].status is Status.COPIED
    assert all(read(store) == good for store in destination.stores)


def has(storage: CrashStorageBase) -> bool:
    return storage.has_crash(CRASH_ID)


@pytest.mark.parametrize("version", [1, 2])
def test_nothing_is_replaced_by_what_is_wrong(destination: CrashStorageBase, version: int) -> None:
    source, good = InMemoryCrashStorage(), crash_with(1000, version=version)
    destination.save_crash(crash_of(good))
    damages = [
        good | {MAIN: b"MDM?"},
        {key: good[key] for key in (RAW, BROWSER, PROCESSED)},
        good | {RAW: b""},
        good | {PROCESSED: b"{"},
    ]
    for damaged in damages:
        source.save_crash(crash_of(damaged))
        [outcome] = Mover(source, destination, verify=True, existing=Existing.OVERWRITE).run(
            [CRASH_ID]
        )
        assert outcome.status is Status.FAILED
        assert all(read(store) == good for store in destination.stores)


def test_a_source_is_read_once() -> None:
    source, destination = Counted(is_sized=True), InMemoryCrashStorage()
    source.save_crash(crash_of(crash_with(1000)))
    [outcome] = Mover(source, destination, verify=True).run([CRASH_ID])
    assert outcome.status is Status.COPIED
    assert source.opened == {"raw_crash": 2, MAIN[1]: 1, BROWSER[1]: 1, "processed_crash": 1}


def test_a_large_processed_crash_is_read_twice_and_not_kept() -> None:
    source, destination = Counted(is_sized=True), InMemoryCrashStorage()
    parts = {RAW: b"{}", PROCESSED: b'{"a": "' + b"x" * (300 << 10) + b'"}'}
    source.save_crash(crash_of(parts))
    [outcome] = Mover(source, destination, verify=True).run([CRASH_ID])
    assert (outcome.status, source.opened["processed_crash"]) == (Status.COPIED, 2)


def test_a_processed_crash_too_large_to_be_read_as_json_is_copied() -> None:
    source, destination = InMemoryCrashStorage(), InMemoryCrashStorage()
    parts = {RAW: b"{}", PROCESSED: b'{"a": "' + b"x" * (17 << 20) + b'"}'}
    source.save_crash(crash_of(parts))
    [outcome] = Mover(source, destination, verify=True).run([CRASH_ID])
    assert outcome.status is Status.COPIED and read(destination) == parts


def test_dumps_alone_are_held_against_the_raw_crash_that_is_not_copied() -> None:
    source, destination = InMemoryCrashStorage(), InMemoryCrashStorage()
    good = crash_with(1000)
    source.save_crash(crash_of(good | {MAIN: b"MDM?"}))
    destination.save_crash(crash_of({RAW: good[RAW]}))
    mover = Mover(source, destination, kinds={Kind.DUMP}, verify=True, existing=Existing.COMPARE)
    [outcome] = mover.run([CRASH_ID])
    assert outcome.status is Status.FAILED and "does not match" in (outcome.error or "")
    assert read(destination) == {RAW: good[RAW]}
