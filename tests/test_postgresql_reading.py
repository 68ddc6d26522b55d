# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""PostgreSQLCrashStorage: crashes that are loaded together come in one stream, and each is
right or said not to be, whatever becomes of the stream."""

import os
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlencode

import pytest

from crashmover.crash import Crash
from crashmover.errors import CorruptCrash, CrashIDNotFound, StorageUnavailable
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.external.postgresql.reading import Reader, Row
from crashmover.registry import open_storage
from crashmover.testing import BROWSER, MAIN, PROCESSED, RAW, Contents, contents, crash_of
from tests.servers.database import Database
from tests.test_postgresql_store import LARGE, MIB


@pytest.fixture
def storage(database: Database) -> Iterator[CrashStorageBase]:
    with open_storage(database.uri) as storage:
        yield storage


def _saved(storage: CrashStorageBase, count: int, size: int = 40_000) -> dict[str, Contents]:
    """Save crashes that come together; return them."""
    crashes = {
        f"0bba{number:04x}-8721-460c-dead-a43c22071025": {
            RAW: b'{"n": %d}' % number,
            MAIN: bytes([number]) * size,
            BROWSER: b"",
            PROCESSED: b"%d" % number,
        }
        for number in range(count)
    }
    assert not any(storage.save_crashes([crash_of(c, i) for i, c in crashes.items()]))
    return crashes


def _loaded(storage: CrashStorageBase, crash_ids: Iterable[str]) -> dict[str, Crash]:
    crashes = list(storage.load_crashes(list(crash_ids)))
    found = {crash.crash_id: crash for crash in crashes if isinstance(crash, Crash)}
    assert len(found) == len(crashes)
    return found


def _read(crash: Crash) -> Contents:
    return {part.key: part.read() for part in crash.parts}


ORDERS: dict[str, Callable[[list[str]], list[str]]] = {
    "in order": list,
    "backwards": lambda ids: ids[::-1],
    "mixed": lambda ids: ids[::2] + ids[1::2],
    "each twice": lambda ids: [crash_id for crash_id in ids for _ in range(2)],
    "all twice": lambda ids: ids + ids,
    "some": lambda ids: ids[5::11],
}


@pytest.mark.parametrize("asked", [ORDERS["in order"], ORDERS["mixed"]], ids=["in order", "mixed"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_crashes_loaded_together_are_read_in_any_order(
    storage: CrashStorageBase,
    asked: Callable[[list[str]], list[str]],
    order: Callable[[list[str]], list[str]],
) -> None:
    crashes = _saved(storage, 60)
    loaded = _loaded(storage, asked(list(crashes)))
    for crash_id in order(list(crashes)):
        assert _read(loaded[crash_id]) == crashes[crash_id]


def test_crashes_loaded_together_are_read_by_many_threads(storage: CrashStorageBase) -> None:
    crashes = _saved(storage, 60)
    loaded = _loaded(storage, crashes)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda crash_id: _read(loaded[crash_id]), crashes))
    assert found == list(crashes.values())


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_of_crashes_loaded_together_one_that_was_changed_is_said_and_the_others_are_right(
    database: Database, storage: CrashStorageBase, change: str
) -> None:
    crashes = _saved(storage, 60)
    loaded = _loaded(storage, crashes)
    ids = list(crashes)
    changed = {ids[45], ids[59]}
    _change(database, change, changed)
    for crash_id in ids:
        if crash_id in changed:
            for part in loaded[crash_id].parts:
                with pytest.raises(StorageUnavailable, match="replaced or removed") as caught:
                    part.read()
                assert caught.value.crash_id == crash_id
        else:
            assert _read(loaded[crash_id]) == crashes[crash_id]


def test_of_a_crash_that_has_grown_since_no_more_is_kept_than_was_asked_for(
    database: Database, storage: CrashStorageBase
) -> None:
    crashes = _saved(storage, 6)
    loaded = _loaded(storage, crashes)
    with open_storage(database.uri) as other:
        other.save_crash(crash_of({RAW: b"{}", MAIN: bytes(16 * MIB)}, min(crashes)))
    tracemalloc.start()
    try:
        with pytest.raises(StorageUnavailable, match="replaced or removed"):
            _read(loaded[min(crashes)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_crashes_that_are_changed_while_they_are_read_are_what_they_were_or_that_is_said(
    database: Database, storage: CrashStorageBase, change: str
) -> None:
    crashes = _saved(storage, 60)
    loaded = _loaded(storage, crashes)
    ids = list(crashes)
    assert _read(loaded[ids[20]]) == crashes[ids[20]]
    _change(database, change, {ids[0], ids[45]})
    assert _read(loaded[ids[45]]) == crashes[ids[45]]  # on its way already, all of it
    for part in loaded[ids[0]].parts:  # not any more
        with pytest.raises(StorageUnavailable, match="replaced or removed"):
            part.read()


_LOCK = "BEGIN; LOCK TABLE crash_parts; COMMIT"  # for an instant, when all others are done
_MORE_THAN_IS_ON_ITS_WAY = 800_000  # bytes, for each of 60 crashes: the server has to wait


def test_crashes_are_read_whose_statement_took_longer_than_the_server_lets_it(
    database: Database, storage: CrashStorageBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes = _saved(storage, 60, _MORE_THAN_IS_ON_ITS_WAY)
    asked_for: list[str] = []
    chunk = Reader.chunk

    def counted(reader: Reader, crash_id: str, row: Row) -> bytes:
        asked_for.append(crash_id)
        return chunk(reader, crash_id, row)

    monkeypatch.setattr(Reader, "chunk", counted)
    limit = {"options": "-c statement_timeout=250ms"}
    with open_storage(f"{database.uri}&{urlencode(limit, quote_via=quote)}") as limited:
        loaded = _begun(database, limited, crashes)
        time.sleep(0.3)  # it is cancelled when the server can go on
        for crash_id in crashes:
            assert _read(loaded[crash_id]) == crashes[crash_id]
    assert max(crashes) in asked_for, "the stream had ended early"


def test_crashes_are_read_again_after_their_connection_was_lost(
    database: Database, storage: CrashStorageBase
) -> None:
    crashes = _saved(storage, 60, _MORE_THAN_IS_ON_ITS_WAY)
    loaded = _begun(database, storage, crashes)
    pid = _stream(database)
    database.connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    lost = 0
    for crash_id in crashes:
        try:
            assert _read(loaded[crash_id]) == crashes[crash_id]
        except StorageUnavailable as error:
            assert error.uri == storage.uri
            lost += 1
    assert lost == 1


@pytest.mark.parametrize("skipped", [0, 20], ids=["all", "not the last small ones"])
def test_reading_a_large_crash_waits_for_nobody_who_waits_for_the_stream(
    database: Database, storage: CrashStorageBase, skipped: int
) -> None:
    crashes = _saved(storage, 60, _MORE_THAN_IS_ON_ITS_WAY)
    ids = list(crashes)
    crashes[ids[40]] |= {MAIN: bytes(2 * MIB)}
    storage.save_crash(crash_of(crashes[ids[40]], ids[40]))
    loaded = _begun(database, storage, crashes)
    with ThreadPoolExecutor(1) as pool:
        locked = pool.submit(database.connection.execute, _LOCK)
        _wait_until(lambda: _waits(database))
        for crash_id in [*ids[1 : 40 - skipped], *ids[40:]]:
            assert _read(loaded[crash_id]) == crashes[crash_id]
        locked.result(timeout=10)


def _waits(database: Database) -> bool:
    """Whether somebody waits for a lock."""
    with database.server.connect() as connection:
        found = connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone()
    return found is not None


@pytest.mark.parametrize("reads", [True, False], ids=["reads", "drops"])
def test_a_child_takes_nothing_from_what_its_parent_receives(
    database: Database, storage: CrashStorageBase, reads: bool
) -> None:
    crashes = _saved(storage, 60, _MORE_THAN_IS_ON_ITS_WAY)
    loaded = _begun(database, storage, crashes)
    session = _stream(database)
    ids = list(crashes)
    if (pid := os.fork()) == 0:
        is_right = all(_read(loaded[i]) == crashes[i] for i in ids[:40]) if reads else True
        loaded.clear()
        os._exit(not is_right)
    assert os.waitpid(pid, 0)[1] == 0
    for crash_id in ids:
        assert _read(loaded[crash_id]) == crashes[crash_id]
    assert storage.has_crash(ids[0])
    assert database.rows("SELECT 1 FROM pg_stat_activity WHERE pid = %s", session)


def test_who_wants_no_more_of_crashes_keeps_no_connection_and_no_statement(
    database: Database, storage: CrashStorageBase
) -> None:
    crashes = _saved(storage, 60, _MORE_THAN_IS_ON_ITS_WAY)
    loaded = _begun(database, storage, crashes)
    del loaded
    _wait_until(lambda: not _streams(database))
    assert storage.has_crash(min(crashes))


def _begun(
    database: Database, storage: CrashStorageBase, crashes: dict[str, Contents]
) -> dict[str, Crash]:
    """Load crashes, read the first, and return them all when the server waits for who reads."""
    loaded = _loaded(storage, crashes)
    assert _read(loaded[min(crashes)]) == crashes[min(crashes)]
    _stream(database)
    return loaded


def _stream(database: Database) -> int:
    """Return the session in which the server is sending crashes, once it waits for its reader.

    It stops waiting for a moment whenever the kernel takes more of what it sends.
    """
    deadline = time.monotonic() + 10
    while len(found := _streams(database)) != 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found[0]


def _streams(database: Database) -> list[int]:
    """Return the sessions in which the server is sending crashes."""
    rows = database.connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'ClientWrite'"
        " AND query LIKE %s",
        (f"%{database.schema}%",),
    )
    return [pid for (pid,) in rows]


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _change(database: Database, change: str, crash_ids: Iterable[str]) -> None:
    with open_storage(database.uri) as other:
        for crash_id in crash_ids:
            if change == "removed":
                other.remove(crash_id)
            else:
                other.save_crash(crash_of(contents("b"), crash_id))


def test_large_crashes_are_loaded_together_with_small_ones(storage: CrashStorageBase) -> None:
    crashes = _saved(storage, 6)
    ids = list(crashes)
    for crash_id, size in ((ids[1], MIB + 1), (ids[2], LARGE), (ids[4], MIB - 7)):
        crashes[crash_id] = {RAW: b"{}", MAIN: bytes(range(251)) * (size // 251 + 1)}
        storage.remove(crash_id)
        storage.save_crash(crash_of(crashes[crash_id], crash_id))
    loaded = _loaded(storage, ids)
    for order in (ids, ids[::-1]):
        for crash_id in order:
            assert _read(loaded[crash_id]) == crashes[crash_id]


def test_a_crash_at_fault_does_not_hold_back_those_loaded_with_it(
    database: Database, storage: CrashStorageBase
) -> None:
    crashes = _saved(storage, 5)
    ids = list(crashes)
    database.connection.execute(
        "UPDATE crash_parts SET name = '../x' WHERE crash_id = %s AND name LIKE '%%browser'",
        (ids[1],),
    )
    storage.remove(ids[3])
    found = list(storage.load_crashes(ids))
    assert [type(crash) for crash in found] == [Crash, CorruptCrash, Crash, CrashIDNotFound, Crash]
    for crash in found:
        if isinstance(crash, Crash):
            assert _read(crash) == crashes[crash.crash_id]
