# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover check``: whether a store has what another has; neither is changed."""

import gzip
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crashmover.errors import StorageUnavailable
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.registry import open_storage
from tests.cli_helpers import (
    MAIN_DUMP,
    Sample,
    assert_refused,
    by_crash_id,
    is_harmless,
    processed_crash,
    put,
    run,
    sample,
    snapshot,
    start,
)
from tests.conftest import new_uri, on_buckets
from tests.servers.buckets import BucketServer
from tests.store_helpers import remove_once_listed

DUMPS = {MAIN_DUMP: b"MDMP one", "memory_report": b"[1, 2]"}
CRASHES = [
    sample(n, day=day, dumps=DUMPS, processed=processed_crash(n=n))
    for n, day in enumerate(["261116", "261116", "261117", "261117", "261118"], 1)
]
IDS = [crash.crash_id for crash in CRASHES]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return put(tmp_path / "source", *CRASHES)


@pytest.fixture(
    params=["fs", "s3_strict", pytest.param("fake_gcs", marks=pytest.mark.slow), "postgresql"]
)
def put_away(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., str]:
    """Puts crashes into a store of each kind, and returns its URI."""
    uri = str(tmp_path / "there") if request.param == "fs" else new_uri(request, request.param)

    def put_away(*crashes: Sample) -> str:
        prepared = put(tmp_path / "prepared", *crashes)
        with open_storage(str(prepared)) as source, open_storage(uri) as storage:
            for crash_id in source.new_crashes():
                storage.save_crash(source.load_crash(crash_id))
        return uri

    return put_away


def lines(text: str) -> dict[str, str]:
    """What is said of each crash."""
    return dict(line.split("  # ") for line in text.splitlines())


def test_what_is_all_there_is_ok_and_nothing_is_changed(source: Path, tmp_path: Path) -> None:
    there = put(tmp_path / "there", *CRASHES)
    before = snapshot(source), snapshot(there)
    for options in ([], ["--digest"]):
        result = run("check", "-s", source, "-d", there, *options)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr.startswith("checked 5: ok 5")
    assert (snapshot(source), snapshot(there)) == before
    result = run("check", "-s", source, "-d", there, "--all")
    assert lines(result.stdout) == dict.fromkeys(IDS, "ok")


def test_each_thing_that_is_wrong_is_said_of_every_kind_of_store(
    source: Path, put_away: Callable[..., str]
) -> None:
    there = put_away(
        CRASHES[0],
        replace(CRASHES[1], dumps={MAIN_DUMP: DUMPS[MAIN_DUMP]}),
        replace(CRASHES[2], dumps={**DUMPS, MAIN_DUMP: b"MDMP two!"}),
        replace(CRASHES[3], processed=None),
    )
    result = run("check", "-s", source, "-d", there)
    assert result.exit_code == 1
    assert lines(result.stdout) == {
        IDS[1]: "missing dump (missing: memory_report)",
        IDS[2]: f"differs (different: {MAIN_DUMP})",
        IDS[3]: "processed missing",
        IDS[4]: "missing",
    }
    assert result.stderr == (
        "checked 5: ok 1, missing 1, differs 1, missing dump 1, processed missing 1\n"
    )
    with_digest = run("check", "-s", source, "-d", there, "--digest")
    assert with_digest.stdout == result.stdout
    assert with_digest.stderr.startswith(result.stderr.strip() + "; ")


def test_bytes_that_changed_are_found_by_digest_alone(
    source: Path, put_away: Callable[..., str]
) -> None:
    changed = replace(CRASHES[0], dumps={**DUMPS, "memory_report": b"[1, 3]"})
    reprocessed = replace(CRASHES[1], processed=processed_crash(n=7))
    there = put_away(changed, reprocessed, *CRASHES[2:])
    assert run("check", "-s", source, "-d", there).exit_code == 0
    result = run("check", "-s", source, "-d", there, "--digest")
    assert (result.exit_code, lines(result.stdout)) == (
        1,
        {
            IDS[0]: "differs (different: memory_report)",
            IDS[1]: "differs (different: processed_crash)",
        },
    )


