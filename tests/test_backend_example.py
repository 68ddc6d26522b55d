# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The example of a backend, installed as a stranger's package is: found by its scheme alone."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from crashmover import Kind, open_storage
from crashmover.errors import StorageUnavailable
from crashmover.testing import CRASH_ID
from tests.cli_helpers import (
    Manifest,
    assert_refused,
    manifest,
    put,
    run,
    run_process,
    sample,
    samples,
    snapshot,
    stored,
)
from tests.conftest import BACKEND

CRASHES = samples(12)
MEMORY = Path("/dev/shm")


@pytest.fixture
def installed(backend_site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the package one of this process's."""
    monkeypatch.syspath_prepend(backend_site)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return put(tmp_path / "source", *CRASHES)


def copied(count: int, skipped: int = 0) -> str:
    return f"copied {count}, skipped {skipped}, failed 0;"


# In processes of their own


def test_crashes_go_into_it_and_come_back_to_the_byte(
    tmp_path: Path, source: Path, backend_site: Path
) -> None:
    uri, back = f"sqlite://{tmp_path}/crashes.db", tmp_path / "back"
    for arguments, said in (
        (("-s", source, "-d", uri, "--verify"), copied(12)),
        (("-s", source, "-d", uri), copied(0, skipped=12)),
        (("-s", uri, "-d", back, "--remove-source"), copied(12)),
        (("-s", uri, "-d", back), copied(0)),
    ):
        done = run_process("copy", *arguments, PYTHONPATH=str(backend_site))
        assert (done.returncode, done.stderr.decode()[: len(said)]) == (0, said)
    assert stored(back) == manifest(*CRASHES)


def test_its_own_tests_pass_where_it_is_installed(tmp_path: Path, backend_site: Path) -> None:
    for name in ("pyproject.toml", "test_crashmover_sqlite.py"):
        shutil.copy(BACKEND / name, tmp_path)
    # In memory, where there is such a place: it forces each of many crashes to the disk.
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as directory:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=tmp_path,
            env={"PATH": "", "PYTHONPATH": str(backend_site), "TMPDIR": directory},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


KILLED_WHILE_IT_SAVES = """
import os, signal, sys
from crashmover import Crash, Kind, Part, open_storage

def pieces():
    yield b"MDMP" * 100_000
    os.kill(os.getpid(), signal.SIGKILL)

raw = Part.of_bytes(Kind.RAW_CRASH, b"{}")
with open_storage(sys.argv[1]) as storage:
    storage.save_crash(Crash(sys.argv[2], [raw, Part.of_chunks(Kind.DUMP, pieces)]))
"""


def test_a_save_that_is_killed_leaves_nothing_and_is_in_nobodys_way(
    tmp_path: Path, backend_site: Path, installed: None
) -> None:
    uri = f"sqlite://{tmp_path}/crashes.db"
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_IT_SAVES, uri, CRASH_ID],
        env={"PYTHONPATH": str(backend_site)},
        check=False,
    )
    assert done.returncode == -9
    with open_storage(uri) as storage:
        assert not storage.has_crash(CRASH_ID)
        assert list(storage.new_crashes()) == []
        storage.save_raw_crash({"a": 1}, {"": b"MDMP"}, CRASH_ID)
        assert storage.get_raw_dumps(CRASH_ID) == {"upload_file_minidump": b"MDMP"}


def test_parts_are_shown_in_the_usual_order_in_whatever_order_they_come(
    tmp_path: Path, installed: None
) -> None:
    crash, uri = sample(processed=b"{}"), f"sqlite://{tmp_path}/crashes.db"
    run("copy", "-s", put(tmp_path / "source", crash), "-d", uri)
    with open_storage(uri) as storage:
        assert storage.load_crash(crash.crash_id).parts[0].kind != Kind.RAW_CRASH
    shown = run("get", "-s", uri, crash.crash_id, "--json")
    kinds = [part["kind"] for part in json.loads(shown.stdout)["parts"]]
    assert kinds == ["raw_crash", "dump", "processed_crash"]


# Together with other stores


def everything_in(tmp_path: Path, uri: str) -> Manifest:
    """All that a store has, as it lies in a directory when it is copied into one."""
    done = run("copy", "-s", uri, "-d", tmp_path / "looked-at")
    assert done.exit_code == 0, done.stderr
    found = stored(tmp_path / "looked-at")
    shutil.rmtree(tmp_path / "looked-at")
    return found


def test_it_is_one_of_several_stores_of_any_kind(
    tmp_path: Path, source: Path, installed: None
) -> None:
    uris = [f"sqlite://{tmp_path}/{n}.db" for n in range(3)]
    (tmp_path / "config").write_text(
        f'[storage]\ninner = ["{uris[0]}", "{tmp_path}/fs"]\nall = ["inner", "{uris[1]}"]\n'
    )
    config = ("--config", tmp_path / "config")
    done = run(*config, "copy", "-s", source, "-d", "all", "-d", uris[2])
    assert (done.exit_code, done.stderr.splitlines()[-1][:11]) == (0, "copied 12, ")
    for uri in (*uris, f"{tmp_path}/fs"):
        assert everything_in(tmp_path, uri) == manifest(*CRASHES)
    late = sample(99)
    put(tmp_path / "fs", late)
    found = run(*config, "get", "-s", uris[0], "-s", "inner", late.crash_id, "--raw-crash")
    assert (found.exit_code, found.stdout_bytes) == (0, late.raw)


