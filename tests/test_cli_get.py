# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover get``: parts of a crash, written; what is wrong with a call of it, or with a store.
The store is only read."""

import gzip
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.cli_helpers import (
    MAIN_DUMP,
    TIMEOUT,
    Argument,
    Sample,
    assert_refused,
    command_line,
    environment,
    put,
    run,
    run_on_terminal,
    run_process,
    sample,
    snapshot,
    start,
)

PROTECTED = {
    "url": "https://example.com/secret",
    "email": "secret@example.com",
    "user_id": "secret",
    "exploitability": "secret",
    "memory_info": {"total": "secret"},
    "json_dump": {"sensitive": "secret", "crash_info": {"type": "SIGSEGV"}},
    "upload_file_minidump_flash1": {"json_dump": {"sensitive": "secret"}},
    "upload_file_minidump_flash2": {"json_dump": None},
    "upload_file_minidump_browser": {"json_dump": {"sensitive": "secret"}},
    "signature": "f",
}
CRASH = sample(
    1,
    URL="https://example.com/secret",
    Email="secret@example.com",
    BuildID="20261112093412",
    dumps={MAIN_DUMP: b"MDMP\x00\xff" + b"x" * 1500, "memory_report": gzip.compress(b"{}")},
    processed=json.dumps(PROTECTED, indent=7).encode(),
)
BARE = sample(2, dumps={})
"""A crash with nothing but its raw crash."""
BIG = sample(3, dumps={MAIN_DUMP: b"MDMP" * 300_000}, pad="x" * 1_200_000)
"""A crash with more of everything than a pipe holds."""
ABSENT = sample(4)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a crash of every kind of part, and one that has nearly none."""
    return put(tmp_path / "store", CRASH, BARE)


def get(store: Path, crash: Sample, *args: Argument) -> tuple[int, bytes]:
    """Run the command; return its exit code and standard output."""
    result = run("get", "-s", store, crash.crash_id, *args)
    return result.exit_code, result.stdout_bytes


# What is written

PARTS: dict[str, tuple[list[str], bytes | None]] = {
    "the raw crash": (["--raw-crash"], CRASH.raw),
    "the main dump by no name": (["--dump", ""], CRASH.dumps[MAIN_DUMP]),
    "the main dump by its bucket's name": (["--dump", "dump"], CRASH.dumps[MAIN_DUMP]),
    "the main dump by its name": (["--dump", MAIN_DUMP], CRASH.dumps[MAIN_DUMP]),
    "another dump": (["--dump", "memory_report"], CRASH.dumps["memory_report"]),
    "the processed crash": (["--processed-crash", "--unredacted"], CRASH.processed),
}


@pytest.mark.parametrize(("args", "stored"), PARTS.values(), ids=PARTS)
def test_a_part_is_written_as_it_is_stored(store: Path, args: list[str], stored: bytes) -> None:
    assert get(store, CRASH, *args) == (0, stored)