def test_a_dump_that_only_the_destination_has_is_a_difference(tmp_path: Path) -> None:
    crash = CRASHES[0]
    more = put(tmp_path / "more", crash)
    fewer = put(tmp_path / "fewer", replace(crash, dumps={}))
    result = run("check", "-s", fewer, "-d", more)
    assert lines(result.stdout) == {
        crash.crash_id: f"differs (not in source: memory_report, {MAIN_DUMP})"
    }


def test_a_processed_crash_that_only_the_destination_has_came_later(tmp_path: Path) -> None:
    there = put(tmp_path / "there", CRASHES[0])
    source = put(tmp_path / "early", replace(CRASHES[0], processed=None))
    assert run("check", "-s", source, "-d", there, "--digest").exit_code == 0


def test_a_dump_that_is_not_what_the_collector_received_differs(tmp_path: Path) -> None:
    crash = replace(CRASHES[0], dumps={**DUMPS, "memory_report": b"damaged"})
    source, there = put(tmp_path / "source", crash), put(tmp_path / "there", crash)
    assert run("check", "-s", source, "-d", there).exit_code == 0
    result = run("check", "-s", source, "-d", there, "--digest")
    assert result.exit_code == 1
    said = "dump memory_report does not match its checksum in the raw crash"
    assert lines(result.stdout) == {crash.crash_id: f"differs (fs://{source}: {said})"}
    only_raw = run("check", "-s", source, "-d", there, "--digest", "--kinds", "raw")
    assert only_raw.exit_code == 0, only_raw.stdout


def test_what_was_found_is_what_a_copy_brings(source: Path, tmp_path: Path) -> None:
    there = put(
        tmp_path / "there",
        *CRASHES[:2],
        replace(CRASHES[2], dumps={}, processed=None),
    )
    bad = tmp_path / "bad.txt"
    bad.write_text(run("check", "-s", source, "-d", there).stdout)
    copied = run("copy", "-s", source, "-d", there, "--ids-from", bad, "--existing", "compare")
    assert copied.stderr.startswith("copied 3, skipped 0, failed 0; ")
    assert run("check", "-s", source, "-d", there, "--digest").exit_code == 0


def test_everything_is_there_as_json(source: Path, tmp_path: Path) -> None:
    there = put(tmp_path / "there", *CRASHES[:3], replace(CRASHES[3], dumps={}))
    result = run("check", "-s", source, "-d", there, "--json", "--all")
    found = by_crash_id(result.stdout.splitlines())
    nothing: dict[str, object] = {"missing": [], "differing": [], "extra": []}
    store = f"fs://{there}"
    assert found[IDS[0]] == {"crash_id": IDS[0], "status": "ok", "store": store, **nothing}
    assert found[IDS[3]] == {
        "crash_id": IDS[3],
        "status": "missing dump",
        "store": store,
        **nothing,
        "missing": ["memory_report", MAIN_DUMP],
    }
    everything = ["memory_report", "processed_crash", "raw_crash", MAIN_DUMP]
    assert (found[IDS[4]]["status"], found[IDS[4]]["missing"]) == ("missing", everything)
    assert result.exit_code == 1


def test_only_the_crashes_and_parts_that_are_asked_for_are_looked_at(
    source: Path, tmp_path: Path
) -> None:
    there = put(tmp_path / "there", replace(CRASHES[0], processed=None))
    ids = tmp_path / "ids.txt"
    ids.write_text(f"{IDS[0]}\nbp-{IDS[1]}\n")

    def checked(*options: str | Path) -> dict[str, str]:
        return lines(run("check", "-s", source, "-d", there, *options).stdout)

    assert checked("--until", "2026-11-16") == {IDS[0]: "processed missing", IDS[1]: "missing"}
    assert checked("--since", "2026-11-18") == {IDS[4]: "missing"}
    assert checked("--ids-from", ids) == {IDS[0]: "processed missing", IDS[1]: "missing"}
    assert checked(IDS[0]) == {IDS[0]: "processed missing"}
    assert checked(IDS[0], "--kinds", "raw,dumps") == {}
    assert checked("--kinds", "processed") == dict.fromkeys(IDS, "processed missing")


