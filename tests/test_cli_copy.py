# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover copy``: what arrives, which crashes, what is said."""

import datetime as dt
import fcntl
import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli_helpers import (
    MAIN_DUMP,
    Sample,
    all_of,
    is_harmless,
    make_id,
    manifest,
    put,
    run,
    run_on_terminal,
    run_process,
    sample,
    samples,
    snapshot,
    statuses,
    stored,
)
from tests.copied import ABSENT, ONE, THREE, TWO, WHOLE, Stores
from tests.copied import stores as stores

REPORT_KEYS = ["crash_id", "status", "parts", "bytes", "attempts", "error"]
SUMMARY = re.compile(r"copied [\d,]+, skipped [\d,]+, failed [\d,]+; [\d.]+ \w+ in [\d.]+ s\n")


# What arrives


def test_hundreds_of_crashes_arrive_to_the_byte_and_a_second_run_copies_none(
    tmp_path: Path,
) -> None:
    crashes = samples(300)
    stores = Stores(tmp_path)
    put(stores.source, *crashes)
    before = snapshot(stores.source)
    first = stores.copy()
    assert stored(stores.destination) == manifest(*crashes)
    assert (first.exit_code, first.statuses) == (0, all_of("copied", *crashes))
    assert first.summary["bytes"] == sum(crash.size for crash in crashes)
    done = snapshot(stores.destination)
    second = stores.copy()
    assert (second.exit_code, second.statuses) == (0, all_of("skipped", *crashes))
    assert second.stderr.startswith("copied 0, skipped 300, failed 0;")
    assert snapshot(stores.destination) == done
    assert snapshot(stores.source) == before


@pytest.mark.parametrize("args", [["--existing", "compare"], ["--verify"]])
def test_a_second_run_that_looks_closer_copies_none_either(stores: Stores, args: list[str]) -> None:
    assert stores.copy(*args).statuses == all_of("copied", ONE, TWO, THREE)
    before = snapshot(stores.destination)
    assert stores.copy(*args).statuses == all_of("skipped", ONE, TWO, THREE)
    assert snapshot(stores.destination) == before


def test_any_number_of_workers_copies_the_same(stores: Stores) -> None:
    assert stores.copy("--workers", "16").exit_code == 0
    assert stored(stores.destination) == manifest(ONE, TWO, THREE)


@pytest.mark.parametrize("args", [[], ["--existing", "compare"]])
def test_a_raw_crash_that_is_not_json_moves_byte_for_byte(stores: Stores, args: list[str]) -> None:
    odd = Sample(make_id(9), b"\xff{\r\n\x00", {MAIN_DUMP: b""}, b"[not JSON")
    put(stores.source, odd)
    assert stores.copy(odd.crash_id, *args).exit_code == 0
    assert stored(stores.destination) == manifest(odd)


def test_a_source_without_a_crash_is_all_done(tmp_path: Path) -> None:
    stores = Stores(tmp_path)
    stores.source.mkdir()
    result = stores.copy()
    assert (result.exit_code, result.statuses) == (0, {})
    assert result.stderr.startswith("copied 0, skipped 0, failed 0;")


def test_what_is_no_crash_stays_where_it_is(stores: Stores) -> None:
    leaf = ONE.path(stores.source).parent
    (leaf / "README").write_text("not a crash")
    (leaf / f".{ABSENT.crash_id}.json.tmp").write_text("{}")
    (leaf / f"{make_id(5, leaf='ffff')}.json").write_text("{}")  # another directory's
    (stores.source / "lost+found").mkdir()
    result = stores.copy()
    assert result.exit_code == 1  # it may be a crash, and was not copied
    assert result.stderr.count(make_id(5, leaf="ffff")) == 1
    assert stored(stores.destination) == manifest(ONE, TWO, THREE)


# Which crashes


def test_only_the_crashes_that_are_named_are_copied(stores: Stores) -> None:
    typed = (f"bp-{ONE.crash_id}", f"https://example.com/report/index/{TWO.crash_id.upper()}")
    assert stores.copy(*typed).statuses == all_of("copied", ONE, TWO)
    assert stored(stores.destination) == manifest(ONE, TWO)


