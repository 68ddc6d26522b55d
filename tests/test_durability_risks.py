# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Where what was saved may be lost all the same, `copy`, `save` and `doctor` say so."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crashmover import FSPermanentStorage, InMemoryCrashStorage, PolyCrashStorage, open_storage
from crashmover.errors import StorageError
from crashmover.external.fs import mounts
from crashmover.testing import CRASH_ID, contents, crash_of
from tests.cli_helpers import run
from tests.servers.database import Database
from tests.servers.postgresql import PostgreSQL

ROOT_MOUNT = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"

MOUNTED: dict[str, tuple[list[str], list[str]]] = {
    "a disk": ([], []),
    "in memory": (["30 22 0:30 / /srv rw - tmpfs none rw,size=64k"], ["/srv is a tmpfs"]),
    "in memory, above": (
        ["30 22 0:30 / /srv/crashes rw - ramfs none rw"],
        ["/srv/crashes is a ramfs"],
    ),
    "a day in memory": (
        ["30 22 0:30 / /srv/crashes/store/20261118 rw - tmpfs none rw"],
        ["/srv/crashes/store/20261118 is a tmpfs"],
    ),
    "beside it": (["30 22 0:30 / /srv/crashes/other rw - tmpfs none rw"], []),
    "a name that begins alike": (["30 22 0:30 / /srv/crashes/st rw - tmpfs none rw"], []),
    "hidden by a disk": (
        ["30 22 0:30 / /srv rw - tmpfs none rw", "31 30 8:2 / /srv rw - xfs /dev/sdb rw"],
        [],
    ),
    "an overlay": (["30 22 0:31 / /srv rw - overlay o rw,lowerdir=/l,upperdir=/u,workdir=/w"], []),
    "a volatile overlay": (
        ["30 22 0:31 / /srv rw - overlay o rw,lowerdir=/l,upperdir=/u,workdir=/w,volatile"],
        ["/srv is an overlay that is mounted volatile"],
    ),
    "with a blank": (
        [r"30 22 0:30 / /srv/crashes/store/20261118/a\040b rw - tmpfs none rw"],
        ["/srv/crashes/store/20261118/a b is a tmpfs"],
    ),
    "with what ends a line elsewhere": (
        ["30 22 0:30 / /srv/crashes/store/20261118/a\u2028b\x85 rw - tmpfs none rw"],
        ["/srv/crashes/store/20261118/a\u2028b\x85 is a tmpfs"],
    ),
    "below it, and of no day": (["30 22 0:30 / /srv/crashes/store/trash rw - tmpfs none rw"], []),
    "not understood": (["30 22 0:30", "", "- - -"], []),
}


@pytest.mark.parametrize("name", MOUNTED)
def test_what_is_mounted_at_or_below_a_store_is_looked_at(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, expected = MOUNTED[name]
    file = tmp_path / "mountinfo"
    file.write_text("\n".join([ROOT_MOUNT, *lines]) + "\n")
    monkeypatch.setattr(mounts, "_MOUNTINFO", file)
    storage = FSPermanentStorage("/srv/crashes/store")
    risks = list(storage.durability_risks())
    assert len(risks) == len(expected)
    for risk, text in zip(risks, expected, strict=True):
        assert risk.startswith(f"fs:///srv/crashes/store: {text}")


def test_a_system_that_does_not_tell_is_not_guessed_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_MOUNTINFO", tmp_path / "missing")
    assert list(FSPermanentStorage(tmp_path).durability_risks()) == []


@pytest.mark.parametrize("to", ["link", "missing"])
@pytest.mark.parametrize("command", ["list", "remove", "check", "copy", "save", "doctor"])
def test_a_link_that_leads_nowhere_is_refused_in_one_line(
    command: str, to: str, tmp_path: Path
) -> None:
    FSPermanentStorage(tmp_path / "source").save_crash(crash_of(contents()))
    (tmp_path / "raw.json").write_text("{}")
    link = tmp_path / "link"
    link.symlink_to(to)
    options: dict[str, list[str | Path]] = {
        "list": ["-s", link],
        "remove": ["-s", link, CRASH_ID],
        "save": ["-d", link, "--raw-crash", tmp_path / "raw.json"],
        "doctor": ["-d", link],
    }
    done = run(command, *options.get(command, ["-s", tmp_path / "source", "-d", link]))
    assert done.exit_code == 4, done.stderr
    said = done.stdout if command == "doctor" else done.stderr
    assert said.count("\n") == 1
    assert "symbolic link" in said or "No such file or directory" in said


def test_a_place_that_cannot_be_looked_at_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    """As below a mount whose server is gone."""
    storage = FSPermanentStorage(tmp_path / ("x" * 300))
    with pytest.raises(StorageError, match="cannot be written to: File name too long"):
        storage.verify_access(write=True)


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory on the system's own file system in memory."""
    directory = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield directory
    shutil.rmtree(directory)


def test_one_line_warns_of_a_directory_in_memory(in_memory: Path, tmp_path: Path) -> None:
    FSPermanentStorage(tmp_path / "source").save_crashes(
        [crash_of(contents(), f"{n:08x}{CRASH_ID[8:]}") for n in range(20)]
    )
    place = in_memory / "not" / "there yet"
    done = run("copy", "-s", tmp_path / "source", "-d", place)
    assert done.exit_code == 0
    assert done.stderr.count("in memory: what is saved there is gone at a restart") == 1
    assert "copied 20" in done.stderr
    assert "in memory" not in run("copy", "-s", place, "-d", tmp_path / "back").stderr
    assert "in memory" not in run("copy", "-s", tmp_path / "back", "-d", place, "--dry-run").stderr
    raw = tmp_path / "raw.json"
    raw.write_text("{}")
    saved = run("save", "-d", place, "--raw-crash", raw)
    assert saved.exit_code == 0
    assert saved.stderr.count("in memory") == 1
    checked = run("doctor", "-d", place)
    assert checked.exit_code == 0
    assert checked.stdout.startswith("warn ")
    assert "in memory" in checked.stdout
    assert run("doctor", "-s", place).stdout.startswith("ok ")


def test_of_several_stores_each_is_asked(in_memory: Path) -> None:
    both = PolyCrashStorage([InMemoryCrashStorage(), FSPermanentStorage(in_memory)])
    [risk] = both.durability_risks()
    assert risk.startswith(f"fs://{in_memory}: ")


# PostgreSQL

Settings = Callable[..., None]


@pytest.fixture
def settings(own_postgresql: PostgreSQL) -> Settings:
    """Change settings of the server, which it takes over while it runs."""

    def change(**values: str) -> None:
        with own_postgresql.connect() as connection:
            for name, value in values.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            connection.execute("SELECT pg_reload_conf()")
        time.sleep(0.3)  # until the others have read it

    return change


def test_a_server_that_does_not_wait_for_its_disk_is_warned_of(
    own_postgresql: PostgreSQL, settings: Settings, tmp_path: Path
) -> None:
    uri = own_postgresql.uri()
    FSPermanentStorage(tmp_path).save_crash(crash_of(contents()))
    assert "warning" not in run("copy", "-s", tmp_path, "-d", uri).stderr
    assert run("doctor", "-d", uri).stdout.startswith("ok ")
    settings(fsync="off", full_page_writes="off")
    done = run("copy", "-s", tmp_path, "-d", uri, "--existing", "overwrite")
    assert done.exit_code == 0
    [warning] = [line for line in done.stderr.splitlines() if "warning" in line]
    assert "the server runs with fsync=off" in warning
    assert "full_page_writes=off" in warning
    checked = run("doctor", "-d", uri).stdout
    assert checked.startswith("warn ")
    assert "fsync=off" in checked


def test_unlogged_partitions_are_warned_of(database: Database) -> None:
    with open_storage(database.uri) as storage:
        storage.save_crash(crash_of(contents()))
        assert list(storage.durability_risks()) == []
        database.run("ALTER TABLE crash_parts_20071022 SET UNLOGGED")
        [risk] = storage.durability_risks()
    assert "a crash of the server empties 1 unlogged partition" in risk
