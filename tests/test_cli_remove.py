# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover remove``: exactly what was named is gone, and said to be; all else is as it was."""

import json
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from crashmover.errors import StorageUnavailable
from crashmover.external.fs.crashstorage import FSPermanentStorage
from tests.cli_helpers import (
    Argument,
    Sample,
    assert_refused,
    by_crash_id,
    command_line,
    environment,
    is_harmless,
    make_id,
    manifest,
    put,
    run,
    run_on_terminal,
    sample,
    samples,
    snapshot,
    start,
    stored,
)
from tests.conftest import new_uri

MONDAY, TUESDAY, SUNDAY = "261116", "261117", "261122"
CRASHES = [
    sample(1, day="261115"),
    sample(2, day=MONDAY),
    sample(3, day=MONDAY, processed=b'{"a": 1}'),
    sample(4, day=TUESDAY, depth="0", dumps={}, processed=b"{}"),
    sample(5, day=SUNDAY),
    sample(6, day="261123"),
]
IDS = [crash.crash_id for crash in CRASHES]
ABSENT = make_id(99)
WEEK: list[Argument] = ["--since", "2026-11-16", "--until", "2026-11-22"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return put(tmp_path / "store", *CRASHES)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A store with more crashes than are removed without a question."""
    return put(tmp_path / "large", *(sample(n) for n in range(6)))


# What is named


def test_what_is_named_is_removed_and_it_is_said_what_there_was(store: Path) -> None:
    result = run("remove", "-s", store, IDS[2], f"bp-{IDS[0].upper()}")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{IDS[2]}  # raw_crash, upload_file_minidump, processed_crash",
        f"{IDS[0]}  # raw_crash, upload_file_minidump",
    ]
    assert result.stderr == "removed 2, missing 0, failed 0\n"
    assert stored(store) == manifest(CRASHES[1], *CRASHES[3:])


def test_what_it_prints_names_the_same_crashes_again(store: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text(run("remove", "-s", store, *IDS[1:3], "--dry-run").stdout)
    result = run("remove", "-s", store, "--ids-from", ids)
    assert (result.exit_code, result.stderr) == (0, "removed 2, missing 0, failed 0\n")
    assert stored(store) == manifest(CRASHES[0], *CRASHES[3:])


def test_a_crash_that_is_not_there_is_named_and_the_others_go(store: Path) -> None:
    result = run("remove", "-s", store, IDS[0], ABSENT)
    assert result.exit_code == 1
    assert result.stdout.split()[0] == IDS[0]
    assert result.stderr.splitlines() == [
        f"{ABSENT}: missing: fs://{store}: no such crash",
        "removed 1, missing 1, failed 0",
    ]
    assert stored(store) == manifest(*CRASHES[1:])


def test_there_is_an_object_for_each_crash_as_json(store: Path) -> None:
    result = run("remove", "-s", store, IDS[3], ABSENT, "--json")
    assert result.exit_code == 1
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {
            "crash_id": IDS[3],
            "status": "removed",
            "parts": ["raw_crash", "processed_crash"],
            "error": None,
        },
        {
            "crash_id": ABSENT,
            "status": "missing",
            "error": f"fs://{store}: no such crash",
        },
    ]


def test_crash_ids_come_from_standard_input(store: Path) -> None:
    typed = "\n".join(["# of yesterday", *IDS[:2], "", IDS[0]])
    result = run("remove", "-s", store, "--ids-from", "-", stdin=typed.encode())
    assert result.stderr == "removed 2, missing 0, failed 0\n"
    assert stored(store) == manifest(*CRASHES[2:])


@pytest.mark.parametrize(
    "line", ["nonsense", f"{IDS[1]} {IDS[2]}", "../..", "\x1b[2J", "x" * 20_000, "0" * 36, "\0"]
)
def test_a_file_with_one_bad_line_removes_nothing(store: Path, tmp_path: Path, line: str) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text(f"{IDS[0]}\n{line}\n")
    before = snapshot(store)
    result = run("remove", "-s", store, "--ids-from", ids)
    assert_refused(result, 2, "--ids-from", "line 2")
    assert is_harmless(result.stderr)
    assert snapshot(store) == before


# Days


def test_the_days_of_a_range_are_removed_the_first_and_the_last_too(store: Path) -> None:
    result = run("remove", "-s", store, *WEEK)
    assert (result.exit_code, result.stdout.split()) == (0, IDS[1:5])
    assert result.stderr == "removed 4, missing 0, failed 0\n"
    assert stored(store) == manifest(CRASHES[0], CRASHES[5])
    again = run("remove", "-s", store, *WEEK)
    assert (again.exit_code, again.stdout) == (0, "")
    assert again.stderr == "removed 0, missing 0, failed 0\n"


@pytest.mark.parametrize("named", [WEEK, IDS[1:5]], ids=["days", "ids"])
def test_a_dry_run_names_the_same_and_changes_nothing(store: Path, named: list[Argument]) -> None:
    before = snapshot(store)
    tried = run("remove", "-s", store, *named, "--dry-run", "--json")
    assert (tried.exit_code, tried.stderr) == (0, "would remove 4, missing 0, failed 0\n")
    assert snapshot(store) == before
    done = run("remove", "-s", store, *named, "--json")
    assert tried.stdout.replace("would-remove", "removed") == done.stdout
    assert list(by_crash_id(tried.stdout.splitlines())) == IDS[1:5]


# Refusals


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        ([], "no crashes"),
        (["--yes"], "no crashes"),
        (["--dry-run"], "no crashes"),
        (["--since", "7d"], "--until is missing"),
        (["--until", "today", "--yes"], "--since is missing"),
        (["--since", "2026-11-17", "--until", "2026-11-16"], "is after"),
        (["--since", "lately", "--until", "today"], "is no day"),
        ([*WEEK, IDS[0]], "either crash ids or a range"),
        ([*WEEK, "--ids-from", "-"], "either crash ids or a range"),
        (["--since", "7d", IDS[0]], "either crash ids or a range"),
        (["--ids-from", "nosuch.txt"], "nosuch.txt"),
        (["all"], "not a crash id"),
        (["*"], "not a crash id"),
    ],
)
def test_what_is_not_understood_removes_nothing(
    store: Path, args: list[Argument], phrase: str
) -> None:
    before = snapshot(store)
    assert_refused(run("remove", "-s", store, *args), 2, phrase)
    assert snapshot(store) == before


def test_a_store_must_be_named_and_be_there(store: Path, tmp_path: Path) -> None:
    assert_refused(run("remove", IDS[0]), 2, "-s")
    absent = tmp_path / "absent"
    for args in ([IDS[0]], WEEK, [*WEEK, "--yes"], [*WEEK, "--dry-run"]):
        assert_refused(run("remove", "-s", absent, *args), 4, "No such file or directory")
        both = run("remove", "-s", store, "-s", absent, *args)
        assert_refused(both, 4, "No such file or directory")
    assert stored(store) == manifest(*CRASHES)
    assert not absent.exists()


# The question


def test_more_than_a_handful_needs_yes_where_nobody_can_be_asked(
    large: Path, tmp_path: Path
) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(make_id(n) for n in range(6)))
    days: list[Argument] = ["--since", "2026-11-20", "--until", "2026-11-21"]
    before = snapshot(large)
    of_days = "6 crashes of 2026-11-20 to 2026-11-21"
    for args, what in ((days, of_days), (["--ids-from", ids], "6 crashes")):
        result = run("remove", "-s", large, *args)
        assert_refused(result, 2, f"would remove {what} from fs://{large}", "--yes", "--dry-run")
    assert snapshot(large) == before
    result = run("remove", "-s", large, *days, "--yes")
    assert (result.exit_code, result.stderr) == (0, "removed 6, missing 0, failed 0\n")
    assert stored(large) == {}


@pytest.mark.parametrize(("answer", "is_yes"), [("y", True), ("no", False), ("", False)])
def test_on_a_terminal_it_asks(large: Path, answer: str, is_yes: bool) -> None:
    days = ("--since", "2026-11-20", "--until", "2026-11-20")
    before = stored(large)
    code, shown = run_on_terminal("remove", "-s", large, *days, typed=f"{answer}\n".encode())
    question = f"Remove 6 crashes of 2026-11-20 from fs://{large}? [y/N] "
    assert question.encode() in shown
    assert code == (0 if is_yes else 2)
    assert (b"nothing was removed" in shown) != is_yes
    assert stored(large) == ({} if is_yes else before)


def test_on_a_terminal_ids_that_are_typed_are_not_taken_for_an_answer(large: Path) -> None:
    ids = "\n".join([*(make_id(n) for n in range(6)), "\x04y\n"])
    args = ("remove", "-s", large, "--ids-from", "-")
    code, shown = run_on_terminal(*args, typed=ids.encode())
    assert code == 2
    assert b"it needs --yes" in shown
    assert len(stored(large)) == 12


def test_a_store_from_the_environment_is_named_in_the_question(large: Path) -> None:
    ids = [make_id(n) for n in range(6)]
    result = run("remove", *ids, env={"CRASHMOVER_SOURCE": str(large)})
    assert_refused(result, 2, f"6 crashes from fs://{large}")


# Other stores, and several


Server = Callable[[], str]


@pytest.fixture(params=["s3_strict", "fake_gcs", "postgresql"])
def uri(request: pytest.FixtureRequest) -> str:
    return new_uri(request, request.param)


def test_other_stores_say_the_same(uri: str, store: Path) -> None:
    assert run("copy", "-s", store, "-d", uri).exit_code == 0
    for args in (
        [*WEEK, "--dry-run"],
        [*IDS[:2], "--dry-run"],
        [IDS[2], ABSENT, "--json"],
        WEEK,
        [IDS[0]],
        WEEK,
    ):
        of_server, of_directory = (run("remove", "-s", each, *args) for each in (uri, store))
        assert of_server.exit_code == of_directory.exit_code
        if "--json" not in args:
            assert of_server.stdout == of_directory.stdout
            assert of_server.stderr == of_directory.stderr
        left = run("list", "-s", uri).stdout
        assert left == run("list", "-s", store).stdout
    assert left.split() == IDS[5:]


def test_from_several_stores_it_is_removed_everywhere(uri: str, store: Path) -> None:
    assert run("copy", "-s", store, "-d", uri, *IDS[1:3]).exit_code == 0
    stores: list[Argument] = ["-s", uri, "-s", store]
    result = run("remove", *stores, *WEEK)
    assert (result.exit_code, result.stdout.split()) == (0, IDS[1:5])
    assert run("list", "-s", uri).stdout == ""
    assert stored(store) == manifest(CRASHES[0], CRASHES[5])
    assert run("remove", *stores, IDS[0]).exit_code == 0
    assert run("remove", *stores, IDS[0]).exit_code == 1


# What goes wrong


def refuse(monkeypatch: pytest.MonkeyPatch, crash: Sample) -> None:
    """Let the store refuse to remove a crash."""
    unlink = FSPermanentStorage.remove_crashes

    def remove_crashes(self: FSPermanentStorage, crash_ids: list[str]) -> list[Exception | None]:
        results = unlink(self, [i for i in crash_ids if i != crash.crash_id])
        results.insert(crash_ids.index(crash.crash_id), OSError("\x1b[2Jbusy"))
        return results

    monkeypatch.setattr(FSPermanentStorage, "remove_crashes", remove_crashes)


def test_a_crash_that_cannot_be_removed_is_named_and_the_others_go(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, CRASHES[1])
    result = run("remove", "-s", store, *IDS[:3], "--json")
    assert result.exit_code == 1
    outcomes = by_crash_id(result.stdout.splitlines())
    assert [each["status"] for each in outcomes.values()] == ["removed", "failed", "removed"]
    assert result.stderr.splitlines() == [
        f"{IDS[1]}: failed: OSError: \\x1b[2Jbusy",
        "removed 2, missing 0, failed 1",
    ]
    assert stored(store) == manifest(CRASHES[1], *CRASHES[3:])


def test_days_that_cannot_be_looked_into_are_said_and_the_others_go(
    store: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (store / "20261118").symlink_to(tmp_path / "elsewhere")
    why = f"crashmover: fs://{store}: cannot be listed: 20261118"
    assert_refused(run("remove", "-s", store, *WEEK), 4, why)  # nobody knows how many they are
    assert len(stored(store)) == len(manifest(*CRASHES))
    result = run("remove", "-s", store, *WEEK, "--yes")
    assert (result.exit_code, result.stdout.split()) == (4, IDS[1:5])
    error, summary = result.stderr.splitlines()
    assert error.startswith(why)
    assert summary == "removed 4, missing 0, failed 0"


def test_a_store_that_goes_down_ends_it_after_what_is_done(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(self: FSPermanentStorage, *_args: object, **_options: object) -> None:
        raise StorageUnavailable("stale file handle", uri=self.uri)

    remove_crashes = FSPermanentStorage.remove_crashes

    def and_then(self: FSPermanentStorage, crash_ids: list[str]) -> list[Exception | None]:
        results = remove_crashes(self, crash_ids[:1])
        monkeypatch.setattr(FSPermanentStorage, "verify_access", down)
        monkeypatch.setattr(FSPermanentStorage, "remove", down)
        return results + [StorageUnavailable("stale file handle", uri=self.uri)] * 2

    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    monkeypatch.setattr(FSPermanentStorage, "remove_crashes", and_then)
    result = run("remove", "-s", store, *IDS[:3])
    assert (result.exit_code, result.stdout.split()[0]) == (4, IDS[0])
    assert result.stderr.splitlines() == [
        *(f"{i}: failed: fs://{store}: stale file handle" for i in IDS[1:3]),
        f"crashmover: fs://{store}: stale file handle",
        "removed 1, missing 0, failed 2",
    ]
    assert stored(store) == manifest(*CRASHES[1:])


def test_a_signal_stops_it_and_it_says_what_is_gone(tmp_path: Path) -> None:
    crashes = samples(400)
    store = put(tmp_path / "store", *crashes)
    days = ("--since", "2026-11-01", "--until", "2026-11-30", "--yes")
    with start("remove", "-s", store, *days) as process:
        assert process.stdout and process.stderr
        first = process.stdout.readline()
        process.terminate()
        rest, errors = process.communicate(timeout=60)
    gone = (first + rest).decode().split()
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.decode() == f"removed {len(gone):,}, missing 0, failed 0\n"
    assert 0 < len(gone) < len(crashes)
    assert stored(store) == manifest(*(c for c in crashes if c.crash_id not in gone))


@pytest.mark.parametrize("days", [[], ["--since", "2026-11-01", "--until", "2026-11-30"]])
def test_where_nobody_reads_the_ids_what_is_gone_is_said_elsewhere(
    tmp_path: Path, days: list[str]
) -> None:
    crashes = [sample(n) for n in range(20)]
    store = put(tmp_path / "store", *crashes)
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"{crash.crash_id}\n" for crash in crashes))
    chosen = days or ["--ids-from", str(ids)]
    command = shlex.join(command_line("remove", "-s", store, "--yes", *chosen))
    done = subprocess.run(
        ["sh", "-c", f"{command} > /dev/full"], capture_output=True, env=environment(), timeout=60
    )
    said = done.stderr.decode().splitlines()
    gone = {crash.crash_id for crash in crashes if not crash.path(store).exists()}
    assert done.returncode == 1 and gone
    assert {line.partition(":")[0] for line in said if line.endswith(": removed")} == gone
    assert f"removed {len(gone)}, missing 0, failed 0" in said