IDS = f"# for a bug\n\n  bp-{ONE.crash_id}  # the first\r\n{TWO.crash_id}".encode()


def test_crash_ids_come_from_a_file_with_comments_and_blank_lines(stores: Stores) -> None:
    ids = stores.tmp / "ids"
    ids.write_bytes(IDS)
    assert stores.copy("--ids-from", ids).statuses == all_of("copied", ONE, TWO)


def test_crash_ids_come_from_standard_input_and_the_command_line_together(
    stores: Stores,
) -> None:
    result = stores.copy("--ids-from", "-", THREE.crash_id, stdin=IDS)
    assert result.statuses == all_of("copied", ONE, TWO, THREE)


def test_a_crash_that_is_named_twice_is_not_said_to_have_failed(stores: Stores) -> None:
    args = ("--remove-source", ONE.crash_id, TWO.crash_id, f"bp-{ONE.crash_id}")
    result = run("copy", "-s", stores.source, "-d", stores.destination, *args)
    assert result.exit_code == 0, result.stderr
    assert stored(stores.destination) == manifest(ONE, TWO)
    assert stored(stores.source) == manifest(THREE)


DAYS = {"261117": sample(1, day="261117"), "261118": sample(2, day="261118")} | {
    "261119": sample(3, day="261119"),
    "270101": sample(4, day="270101"),
}


@pytest.mark.parametrize(
    ("args", "days"),
    [
        ([], ["261117", "261118", "261119", "270101"]),
        (["--since", "2026-11-18"], ["261118", "261119", "270101"]),
        (["--until", "2026-11-18"], ["261117", "261118"]),
        (["--since", "2026-11-18", "--until", "2026-11-19"], ["261118", "261119"]),
        (["--since", "2026-11-18", "--until", "2026-11-18"], ["261118"]),
        (["--since", "2026-10-01", "--until", "2026-10-31"], []),
    ],
)
def test_a_range_of_days_goes_by_the_ids_and_has_both_its_ends(
    tmp_path: Path, args: list[str], days: list[str]
) -> None:
    put(tmp_path / "source", *DAYS.values())
    result = Stores(tmp_path).copy(*args)
    assert (result.exit_code, result.statuses) == (
        0,
        all_of("copied", *map(DAYS.__getitem__, days)),
    )


def test_days_may_be_counted_back_from_today(tmp_path: Path) -> None:
    today = dt.datetime.now(dt.UTC).date()
    recent, old = (sample(day=f"{today - dt.timedelta(days=days):%y%m%d}") for days in (5, 30))
    stores = Stores(tmp_path)
    put(stores.source, recent, old)
    args = ("--since", "9d", "--until", "yesterday", "--dry-run")
    assert stores.copy(*args).statuses == all_of("would-copy", recent)
    assert stores.copy("--until", "today").statuses == all_of("copied", recent, old)


def test_a_limit_does_not_count_what_is_skipped(stores: Stores) -> None:
    put(stores.destination, ONE)
    result = stores.copy("--limit", "1")
    assert result.statuses == all_of("skipped", ONE) | all_of("copied", TWO)
    assert stored(stores.destination) == manifest(ONE, TWO)


def test_after_the_time_that_is_given_no_further_crash_is_begun(stores: Stores) -> None:
    ids = stores.tmp / "ids"
    absent = (make_id(n % 0x10000, leaf=f"{n // 0x10000:04x}") for n in range(100_000))
    ids.write_text("".join(f"{crash_id}\n" for crash_id in absent))  # each looked for: many seconds
    result = run(
        *("copy", "-s", stores.source, "-d", stores.destination, "--ids-from", ids),
        *("--max-duration", "1s", "--json"),
    )
    assert result.exit_code == 1
    assert 0 < json.loads(result.stdout)["failed"] < 100_000
    assert "--max-duration" in result.stderr


# Several stores