@pytest.mark.parametrize(("args", "stored"), PARTS.values(), ids=PARTS)
def test_with_o_a_part_goes_to_that_file_and_nowhere_else(
    store: Path, tmp_path: Path, args: list[str], stored: bytes
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert get(store, CRASH, *args, "-o", out / "part") == (0, b"")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {"part": stored}


def test_a_processed_crash_is_written_without_what_is_protected(store: Path) -> None:
    exit_code, written = get(store, CRASH, "--processed-crash")
    assert exit_code == 0
    assert json.loads(written) == {
        "signature": "f",
        "json_dump": {"crash_info": {"type": "SIGSEGV"}},
        "upload_file_minidump_flash1": {"json_dump": {}},
        "upload_file_minidump_flash2": {"json_dump": None},
        "upload_file_minidump_browser": {"json_dump": {}},
    }


@pytest.mark.parametrize("unredacted", [False, True])
def test_all_writes_every_part_into_a_directory(
    store: Path, tmp_path: Path, unredacted: bool
) -> None:
    out = tmp_path / "made" / "for" / "it"
    args = ["--unredacted"] if unredacted else []
    assert get(store, CRASH, "--all", *args, "-o", out) == (0, b"")
    written = {path.name: path.read_bytes() for path in out.iterdir()}
    processed = written.pop(f"{CRASH.crash_id}.processed_crash.json")
    assert written == {
        f"{CRASH.crash_id}.raw_crash.json": CRASH.raw,
        f"{CRASH.crash_id}.{MAIN_DUMP}.dump": CRASH.dumps[MAIN_DUMP],
        f"{CRASH.crash_id}.memory_report.dump": CRASH.dumps["memory_report"],
    }
    assert (processed == CRASH.processed) is unredacted
    assert (b"secret" in processed) is unredacted


def test_all_without_o_makes_a_directory_named_by_the_crash(store: Path, tmp_path: Path) -> None:
    ended = run_process("get", "-s", store, BARE.crash_id, "--all", cwd=tmp_path)
    assert ended.returncode == 0
    out = tmp_path / BARE.crash_id / f"{BARE.crash_id}.raw_crash.json"
    assert out.read_bytes() == BARE.raw


def test_a_raw_crash_that_is_not_json_is_written_byte_for_byte(tmp_path: Path) -> None:
    crash = Sample(sample().crash_id, b"\xff{not\r\njson\x00")
    assert get(put(tmp_path / "store", crash), crash, "--raw-crash") == (0, crash.raw)


@pytest.mark.parametrize(
    "typed",
    [
        f"bp-{CRASH.crash_id}",
        f"\t{CRASH.crash_id.upper()} ",
        f"https://crash-stats.mozilla.org/report/index/bp-{CRASH.crash_id}",
    ],
)
def test_a_crash_id_may_be_given_as_people_paste_it(store: Path, typed: str) -> None:
    assert run("get", "-s", store, "--raw-crash", typed).stdout_bytes == CRASH.raw


# Where to


def test_a_file_that_is_there_is_replaced_as_a_whole(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"x" * 10_000)
    assert get(store, CRASH, "--raw-crash", "-o", out) == (0, b"")
    assert out.read_bytes() == CRASH.raw


def test_a_link_goes_on_pointing_to_the_file_that_is_written(store: Path, tmp_path: Path) -> None:
    link, out = tmp_path / "link", tmp_path / "out"
    link.symlink_to(out)
    assert get(store, CRASH, "--raw-crash", "-o", link) == (0, b"")
    assert link.is_symlink() and out.read_bytes() == CRASH.raw


def null_device(tmp_path: Path) -> Path:
    """A null device; for root one of our own, since a fault could cost the machine its own."""
    path = tmp_path / "null"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        path.write_bytes(b"x")
    except OSError:
        return Path(os.devnull)
    return path


def test_a_device_stays_a_device(store: Path, tmp_path: Path) -> None:
    device = null_device(tmp_path)
    assert get(store, CRASH, "--raw-crash", "-o", device) == (0, b"")
    assert device.is_char_device()


def test_whoever_reads_a_fifo_gets_the_part(store: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE)
    assert get(store, CRASH, "--raw-crash", "-o", fifo) == (0, b"")
    assert reader.communicate(timeout=TIMEOUT)[0] == CRASH.raw
    assert fifo.is_fifo()


@pytest.mark.parametrize(
    ("what", "out"),
    [
        (["--raw-crash"], "missing/out"),
        (["--raw-crash"], "store"),
        (["--raw-crash"], "file/out"),
        (["--dump", ""], "missing/out"),
        (["--all"], "file"),
        (["--all"], "file/out"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_named_as_given_and_nothing_changes(
    store: Path, tmp_path: Path, what: list[str], out: str
) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    before = snapshot(tmp_path)
    result = run("get", "-s", store, CRASH.crash_id, *what, "-o", tmp_path / out)
    assert_refused(result, 2, f"{tmp_path / out}:")
    assert snapshot(tmp_path) == before


def test_a_dump_is_not_written_to_a_terminal(store: Path) -> None:
    exit_code, shown = run_on_terminal("get", "-s", store, CRASH.crash_id, "--dump", "")
    assert exit_code == 2
    assert b"binary" in shown and b"MDMP" not in shown
    assert shown.count(b"\n") == 1


@pytest.mark.parametrize(
    ("what", "suffix"),
    [(["--raw-crash"], ".json"), (["--processed-crash", "--unredacted"], ".jsonz")],
)
def test_json_that_is_none_is_binary_to_a_terminal(
    store: Path, what: list[str], suffix: str
) -> None:
    binary = b"\x1b]0;owned\x07\xff\x00"
    CRASH.path(store, suffix).write_bytes(gzip.compress(binary) if suffix == ".jsonz" else binary)
    exit_code, shown = run_on_terminal("get", "-s", store, CRASH.crash_id, *what)
    assert exit_code != 0
    assert b"\x1b]0" not in shown and b"\x07" not in shown


def test_json_is_written_to_a_terminal(store: Path) -> None:
    exit_code, shown = run_on_terminal("get", "-s", store, CRASH.crash_id, "--raw-crash")
    assert exit_code == 0
    assert shown.replace(b"\r\n", b"\n") == CRASH.raw


@pytest.mark.parametrize("what", [["--raw-crash"], ["--dump", ""]])
def test_when_the_reader_leaves_it_ends_as_by_sigpipe_and_without_a_word(
    tmp_path: Path, what: list[str]
) -> None:
    with start("get", "-s", put(tmp_path / "store", BIG), BIG.crash_id, *what) as process:
        assert process.stdout and process.stderr
        assert len(process.stdout.read(1)) == 1
        process.stdout.close()
        assert (process.wait(TIMEOUT), process.stderr.read()) == (141, b"")


@pytest.mark.parametrize("what", [[], ["--raw-crash"]])
def test_what_cannot_be_written_is_an_error(store: Path, what: list[str]) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        ended = subprocess.run(
            command_line("get", "-s", store, CRASH.crash_id, *what),
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=TIMEOUT,
        )
    assert ended.returncode == 1
    assert ended.stderr.count(b"\n") == 1 and b"No space left" in ended.stderr


def test_when_nobody_reads_what_is_shown_it_ends_as_by_sigpipe(store: Path) -> None:
    with start("get", "-s", store, CRASH.crash_id) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert (process.wait(TIMEOUT), process.stderr.read()) == (141, b"")


# Where from


def test_the_first_store_that_has_the_crash_gives_it(store: Path, tmp_path: Path) -> None:
    empty, other = put(tmp_path / "empty"), put(tmp_path / "other", Sample(CRASH.crash_id, b"{}"))
    args = ("--raw-crash", CRASH.crash_id)
    assert run("get", "-s", empty, "-s", other, "-s", store, *args).stdout_bytes == b"{}"


def test_a_store_that_is_down_is_passed_over_with_a_warning(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    args = ("-s", tmp_path / "file", "-s", store, "--raw-crash", CRASH.crash_id)
    result = run("get", *args)
    assert (result.exit_code, result.stdout_bytes) == (0, CRASH.raw)
    assert result.stderr.count("\n") == 1 and f"fs://{tmp_path}/file" in result.stderr


def test_a_crash_is_not_said_to_be_missing_while_a_store_is_down(
    store: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    result = run("get", "-s", tmp_path / "file", "-s", store, ABSENT.crash_id)
    assert result.exit_code == 4
    assert f"fs://{tmp_path}/file" in result.stderr


def test_the_source_may_come_from_the_environment(store: Path) -> None:
    result = run("get", "--raw-crash", CRASH.crash_id, env={"CRASHMOVER_SOURCE": str(store)})
    assert result.stdout_bytes == CRASH.raw


def test_the_command_line_goes_before_the_environment(store: Path, tmp_path: Path) -> None:
    args = ("-s", store, "--raw-crash", CRASH.crash_id)
    result = run("get", *args, env={"CRASHMOVER_SOURCE": f"{tmp_path}/other"})
    assert result.stdout_bytes == CRASH.raw


def test_a_store_may_be_named_in_the_configuration(store: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[storage]\nall = ["fs://{tmp_path}/file", "inner"]\ninner = ["{store}"]\n')
    (tmp_path / "file").mkdir()
    args = ("get", "-s", "all", "--raw-crash", CRASH.crash_id)
    assert run("--config", config, *args).stdout_bytes == CRASH.raw
    assert run(*args, env={"CRASHMOVER_CONFIG": str(config)}).stdout_bytes == CRASH.raw


def test_the_option_goes_before_the_configuration_in_the_environment(
    store: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[storage]\nprod = "{store}"\n')
    args = ("--config", config, "get", "-s", "prod", "--raw-crash", CRASH.crash_id)
    result = run(*args, env={"CRASHMOVER_CONFIG": f"{tmp_path}/missing.toml"})
    assert result.stdout_bytes == CRASH.raw


def test_unasked_the_configuration_is_the_users_own(store: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for directory in (".config/crashmover", "Library/Application Support/crashmover"):
        (home / directory).mkdir(parents=True)
        (home / directory / "config.toml").write_text(f'[storage]\nprod = "{store}"\n')
    ended = run_process(
        *("get", "-s", "prod", "--raw-crash", CRASH.crash_id),
        HOME=str(home),
        XDG_CONFIG_HOME=str(home / ".config"),
    )
    assert (ended.returncode, ended.stdout) == (0, CRASH.raw)


def test_nobody_without_a_named_store_needs_a_configuration(store: Path, tmp_path: Path) -> None:
    args = ("--config", tmp_path / "missing.toml", "get", "-s", store, CRASH.crash_id)
    assert run(*args).exit_code == 0


# What is not there, or damaged


@pytest.mark.parametrize(
    ("crash", "what"),
    [
        (ABSENT, []),
        (ABSENT, ["--json"]),
        (ABSENT, ["--raw-crash"]),
        (ABSENT, ["--processed-crash"]),
        (ABSENT, ["--processed-crash", "--unredacted"]),
        (ABSENT, ["--dump", ""]),
        (ABSENT, ["--all", "-o", "{tmp}/out"]),
        (BARE, ["--processed-crash"]),
        (BARE, ["--processed-crash", "--unredacted"]),
        (BARE, ["--dump", ""]),
        (CRASH, ["--dump", "no_such_dump"]),
        (CRASH, ["--dump", "no_such_dump", "-o", "{tmp}/precious"]),
        (ABSENT, ["--raw-crash", "-o", "{tmp}/precious"]),
    ],
)
def test_what_is_not_there_ends_with_3_and_changes_nothing(
    store: Path, tmp_path: Path, crash: Sample, what: list[str]
) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    before = snapshot(tmp_path)
    args = [arg.format(tmp=tmp_path) for arg in what]
    result = run("get", "-s", store, crash.crash_id, *args)
    assert_refused(result, 3, f"fs://{store}", crash.crash_id)
    assert snapshot(tmp_path) == before


def test_a_store_that_cannot_be_read_ends_with_4(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("get", "-s", tmp_path / "file", CRASH.crash_id)
    assert_refused(result, 4, f"fs://{tmp_path}/file", "Not a directory")


DAMAGED = {
    "empty": b"",
    "not gzip": b'{"signature": "f"}',
    "truncated": gzip.compress(CRASH.processed or b"")[:-9],
    "gzip of no JSON": gzip.compress(b"{"),
    "gzip of a list": gzip.compress(b"[]"),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_processed_crash_is_an_error_and_nothing_is_written(
    store: Path, tmp_path: Path, data: bytes
) -> None:
    CRASH.path(store, ".jsonz").write_bytes(data)
    (tmp_path / "out").write_bytes(b"precious")
    before = snapshot(tmp_path)
    args = ("get", "-s", store, CRASH.crash_id, "--processed-crash")
    assert_refused(run(*args), 1, f"fs://{store}", CRASH.crash_id)
    assert_refused(run(*args, "-o", tmp_path / "out"), 1)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("damage", ["empty", "not gzip", "truncated"])
def test_a_damaged_file_is_never_passed_on_as_if_it_were_whole(store: Path, damage: str) -> None:
    CRASH.path(store, ".jsonz").write_bytes(DAMAGED[damage])
    args = ("get", "-s", store, CRASH.crash_id, "--processed-crash", "--unredacted")
    assert_refused(run(*args), 1, f"fs://{store}", CRASH.crash_id)


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_what_is_damaged_of_a_crash_is_shown_with_all_the_rest(
    store: Path, option: list[str]
) -> None:
    CRASH.path(store, ".jsonz").write_bytes(DAMAGED["truncated"])
    result = run("get", "-s", store, CRASH.crash_id, *option)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert f"fs://{store}: {CRASH.crash_id}: processed_crash" in result.stderr
    if option:
        shown = {part["kind"]: part for part in json.loads(result.stdout)["parts"]}
        assert shown["processed_crash"]["size"] is None and shown["processed_crash"]["error"]
        assert shown["raw_crash"]["size"] == len(CRASH.raw)
    else:
        assert "processed_crash" in result.stdout and "damaged" in result.stdout
        assert f"{len(CRASH.raw):,} bytes" in result.stdout


def test_beside_a_damaged_processed_crash_the_rest_can_be_fetched(store: Path) -> None:
    CRASH.path(store, ".jsonz").write_bytes(b"")
    assert get(store, CRASH, "--raw-crash") == (0, CRASH.raw)
    assert get(store, CRASH, "--dump", "") == (0, CRASH.dumps[MAIN_DUMP])


# What is refused

ID = CRASH.crash_id
BAD = {
    "no crash id": ["-s", "{tmp}/store"],
    "a bad crash id": ["-s", "{tmp}/store", "bp-0bba929f"],
    "a crash id in a path": ["-s", "{tmp}/store", f"../{ID}"],
    "two crash ids": ["-s", "{tmp}/store", ID, ID],
    "no source": [ID],
    "an unknown scheme": ["-s", "floppy://a", ID],
    "an unknown option of a store": ["-s", "{tmp}/store?colour=red", ID],
    "a malformed option of a store": ["-s", "{tmp}/store?umask=999", ID],
    "two kinds of parts": ["-s", "{tmp}/store", ID, "--raw-crash", "--dump", ""],
    "a part and all": ["-s", "{tmp}/store", ID, "--processed-crash", "--all"],
    "a raw crash unredacted": ["-s", "{tmp}/store", ID, "--raw-crash", "--unredacted"],
    "nothing in particular unredacted": ["-s", "{tmp}/store", ID, "--unredacted"],
    "a file for what is shown": ["-s", "{tmp}/store", ID, "-o", "{tmp}/out"],
    "a part as JSON": ["-s", "{tmp}/store", ID, "--dump", "", "--json"],
    "a bad dump name": ["-s", "{tmp}/store", ID, "--dump", "../x"],
    "a dump name with a dot first": ["-s", "{tmp}/store", ID, "--dump", ".x"],
    "a reserved dump name": ["-s", "{tmp}/store", ID, "--dump", "raw_crash"],
    "an option that does not exist": ["-s", "{tmp}/store", ID, "--nonsense"],
}


@pytest.mark.parametrize("args", BAD.values(), ids=BAD)
def test_bad_usage_is_refused_in_one_line_and_nothing_changes(
    store: Path, tmp_path: Path, args: list[str]
) -> None:
    before = snapshot(tmp_path)
    assert_refused(run("get", *(arg.format(tmp=tmp_path) for arg in args)), 2)
    assert snapshot(tmp_path) == before


CONFIGURATIONS = {
    "missing": (None, "missing.toml"),
    "not TOML": ("[storage", "TOML"),
    "without that name": ('[storage]\nprod = "/a"', "'porf'"),
}


@pytest.mark.parametrize(("text", "phrase"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_configuration_that_does_not_help_is_refused_in_one_line(
    tmp_path: Path, text: str | None, phrase: str
) -> None:
    config = tmp_path / "missing.toml"
    if text is not None:
        config = tmp_path / "config.toml"
        config.write_text(text)
    assert_refused(run("--config", config, "get", "-s", "porf", ID), 2, phrase)


def test_reading_a_store_leaves_it_as_it_was(store: Path, tmp_path: Path) -> None:
    before = snapshot(store)
    get(store, CRASH)
    get(store, CRASH, "--all", "-o", tmp_path / "out")
    assert snapshot(store) == before
