# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A store that holds something else is never an empty store: every command says so, once."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from crashmover import open_storage
from crashmover.crash import Kind
from tests.cli_helpers import Argument, Sample, put, run, sample, snapshot, stored
from tests.conftest import on_buckets
from tests.servers.buckets import BucketServer

CRASHES = [sample(n, day="261120", depth=digit) for n, digit in enumerate("012345")]
FIRST = CRASHES[0].crash_id


def write(path: Path, data: bytes = b"{}") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def said(*args: Argument) -> tuple[int, str]:
    """Run a command; return its exit code, and what it said on standard error."""
    result = run(*args)
    return result.exit_code, result.stderr


def by_name(root: Path) -> dict[str, str]:
    """Return what the files of a store hold, wherever they lie."""
    return {Path(name).name: digest for name, digest in stored(root).items()}


def antenna(root: Path) -> Path:
    """A tree of Antenna's FSCrashStorage."""
    for crash in CRASHES:
        write(root / "20261120/raw_crash" / f"{crash.crash_id}.json")
        write(root / "20261120/dump_names" / f"{crash.crash_id}.json", b"[]")
        write(root / "20261120/upload_file_minidump" / crash.crash_id, b"MDMP")
    return root


def fetch_data(root: Path) -> Path:
    """What crashstats-tools' fetch-data writes."""
    write(root / "raw_crash" / FIRST)
    write(root / "upload_file_minidump" / FIRST)
    return root


def bucket_on_disk(root: Path) -> Path:
    """What Socorro's fetch_crash_data writes, and a bucket that was synced."""
    write(root / "v1/raw_crash/20261120" / FIRST)
    write(root / "v1/dump_names" / FIRST)
    return root


def parent(root: Path) -> Path:
    put(root / "crashes", *CRASHES)
    return root


def other_files(root: Path) -> Path:
    write(root / "src/main.c")
    return root


def ids_flat(root: Path) -> Path:
    write(root / f"{FIRST}.json")
    return root


def days_without_base(root: Path) -> Path:
    write(root / "20261120" / f"{FIRST}.json")
    return root


def dumps_alone(root: Path) -> Path:
    (root / "20261121/name/0b").mkdir(parents=True)  # a day that was emptied
    (root / "20261120/name/0b").mkdir(parents=True)
    write(root / "20261120/name/c2/aa" / f"{FIRST}.dump")
    return root


def upper_case(root: Path) -> Path:
    write(root / "20261120/name/C2/AA" / f"{FIRST.upper()}.txt")
    return root