def test_from_several_sources_a_crash_comes_from_the_first_that_has_it(stores: Stores) -> None:
    put(stores.tmp / "second", replace(ONE, raw=b"{}"), WHOLE)
    args = ("-s", stores.source, "-s", stores.tmp / "second", "-d", stores.destination)
    assert stores.run(*args).statuses == all_of("copied", ONE, TWO, THREE, WHOLE)
    assert stored(stores.destination) == manifest(ONE, TWO, THREE, WHOLE)


def test_each_of_several_destinations_gets_what_it_lacks(stores: Stores) -> None:
    other = put(stores.tmp / "other", TWO, THREE)
    put(stores.destination, ONE, TWO)
    there = snapshot(ONE.path(stores.destination))
    result = stores.copy("-d", other)
    assert stored(other) == stored(stores.destination) == manifest(ONE, TWO, THREE)
    assert result.statuses == all_of("copied", ONE, THREE) | all_of("skipped", TWO)
    assert result.report[ONE.crash_id]["bytes"] == ONE.size
    assert result.summary["bytes"] == ONE.size + THREE.size
    assert snapshot(ONE.path(stores.destination)) == there


def test_stores_may_come_from_the_environment_and_the_configuration(stores: Stores) -> None:
    config = stores.tmp / "config.toml"
    config.write_text(
        f'[storage]\nsource = "fs://{stores.source}"\n'
        f'both = ["fs://{stores.destination}", "cold"]\ncold = ["{stores.tmp}/other"]\n'
    )
    env = {
        "CRASHMOVER_SOURCE": "source",
        "CRASHMOVER_DESTINATION": "both",
        "CRASHMOVER_CONFIG": str(config),
    }
    assert run("copy", env=env).exit_code == 0
    assert stored(stores.tmp / "other") == manifest(ONE, TWO, THREE)
    assert stored(stores.destination) == manifest(ONE, TWO, THREE)


# Crashes that fail


def test_a_crash_that_is_not_there_is_missing_and_the_others_are_copied(stores: Stores) -> None:
    result = stores.copy(ABSENT.crash_id, ONE.crash_id)
    assert result.exit_code == 1
    assert result.statuses == all_of("missing", ABSENT) | all_of("copied", ONE)
    assert ABSENT.crash_id in result.stderr
    assert f"fs://{stores.source}" in str(result.report[ABSENT.crash_id]["error"])
    assert stored(stores.destination) == manifest(ONE)


DAMAGED = {
    "empty": b"",
    "not gzip": b'{"signature": "f"}',
    "truncated": gzip.compress(b"{}" * 1000)[:-9],
    "with another checksum": gzip.compress(b"{}")[:-8] + bytes(8),
}


@pytest.mark.parametrize("args", [[], ["--verify", "--remove-source"]], ids=" ".join)
@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_processed_crash_fails_its_crash_and_no_other(
    stores: Stores, data: bytes, args: list[str]
) -> None:
    TWO.path(stores.source, ".jsonz").write_bytes(data)
    two = {suffix: snapshot(TWO.path(stores.source, suffix)) for suffix in TWO.parts}
    result = stores.copy(*args)
    assert result.exit_code == 1
    assert result.statuses == all_of("copied", ONE, THREE) | all_of("failed", TWO)
    assert f"fs://{stores.source}" in str(result.report[TWO.crash_id]["error"])
    assert TWO.crash_id in result.stderr
    assert stored(stores.destination) == manifest(ONE, THREE)
    assert {suffix: snapshot(TWO.path(stores.source, suffix)) for suffix in TWO.parts} == two


def test_what_strangers_named_cannot_do_anything_to_a_terminal(stores: Stores) -> None:
    TWO.path(stores.source, ".\x1b]0;owned\x07.dump").write_bytes(b"MDMP")
    result = stores.copy()
    assert result.exit_code == 1
    assert result.statuses == all_of("copied", ONE, THREE) | all_of("failed", TWO)
    assert is_harmless(result.stderr) and "owned" in result.stderr


# What is said


