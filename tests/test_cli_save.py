# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover save``: one crash from files, whole where it belongs, or nothing."""

import gzip
import json
import stat
import subprocess
from pathlib import Path

import pytest

from crashmover import crashid
from tests.cli_helpers import (
    MAIN_DUMP,
    TIMEOUT,
    Sample,
    assert_refused,
    command_line,
    environment,
    manifest,
    processed_crash,
    put,
    run,
    sample,
    snapshot,
    stored,
)

CRASH_ID = "0bba929f-8721-460c-dead-a43c22071025"
ANOTHER_ID = "0bba929f-8721-460c-dead-a43c22071026"
ODD_JSON = b'{ "a": "Gr\xc3\xb6\xc3\x9fe\\u0000",\r\n  "a": 1e400 }\n\n'


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with files to save, good and bad, and a store with a crash in it."""
    files = {
        "raw.json": ODD_JSON,
        "raw_with_id.json": json.dumps({"uuid": CRASH_ID}).encode(),
        "raw_with_bad_id.json": b'{"uuid": "0bba929f-8721-460c-dead-a43c22079925"}',
        "raw_with_odd_id.json": b'{"uuid": ["x"]}',
        "list.json": b"[]",
        "text.json": b"\x1b[31m{",
        "empty.json": b"",
        "processed.json": processed_crash(uuid=CRASH_ID),
        "mini.dmp": b"MDMP\x00\xff",
        "report.json.gz": gzip.compress(b"{}", mtime=0),
        "bad.toml": b"[storage\n",
        "names.toml": b'[storage]\nboth = ["one", "fs:two"]\none = "fs:one"\nround = ["round"]\n',
        "unknown_section.toml": b'[stores]\na = "fs:one"\n',
        "bad_value.toml": b"[storage]\na = 7\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    put(tmp_path / "store", sample())
    return tmp_path


# What is saved, and where


def test_every_part_is_where_collectors_would_put_it_byte_for_byte(here: Path) -> None:
    result = run(
        *("save", "-d", here / "new", "--raw-crash", here / "raw.json"),
        *("--dump", here / "mini.dmp", "--dump", f"memory_report={here}/report.json.gz"),
        *("--processed-crash", here / "processed.json", CRASH_ID),
    )
    leaf = here / "new/20071025/name/0b/ba"
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{CRASH_ID}\n", "")
    assert sorted(path.name for path in leaf.iterdir()) == [
        f"{CRASH_ID}.dump",
        f"{CRASH_ID}.json",
        f"{CRASH_ID}.jsonz",
        f"{CRASH_ID}.memory_report.dump",
    ]
    assert (leaf / f"{CRASH_ID}.json").read_bytes() == ODD_JSON
    assert (leaf / f"{CRASH_ID}.dump").read_bytes() == b"MDMP\x00\xff"
    assert (leaf / f"{CRASH_ID}.memory_report.dump").read_bytes() == gzip.compress(b"{}", mtime=0)
    packed = (leaf / f"{CRASH_ID}.jsonz").read_bytes()
    assert gzip.decompress(packed) == (here / "processed.json").read_bytes()


@pytest.mark.parametrize("name", ["", "=", "dump=", f"{MAIN_DUMP}="])
def test_every_way_to_name_the_main_dump_saves_the_same(here: Path, name: str) -> None:
    run(
        *("save", "-d", here / "new", "--raw-crash", here / "raw.json", CRASH_ID),
        *("--dump", f"{name}{here}/mini.dmp"),
    )
    crash = Sample(CRASH_ID, ODD_JSON, {MAIN_DUMP: b"MDMP\x00\xff"})
    assert stored(here / "new") == manifest(crash)


def test_a_file_name_may_have_an_equals_sign(here: Path) -> None:
    (here / "a=b.dmp").write_bytes(b"MDMP")
    run(
        *("save", "-d", here / "new", "--raw-crash", here / "raw.json", CRASH_ID),
        *("--dump", f"plugin={here}/a=b.dmp"),
    )
    assert stored(here / "new") == manifest(Sample(CRASH_ID, ODD_JSON, {"plugin": b"MDMP"}))


def test_a_crash_that_is_saved_again_is_replaced_dumps_and_all(here: Path) -> None:
    old = Sample(CRASH_ID, b"{}", {MAIN_DUMP: b"old", "plugin": b"old"}, b'{"old": 1}')
    put(here / "new", old)
    run(
        *("save", "-d", here / "new", "--raw-crash", here / "raw.json", CRASH_ID),
        *("--dump", here / "mini.dmp"),
    )
    new = Sample(CRASH_ID, ODD_JSON, {MAIN_DUMP: b"MDMP\x00\xff"}, old.processed)
    assert stored(here / "new") == manifest(new)


def test_parts_may_come_from_a_pipe(here: Path) -> None:
    ended = subprocess.run(
        command_line("save", "-d", here / "new", "--raw-crash", "/dev/stdin", CRASH_ID),
        input=ODD_JSON,
        capture_output=True,
        env=environment(),
        timeout=TIMEOUT,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert stored(here / "new") == manifest(Sample(CRASH_ID, ODD_JSON))


def test_files_and_directories_get_the_modes_that_the_umask_option_leaves(here: Path) -> None:
    run("save", "-d", f"fs://{here}/new?umask=077", "--raw-crash", here / "raw.json", CRASH_ID)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (here / "new").rglob("*")}
    assert modes == {0o600, 0o700}


# Under which id


@pytest.mark.parametrize(
    "typed",
    [
        CRASH_ID,
        f"  {CRASH_ID}\n",
        f"bp-{CRASH_ID}",
        CRASH_ID.upper(),
        f"https://crash-stats.mozilla.org/report/index/{CRASH_ID}#tab-details",
    ],
)
def test_a_crash_id_may_be_given_as_people_paste_it(here: Path, typed: str) -> None:
    result = run("save", "-d", here / "new", "--raw-crash", here / "raw.json", typed)
    assert (result.exit_code, result.stdout) == (0, f"{CRASH_ID}\n")
    assert stored(here / "new") == manifest(Sample(CRASH_ID, ODD_JSON))


def test_without_a_crash_id_it_is_the_raw_crashs_own(here: Path) -> None:
    result = run("save", "-d", here / "new", "--raw-crash", here / "raw_with_id.json")
    assert result.stdout == f"{CRASH_ID}\n"
    raw = (here / "raw_with_id.json").read_bytes()
    assert stored(here / "new") == manifest(Sample(CRASH_ID, raw))


@pytest.mark.parametrize("file", ["raw_with_id.json", "raw_with_bad_id.json"])
def test_a_crash_id_that_is_given_goes_before_the_raw_crashs_own(here: Path, file: str) -> None:
    result = run("save", "-d", here / "new", "--raw-crash", here / file, ANOTHER_ID)
    assert result.stdout == f"{ANOTHER_ID}\n"
    raw = (here / file).read_bytes()
    assert stored(here / "new") == manifest(Sample(ANOTHER_ID, raw))


def test_a_crash_without_any_id_gets_a_new_one(here: Path) -> None:
    first, second = (
        run("save", "-d", here / "new", "--raw-crash", here / "raw.json").stdout.strip()
        for _ in range(2)
    )
    assert crashid.is_valid(first) and crashid.is_valid(second) and first != second
    crashes = (Sample(crash_id, ODD_JSON) for crash_id in (first, second))
    assert stored(here / "new") == manifest(*crashes)


# In which stores


def test_every_destination_gets_the_crash(here: Path) -> None:
    stores = [here / "one", here / "two"]
    args = [arg for store in stores for arg in ("-d", store)]
    assert run("save", *args, "--raw-crash", here / "raw_with_id.json").exit_code == 0
    assert stored(stores[0]) == stored(stores[1]) != {}


def test_a_destination_may_come_from_the_environment(here: Path) -> None:
    args = ("save", "--raw-crash", here / "raw_with_id.json")
    env = {"CRASHMOVER_DESTINATION": f"fs://{here}/new"}
    assert run(*args, env=env).stdout == f"{CRASH_ID}\n"
    assert stored(here / "new") != {}


def test_a_configured_name_may_stand_for_several_stores(here: Path) -> None:
    config = here / "names.toml"
    config.write_text(config.read_text().replace("fs:", f"fs://{here}/"))
    args = ("save", "-d", "both", "--raw-crash", here / "raw_with_id.json")
    assert run("--config", config, *args).exit_code == 0
    assert stored(here / "one") == stored(here / "two") != {}


def test_a_destination_that_refuses_is_named_and_the_others_get_the_crash(here: Path) -> None:
    broken = here / "raw.json" / "store"
    args = ("-d", broken, "-d", here / "new", "--raw-crash", here / "raw_with_id.json")
    assert_refused(run("save", *args), 4, f"fs://{broken}", CRASH_ID)
    raw = (here / "raw_with_id.json").read_bytes()
    assert stored(here / "new") == manifest(Sample(CRASH_ID, raw))


def test_a_store_that_cannot_be_reached_ends_with_4_and_changes_nothing(here: Path) -> None:
    before = snapshot(here)
    broken = here / "raw.json" / "store"
    result = run("save", "-d", broken, "--raw-crash", here / "raw_with_id.json")
    assert_refused(result, 4, f"fs://{broken}", CRASH_ID, "Not a directory")
    assert snapshot(here) == before


# What is refused

STORE = ["-d", "{here}/store"]
RAW = ["--raw-crash", "{here}/raw.json"]
DUMP = "{here}/mini.dmp"

BAD_CRASHES = {
    "a crash id that is too short": [*STORE, *RAW, CRASH_ID[:-1]],
    "a crash id of no day": [*STORE, *RAW, f"{CRASH_ID[:-4]}1325"],
    "a crash id with another letter": [*STORE, *RAW, f"g{CRASH_ID[1:]}"],
    "a crash id with digits that are not ASCII": [*STORE, *RAW, f"{CRASH_ID[:-1]}\u0665"],
    "two crash ids": [*STORE, *RAW, CRASH_ID, ANOTHER_ID],
    "no raw crash": [*STORE, CRASH_ID],
    "a raw crash that is not there": [*STORE, "--raw-crash", "{here}/nothing.json"],
    "a raw crash that is a directory": [*STORE, "--raw-crash", "{here}/store"],
    "a raw crash that is not JSON": [*STORE, "--raw-crash", "{here}/text.json", CRASH_ID],
    "a raw crash that is a list": [*STORE, "--raw-crash", "{here}/list.json", CRASH_ID],
    "a raw crash that is empty": [*STORE, "--raw-crash", "{here}/empty.json", CRASH_ID],
    "a raw crash with a bad uuid": [*STORE, "--raw-crash", "{here}/raw_with_bad_id.json"],
    "a raw crash whose uuid is no text": [*STORE, "--raw-crash", "{here}/raw_with_odd_id.json"],
    "a processed crash that is not there": [*STORE, *RAW, "--processed-crash", "{here}/no.json"],
    "a processed crash that is a list": [*STORE, *RAW, "--processed-crash", "{here}/list.json"],
    "a processed crash of another": [
        *(*STORE, *RAW, "--processed-crash", "{here}/processed.json", ANOTHER_ID),
    ],
    "a dump that is not there": [*STORE, *RAW, "--dump", "{here}/nothing.dmp"],
    "a dump that is a directory": [*STORE, *RAW, "--dump", "plugin={here}/store"],
    "a dump's name with a dot first": [*STORE, *RAW, "--dump", f".plugin={DUMP}"],
    "a dump's name with a slash": [*STORE, *RAW, "--dump", f"../plugin={DUMP}"],
    "a dump's name that is too long": [*STORE, *RAW, "--dump", f"{'x' * 101}={DUMP}"],
    "a dump named raw_crash": [*STORE, *RAW, "--dump", f"raw_crash={DUMP}"],
    "a dump named dump_names": [*STORE, *RAW, "--dump", f"dump_names={DUMP}"],
    "a dump named processed_crash": [*STORE, *RAW, "--dump", f"processed_crash={DUMP}"],
    "a dump named crash_report": [*STORE, *RAW, "--dump", f"crash_report={DUMP}"],
    "two dumps of one name": [*STORE, *RAW, "--dump", f"x={DUMP}", "--dump", f"x={DUMP}"],
    "two main dumps": [*STORE, *RAW, "--dump", DUMP, "--dump", f"{MAIN_DUMP}={DUMP}"],
    "an option that does not exist": [*STORE, *RAW, "--nonsense"],
}


@pytest.mark.parametrize("args", BAD_CRASHES.values(), ids=BAD_CRASHES)
def test_a_bad_crash_is_refused_in_one_line_and_nothing_changes(
    here: Path, args: list[str]
) -> None:
    before = snapshot(here)
    result = run("save", *(arg.format(here=here) for arg in args))
    assert_refused(result, 2)
    assert snapshot(here) == before


BAD_STORES = {
    "none": ([], "--destination"),
    "an empty one": (["-d", ""], "empty"),
    "an unknown scheme": (["-d", "floppy://a"], "'floppy'"),
    "an unknown option": (["-d", "fs://{here}/store?colour=red"], "'colour'"),
    "a malformed option": (["-d", "fs://{here}/store?umask=999"], "umask"),
    "a umask that keeps the owner out": (["-d", "fs://{here}/store?umask=700"], "umask"),
    "an option without a value": (["-d", "fs://{here}/store?umask"], "key=value"),
    "an option given twice": (["-d", "fs://{here}/store?umask=022&umask=022"], "twice"),
    "a host": (["-d", "fs://server{here}/store"], "host"),
    "a fragment": (["-d", "fs://{here}/store#1"], "%23"),
    "no path": (["-d", "fs:"], "path"),
    "a piece of a URI that has a slash": (["-d", "a/b@c"], "./ before"),
    "a good one and a bad one": ([*STORE, "-d", "floppy://a"], "'floppy'"),
    "a name that is not configured": (
        ["--config", "{here}/names.toml", "-d", "tow"],
        "'tow'",
    ),
    "a name that contains itself": (
        ["--config", "{here}/names.toml", "-d", "round"],
        "contains itself",
    ),
    "a missing configuration": (["--config", "{here}/no.toml", "-d", "one"], "no.toml"),
    "a configuration that is a directory": (["--config", "{here}", "-d", "one"], "directory"),
    "a configuration that is not TOML": (["--config", "{here}/bad.toml", "-d", "one"], "TOML"),
    "an unknown section": (
        ["--config", "{here}/unknown_section.toml", "-d", "one"],
        "[stores]",
    ),
    "a store that is a number": (
        ["--config", "{here}/bad_value.toml", "-d", "one"],
        "storage.a",
    ),
}


@pytest.mark.parametrize(("args", "phrase"), BAD_STORES.values(), ids=BAD_STORES)
def test_a_store_that_cannot_be_is_refused_in_one_line_and_nothing_changes(
    here: Path, args: list[str], phrase: str
) -> None:
    before = snapshot(here)
    where = [arg.format(here=here) for arg in args]
    first = where[:2] if where[:1] == ["--config"] else []
    result = run(*first, "save", *where[len(first) :], "--raw-crash", here / "raw.json", CRASH_ID)
    assert_refused(result, 2, phrase)
    assert snapshot(here) == before


@pytest.mark.parametrize(
    "uri",
    [
        "nonsense://zoe:hunter2@host/x",
        "fs://zoe:hunter2@host/x",
        "fs://zoe:hunter2@host:port/x",
        "fs:///x?secret=hunter2",
        "fs:///x?umask=hunter2",
        "zoe:hunter2@host",
    ],
)
def test_no_message_repeats_what_may_be_a_password(here: Path, uri: str) -> None:
    result = run("save", "-d", uri, "--raw-crash", here / "raw.json", CRASH_ID)
    assert_refused(result, 2)
    assert "hunter2" not in result.stderr