def below(*steps: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        return put(root, *CRASHES).joinpath(*steps)

    return make


def with_options(query: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        put(root, *CRASHES)
        return Path(f"{root}?{query}")

    return make


STRANGE = {
    "Antenna": (antenna, "Antenna"),
    "fetch-data": (fetch_data, "fetch-data"),
    "bucket": (bucket_on_disk, "bucket"),
    "parent": (parent, "/crashes?"),
    "files": (other_files, "src"),
    "flat": (ids_flat, FIRST),
    "days": (days_without_base, FIRST),
    "dumps": (dumps_alone, "a dump without its raw crash"),
    "upper": (upper_case, FIRST.upper()),
    "day": (below("20261120"), "is the store"),
    "name": (below("20261120", "name"), "is the store"),
    "radix": (below("20261120", "name", "0b"), "is the store"),
    "base": (with_options("name_branch_base=date"), "?name_branch_base=name"),
    "suffix": (with_options("json_file_suffix=.raw"), "json_file_suffix"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_what_is_no_store_is_not_an_empty_store(case: str, tmp_path: Path) -> None:
    make, phrase = STRANGE[case]
    there = make(tmp_path / "there")
    before = snapshot(tmp_path / "there")
    empty = tmp_path / "empty"
    empty.mkdir()
    runs: dict[str, list[Argument]] = {
        "list": ["list", "-s", there],
        "list --json": ["--quiet", "list", "-s", there, "--json", "--since", "2026-11-01"],
        "copy": ["copy", "-s", there, "-d", tmp_path / "copy"],
        "quiet": ["--quiet", "copy", "-s", there, "-d", tmp_path / "copy", "--json"],
        "by id": ["copy", "-s", there, "-d", tmp_path / "copy", FIRST],
        "check": ["check", "-s", there, "-d", empty],
        "remove": ["remove", "-s", there, "--since", "2000-01-01", "--until", "0d", "--yes"],
        "publish": [
            *("queue-publish", "-q", f"sqlite://{tmp_path}/q.db", "--create"),
            *("-s", there, "--since", "2000-01-01"),
        ],
    }
    for name, args in runs.items():
        result = run(*args)
        said = [line for line in result.stderr.splitlines() if "no crash is here" in line]
        assert (result.exit_code, len(said)) == (1, 1), (name, result.stderr)
        assert phrase in said[0], name
    result = run("get", "-s", there, FIRST)
    assert result.exit_code == 3
    assert "no crash is here" in result.stderr
    assert snapshot(tmp_path / "there") == before
    for option in ("-s", "-d"):  # which writes for a moment
        [line] = run("doctor", option, there).stdout.splitlines()
        assert line.startswith("warn")
        assert phrase in line


def test_one_of_several_stores_that_holds_something_else_is_named(tmp_path: Path) -> None:
    strange = antenna(tmp_path / "strange")
    good = put(tmp_path / "good", *CRASHES)
    (empty := tmp_path / "empty").mkdir()
    stores: list[Argument] = ["-s", good, "-s", strange, "-s", empty]
    commands: list[list[Argument]] = [["list"], ["copy", "-d", tmp_path / "copy"]]
    for args in commands:
        code, stderr = said(*args, *stores)
        assert (code, stderr.count("no crash is here")) == (1, 1)
        assert f"{strange}: no crash is here" in stderr
    assert said("--quiet", "list", "-s", good, "-s", empty) == (0, "")


def test_a_save_that_goes_on_is_no_news(tmp_path: Path) -> None:
    store = dumps_alone(tmp_path / "there")
    write(store / "20261120/name/c2/aa" / f".{FIRST}.json.tmp")
    assert said("--quiet", "list", "-s", store) == (0, "")


def a_mount(root: Path) -> None:
    (root / "lost+found").mkdir(parents=True)
    (root / ".snapshot").mkdir()
    write(root / "README")


def other_days(root: Path) -> None:
    put(root, sample(1, day="200101"))
    write(root / "lost+found/x")
    write(root / "notes.txt")


def emptied(root: Path) -> None:
    (root / "20261120/name/0b").mkdir(parents=True)


@pytest.mark.parametrize("make", [Path.mkdir, a_mount, other_days, emptied])
def test_an_honest_empty_store_is_no_news(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(there := tmp_path / "there")
    since = ("--since", "2026-11-01")
    assert said("--quiet", "copy", "-s", there, "-d", tmp_path / "copy", *since) == (0, "")
    assert said("--quiet", "list", "-s", there, *since) == (0, "")
    (tmp_path / "empty").mkdir()
    assert run("check", "-s", there, "-d", tmp_path / "empty", *since).exit_code == 0
    assert run("doctor", "-s", there, "-d", tmp_path / "new").stdout.count("warn") == 0
    result = run("--quiet", "copy", "-s", there, "-d", tmp_path / "copy", *since, "--expect-some")
    assert result.exit_code == 1
    assert "--expect-some" in result.stderr


def test_stray_files_beside_crashes_are_no_news(tmp_path: Path) -> None:
    other_days(store := put(tmp_path / "there", *CRASHES))
    assert said("--quiet", "copy", "-s", store, "-d", tmp_path / "copy") == (0, "")


@pytest.mark.parametrize(
    ("old", "new"), [("261120", "261399"), ("261120", "000000"), ("-", "-"), ("c2", "C2")]
)
def test_ids_that_a_listing_passes_over_are_counted_and_named(
    old: str, new: str, tmp_path: Path
) -> None:
    store = put(tmp_path / "there", CRASHES[2])
    path = CRASHES[2].path(store)
    other = path.name.replace(old, new)
    place = path.parent if old != new else path.parent.parent  # where it does not belong
    write(place / other)
    result = run("--quiet", "copy", "-s", store, "-d", tmp_path / "copy")
    assert result.exit_code == 1
    assert f"passed over what looks like crashes: {other[:36]}" in result.stderr
    assert "copied 1" in result.stderr
    assert run("list", "-s", store).exit_code == 1


def test_the_directory_of_an_impossible_day_is_named_in_its_range(tmp_path: Path) -> None:
    store = put(tmp_path / "there", CRASHES[2])
    (store / "20250229/name").mkdir(parents=True)
    assert "20250229" in run("list", "-s", store, "--since", "2025-01-01").stderr
    assert run("list", "-s", store, "--since", "2025-03-01").exit_code == 0


@pytest.mark.parametrize("digit", "56789")
def test_a_tree_that_files_digits_5_to_9_at_their_depth_is_read(digit: str, tmp_path: Path) -> None:
    crash = sample(1, day="261120", depth=digit)
    store = put(tmp_path / "there", crash)
    assert len(crash.path(store).relative_to(store).parts) == 3 + int(digit)
    assert run("list", "-s", store).stdout.split() == [crash.crash_id]
    assert run("copy", "-s", store, "-d", tmp_path / "copy").exit_code == 0
    assert by_name(tmp_path / "copy") == by_name(put(tmp_path / "expected", crash))
    assert list((tmp_path / "copy/20261120/name/0b/ba").glob("*.json"))  # as ever
    assert run("remove", "-s", store, crash.crash_id).exit_code == 0
    assert run("list", "-s", store).stdout == ""
    assert not list(store.rglob("*.json"))


# The collectors of 2013 to 2017


def collectors_tree(root: Path, crashes: list[Sample]) -> Path:
    """As FSLegacyDatedRadixTreeStorage writes it: a link each way."""
    put(root, *crashes)
    for crash in crashes:
        leaf = crash.path(root).parent
        minute = root / "20261120/date/01/37_10"
        minute.mkdir(parents=True, exist_ok=True)
        up = "../" * len(leaf.relative_to(root / "20261120").parts)
        (leaf / crash.crash_id).symlink_to(f"{up}date/01/37_10")
        (minute / crash.crash_id).symlink_to(f"../../../{leaf.relative_to(root / '20261120')}")
    return root


@pytest.mark.parametrize("how", ["days", "ids", "removed by days"])
def test_crashes_beside_a_collectors_link_are_read_and_removed(how: str, tmp_path: Path) -> None:
    store = collectors_tree(tmp_path / "there", CRASHES)
    ids = sorted(crash.crash_id for crash in CRASHES)
    listed = run("list", "-s", store)
    assert (listed.exit_code, sorted(listed.stdout.split())) == (0, ids)
    named = ids if how == "ids" else []
    options = () if how == "removed by days" else ("--remove-source",)
    copied = run("copy", "-s", store, "-d", tmp_path / "copy", "--verify", *options, *named)
    assert copied.stderr.startswith("copied 6, skipped 0, "), copied.stderr
    if how == "removed by days":
        days = ("--since", "2026-11-20", "--until", "2026-11-20", "--yes")
        assert run("remove", "-s", store, *days).exit_code == 0
    assert by_name(tmp_path / "copy") == by_name(put(tmp_path / "expected", *CRASHES))
    assert not [file for file in store.rglob("*") if file.is_file() and not file.is_symlink()]
    links = [path for path in store.rglob("*") if path.is_symlink()]
    assert len(links) == 12  # they are the collector's
    assert said("list", "-s", store) == (0, "listed 0\n")


def test_any_other_link_in_the_place_of_a_directory_is_still_refused(tmp_path: Path) -> None:
    store = put(tmp_path / "there", *CRASHES)
    leaf = CRASHES[2].path(store).parent
    (leaf / CRASHES[2].crash_id).symlink_to("/etc")
    result = run("list", "-s", store)
    assert result.exit_code == 4
    assert "symbolic link" in result.stderr


# Buckets


@on_buckets("s3_signed", "fake_gcs")
def test_a_removal_says_that_a_bucket_has_ids_in_upper_case(bucket_server: BucketServer) -> None:
    bucket = bucket_server.new_bucket()
    key = f"v1/raw_crash/20261120/{FIRST.upper()}"
    bucket_server.put_object(bucket, key, b"{}")
    uri = bucket_server.uri(bucket)
    code, stderr = said("remove", "-s", uri, "--since", "7d", "--until", "0d", "--yes")
    assert code == 1
    assert "(upper case)" in stderr
    assert "(upper case)" in run("doctor", "-s", uri).stdout


@on_buckets("s3_signed", "fake_gcs")
@pytest.mark.parametrize(
    ("key", "prefix", "phrase"),
    [
        (f"crashes/v1/raw_crash/20261120/{FIRST}", "", "/crashes?"),
        (f"a/b/v2/raw_crash/0bb/20261120/{FIRST}", "a", "/a/b?"),
        (f"crashes/v1/raw_crash/20261120/{FIRST}", "crashes/v1", "/crashes?"),
        (f"crashes/v1/raw_crash/20261120/{FIRST}", "crashes/v1/raw_crash", "/crashes?"),
        (f"raw_crash/{FIRST}", "", "other keys"),
        ("logs/2026/11/20.txt", "", "other keys: logs/"),
    ],
)
def test_a_bucket_with_other_keys_is_not_empty(
    key: str, prefix: str, phrase: str, bucket_server: BucketServer, tmp_path: Path
) -> None:
    bucket = bucket_server.new_bucket()
    bucket_server.put_object(bucket, key, b"{}")
    uri = bucket_server.uri(bucket, prefix)
    for args in (["list"], ["--quiet", "copy", "-d", tmp_path / "copy"], ["list", "--since", "3d"]):
        result = run(*args, "-s", uri)
        assert result.exit_code == 1
        assert result.stderr.count("no crash is here") == 1
        assert phrase in result.stderr
    assert "no crash is here" in run("doctor", "-s", uri).stdout


@on_buckets("s3_signed", "fake_gcs")
def test_a_bucket_with_crashes_of_other_days_or_none_is_no_news(
    bucket_server: BucketServer, tmp_path: Path
) -> None:
    uri = bucket_server.uri(bucket_server.new_bucket())
    assert said("--quiet", "list", "-s", uri) == (0, "")
    store = put(tmp_path / "there", *CRASHES)
    assert run("copy", "-s", store, "-d", uri).exit_code == 0
    assert said("--quiet", "list", "-s", uri, "--since", "2026-11-21") == (0, "")
    assert said("--quiet", "list", "-s", uri, "--kind", "processed") == (0, "")


@on_buckets("s3_signed", "fake_gcs")
@pytest.mark.parametrize(
    "key",
    [
        f"v1/raw_crash/20261120/{FIRST[:-6]}261399",
        f"v1/raw_crash/20261120/{FIRST.upper()}",
        f"v1/raw_crash/20261121/{FIRST}",
        f"v1/raw_crash/20250229/{FIRST[:-6]}250229",
    ],
)
def test_keys_that_a_listing_passes_over_are_named(
    key: str, bucket_server: BucketServer, tmp_path: Path
) -> None:
    bucket = bucket_server.new_bucket()
    bucket_server.put_object(bucket, key, b"{}")
    result = run("--quiet", "copy", "-s", bucket_server.uri(bucket), "-d", tmp_path / "copy")
    assert result.exit_code == 1
    assert result.stderr.count("passed over what looks like crashes") == 1


# Selections


@pytest.mark.parametrize("command", ["list", "copy", "check", "queue-publish"])
def test_an_empty_selection_fails_where_some_was_expected(command: str, tmp_path: Path) -> None:
    store = put(tmp_path / "there", *CRASHES)
    (tmp_path / "other").mkdir()
    more = {
        "list": (),
        "copy": ("-d", tmp_path / "copy"),
        "check": ("-d", tmp_path / "other"),
        "queue-publish": ("-q", f"sqlite://{tmp_path}/q.db", "--create"),
    }[command]
    args = (command, "-s", store, *more)
    assert run(*args, "--since", "2026-11-21").exit_code == 0
    assert run(*args, "--since", "2026-11-21", "--expect-some").exit_code == 1
    assert run(*args, "--since", "2026-11-21", env={"CRASHMOVER_EXPECT_SOME": "1"}).exit_code == 1


def test_what_is_skipped_was_there(tmp_path: Path) -> None:
    store = put(tmp_path / "there", *CRASHES)
    for _ in range(2):
        assert run("copy", "-s", store, "-d", tmp_path / "copy", "--expect-some").exit_code == 0


def test_an_empty_queue_fails_where_some_was_expected(tmp_path: Path) -> None:
    queue = f"sqlite://{tmp_path}/q.db"
    assert run("queue-publish", "-q", queue, "--create").exit_code == 0
    store = put(tmp_path / "there", *CRASHES)
    args = ("copy", "-s", store, "-d", tmp_path / "copy", "-q", queue, "--wait", "0")
    assert run(*args).exit_code == 0
    assert run(*args, "--expect-some").exit_code == 1


def test_a_range_that_begins_in_the_future_is_refused(tmp_path: Path) -> None:
    store = put(tmp_path / "there", *CRASHES)
    today = dt.datetime.now(dt.UTC).date()
    for days, code in ((0, 0), (1, 0), (3, 2)):
        since = str(today + dt.timedelta(days=days))
        assert run("list", "-s", store, "--since", since).exit_code == code


# For who writes Python


def test_a_kind_may_be_its_value_and_a_day_is_no_string(tmp_path: Path) -> None:
    crash = sample(1, processed=json.dumps({}).encode())
    for where in (str(put(tmp_path / "there", crash)), "memory:"):
        with open_storage(where) as storage:
            raw = list(storage.new_crashes(kind="processed_crash"))  # type: ignore[arg-type]
            assert raw == list(storage.new_crashes(kind=Kind.PROCESSED_CRASH))
            with pytest.raises(TypeError, match=r"since is a datetime\.date"):
                storage.new_crashes(since="2026-11-01")  # type: ignore[arg-type]
