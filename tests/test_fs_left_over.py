# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a save that died has left of a crash, and who puts it away."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest

from crashmover.errors import CrashIDNotFound, StorageError
from crashmover.external.fs import durable
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.external.fs.layouts import Layout
from crashmover.testing import CRASH_ID, MAIN, NEIGHBOUR, RAW, contents, crash_of, read
from tests.cli_helpers import stored
from tests.fs_faults import temporary_files

LOCK = f"{CRASH_ID}.json"
DUMPS = [f"{CRASH_ID}.dump", f"{CRASH_ID}.memory_report.dump"]
OTHERS = [
    f"{CRASH_ID}.jsonz",  # which is under a lock of its own, that only a removal takes, too
    f"{NEIGHBOUR}.json",
    f"{NEIGHBOUR}.memory_report.dump",
]

Act = Callable[[FSPermanentStorage], None]


def save(storage: FSPermanentStorage) -> None:
    storage.save_crash(crash_of({RAW: b"{}", MAIN: b"new"}))


def save_no_dumps(storage: FSPermanentStorage) -> None:
    storage.save_crash(crash_of({RAW: b"{}"}))


def remove(storage: FSPermanentStorage) -> None:
    storage.remove(CRASH_ID)


@pytest.mark.parametrize("act", [save, save_no_dumps, remove])
def test_the_next_puts_away_what_another_has_left_that_had_other_dumps(
    tmp_path: Path, act: Act
) -> None:
    with FSPermanentStorage(tmp_path) as storage:
        storage.save_crash(crash_of({RAW: b"[]"}))
        storage.save_crash(crash_of(contents(), NEIGHBOUR))
        [leaf] = {path.parent for path in tmp_path.rglob(f"{CRASH_ID}.json")}
        for name in (LOCK, *DUMPS, *OTHERS):
            (leaf / durable.temporary_name(name)).write_bytes(b"of the save that died")
        act(storage)
        assert storage.has_crash(CRASH_ID) == (act is not remove)
        assert read(storage, NEIGHBOUR) == contents()
    others = OTHERS[1:] if act is remove else OTHERS
    assert temporary_files(tmp_path) == sorted(map(durable.temporary_name, others))


def test_what_a_save_has_left_goes_with_the_next_removal_though_there_is_no_crash(
    tmp_path: Path,
) -> None:
    storage = FSPermanentStorage(tmp_path)
    storage.save_crash(crash_of(contents(), NEIGHBOUR))
    [leaf] = {path.parent for path in tmp_path.rglob(f"{NEIGHBOUR}.json")}
    for name in (LOCK, *DUMPS, *OTHERS):
        (leaf / durable.temporary_name(name)).write_bytes(b"of the save that died")
    with pytest.raises(CrashIDNotFound):
        storage.remove(CRASH_ID)
    assert temporary_files(tmp_path) == sorted(map(durable.temporary_name, OTHERS[1:]))
    assert read(storage, NEIGHBOUR) == contents()


def test_a_processed_crash_that_was_left_and_cannot_be_locked_keeps_only_what_was_loaded(
    tmp_path: Path,
) -> None:
    """It has another name, as a backup gives it."""
    storage = FSPermanentStorage(tmp_path / "store")
    storage.save_crash(crash_of(contents()))
    crash = storage.load_crash(CRASH_ID)
    [leaf] = {path.parent for path in tmp_path.rglob(f"{CRASH_ID}.json")}
    left = leaf / durable.temporary_name(f"{CRASH_ID}.jsonz")
    left.write_bytes(b"of the save that died")
    (tmp_path / "backup").hardlink_to(left)
    with pytest.raises(StorageError, match="not a temporary file of ours"):
        storage.remove_loaded(crash)
    assert read(storage) == contents()
    storage.remove(CRASH_ID)
    assert not list(storage.root.iterdir())
    assert (tmp_path / "backup").read_bytes() == b"of the save that died"


OTHER_SUFFIXES = [
    Layout(json_file_suffix=".raw"),
    Layout(json_file_suffix=".raw", jsonz_file_suffix=".processed"),
]


@pytest.mark.parametrize("layout", OTHER_SUFFIXES)
def test_dumps_whose_raw_crash_has_another_suffix_are_nothing_left_over(
    tmp_path: Path, layout: Layout
) -> None:
    ids = [CRASH_ID, NEIGHBOUR]
    with FSPermanentStorage(tmp_path) as storage:
        for crash_id in ids:
            storage.save_crash(crash_of(contents(), crash_id))
    before = stored(tmp_path)
    with FSPermanentStorage(tmp_path, layout=layout) as misread:
        removed = dict(misread.remove_days(dt.date.min, dt.date.max))
        assert sorted(removed) == sorted(ids)
        for crash_id, error in [
            *removed.items(),
            *zip(ids, misread.remove_crashes(ids), strict=True),
        ]:
            assert f"those of {crash_id}.json: is that suffix" in str(error)
        for crash_id in ids:
            with pytest.raises(StorageError, match="is that suffix"):
                misread.remove(crash_id)
    assert stored(tmp_path) == before


def test_dumps_that_a_save_has_left_go_though_another_file_is_beside_them(tmp_path: Path) -> None:
    with FSPermanentStorage(tmp_path) as storage:
        storage.save_crash(crash_of(contents()))
        [raw] = tmp_path.rglob(f"{CRASH_ID}.json")
        raw.rename(raw.parent / durable.temporary_name(raw.name))
        (raw.parent / f"{CRASH_ID}.txt").write_bytes(b"a note")
        list(storage.remove_days(dt.date.min, dt.date.max))
    assert [path.name for path in tmp_path.rglob(f"*{CRASH_ID}*")] == [f"{CRASH_ID}.txt"]