def test_what_one_of_several_refuses_is_named_and_the_others_have_it(
    tmp_path: Path, source: Path, installed: None
) -> None:
    nowhere, there = f"sqlite://{tmp_path}/not/there.db", f"sqlite://{tmp_path}/there.db"
    done = run("copy", "-s", source, "-d", nowhere, "-d", there)
    assert done.exit_code == 1
    assert "not/there.db" in done.stderr and "there.db: " in done.stderr
    assert everything_in(tmp_path, there) == manifest(*CRASHES)


# What is refused


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("sqlite:./a.db?unmask=027", "unknown option 'unmask'; there are: timeout"),
        ("sqlite:./a.db?timeout=soon", "option timeout: it is a number of seconds"),
        ("sqlite:", "no file is named"),
        ("sqlite:///var/", "no file is named"),
        ("sqlite://host/a.db", "a sqlite URI has no host"),
        ("sqlite://u:CANARY@/a.db", "a sqlite URI has no user"),
        ("sqlite:./a.db?password=CANARY", "unknown option 'password'"),
    ],
)
def test_a_uri_that_it_does_not_understand_is_wrong_usage(
    tmp_path: Path,
    source: Path,
    installed: None,
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    done = run("copy", "-s", source, "-d", uri)
    assert_refused(done, 2, why)
    assert "CANARY" not in done.stderr
    assert snapshot(tmp_path) == before


def test_a_copy_to_itself_is_refused_by_whatever_path(tmp_path: Path, installed: None) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with open_storage(f"sqlite://{tmp_path}/crashes.db") as storage:
        storage.save_raw_crash({}, None, CRASH_ID)
    uris: tuple[str, ...]
    uris = ("-s", f"sqlite://{tmp_path}/crashes.db", "-d", f"sqlite://{tmp_path}/link/crashes.db")
    assert_refused(run("copy", *uris, "--remove-source"), 2, "are the same store")
    os.link(tmp_path / "crashes.db", tmp_path / "second.db")  # which no path tells
    uris = (*uris[:2], "-d", f"sqlite://{tmp_path}/second.db", "--verify")
    assert_refused(run("copy", *uris, "--remove-source"), 2, "the same store")
    with open_storage(uris[1]) as storage:
        assert storage.has_crash(CRASH_ID)
    uris = (*uris[:2], "-d", f"sqlite://{tmp_path}/other.db", "--verify")
    assert run("copy", *uris, "--remove-source").exit_code == 0
    uris = ("-s", uris[3], "-d", str(tmp_path / "tree"), "--verify")
    assert run("copy", *uris, "--remove-source").exit_code == 0


@pytest.mark.parametrize(
    ("name", "why"),
    [("typo.db", "there is no such file"), ("no.db", "file is not a database")],
)
def test_a_source_that_is_none_is_said_at_once_and_stays_as_it_is(
    tmp_path: Path, installed: None, name: str, why: str
) -> None:
    (tmp_path / "no.db").write_bytes(b"not a database" * 100)
    before = snapshot(tmp_path)
    for command in (("list",), ("get", CRASH_ID), ("copy", "-d", "memory:")):
        assert_refused(run(*command, "-s", f"sqlite://{tmp_path}/{name}"), 4, name, why)
    assert snapshot(tmp_path) == before


def test_somebody_elses_database_is_not_touched(tmp_path: Path, installed: None) -> None:
    path = tmp_path / "others.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (a)")
    database.close()
    before = path.read_bytes()
    done = run("list", "-s", f"sqlite://{path}")
    assert_refused(done, 1, "no such table: pieces")
    assert path.read_bytes() == before


def test_a_dry_run_makes_nothing(tmp_path: Path, source: Path, installed: None) -> None:
    before = snapshot(tmp_path)
    done = run("copy", "-s", source, "-d", f"sqlite://{tmp_path}/crashes.db", "--dry-run")
    assert (done.exit_code, "would copy 12" in done.stderr) == (0, True)
    assert snapshot(tmp_path) == before


def test_whoever_waits_too_long_for_others_is_told(tmp_path: Path, installed: None) -> None:
    uri = f"sqlite://{tmp_path}/crashes.db"
    with open_storage(uri) as storage:
        storage.save_raw_crash({}, None, CRASH_ID)
    database = sqlite3.connect(tmp_path / "crashes.db", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    with open_storage(f"{uri}?timeout=0.001") as storage:
        with pytest.raises(StorageUnavailable, match=r"crashes\.db: .*database is locked"):
            storage.remove(CRASH_ID)
        assert storage.has_crash(CRASH_ID)  # readers do not wait
    database.close()