def test_the_report_has_a_line_for_each_crash_with_all_there_is_to_know(stores: Stores) -> None:
    put(stores.destination, TWO, replace(THREE, raw=b"{}"))
    ids = [crash.crash_id for crash in (ONE, TWO, THREE, ABSENT)]
    report = stores.copy("--existing", "compare", *ids).report
    assert [list(outcome) for outcome in report.values()] == [REPORT_KEYS] * 4
    one, two, three, absent = (report[crash_id] for crash_id in ids)
    assert list(one.values()) == [ONE.crash_id, "copied", 3, ONE.size, 1, None]
    assert list(two.values()) == [TWO.crash_id, "skipped", 0, 0, 1, None]
    assert (three["status"], three["parts"], three["bytes"]) == ("conflict", 0, 0)
    assert (absent["status"], absent["parts"], absent["bytes"]) == ("missing", 0, 0)
    for outcome in (three, absent):
        assert isinstance(outcome["error"], str) and "\n" not in outcome["error"]


def test_a_report_replaces_an_older_one(stores: Stores) -> None:
    stores.copy()
    stores.copy(ONE.crash_id)
    assert statuses(stores.report) == all_of("skipped", ONE)


def test_json_is_one_object_with_the_counts_and_nothing_else_on_standard_output(
    stores: Stores,
) -> None:
    put(stores.destination, TWO, replace(THREE, raw=b"{}"))
    ids = [crash.crash_id for crash in (ONE, TWO, THREE, ABSENT)]
    result = stores.copy("--existing", "compare", *ids)
    assert result.stdout.count("\n") == 1
    assert list(result.summary) == ["copied", "skipped", "failed", "bytes", "seconds"]
    seconds = result.summary.pop("seconds")
    assert result.summary == {"copied": 1, "skipped": 1, "failed": 2, "bytes": ONE.size}
    assert seconds >= 0


def test_without_a_terminal_it_says_one_line_and_on_standard_error(stores: Stores) -> None:
    ended = run_process("copy", "-s", stores.source, "-d", stores.destination)
    assert (ended.returncode, ended.stdout) == (0, b"")
    assert SUMMARY.fullmatch(ended.stderr.decode())
    assert ended.stderr.startswith(b"copied 3, skipped 0, failed 0; ")


def test_on_a_terminal_a_bar_shows_the_progress_and_the_summary_stays(stores: Stores) -> None:
    args = ("-s", stores.source, "-d", stores.destination, ONE.crash_id, TWO.crash_id)
    exit_code, shown = run_on_terminal("copy", *args)
    text = shown.decode()
    assert exit_code == 0
    assert "2/2" in text and "━" in text
    assert SUMMARY.search(text.replace("\r\n", "\n"))


def test_on_a_terminal_what_failed_is_named_too(stores: Stores) -> None:
    args = ("-s", stores.source, "-d", stores.destination, ABSENT.crash_id, ONE.crash_id)
    exit_code, shown = run_on_terminal("copy", *args)
    assert exit_code == 1
    assert f"{ABSENT.crash_id}: missing: ".encode() in shown


def test_no_progress_means_none_on_a_terminal_too(stores: Stores) -> None:
    args = ("-s", stores.source, "-d", stores.destination, "--no-progress")
    exit_code, shown = run_on_terminal("copy", *args)
    assert exit_code == 0
    assert SUMMARY.fullmatch(shown.decode().replace("\r\n", "\n"))


# One run at a time


def test_while_another_process_holds_the_lock_nothing_is_done(stores: Stores) -> None:
    stores.report.write_text("of the other run")
    lock = stores.tmp / "lock"
    args = ("copy", "-s", stores.source, "-d", stores.destination, "--lock", lock)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = snapshot(stores.tmp)
        ended = run_process(*args, "--report", stores.report)
        assert (ended.returncode, ended.stdout) == (4, b"")
        assert ended.stderr.count(b"\n") == 1 and str(lock).encode() in ended.stderr
        assert snapshot(stores.tmp) == before
    assert run(*args).exit_code == 0
    assert stored(stores.destination) == manifest(ONE, TWO, THREE)


def test_a_lock_that_a_run_has_left_is_no_obstacle(stores: Stores) -> None:
    args = ("--lock", stores.tmp / "lock")
    assert stores.copy(*args).summary["copied"] == 3
    assert stores.copy(*args).summary["skipped"] == 3
