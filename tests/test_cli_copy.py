# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover copy``: what arrives, what is left alone, what is said, how it ends."""

import datetime as dt
import fcntl
import gzip
import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.cli_helpers import (
    MAIN_DUMP,
    TIMEOUT,
    Argument,
    Manifest,
    Sample,
    all_of,
    assert_refused,
    is_harmless,
    make_id,
    manifest,
    processed_crash,
    put,
    report_of,
    run,
    run_on_terminal,
    run_process,
    sample,
    samples,
    snapshot,
    start,
    statuses,
    stored,
)

REPORT_KEYS = ["crash_id", "status", "parts", "bytes", "attempts", "error"]
SUMMARY = re.compile(r"copied [\d,]+, skipped [\d,]+, failed [\d,]+; [\d.]+ \w+ in [\d.]+ s\n")

ONE, TWO, THREE = (sample(n, processed=processed_crash()) for n in (1, 2, 3))
WHOLE = sample(7, dumps={MAIN_DUMP: b"MDMP", "plugin": b"MDMP plugin"}, processed=processed_crash())
ABSENT = sample(99)


@dataclass(frozen=True)
class Copied:
    """How a copy went."""

    exit_code: int
    stdout: str
    stderr: str
    statuses: dict[str, str]
    report: dict[str, dict[str, object]]
    summary: dict[str, float]


@dataclass(frozen=True)
class Stores:
    """A source, a destination, and room for other files."""

    tmp: Path

    @property
    def source(self) -> Path:
        return self.tmp / "source"

    @property
    def destination(self) -> Path:
        return self.tmp / "destination"

    @property
    def report(self) -> Path:
        return self.tmp / "report"

    def copy(self, *args: Argument, stdin: bytes | None = None) -> Copied:
        """Copy from the one to the other."""
        return self.run("-s", self.source, "-d", self.destination, *args, stdin=stdin)

    def run(self, *args: Argument, stdin: bytes | None = None) -> Copied:
        """Copy as these arguments say, and read all that the command has to say."""
        result = run("copy", *args, "--json", "--report", self.report, stdin=stdin)
        return Copied(
            result.exit_code,
            result.stdout,
            result.stderr,
            statuses(self.report),
            report_of(self.report),
            json.loads(result.stdout),
        )


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """A source with three crashes, which share a directory; there is no destination yet."""
    put(tmp_path / "source", ONE, TWO, THREE)
    return Stores(tmp_path)


# -- What arrives ------------------------------------------------------------------------


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


@pytest.mark.parametrize("workers", ["1", "16"])
def test_any_number_of_workers_copies_the_same(stores: Stores, workers: str) -> None:
    assert stores.copy("--workers", workers).exit_code == 0
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


# -- Which crashes -----------------------------------------------------------------------


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


def test_a_limit_stops_among_named_crashes_too(stores: Stores) -> None:
    put(stores.destination, TWO)
    ids = (crash.crash_id for crash in (TWO, ONE, THREE))
    result = stores.copy("--limit", "1", *ids)
    assert (result.exit_code, result.summary["copied"]) == (0, 1)
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


# -- Several stores ----------------------------------------------------------------------


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


def test_what_two_destinations_lack_is_counted_once(stores: Stores) -> None:
    result = stores.copy("-d", stores.tmp / "other", ONE.crash_id)
    assert result.report[ONE.crash_id]["parts"] == len(ONE.parts)
    assert result.summary["bytes"] == ONE.size


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


# -- A destination that cannot be written to ---------------------------------------------

Prefix = Sequence[str]

# A file system that is mounted read-only, for nobody else to see: that stops root too.
_MOUNT = 'mount -t tmpfs -o ro tmpfs "$0" && exec "$@"'


def a_file_in_its_path(path: Path) -> tuple[Prefix, Callable[[], object]]:
    """Put a file where the destination's parent would be."""
    path.parent.write_bytes(b"")
    return (), path.parent.unlink


def a_read_only_file_system(path: Path) -> tuple[Prefix, Callable[[], object]]:
    """Mount one there, as the command sees it."""
    path.mkdir(parents=True)
    return ("unshare", "-m", "sh", "-c", _MOUNT, str(path)), lambda: None


def a_read_only_directory(path: Path) -> tuple[Prefix, Callable[[], object]]:
    """Take the permission to write away."""
    path.mkdir(parents=True)
    path.chmod(0o555)
    return (), lambda: path.chmod(0o755)


def _ways() -> list[Callable[[Path], tuple[Prefix, Callable[[], object]]]]:
    """The ways to make a directory read-only that stop whoever runs this."""
    if os.geteuid():
        return [a_file_in_its_path, a_read_only_directory]
    try:
        trial = ["unshare", "-m", "sh", "-c", _MOUNT, "/mnt", "true"]
        works = subprocess.run(trial, capture_output=True).returncode == 0
    except OSError:
        works = False
    return [a_file_in_its_path, *([a_read_only_file_system] if works else [])]


@pytest.mark.parametrize("spoil", _ways())
def test_with_one_of_two_destinations_read_only_the_other_is_complete_and_a_rerun_mends_it(
    stores: Stores, spoil: Callable[[Path], tuple[Prefix, Callable[[], object]]]
) -> None:
    bad = stores.tmp / "bad" / "store"
    prefix, mend = spoil(bad)
    args = ("copy", "-s", stores.source, "-d", bad, "-d", stores.destination)
    ended = run_process(*args, "--report", stores.report, prefix=prefix)
    stderr = ended.stderr.decode()
    assert ended.returncode == 1, stderr
    assert stored(stores.destination) == manifest(ONE, TWO, THREE)
    report = report_of(stores.report)
    assert statuses(stores.report) == all_of("failed", ONE, TWO, THREE)
    for crash_id, outcome in report.items():
        assert f"fs://{bad}: " in str(outcome["error"])
        assert f"fs://{stores.destination}:" not in str(outcome["error"])
        assert crash_id in stderr
    mend()
    again = run(*args, "--report", stores.report)
    assert again.exit_code == 0
    assert statuses(stores.report) == all_of("copied", ONE, TWO, THREE)
    assert stored(bad) == stored(stores.destination) == manifest(ONE, TWO, THREE)


def test_while_one_destination_refuses_nothing_is_removed(stores: Stores) -> None:
    before = snapshot(stores.source)
    (stores.tmp / "file").touch()
    result = stores.copy("-d", stores.tmp / "file", "--remove-source", "--verify")
    assert (result.exit_code, result.statuses) == (1, all_of("failed", ONE, TWO, THREE))
    assert snapshot(stores.source) == before


@pytest.mark.parametrize("broken", ["-s", "-d"])
def test_a_store_that_refuses_ends_with_4_and_nothing_changes(stores: Stores, broken: str) -> None:
    (stores.tmp / "file").touch()
    before = snapshot(stores.tmp)
    args = {"-s": stores.source, "-d": stores.destination, broken: stores.tmp / "file/store"}
    result = run("copy", *(arg for pair in args.items() for arg in pair), "--report", stores.report)
    assert_refused(result, 4, f"fs://{stores.tmp}/file/store", "Not a directory")
    assert snapshot(stores.tmp) == before


def test_a_source_that_does_not_exist_ends_with_4_and_makes_nothing(stores: Stores) -> None:
    before = snapshot(stores.tmp)
    missing = stores.tmp / "missing"
    commands = (
        start("get", "-s", missing, ONE.crash_id),
        start("copy", "-s", missing, "-d", stores.destination),
    )
    for process in commands:  # at the same time: each tries for a while
        stdout, stderr = process.communicate(timeout=TIMEOUT)
        assert (process.returncode, stdout) == (4, b"")
        assert stderr.count(b"\n") == 1
        assert f"fs://{missing}: ".encode() in stderr and b"No such file" in stderr
    assert snapshot(stores.tmp) == before


# -- What the destination has already ----------------------------------------------------

NEWER = replace(WHOLE, processed=processed_crash(signature="newer"))
OTHER_RAW = replace(WHOLE, raw=b"{}")
OTHER_DUMP = replace(WHOLE, dumps={**WHOLE.dumps, MAIN_DUMP: b"OTHR"})
NO_DUMP = replace(WHOLE, dumps={MAIN_DUMP: WHOLE.dumps[MAIN_DUMP]})
EXTRA_DUMP = replace(WHOLE, dumps={**WHOLE.dumps, "extra": b"x"})
UNPROCESSED = replace(WHOLE, processed=None)
MIXED = replace(OTHER_DUMP, processed=None)

# there, what compare says became of it, what is there then, what is said
COMPARED = {
    "the same": (WHOLE, "skipped", WHOLE, ""),
    "another processed crash": (NEWER, "copied", WHOLE, ""),
    "no processed crash": (UNPROCESSED, "copied", WHOLE, ""),
    "a dump missing": (NO_DUMP, "copied", WHOLE, ""),
    "another raw crash": (OTHER_RAW, "conflict", OTHER_RAW, "raw_crash"),
    "another dump": (OTHER_DUMP, "conflict", OTHER_DUMP, MAIN_DUMP),
    "a dump more": (EXTRA_DUMP, "conflict", EXTRA_DUMP, "extra"),
    "another dump and no processed crash": (MIXED, "conflict", MIXED, MAIN_DUMP),
}
Case = tuple[Sample, str, Sample, str]


@pytest.fixture
def one_crash(tmp_path: Path) -> Stores:
    """A source with one crash that has parts of every kind."""
    put(tmp_path / "source", WHOLE)
    return Stores(tmp_path)


@pytest.mark.parametrize("case", COMPARED.values(), ids=COMPARED)
def test_compare_mends_what_may_be_mended_and_reports_the_rest(
    one_crash: Stores, case: Case
) -> None:
    there, status, then, said = case
    put(one_crash.destination, there)
    before = snapshot(one_crash.destination)
    result = one_crash.copy("--existing", "compare")
    assert result.statuses == all_of(status, WHOLE)
    assert stored(one_crash.destination) == manifest(then)
    assert result.exit_code == (1 if status == "conflict" else 0)
    if status == "conflict":
        error = str(result.report[WHOLE.crash_id]["error"])
        assert f"fs://{one_crash.destination}: " in error and said in error
        assert WHOLE.crash_id in result.stderr and error in result.stderr
    if status != "copied":
        assert snapshot(one_crash.destination) == before


@pytest.mark.parametrize("there", [NEWER, UNPROCESSED, NO_DUMP])
def test_compare_copies_no_more_than_what_is_lacking(one_crash: Stores, there: Sample) -> None:
    put(one_crash.destination, there)
    raw = there.path(one_crash.destination)
    before = raw.stat().st_ino
    assert one_crash.copy("--existing", "compare").report[WHOLE.crash_id]["parts"] == 1
    assert raw.stat().st_ino == before


def test_to_compare_a_processed_crash_that_only_the_destination_has_came_later(
    tmp_path: Path,
) -> None:
    stores = Stores(tmp_path)
    put(stores.source, UNPROCESSED)
    put(stores.destination, NEWER)
    assert stores.copy("--existing", "compare").statuses == all_of("skipped", WHOLE)
    assert stored(stores.destination) == manifest(NEWER)


@pytest.mark.parametrize("args", [[], [WHOLE.crash_id]], ids=["a listing", "named"])
@pytest.mark.parametrize("there", [case[0] for case in COMPARED.values()], ids=COMPARED)
def test_skip_passes_over_whatever_has_a_raw_crash(
    one_crash: Stores, there: Sample, args: list[str]
) -> None:
    put(one_crash.destination, there)
    before = snapshot(one_crash.destination)
    result = one_crash.copy(*args)
    assert (result.exit_code, result.statuses) == (0, all_of("skipped", WHOLE))
    assert snapshot(one_crash.destination) == before


def test_skip_copies_a_crash_of_which_only_the_processed_crash_is_there(
    one_crash: Stores,
) -> None:
    put(one_crash.destination, NEWER)
    for suffix in NEWER.parts.keys() - {".jsonz"}:
        NEWER.path(one_crash.destination, suffix).unlink()
    assert one_crash.copy().statuses == all_of("copied", WHOLE)
    assert stored(one_crash.destination) == manifest(WHOLE)


@pytest.mark.parametrize("there", [case[0] for case in COMPARED.values()], ids=COMPARED)
def test_overwrite_replaces_whatever_is_there(one_crash: Stores, there: Sample) -> None:
    put(one_crash.destination, there)
    result = one_crash.copy("--existing", "overwrite")
    assert (result.exit_code, result.statuses) == (0, all_of("copied", WHOLE))
    assert result.report[WHOLE.crash_id]["parts"] == len(WHOLE.parts)
    assert stored(one_crash.destination) == manifest(WHOLE)


# -- Which kinds of parts ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "suffixes"),
    [
        ("raw", [".json"]),
        ("raw,dumps", [".json", ".dump", ".plugin.dump"]),
        ("raw, processed", [".json", ".jsonz"]),
        ("processed", [".jsonz"]),
        ("processed,dumps,raw", [".json", ".dump", ".plugin.dump", ".jsonz"]),
    ],
)
def test_only_the_kinds_that_are_named_are_copied(
    one_crash: Stores, kinds: str, suffixes: list[str]
) -> None:
    result = one_crash.copy("--kinds", kinds)
    assert (result.exit_code, result.statuses) == (0, all_of("copied", WHOLE))
    directory = f"{WHOLE.directory}/{WHOLE.crash_id}"
    everything = manifest(WHOLE)
    wanted = {f"{directory}{suffix}": everything[f"{directory}{suffix}"] for suffix in suffixes}
    assert stored(one_crash.destination) == wanted


@pytest.mark.parametrize("args", [[], [WHOLE.crash_id]], ids=["a listing", "named"])
def test_a_processed_crash_that_came_later_is_found_by_its_kind(
    one_crash: Stores, args: list[str]
) -> None:
    put(one_crash.destination, UNPROCESSED)
    assert one_crash.copy(*args).statuses == all_of("skipped", WHOLE)
    assert one_crash.copy("--kinds", "processed", *args).statuses == all_of("copied", WHOLE)
    assert stored(one_crash.destination) == manifest(WHOLE)
    assert one_crash.copy("--kinds", "processed", *args).statuses == all_of("skipped", WHOLE)


def test_dumps_can_be_brought_to_a_raw_crash_that_lacks_them(one_crash: Stores) -> None:
    put(one_crash.destination, replace(WHOLE, dumps={}))
    assert one_crash.copy("--kinds", "dumps").statuses == all_of("copied", WHOLE)
    assert stored(one_crash.destination) == manifest(WHOLE)


def test_to_overwrite_raw_crashes_alone_costs_the_destination_no_dumps(one_crash: Stores) -> None:
    put(one_crash.destination, OTHER_RAW)
    one_crash.copy("--kinds", "raw", "--existing", "overwrite")
    for suffix in (".dump", ".plugin.dump"):
        assert WHOLE.path(one_crash.destination, suffix).read_bytes() == WHOLE.parts[suffix]


# -- Verifying ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checksums", "dumps", "said"),
    [
        ({MAIN_DUMP: "0" * 64}, {MAIN_DUMP: b"MDMP"}, "checksum"),
        ({MAIN_DUMP: "0" * 64}, {}, "missing"),
        ({"dump": "0" * 64}, {MAIN_DUMP: b"MDMP"}, "checksum"),
    ],
)
@pytest.mark.parametrize("there", [False, True], ids=["new", "there already"])
def test_a_dump_that_is_not_what_its_collector_received_fails_and_stays_in_the_source(
    stores: Stores, checksums: dict[str, str], dumps: dict[str, bytes], said: str, there: bool
) -> None:
    wrong = sample(8, dumps=dumps, metadata={"dump_checksums": checksums})
    put(stores.source, wrong)
    if there:
        put(stores.destination, wrong)
    result = stores.copy("--verify", "--remove-source")
    assert result.exit_code == 1
    assert result.statuses == all_of("copied", ONE, TWO, THREE) | all_of("failed", wrong)
    error = str(result.report[wrong.crash_id]["error"])
    assert said in error and MAIN_DUMP in error and f"fs://{stores.source}" in error
    assert stored(stores.source) == manifest(wrong)
    assert stored(stores.destination) == manifest(ONE, TWO, THREE, *[wrong] * there)


@pytest.mark.parametrize(
    "metadata", [{}, None, {"dump_checksums": None}, {"dump_checksums": {MAIN_DUMP: "md5"}}]
)
def test_a_raw_crash_without_checksums_is_verified_by_what_is_read_back(
    stores: Stores, metadata: object
) -> None:
    crash = sample(8, metadata=metadata)
    put(stores.source, crash)
    result = stores.copy("--verify", crash.crash_id)
    assert (result.exit_code, result.statuses) == (0, all_of("copied", crash))


@pytest.mark.parametrize("kinds", ["raw", "raw,processed", "processed"])
def test_dumps_that_are_not_copied_are_not_held_against_their_checksums(
    stores: Stores, kinds: str
) -> None:
    result = stores.copy("--verify", "--kinds", kinds)
    assert (result.exit_code, set(result.statuses.values())) == (0, {"copied"})


@pytest.mark.parametrize("there", [OTHER_RAW, OTHER_DUMP, NEWER, NO_DUMP, EXTRA_DUMP])
def test_verify_does_not_take_a_crash_that_is_there_on_trust(
    one_crash: Stores, there: Sample
) -> None:
    put(one_crash.destination, there)
    before = snapshot(one_crash.destination)
    result = one_crash.copy("--verify", "--remove-source")
    assert (result.exit_code, result.statuses) == (1, all_of("conflict", WHOLE))
    assert snapshot(one_crash.destination) == before
    assert stored(one_crash.source) == manifest(WHOLE)


# -- Removing from the source ------------------------------------------------------------


def test_what_is_copied_is_removed_and_its_neighbours_are_not(stores: Stores) -> None:
    leaf = ONE.path(stores.source).parent
    (leaf / "README").write_text("not a crash")
    kept = {path: snapshot(path) for path in leaf.iterdir() if TWO.crash_id in path.name}
    result = stores.copy("--remove-source", ONE.crash_id, THREE.crash_id)
    assert (result.exit_code, result.statuses) == (0, all_of("copied", ONE, THREE))
    assert stored(stores.destination) == manifest(ONE, THREE)
    assert {path.name for path in leaf.iterdir()} == {"README", *(path.name for path in kept)}
    assert {path: snapshot(path) for path in kept} == kept


def test_flat_crashes_have_neighbours_too(tmp_path: Path) -> None:
    crashes = [sample(n, depth="0", leaf=leaf) for n, leaf in enumerate(("0bba", "0bba", "c0de"))]
    stores = Stores(tmp_path)
    put(stores.source, *crashes)
    assert stores.copy("--remove-source", crashes[0].crash_id).exit_code == 0
    assert stored(stores.source) == manifest(*crashes[1:])


def test_with_its_last_crash_a_source_loses_its_empty_directories_and_stays(
    stores: Stores,
) -> None:
    assert stores.copy("--remove-source").exit_code == 0
    assert list(stores.source.iterdir()) == []
    assert stored(stores.destination) == manifest(ONE, TWO, THREE)


@pytest.mark.parametrize("args", [[], [ONE.crash_id]], ids=["a listing", "named"])
def test_what_was_skipped_by_its_marker_alone_stays_in_the_source(
    stores: Stores, args: list[str]
) -> None:
    put(stores.destination, ONE)
    before = {suffix: snapshot(ONE.path(stores.source, suffix)) for suffix in ONE.parts}
    assert stores.copy("--remove-source", *args).statuses[ONE.crash_id] == "skipped"
    assert {suffix: snapshot(ONE.path(stores.source, suffix)) for suffix in ONE.parts} == before


@pytest.mark.parametrize("args", [["--existing", "compare"], ["--verify"]])
def test_what_was_found_the_same_is_removed_from_the_source(
    stores: Stores, args: list[str]
) -> None:
    put(stores.destination, ONE)
    result = stores.copy("--remove-source", *args, ONE.crash_id)
    assert (result.exit_code, result.statuses) == (0, all_of("skipped", ONE))
    assert stored(stores.source) == manifest(TWO, THREE)


def test_what_only_one_of_two_destinations_is_known_to_have_is_not_removed(
    stores: Stores,
) -> None:
    put(stores.destination, replace(ONE, processed=None))
    result = stores.copy("-d", stores.tmp / "other", "--remove-source", ONE.crash_id)
    assert (result.exit_code, result.statuses) == (0, all_of("copied", ONE))
    assert stored(stores.source) == manifest(ONE, TWO, THREE)


def test_a_conflict_is_not_removed(one_crash: Stores) -> None:
    put(one_crash.destination, OTHER_RAW)
    before = snapshot(one_crash.source)
    assert one_crash.copy("--remove-source", "--existing", "compare").exit_code == 1
    assert snapshot(one_crash.source) == before


# -- Dry runs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [[], ["--remove-source"], ["--verify"], ["--existing", "overwrite"], ["--redact"]],
    ids=" ".join,
)
def test_a_dry_run_says_what_would_be_copied_and_changes_nothing(
    stores: Stores, args: list[str]
) -> None:
    before = snapshot(stores.source)
    result = stores.copy("--dry-run", *args)
    assert (result.exit_code, result.statuses) == (0, all_of("would-copy", ONE, TWO, THREE))
    assert not stores.destination.exists()
    assert snapshot(stores.source) == before
    assert result.report[ONE.crash_id]["parts"] == len(ONE.parts)
    assert (result.summary["copied"], result.summary["failed"]) == (0, 0)
    assert "would copy 3" in result.stderr


def test_a_dry_run_tells_what_is_there_from_what_is_not(stores: Stores) -> None:
    put(stores.destination, ONE, replace(TWO, processed=processed_crash(signature="newer")))
    before = snapshot(stores.destination)
    assert stores.copy("--dry-run").statuses == {
        **all_of("skipped", ONE, TWO),
        **all_of("would-copy", THREE),
    }
    result = stores.copy("--dry-run", "--existing", "compare", "--remove-source")
    assert result.statuses == all_of("skipped", ONE) | all_of("would-copy", TWO, THREE)
    assert snapshot(stores.destination) == before
    assert stored(stores.source) == manifest(ONE, TWO, THREE)


# -- Redacting ---------------------------------------------------------------------------


def test_redact_leaves_protected_keys_out_of_processed_crashes_and_nothing_else(
    one_crash: Stores,
) -> None:
    before = snapshot(one_crash.source)
    assert one_crash.copy("--redact").statuses == all_of("copied", WHOLE)
    packed = WHOLE.path(one_crash.destination, ".jsonz").read_bytes()
    assert json.loads(gzip.decompress(packed)) == {"signature": "f"}
    assert manifest(UNPROCESSED).items() <= stored(one_crash.destination).items()
    assert snapshot(one_crash.source) == before


def test_what_cannot_be_redacted_is_not_copied(one_crash: Stores) -> None:
    WHOLE.path(one_crash.source, ".jsonz").write_bytes(gzip.compress(b'"zoe@example.com"'))
    result = one_crash.copy("--redact")
    assert (result.exit_code, result.statuses) == (1, all_of("failed", WHOLE))
    assert stored_or_nothing(one_crash.destination) == {}


def stored_or_nothing(root: Path) -> Manifest:
    return stored(root) if root.exists() else {}


# -- Crashes that fail -------------------------------------------------------------------


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


# -- What is said ------------------------------------------------------------------------


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


# -- One run at a time -------------------------------------------------------------------


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


# -- What is refused ---------------------------------------------------------------------

FROM, TO = ["-s", "{tmp}/source"], ["-d", "{tmp}/destination"]
REMOVE = [*FROM, *TO, "--remove-source"]

BAD: dict[str, tuple[list[str], str]] = {
    "no source": (TO, "--source"),
    "no destination": (FROM, "--destination"),
    "an unknown scheme": ([*FROM, "-d", "floppy://a"], "'floppy'"),
    "an unknown option of a store": ([*FROM, "-d", "{tmp}/x?colour=red"], "'colour'"),
    "a malformed option of a store": (["-s", "{tmp}/source?umask=999", *TO], "umask"),
    "a malformed URI": ([*FROM, "-d", "fs://{tmp}/x#1"], "%23"),
    "neither a path nor a URI": ([*FROM, "-d", "a.b"], "slash"),
    "a bad crash id": ([*FROM, *TO, "bp-0bba929f"], "'bp-0bba929f'"),
    "a crash id of no day": ([*FROM, *TO, make_id(1, day="261131")], "yymmdd"),
    "a good crash id and a bad one": ([*FROM, *TO, ONE.crash_id, "x"], "'x'"),
    "a bad day": ([*FROM, *TO, "--since", "2026-02-30"], "--since"),
    "another bad day": ([*FROM, *TO, "--until", "tomorrow"], "--until"),
    "a day too long ago": ([*FROM, *TO, "--since", "99999999d"], "--since"),
    "since after until": (
        [*FROM, *TO, "--since", "2026-11-20", "--until", "2026-11-19"],
        "--since 2026-11-20 is after --until 2026-11-19",
    ),
    "crash ids and a range": ([*FROM, *TO, ONE.crash_id, "--since", "today"], "range"),
    "a file and a range": ([*FROM, *TO, "--ids-from", "{tmp}/ids", "--until", "today"], "range"),
    "a file of ids with a bad line": ([*FROM, *TO, "--ids-from", "{tmp}/ids"], "line 3"),
    "a file of ids that is binary": ([*FROM, *TO, "--ids-from", "{tmp}/binary"], "line 1"),
    "a file of ids that is not there": ([*FROM, *TO, "--ids-from", "{tmp}/no"], "{tmp}/no"),
    "a file of ids that is a directory": ([*FROM, *TO, "--ids-from", "{tmp}"], "directory"),
    "a limit of none": ([*FROM, *TO, "--limit", "0"], "--limit"),
    "a limit of few": ([*FROM, *TO, "--limit", "few"], "--limit"),
    "no workers": ([*FROM, *TO, "--workers", "0"], "--workers"),
    "an unknown kind": ([*FROM, *TO, "--kinds", "raw,dump"], "'dump'"),
    "no kinds": ([*FROM, *TO, "--kinds", ""], "--kinds"),
    "existing what": ([*FROM, *TO, "--existing", "replace"], "'replace'"),
    "no time": ([*FROM, *TO, "--max-duration", "0s"], "--max-duration"),
    "a bad time": ([*FROM, *TO, "--max-duration", "soon"], "--max-duration"),
    "a report in a missing directory": ([*FROM, *TO, "--report", "{tmp}/no/r"], "--report"),
    "a report that is a directory": ([*FROM, *TO, "--report", "{tmp}"], "--report"),
    "a lock in a missing directory": ([*FROM, *TO, "--lock", "{tmp}/no/lock"], "--lock"),
    "an option that does not exist": ([*FROM, *TO, "--nonsense"], "--nonsense"),
    "source and destination the same": ([*FROM, "-d", "{tmp}/source"], "same"),
    "the same by a URI": ([*FROM, "-d", "fs://{tmp}/source/"], "same"),
    "the same by another path": ([*FROM, "-d", "{tmp}/destination/../source"], "same"),
    "the same by a symbolic link": ([*FROM, "-d", "{tmp}/link"], "same"),
    "the same by a link above it": ([*FROM, "-d", "{tmp}/above/source"], "same"),
    "the same, with another umask": ([*FROM, "-d", "{tmp}/source?umask=077"], "same"),
    "the same and another, to be removed": ([*REMOVE, "-d", "{tmp}/source"], "same"),
    "to remove what is copied in part": ([*REMOVE, "--kinds", "raw"], "kinds"),
    "to remove without processed crashes": ([*REMOVE, "--kinds", "raw,dumps"], "kinds"),
    "to remove what is redacted": ([*REMOVE, "--redact"], "redacted"),
    "to remove from two sources": ([*REMOVE, "-s", "{tmp}/other"], "one store"),
    "an unknown name": (["--config", "{tmp}/config.toml", *FROM, "-d", "porf"], "'porf'"),
    "a missing configuration": (["--config", "{tmp}/no.toml", *FROM, "-d", "prod"], "no.toml"),
    "a bad configuration": (["--config", "{tmp}/ids", *FROM, "-d", "prod"], "TOML"),
}


@pytest.mark.parametrize(("args", "phrase"), BAD.values(), ids=BAD)
def test_bad_usage_is_refused_in_one_line_and_nothing_changes(
    stores: Stores, args: list[str], phrase: str
) -> None:
    tmp = stores.tmp
    put(stores.destination, ONE)
    put(tmp / "other", ONE)
    (tmp / "link").symlink_to("source")
    (tmp / "above").symlink_to(tmp)
    (tmp / "ids").write_text(f"{TWO.crash_id}\n\nnonsense\n")
    (tmp / "binary").write_bytes(b"\xff\xfe\x00\x1b[31m")
    (tmp / "config.toml").write_text(f'[storage]\nprod = "{tmp}/destination"\n')
    before = snapshot(tmp)
    filled = [arg.format(tmp=tmp) for arg in args]
    first = filled[:2] if filled[0] == "--config" else []
    result = run(*first, "copy", *filled[len(first) :])
    assert_refused(result, 2, phrase.format(tmp=tmp))
    assert is_harmless(result.stderr)
    assert snapshot(tmp) == before


def test_ids_with_a_bad_line_from_standard_input_are_refused_before_anything_is_copied(
    stores: Stores,
) -> None:
    before = snapshot(stores.tmp)
    stdin = f"{ONE.crash_id}\n{TWO.crash_id}x\n".encode()
    args = ("-s", stores.source, "-d", stores.destination, "--ids-from", "-")
    assert_refused(run("copy", *args, stdin=stdin), 2, "--ids-from", "line 2")
    assert snapshot(stores.tmp) == before
