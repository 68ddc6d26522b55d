# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The file-system store: what lies on the disk, and what is read and listed of it.

The promises of every store are in the conformance suite.
"""

import gzip
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashmover.crash import Kind
from crashmover.errors import (
    CorruptCrash,
    CrashIDNotFound,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.registry import open_storage
from crashmover.testing import (
    BROWSER,
    CRASH_ID,
    MAIN,
    NEIGHBOUR,
    PROCESSED,
    RAW,
    Contents,
    contents,
    crash_of,
    read,
)

LEAF = "20071025/name/0b/ba"
FLAT_ID = "0bba929f-8721-460c-dead-a43c20071025"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def storage(root: Path) -> Iterator[FSPermanentStorage]:
    with FSPermanentStorage(root) as storage:
        yield storage


def files(root: Path) -> dict[str, bytes]:
    """Every file below a directory: its path -> its bytes."""
    found = (path for path in root.rglob("*") if not path.is_dir())
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def put(directory: Path, crash_id: str = CRASH_ID, parts: Contents | None = None) -> None:
    """Lay a crash down as another program would."""
    directory.mkdir(parents=True, exist_ok=True)
    for (kind, name), data in (parts or contents()).items():
        if kind is Kind.RAW_CRASH:
            (directory / f"{crash_id}.json").write_bytes(data)
        elif kind is Kind.PROCESSED_CRASH:
            (directory / f"{crash_id}.jsonz").write_bytes(gzip.compress(data))
        else:
            middle = "" if (kind, name) == MAIN else f".{name}"
            (directory / f"{crash_id}{middle}.dump").write_bytes(data)


# What is written


def test_the_layout_to_the_letter(storage: FSPermanentStorage, root: Path) -> None:
    storage.save_crash(crash_of(contents()))
    found = files(root)
    packed = found.pop(f"{LEAF}/{CRASH_ID}.jsonz")
    assert gzip.decompress(packed) == contents()[PROCESSED]
    assert found == {
        f"{LEAF}/{CRASH_ID}.json": contents()[RAW],
        f"{LEAF}/{CRASH_ID}.dump": contents()[MAIN],
        f"{LEAF}/{CRASH_ID}.upload_file_minidump_browser.dump": contents()[BROWSER],
    }
    storage.save_crash(crash_of(contents()))
    assert files(root)[f"{LEAF}/{CRASH_ID}.jsonz"] == packed


def test_where_a_part_lies_is_the_path_of_its_file(storage: FSPermanentStorage, root: Path) -> None:
    put(root / LEAF / CRASH_ID, parts={k: v for k, v in contents().items() if k != PROCESSED})
    storage.save_crash(crash_of({PROCESSED: contents()[PROCESSED]}))
    lying = {part.key: Path(part.location or "") for part in storage.load_crash(CRASH_ID).parts}
    assert gzip.decompress(lying.pop(PROCESSED).read_bytes()) == contents()[PROCESSED]
    assert {key: path.parent for key, path in lying.items()} == dict.fromkeys(
        lying, root / LEAF / CRASH_ID
    )
    for key, path in lying.items():
        assert path.read_bytes() == contents()[key]


@pytest.mark.parametrize(
    ("umask", "file_mode", "directory_mode"),
    [("022", 0o644, 0o755), ("027", 0o640, 0o750), ("077", 0o600, 0o700), ("0", 0o666, 0o777)],
)
def test_modes_are_by_the_option_and_not_by_the_process(
    root: Path, umask: str, file_mode: int, directory_mode: int
) -> None:
    before = os.umask(0o177)  # of the process: would take nearly everything
    try:
        with open_storage(f"fs://{root}?umask={umask}") as storage:
            storage.save_crash(crash_of(contents()))
    finally:
        os.umask(before)
    for path in (root, *root.rglob("*")):
        expected = directory_mode if path.is_dir() else file_mode
        assert path.stat().st_mode & 0o777 == expected, path


def test_a_group_that_directories_pass_on_is_kept(root: Path) -> None:
    root.mkdir()
    root.chmod(0o2775)
    with FSPermanentStorage(root, umask=0o002) as storage:
        storage.save_crash(crash_of(contents()))
    assert all(path.stat().st_mode & 0o2000 for path in root.rglob("*") if path.is_dir())


# What is read


@pytest.mark.parametrize(
    ("crash_id", "directory"),
    [
        (FLAT_ID, "20071025/name"),
        (FLAT_ID, f"20071025/name/{FLAT_ID}"),
        (FLAT_ID, "20071025/name/0b/ba/92/9f"),
        (FLAT_ID, f"20071025/name/0b/ba/92/9f/{FLAT_ID}"),
        (CRASH_ID, LEAF),
        (CRASH_ID, f"{LEAF}/{CRASH_ID}"),
        (CRASH_ID[:-7] + "4071025", "20071025/name/0b/ba/92/9f"),
        (CRASH_ID[:-7] + "9071025", LEAF),
        (CRASH_ID[:-7] + "f071025", LEAF),
    ],
)
def test_every_form_is_read_listed_and_removed(
    storage: FSPermanentStorage, root: Path, crash_id: str, directory: str
) -> None:
    put(root / directory, crash_id)
    put(root / LEAF, NEIGHBOUR)
    assert storage.has_crash(crash_id)
    assert read(storage, crash_id) == contents()
    assert set(storage.new_crashes()) == {crash_id, NEIGHBOUR}
    assert set(storage.new_crashes(kind=Kind.PROCESSED_CRASH)) == {crash_id, NEIGHBOUR}
    storage.remove(crash_id)
    assert not storage.has_crash(crash_id)
    assert read(storage, NEIGHBOUR) == contents()
    assert all(name.startswith(f"{LEAF}/{NEIGHBOUR}") for name in files(root))


def test_a_crash_that_lies_flat_and_deep_is_one(storage: FSPermanentStorage, root: Path) -> None:
    put(root / "20071025/name", FLAT_ID, contents("new"))
    put(root / "20071025/name/0b/ba/92/9f", FLAT_ID, contents("old"))
    assert list(storage.new_crashes()) == [FLAT_ID]
    assert read(storage, FLAT_ID) == contents("new")
    storage.remove(FLAT_ID)
    assert files(root) == {}
    assert list(root.iterdir()) == []


def test_a_processed_crash_may_lie_elsewhere_than_its_raw_crash(
    storage: FSPermanentStorage, root: Path
) -> None:
    deep = root / "20071025/name/0b/ba/92/9f"
    put(deep, FLAT_ID, {RAW: b"{}", MAIN: b"x"})
    storage.save_crash(crash_of({PROCESSED: b"{}"}, FLAT_ID))
    assert (root / f"20071025/name/{FLAT_ID}.jsonz").exists()
    assert read(storage, FLAT_ID) == {RAW: b"{}", MAIN: b"x", PROCESSED: b"{}"}
    storage.save_crash(crash_of({BROWSER: b"late"}, FLAT_ID))
    assert (deep / f"{FLAT_ID}.upload_file_minidump_browser.dump").exists()


def test_a_main_dump_that_was_renamed_is_the_main_dump(
    storage: FSPermanentStorage, root: Path
) -> None:
    put(root / LEAF, parts={RAW: b"{}"})
    (root / LEAF / f"{CRASH_ID}.dump.dump").write_bytes(b"renamed")
    assert read(storage) == {RAW: b"{}", MAIN: b"renamed"}
    (root / LEAF / f"{CRASH_ID}.dump").write_bytes(b"another")
    with pytest.raises(CorruptCrash, match="dump upload_file_minidump is there twice") as caught:
        storage.load_crash(CRASH_ID)
    assert (caught.value.uri, caught.value.crash_id) == (f"fs://{root}", CRASH_ID)


@pytest.mark.parametrize("name", ["raw_crash", "a b", ".hidden", "x" * 101, "", "\n"])
def test_a_dump_that_no_store_would_take_is_never_left_out(
    storage: FSPermanentStorage, root: Path, name: str
) -> None:
    put(root / LEAF)
    (root / LEAF / f"{CRASH_ID}.{name}.dump").write_bytes(b"x")
    with pytest.raises(CorruptCrash, match="not a dump name"):
        storage.load_crash(CRASH_ID)


def test_a_directory_without_the_crash_s_files_is_no_crash(
    storage: FSPermanentStorage, root: Path
) -> None:
    (root / LEAF / CRASH_ID).mkdir(parents=True)
    (root / LEAF / f"{CRASH_ID}.dump").write_bytes(b"orphan")
    assert not storage.has_crash(CRASH_ID)
    with pytest.raises(CrashIDNotFound):
        storage.load_crash(CRASH_ID)
    assert list(storage.new_crashes()) == []


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_file_that_lies_where_no_crash_of_its_id_does_is_no_crash(
    storage: FSPermanentStorage, root: Path, depth: int
) -> None:
    directory = root.joinpath("20071025", "name", *["0b", "ba", "92"][:depth])
    directory.mkdir(parents=True)
    (directory / f"{CRASH_ID}.json").write_bytes(b"{}")
    (directory / f"{CRASH_ID}.another.json").write_bytes(b"{}")
    assert not storage.has_crash(CRASH_ID)
    assert list(storage.new_crashes()) == []


def test_a_file_whose_name_goes_on_after_the_id_is_no_crash(
    storage: FSPermanentStorage, root: Path
) -> None:
    (root / LEAF).mkdir(parents=True)
    (root / LEAF / f"{CRASH_ID}.another.json").write_bytes(b"{}")
    assert list(storage.new_crashes()) == []


@pytest.mark.parametrize(
    "packed",
    [b"", b"not gzip", gzip.compress(b"{}" * 500)[:-9], gzip.compress(b"{}") + b"trailing"],
    ids=["empty", "garbage", "truncated", "trailing"],
)
def test_a_processed_crash_that_is_not_whole_gzip_is_corrupt(
    storage: FSPermanentStorage, root: Path, packed: bytes
) -> None:
    put(root / LEAF)
    (root / LEAF / f"{CRASH_ID}.jsonz").write_bytes(packed)
    part = storage.load_crash(CRASH_ID).processed_crash
    assert part
    with pytest.raises(CorruptCrash, match=f"{CRASH_ID}.jsonz is not whole gzip"):
        part.read()
    assert storage.get_raw_crash(CRASH_ID) == json.loads(contents()[RAW])


# Links and other things that are not what they seem


@pytest.mark.parametrize("suffix", [".json", ".dump", ".jsonz"])
@pytest.mark.parametrize("trap", ["link", "fifo", "directory"])
def test_what_is_no_regular_file_is_neither_followed_nor_waited_for(
    storage: FSPermanentStorage, root: Path, tmp_path: Path, suffix: str, trap: str
) -> None:
    put(root / LEAF)
    (tmp_path / "secret").write_bytes(b"secret")
    path = root / LEAF / f"{CRASH_ID}{suffix}"
    path.unlink()
    if trap == "link":
        path.symlink_to(tmp_path / "secret")
    elif trap == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    if (trap, suffix) == ("directory", ".dump"):  # nobody's dump
        assert MAIN not in read(storage)
        return
    with pytest.raises(StorageError) as caught:
        read(storage)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_link_on_the_way_is_refused(
    storage: FSPermanentStorage, root: Path, tmp_path: Path, depth: int
) -> None:
    put(tmp_path / "elsewhere" / LEAF)
    names = LEAF.split("/")
    link = root.joinpath(*names[:depth])
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path.joinpath("elsewhere", *names[:depth]))
    before = files(tmp_path / "elsewhere")
    with pytest.raises(StorageDenied, match=f"{names[depth - 1]} is a symbolic link"):
        storage.load_crash(CRASH_ID)
    with pytest.raises(StorageDenied):
        storage.save_crash(crash_of({RAW: b"{}"}))
    with pytest.raises(StorageDenied):
        storage.remove(CRASH_ID)
    assert files(tmp_path / "elsewhere") == before


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    root.symlink_to(tmp_path / "real")
    with FSPermanentStorage(root) as storage, FSPermanentStorage(tmp_path / "real") as real:
        storage.save_crash(crash_of(contents()))
        assert read(real) == contents()
        assert storage.identity() == real.identity()
    assert storage.identity() != FSPermanentStorage(tmp_path).identity()


# A crash that changes while it is read


@pytest.mark.parametrize("key", [RAW, MAIN, BROWSER])
@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_a_part_of_a_crash_that_is_there_no_more_is_not_handed_out(
    storage: FSPermanentStorage, key: tuple[Kind, str], change: str
) -> None:
    storage.save_crash(crash_of(contents("a")))
    part = storage.load_crash(CRASH_ID).part(*key)
    assert part
    with part.open() as before:
        if change == "removed":
            storage.remove(CRASH_ID)
        else:
            storage.save_crash(crash_of(contents("b")))
        with pytest.raises(StorageUnavailable, match="replaced or removed while it was read"):
            part.read()
        assert before.read() == contents("a")[key]  # what was open can be read to its end


# Listing


def test_nothing_foreign_is_taken_for_a_crash(storage: FSPermanentStorage, root: Path) -> None:
    put(root / LEAF)
    leaf = root / LEAF
    for name in (
        f".{NEIGHBOUR}.json.tmp",
        f"{NEIGHBOUR}.jso",
        f"{NEIGHBOUR}.json~",
        f"{NEIGHBOUR}xjson",
        "README.json",
        f"ff{NEIGHBOUR[2:]}.json",  # belongs in another leaf
        f"{NEIGHBOUR[:-6]}071026.json",  # belongs to another day
        f"{NEIGHBOUR[:-6]}071032.json",  # there is no such day
    ):
        (leaf / name).write_text("{}")
    put(root / "20071025/date/0b/ba", NEIGHBOUR)
    put(root / "20071399/name/0b/ba", NEIGHBOUR)
    put(root / "2007102５/name/0b/ba", NEIGHBOUR)
    assert list(storage.new_crashes()) == [CRASH_ID]


def test_later_days_are_not_looked_at_before_they_are_asked_for(
    storage: FSPermanentStorage, root: Path
) -> None:
    put(root / LEAF)
    later = CRASH_ID[:-6] + "071026"
    put(root / "20071026/name/0b/ba", later)
    listing = storage.new_crashes()
    assert next(listing) == CRASH_ID
    for path in sorted((root / "20071026").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert list(listing) == []


class Listings:
    """Counts the directories that are listed."""

    def __init__(self) -> None:
        self.count = 0
        sys.addaudithook(self._hear)
        self.listening = True

    def _hear(self, event: str, _args: object) -> None:
        self.count += self.listening and event == "os.scandir"


def test_a_large_directory_is_not_listed_for_each_of_its_crashes(
    storage: FSPermanentStorage, root: Path
) -> None:
    ids = [f"{n:08x}-8721-460c-dead-a43c20071025" for n in range(300)]
    for crash_id in ids:
        put(root / "20071025/name", crash_id, {RAW: b"{}", MAIN: crash_id.encode()})
    time.sleep(2.1)  # a listing is trusted only for what had settled when it was made
    listings = Listings()
    try:
        found = list(storage.new_crashes())
        for crash_id in found:
            assert read(storage, crash_id) == {RAW: b"{}", MAIN: crash_id.encode()}
    finally:
        listings.listening = False
    assert found == ids
    assert listings.count <= 4, "the root and the day for the walk; the start, and all, for a crash"

    # What changes after the listing was made is seen at once.
    storage.save_crash(crash_of(contents(), ids[0]))
    assert read(storage, ids[0]) == contents()
    storage.save_crash(crash_of({BROWSER: b"late"}, ids[1]))
    assert read(storage, ids[1]).keys() == {RAW, MAIN, BROWSER}
    storage.save_crash(crash_of({RAW: b"[]"}, ids[2]))
    assert read(storage, ids[2]) == {RAW: b"[]"}
    storage.remove(ids[3])
    assert not storage.has_crash(ids[3])
    storage.save_crash(crash_of(contents(), FLAT_ID))
    assert read(storage, FLAT_ID) == contents()


# Removing


def test_only_empty_directories_are_removed(storage: FSPermanentStorage, root: Path) -> None:
    put(root / LEAF)
    put(root / "20071025/date/0b/ba", NEIGHBOUR)
    (root / LEAF / "README").write_text("ours")
    storage.remove(CRASH_ID)
    assert (root / LEAF / "README").exists()
    assert (root / f"20071025/date/0b/ba/{NEIGHBOUR}.json").exists()
    (root / LEAF / "README").unlink()
    put(root / LEAF)
    storage.remove(CRASH_ID)
    assert not (root / "20071025/name").exists()
    assert (root / "20071025/date").exists()


def test_what_a_killed_save_left_is_removed_too(storage: FSPermanentStorage, root: Path) -> None:
    put(root / LEAF)
    for suffix in (".json", ".dump", ".jsonz"):
        (root / LEAF / f".{CRASH_ID}{suffix}.tmp").write_bytes(b"half")
    storage.remove(CRASH_ID)
    assert list(root.iterdir()) == []


# Whether it can be used


def test_access_is_checked_without_touching_anything(root: Path, tmp_path: Path) -> None:
    storage = FSPermanentStorage(root / "not" / "yet")
    storage.verify_access(write=True)
    assert not root.exists()
    with pytest.raises(StorageDenied, match="cannot be read: No such file or directory"):
        storage.verify_access()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        for write in (False, True):
            with pytest.raises(StorageDenied, match="Not a directory"):
                FSPermanentStorage(path).verify_access(write=write)


def test_an_umask_that_locks_the_owner_out_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="umask"):
        FSPermanentStorage(root, umask=0o200)