def test_each_destination_is_checked_and_named(source: Path, tmp_path: Path) -> None:
    one, two = put(tmp_path / "one", *CRASHES), put(tmp_path / "two", *CRASHES[1:])
    result = run("check", "-s", source, "-d", one, "-d", two)
    assert result.stdout == f"{IDS[0]}  # missing (fs://{two})\n"
    assert result.stderr == "checked 10: ok 9, missing 1\n"


def test_a_crash_may_lie_in_any_of_several_sources(source: Path, tmp_path: Path) -> None:
    old, new = put(tmp_path / "old", *CRASHES[:3]), put(tmp_path / "new", *CRASHES[3:])
    assert run("check", "-s", old, "-s", new, "-d", source, "--digest").stderr.startswith(
        "checked 5: ok 5"
    )


def test_a_crash_that_the_source_does_not_have_is_a_mistake_where_it_was_named(
    source: Path, tmp_path: Path
) -> None:
    unknown = sample(99).crash_id
    result = run("check", "-s", source, "-d", put(tmp_path / "there", *CRASHES), unknown, IDS[0])
    assert result.exit_code == 1
    assert lines(result.stdout) == {unknown: f"gone (fs://{source}: no such crash)"}


def test_a_crash_that_was_removed_since_it_was_listed_is_no_mistake(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = put(tmp_path / "there", *CRASHES)
    remove_once_listed(monkeypatch, IDS[0])
    result = run("check", "-s", source, "-d", there)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "checked 5: ok 4, gone 1\n"


def test_a_crash_that_cannot_be_read_is_named_and_the_others_are_checked(
    source: Path, tmp_path: Path
) -> None:
    there = put(tmp_path / "there", *CRASHES)
    CRASHES[1].path(source, ".jsonz").write_bytes(b"no gzip")
    CRASHES[2].path(there, ".jsonz").write_bytes(gzip.compress(b"{}")[:-9])
    result = run("check", "-s", source, "-d", there, "--digest")
    assert result.exit_code == 1
    found = lines(result.stdout)
    assert found.keys() == {IDS[1], IDS[2]}
    assert found[IDS[1]].startswith(f"failed (fs://{source}: ")
    assert found[IDS[2]].startswith("differs (")
    assert result.stderr.startswith("checked 5: ok 3, differs 1, failed 1; ")


@on_buckets("s3_strict", "fake_gcs")
def test_what_a_bucket_lists_and_does_not_have_is_a_difference(
    source: Path, bucket_server: BucketServer
) -> None:
    bucket = bucket_server.new_bucket()
    uri = bucket_server.uri(bucket)
    assert run("copy", "-s", source, "-d", uri).exit_code == 0
    bucket_server.delete_object(bucket, f"v1/memory_report/{IDS[0]}")
    result = run("check", "-s", source, "-d", uri)
    found = lines(result.stdout)
    assert list(found) == IDS[:1] and found[IDS[0]].startswith(f"differs ({uri[:5]}")
    assert found[IDS[0]].endswith(": dump memory_report is listed and not there)")


def test_a_store_that_goes_down_ends_it_with_its_line_and_what_was_found(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = put(tmp_path / "there", *CRASHES)
    with open_storage(str(there)) as storage:
        kind = type(storage)
    load, verify = kind.load_crash, kind.verify_access
    down = StorageUnavailable("it is down", uri=f"fs://{there}")

    def failing(self: CrashStorageBase, crash_id: str, *args: object) -> object:
        if self.uri.endswith("/there") and crash_id > IDS[2]:
            monkeypatch.setattr(kind, "verify_access", refuse)
            raise down
        return load(self, crash_id, *args)  # type: ignore[arg-type]

    def refuse(self: CrashStorageBase, **options: bool) -> None:
        if self.uri.endswith("/there"):
            raise down
        verify(self, **options)

    def called_once(_policy: object, function: Any, *, first: Any = None) -> Any:
        return (first or function)()

    monkeypatch.setattr(kind, "load_crash", failing)
    monkeypatch.setattr(kind, "tuning", replace(kind.tuning, batch=1, least_batch=None))
    monkeypatch.setattr("crashmover.retry.RetryPolicy.call", called_once)
    result = run("check", "-s", source, "-d", there, "--workers", "1", "--all")
    assert result.exit_code == 4
    assert lines(result.stdout) == dict.fromkeys(IDS[:3], "ok")
    assert result.stderr == f"checked 3: ok 3\ncrashmover: fs://{there}: it is down\n"


def test_a_store_may_be_checked_against_itself(source: Path) -> None:
    args = ("check", "-s", source, "-d", source, "--digest")
    assert run(*args).exit_code == 0
    CRASHES[1].path(source, ".dump").write_bytes(b"damaged")
    result = run(*args)
    said = f"dump {MAIN_DUMP} does not match its checksum in the raw crash"
    assert lines(result.stdout) == {IDS[1]: f"differs (fs://{source}: {said})"}


def test_what_was_listed_before_a_listing_failed_is_checked(source: Path, tmp_path: Path) -> None:
    there = put(tmp_path / "there", *CRASHES[1:])
    day = source / "20261118"
    day.rename(tmp_path / "elsewhere")
    day.symlink_to(tmp_path / "elsewhere")
    result = run("check", "-s", source, "-d", there)
    assert result.exit_code == 4
    assert lines(result.stdout) == {IDS[0]: "missing"}
    summary, error = result.stderr.splitlines()
    assert summary == "checked 4: ok 3, missing 1" and "symbolic link" in error


def test_what_cannot_be_checked_is_refused_in_one_line(source: Path, tmp_path: Path) -> None:
    there = put(tmp_path / "there", *CRASHES)
    none = tmp_path / "none"
    assert_refused(run("check", "-s", source, "-d", none), 4, "No such file or directory")
    assert_refused(run("check", "-s", none, "-d", there), 4, "No such file or directory")
    assert_refused(run("check", "-s", source), 2, "-d")
    assert_refused(run("check", "-s", source, "-d", source), 2, "the same store")
    assert_refused(
        run("check", "-s", source, "-d", there, IDS[0], "--since", "today"), 2, "a range of days"
    )
    assert_refused(run("check", "-s", source, "-d", there, "--kinds", "all"), 2, "--kinds")
    ids = tmp_path / "ids.txt"
    ids.write_text("nonsense\n")
    assert_refused(run("check", "-s", source, "-d", there, "--ids-from", ids), 2, "ids.txt, line 1")


def test_names_that_strangers_chose_do_nothing_to_a_terminal(tmp_path: Path) -> None:
    crash = CRASHES[0]
    source, there = put(tmp_path / "source", crash), put(tmp_path / "there", crash)
    crash.path(there, ".\x1b[31m.dump").write_bytes(b"")
    result = run("check", "-s", source, "-d", there, "--digest")
    assert result.exit_code == 1
    assert is_harmless(result.stdout) and is_harmless(result.stderr)


def test_a_signal_ends_it_and_what_was_found_is_said(source: Path, tmp_path: Path) -> None:
    many = [sample(n) for n in range(3000)]
    source = put(tmp_path / "many", *many)
    there = put(tmp_path / "none", CRASHES[0])
    with start("check", "-s", source, "-d", there) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        found = process.stdout.read().splitlines()
        said = process.stderr.read().decode()
    assert process.returncode == 128 + signal.SIGTERM
    assert said == f"checked {len(found) + 1}: ok 0, missing {len(found) + 1}\n"
    assert len(found) < len(many) - 1


def test_the_digest_of_a_large_crash_is_that_of_all_its_bytes(tmp_path: Path) -> None:
    large = bytes(range(256)) * 5000
    crash = sample(1, dumps={MAIN_DUMP: large})
    source = put(tmp_path / "source", crash)
    there = put(tmp_path / "there", crash)
    path = crash.path(there, ".dump")
    path.write_bytes(large[:-1] + b"!")
    result = run("check", "-s", source, "-d", there, "--digest", "--json")
    assert json.loads(result.stdout)["differing"] == [MAIN_DUMP]
