# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover list``: which crashes a store has, and how much; the store is only read."""

import json
import signal
from pathlib import Path

import pytest
from rich.filesize import decimal

from tests.cli_helpers import (
    assert_refused,
    put,
    run,
    sample,
    snapshot,
    start,
)
from tests.conftest import new_uri
from tests.store_helpers import remove_once_listed

MONDAY, TUESDAY = "261116", "261117"
CRASHES = [
    sample(1, day=MONDAY),
    sample(2, day=MONDAY, processed=b'{"a": 1}'),
    sample(3, day=TUESDAY, dumps={}, processed=b"{}"),
]
IDS = [crash.crash_id for crash in CRASHES]
SIZES = [crash.size for crash in CRASHES]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return put(tmp_path / "store", *CRASHES)


def test_crash_ids_are_listed_by_day_as_other_commands_take_them(
    store: Path, tmp_path: Path
) -> None:
    before = snapshot(store)
    result = run("list", "-s", store)
    assert (result.exit_code, result.stdout.split()) == (0, IDS)
    assert result.stderr == "listed 3\n"
    assert snapshot(store) == before
    ids = tmp_path / "ids.txt"
    ids.write_text(result.stdout)
    copied = run("copy", "-s", store, "-d", tmp_path / "copy", "--ids-from", ids)
    assert copied.stderr.startswith("copied 3, ")


def test_only_the_days_and_the_kind_asked_for_are_listed(store: Path) -> None:
    assert run("list", "-s", store, "--until", "2026-11-16").stdout.split() == IDS[:2]
    assert run("list", "-s", store, "--since", "2026-11-17").stdout.split() == IDS[2:]
    assert run("list", "-s", store, "--kind", "processed").stdout.split() == IDS[1:]
    result = run("list", "-s", store, "--since", "2026-11-18")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "listed 0\n")


def test_days_are_counted(store: Path) -> None:
    result = run("list", "-s", store, "--by-day", "--bytes")
    rows = [line.split() for line in result.stdout.splitlines()]
    sizes = [decimal(sum(SIZES[:2])), decimal(SIZES[2])]
    assert [row[:2] for row in rows] == [["2026-11-16", "2"], ["2026-11-17", "1"]]
    assert [" ".join(row[2:]) for row in rows] == sizes
    assert result.stderr == f"listed 3; {decimal(sum(SIZES))}\n"
    plain = run("list", "-s", store, "--by-day").stdout.splitlines()
    assert plain == ["2026-11-16           2", "2026-11-17           1"]


def test_everything_is_there_as_json(store: Path) -> None:
    def listed(*options: str) -> list[dict[str, object]]:
        return [
            json.loads(line)
            for line in run("list", "-s", store, "--json", *options).stdout.splitlines()
        ]

    days = ["2026-11-16", "2026-11-16", "2026-11-17"]
    crashes = [{"crash_id": i, "date": d} for i, d in zip(IDS, days, strict=True)]
    assert listed() == crashes
    assert listed("--bytes") == [
        {**crash, "bytes": size} for crash, size in zip(crashes, SIZES, strict=True)
    ]
    assert listed("--by-day", "--bytes") == [
        {"date": "2026-11-16", "crashes": 2, "bytes": sum(SIZES[:2])},
        {"date": "2026-11-17", "crashes": 1, "bytes": SIZES[2]},
    ]
    [processed, _] = listed("--kind", "processed", "--bytes")
    assert processed["bytes"] == len(b'{"a": 1}')


@pytest.mark.parametrize("kind", ["s3_strict", "fake_gcs", "postgresql"])
def test_other_stores_say_the_same(kind: str, store: Path, request: pytest.FixtureRequest) -> None:
    uri = new_uri(request, kind)
    assert run("copy", "-s", store, "-d", uri).exit_code == 0
    for options in ([], ["--by-day", "--bytes"], ["--bytes", "--json"], ["--kind", "processed"]):
        assert run("list", "-s", uri, *options).stdout == run("list", "-s", store, *options).stdout


def test_several_stores_are_listed_as_one(tmp_path: Path) -> None:
    one, other = put(tmp_path / "a", *CRASHES[:2]), put(tmp_path / "b", *CRASHES[1:])
    assert run("list", "-s", other, "-s", one).stdout.split() == IDS


def test_a_crash_that_cannot_be_read_is_named_and_the_others_are_counted(store: Path) -> None:
    CRASHES[1].path(store, ".jsonz").write_bytes(b"no gzip")
    result = run("list", "-s", store, "--bytes", "--json")
    assert result.exit_code == 1
    listed = [json.loads(line) for line in result.stdout.splitlines()]
    assert [crash["crash_id"] for crash in listed] == IDS
    assert ["bytes" in crash for crash in listed] == [True, False, True]
    named, total = result.stderr.splitlines()
    assert named.startswith(f"{IDS[1]}: fs://{store}: ")
    assert total.startswith("listed 3; ")


def test_what_is_removed_while_it_is_listed_is_not_counted(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_once_listed(monkeypatch, IDS[0])
    result = run("list", "-s", store, "--bytes", "--json")
    assert [json.loads(line)["crash_id"] for line in result.stdout.splitlines()] == IDS[1:]
    assert result.exit_code == 0


def test_what_cannot_be_listed_is_refused_in_one_line(tmp_path: Path, store: Path) -> None:
    assert_refused(run("list", "-s", tmp_path / "none"), 4, "No such file or directory")
    assert_refused(
        run("list", "-s", store, "--since", "2026-11-17", "--until", "2026-11-16"), 2, "is after"
    )
    assert_refused(run("list", "-s", store, "--kind", "dumps"), 2, "--kind")
    assert_refused(run("list"), 2, "-s")


def test_a_reader_that_leaves_ends_it_without_a_word(tmp_path: Path) -> None:
    store = put(tmp_path / "store", *(sample(n) for n in range(3000)))
    with start("list", "-s", store) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()  # as `head -1` does
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE
