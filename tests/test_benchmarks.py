# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The benchmarks: what they say is what was measured, and wrong bytes do not pass."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docutils import nodes
from docutils.core import publish_doctree

from tests.benchmarks import corpus, listing_server, report
from tests.benchmarks.command import BENCHMARKS
from tests.benchmarks.command import main as run_main
from tests.benchmarks.command import run as run_benchmarks
from tests.benchmarks.contest import OURS, Command, Contender, Results, WrongBytes, hold, take_turn
from tests.benchmarks.corpus import PROCESSED, Corpus, files_in, make_corpus, realistic, small
from tests.benchmarks.listing_server import Objects
from tests.benchmarks.measure import Failed, Sample, cpu_of, measure
from tests.benchmarks.report import CPU, Row, at_least, at_most, both_ends, compare, slower_end
from tests.benchmarks.suite import QUICK, Sizes, Suite, files_are, new_suite
from tests.cli_helpers import run

PYTHON = [sys.executable, "-S", "-c"]


@pytest.fixture
def crashes(tmp_path: Path) -> Corpus:
    return make_corpus(tmp_path / "crashes", 12, realistic)


def nothing(text: str) -> None:
    """Say nothing."""


# The crashes


def test_the_same_seed_makes_the_same_crashes(crashes: Corpus, tmp_path: Path) -> None:
    again = make_corpus(tmp_path / "again", 12, realistic)
    others = make_corpus(tmp_path / "others", 12, realistic, seed=2)
    assert again.parts == crashes.parts
    assert not set(others.crash_ids) & set(crashes.crash_ids)


def test_what_is_said_to_be_there_is_there(crashes: Corpus, tmp_path: Path) -> None:
    assert files_in(crashes.root) == crashes.files
    assert files_in(crashes.stage(tmp_path / "staged")) == crashes.objects


def test_small_crashes_are_small(tmp_path: Path) -> None:
    made = make_corpus(tmp_path / "small", 5, small)
    assert [part.size for part in made.parts[:2]] == [300, 1024]


def test_a_large_dump_is_as_large_as_it_is_to_be(tmp_path: Path) -> None:
    made = make_corpus(tmp_path / "large", 1, corpus.large(3 * 2**20))
    assert made.parts[1].size == 3 * 2**20 + len(b"MDMP")


def test_our_copy_of_the_crashes_is_what_is_wanted(crashes: Corpus, tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert run("copy", "-s", crashes.root, "-d", target).exit_code == 0
    files_are(target, lambda: crashes.files)()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def rewrite(path: Path) -> None:
    path.write_bytes(gzip.compress(b"{}"))


FAULTS: list[tuple[str, Callable[[Path], None], str]] = [
    (".json", flip, "1 other bytes"),
    (".dump", flip, "1 other bytes"),
    (".jsonz", rewrite, "1 other bytes"),
    (".dump", Path.unlink, "1 missing"),
    (".dump", lambda path: path.with_suffix(".tmp").touch(), "1 not asked for"),
]


@pytest.mark.parametrize(("suffix", "damage", "fault"), FAULTS)
def test_whatever_is_wrong_is_found(
    crashes: Corpus, suffix: str, damage: Callable[[Path], None], fault: str
) -> None:
    damage(next(crashes.root.rglob(f"*{suffix}")))
    with pytest.raises(WrongBytes, match=fault):
        files_are(crashes.root, lambda: crashes.files)()


def test_another_compression_of_a_processed_crash_is_not_wrong(crashes: Corpus) -> None:
    part = next(part for part in crashes.parts if part.kind == PROCESSED)
    path = crashes.root / part.file
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 9))
    files_are(crashes.root, lambda: crashes.files)()


# Measuring


def test_the_memory_and_processor_of_all_processes_count() -> None:
    hold_memory = "x = b'x' * 60_000_000; import time; time.sleep(0.4)"
    program = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {hold_memory!r}])"
    )
    spin = "import time; t = time.process_time()\nwhile time.process_time() < t + 0.2: pass"
    both = f"{hold_memory}; {program}"
    assert 120e6 < measure([*PYTHON, both]).memory < 160e6
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {spin!r}])"
    assert measure([*PYTHON, child]).cpu >= 0.2


def test_a_process_that_has_ended_meanwhile_does_not_count() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    before, now, after = (
        cpu_of([os.getpid()]),
        cpu_of([ended.pid, os.getpid()]),
        cpu_of([os.getpid()]),
    )
    assert 0 < before <= now <= after


def test_standard_output_goes_into_a_file(tmp_path: Path) -> None:
    measure([*PYTHON, "print('there')"], output=tmp_path / "output")
    assert (tmp_path / "output").read_text() == "there\n"


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(Failed, match=r"exit code 3(.|\n)*oh dear"):
        measure([*PYTHON, "import sys; sys.stderr.write('oh dear'); sys.exit(3)"])


def test_a_program_that_is_not_there_fails() -> None:
    with pytest.raises(Failed, match="nosuch"):
        measure(["nosuch-program"])


# Contests


def contender(name: str, begun: list[str], program: str = sys.executable) -> Contender:
    def turn() -> Command:
        begun.append(name)
        return Command([*PYTHON, ""], 7, lambda: None)

    return Contender(name, turn, program)


def test_contenders_take_turns_and_another_begins_each_round() -> None:
    begun: list[str] = []
    results = hold([contender(name, begun) for name in "abc"], 3, nothing)
    assert "".join(begun) == "abcbcacab"
    assert [sample.count for sample in results.samples["a"]] == [7, 7, 7]


def test_who_is_not_installed_is_left_out_and_named() -> None:
    begun: list[str] = []
    results = hold([contender("a", begun), contender("b", begun, "nosuch")], 1, nothing)
    assert begun == ["a"]
    row = compare("work", results, "b", at_least(1), ours="a")
    assert (row.verdict, row.holds) == ("not run: nosuch is not installed", None)


def test_wrong_bytes_name_who_wrote_them() -> None:
    def wrong() -> None:
        raise WrongBytes("1 missing: x")

    turn = partial(Command, [*PYTHON, ""], 1, wrong)
    with pytest.raises(WrongBytes, match="somebody: 1 missing: x"):
        take_turn(Contender("somebody", turn))


def test_what_fails_is_named_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(suite: Suite) -> list[Row]:
        raise WrongBytes("somebody: 1 missing: x")

    monkeypatch.setitem(BENCHMARKS, "fs-fs", wrong)
    monkeypatch.setitem(BENCHMARKS, "get", lambda suite: ROWS)
    with new_suite(QUICK, tmp_path) as suite:
        rows, failures = run_benchmarks(suite, ["fs-fs", "get"])
    assert rows == ROWS
    assert failures == {"fs-fs": "WrongBytes: somebody: 1 missing: x"}
    assert list(tmp_path.iterdir()) == []


# The table


def results() -> Results:
    def samples(*seconds: float, cpu: float) -> list[Sample]:
        return [Sample(100, one, cpu, 50_000_000) for one in seconds]

    return Results(
        {
            OURS: samples(1, 2, 9, cpu=1),
            "slow": samples(6, 4, 1, cpu=4),
            "fast": samples(1, 1, 1, cpu=0.5),
        },
        {"absent": "absent is not installed"},
    )


def test_the_ratio_is_that_of_the_medians() -> None:
    row = compare("work", results(), "slow", at_least(1.5))
    assert (row.ours, row.theirs, row.value, row.verdict) == ("50/s", "25/s", 2.0, "holds")


def test_a_goal_may_be_an_upper_limit() -> None:
    rows = [compare("work", results(), "slow", at_most(limit), figure=CPU) for limit in (0.2, 0.3)]
    assert [row.verdict for row in rows] == ["does not hold", "holds"]


def test_the_slower_of_two_ends_is_found() -> None:
    assert slower_end("work", results(), ("fast", "slow"), at_least(0.8)).peer == "slow"


def test_both_ends_at_once_cannot_be_done_faster_than_their_processor_time() -> None:
    row = both_ends("work", results(), ("fast", "slow"))  # 4.5 seconds for a hundred
    assert row.value == pytest.approx(50 / (os.cpu_count() or 1) * 4.5 / 100)
    assert "not installed" in both_ends("work", results(), ("fast", "absent")).missing


ROWS = [
    compare("fs -> fs", results(), "slow", at_least(1.5)),
    compare("fs -> S3: client CPU", results(), "fast", at_most(0.6), figure=CPU),
    compare("fs -> fs", results(), "absent", at_least(1)),
    compare("fs -> fs", results(), "fast"),
    Row("memory", "", "151 MB", value=151e6, goal=at_most(150e6, "150 MB")),
]


def test_the_table_says_all_and_fits() -> None:
    lines = report.table(ROWS).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[2].split() == "fs -> fs slow 50/s 25/s 2.00 >= 1.5 holds".split()  # noqa: SIM905
    assert "not run:" in lines[4] and "absent is not" in lines[5]
    assert lines[-1].endswith("<= 150 MB does not hold")


def test_the_table_for_the_readme_is_one() -> None:
    document = publish_doctree(report.rst_table(ROWS), settings_overrides={"report_level": 2})
    body = next(iter(document.findall(nodes.tbody)))
    cells = [[entry.astext() for entry in row.findall(nodes.entry)] for row in body.children]
    assert [row[0] for row in cells] == [row.work for row in ROWS]
    assert cells[2][-1].replace("\n", " ") == "not run: absent is not installed"


def test_the_works_fit_into_their_column() -> None:
    assert max(len(row.work) for row in ROWS) <= report.WIDTHS[0]


def test_less_is_measured_quickly() -> None:
    assert (QUICK.fs, QUICK.rerun) < (Sizes().fs, Sizes().rerun)


def test_a_full_run_is_not_begun_where_there_is_no_room_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=7 << 30))
    directory = tmp_path / "build"
    with pytest.raises(SystemExit, match="7 GiB are free, and 50 are needed"):
        run_main(["--directory", str(directory)])
    assert not directory.exists()


# The server that lists


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    for name in ("a/1", "a/2", "b/1", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return Objects(tmp_path)


def test_listings_go_on_where_they_stopped(objects: Objects) -> None:
    s3 = listing_server.S3(objects)
    first = s3.list({"delimiter": "/", "max-keys": "2"}).body.decode()
    token = first.partition("<NextContinuationToken>")[2].partition("<")[0]
    last = s3.list({"delimiter": "/", "continuation-token": token}).body.decode()
    assert first.count("<CommonPrefixes>") == 2 and "<IsTruncated>true" in first
    assert "<Key>c</Key>" in last and "<IsTruncated>false" in last
    assert "<Key>a/2</Key>" in s3.list({"prefix": "a/", "start-after": "a/1"}).body.decode()


def test_listings_of_google_go_on_where_they_stopped(objects: Objects) -> None:
    gcs = listing_server.GCS(objects)

    def page(**query: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(gcs.list({"fields": "items(name)", **query}).body)
        return found

    first = page(delimiter="/", maxResults="2")
    last = page(delimiter="/", pageToken=first["nextPageToken"])
    assert first["prefixes"] == ["a/", "b/"] and not first["items"]
    assert last["items"] == [{"name": "c"}] and "nextPageToken" not in last
    assert page(prefix="a/", startOffset="a/2")["items"] == [{"name": "a/2"}]


def test_a_page_that_is_just_full_is_the_last(objects: Objects) -> None:
    assert objects.page("a/", "", 0, 2) == (["a/1", "a/2"], [], None)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/bucket", (False, "bucket", "")),
        ("/bucket/v1/a%20b", (False, "bucket", "v1/a b")),
        ("/storage/v1/b/bucket/o", (True, "bucket", "")),
        ("/storage/v1/b/bucket/o/v1%2Fo%2Fa", (True, "bucket", "v1/o/a")),
    ],
)
def test_both_ways_to_name_an_object_are_understood(
    path: str, place: tuple[bool, str, str]
) -> None:
    assert listing_server.place_of(path) == place
