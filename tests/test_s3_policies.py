# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Bucket policies that demand conditions: every command satisfies them, or says which it cannot."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crashmover.crash import MAIN_DUMP
from crashmover.external.bucket.bodies import PART_SIZE
from tests.cli_helpers import Sample, manifest, processed_crash, put, run, sample, stored
from tests.conftest import Figures, UseAWS, mostly_slow
from tests.s3_policies import (
    all_conditions,
    conditional_deletes,
    conditional_writes,
    creates_only,
    replaces_only,
)
from tests.s3_proxy import Place, Policy, Says, behind_proxy

DAYS = ("--since", "2026-11-20", "--until", "2026-11-20")
POLICIES: dict[str, Policy] = {
    "creates only": creates_only,
    "writes": conditional_writes,
    "deletes": conditional_deletes,
    "all": all_conditions,
    "creates only, deletes": lambda *asked: creates_only(*asked) or conditional_deletes(*asked),
}


@pytest.fixture
def place(s3_strict: object, aws: UseAWS) -> Iterator[Place]:
    with behind_proxy(aws(s3_strict)) as place:  # type: ignore[arg-type]
        yield place


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest, place: Place) -> str:
    place.proxy.policy = POLICIES[request.param]
    return str(request.param)


def crashes(size: int = 100, mark: str = "a") -> list[Sample]:
    dumps = {MAIN_DUMP: mark.encode() * size, "memory_report": mark.encode()}
    return [
        sample(1, dumps=dumps, processed=processed_crash(mark=mark), mark=mark),
        sample(2, dumps={}, mark=mark),
        sample(3, dumps={MAIN_DUMP: b"MDMP"}, mark=mark),
    ]


@pytest.mark.parametrize("size", [100, PART_SIZE + 1])
def test_every_command_satisfies_it(
    place: Place, policy: str, tmp_path: Path, size: int, figures: Figures
) -> None:
    uri = place.uri(place.server.new_bucket())
    old, new = crashes(size), crashes(size, "b")
    put(tmp_path / "old", *old)
    put(tmp_path / "new", *new)
    copy = ("copy", "-d", uri, *DAYS, "--verify", "-s")
    assert "copied 3, skipped 0, failed 0" in run(*copy, tmp_path / "old").output
    assert "copied 0, skipped 3" in run(*copy, tmp_path / "old").output
    result = run(*copy, tmp_path / "new", "--existing", "overwrite")
    assert "copied 3, skipped 0, failed 0" in result.output, result.output
    again = run(*copy, tmp_path / "new", "--existing", "overwrite")
    assert "copied 3, skipped 0, failed 0" in again.output, again.output
    assert run("check", "-s", tmp_path / "new", "-d", uri, "--digest", *DAYS).exit_code == 0
    assert run("doctor", "-d", uri).exit_code == 0
    back = ("copy", "-s", uri, "-d", tmp_path / "back", *DAYS, "--verify", "--remove-source")
    assert "copied 3, skipped 0, failed 0" in run(*back).output
    assert stored(tmp_path / "back") == manifest(*new)
    assert "listed 0" in run("list", "-s", uri, *DAYS).output
    figures(crashes=len(new))


def test_so_do_those_that_save_and_remove_one(place: Place, policy: str, tmp_path: Path) -> None:
    uri = place.uri(place.server.new_bucket())
    files = {name: tmp_path / name for name in ("raw", "dump", "processed")}
    files["dump"].write_bytes(b"MDMP")
    files["processed"].write_text('{"signature": "f"}')
    crash_id = sample(1).crash_id
    for number in range(2):
        files["raw"].write_text(f'{{"ProductName": "{number}"}}')
        given = ("--dump", files["dump"], "--processed-crash", files["processed"])
        saved = run("save", "-d", uri, "--raw-crash", files["raw"], *given, crash_id)
        assert saved.exit_code == 0, saved.output
        assert f'"{number}"' in run("get", "-s", uri, crash_id, "--raw-crash").output
    kept = ("copy", "-s", tmp_path / "a", "-d", uri, "--kinds", "raw,processed", crash_id)
    put(tmp_path / "a", sample(1, processed=processed_crash(), mark="c"))
    result = run(*kept, "--existing", "overwrite")
    assert "copied 1" in result.output, result.output
    assert run("remove", "-s", uri, crash_id).exit_code == 0
    assert run("get", "-s", uri, crash_id).exit_code == 3


def test_what_it_demands_is_found_out_once(place: Place, tmp_path: Path, figures: Figures) -> None:
    """Then each object of a crash costs one request more, and no refused one."""
    place.proxy.policy = all_conditions
    uri = place.uri(place.server.new_bucket())
    many = [sample(n, processed=processed_crash()) for n in range(20)]
    put(tmp_path / "a", *many)
    copy = ("copy", "-s", tmp_path / "a", "-d", uri, *DAYS, "--workers", "1")
    assert "copied 20" in run(*copy).output
    assert place.proxy.count("uploadId=crashmover-probe") == 3
    figures(crashes=len(many), requests=place.proxy.count())


def test_without_a_policy_nothing_is_asked(place: Place, tmp_path: Path) -> None:
    uri = place.uri(place.server.new_bucket())
    put(tmp_path / "a", *crashes())
    for existing in ("skip", "overwrite"):
        run("copy", "-s", tmp_path / "a", "-d", uri, *DAYS, "--existing", existing)
    assert not place.proxy.count("uploadId=")


# What cannot be satisfied


def test_doctor_says_which_policy_cannot_be_satisfied(place: Place, tmp_path: Path) -> None:
    """One that demands an ETag of what is written: a new object has none."""
    place.proxy.policy = replaces_only
    uri = place.uri(place.server.new_bucket())
    put(tmp_path / "a", *crashes())
    result = run("doctor", "-d", uri)
    assert result.exit_code == 4
    assert "If-None-Match" in result.output
    assert len(result.output.splitlines()) == 2
    copied = run("copy", "-s", tmp_path / "a", "-d", uri, *DAYS)
    assert copied.exit_code == 4
    assert "access denied" in copied.output


@pytest.mark.parametrize("existing", mostly_slow(["skip", "overwrite"], ["overwrite"]))
def test_a_store_that_allows_no_writing_loses_nothing(
    place: Place, tmp_path: Path, existing: str
) -> None:
    """Nothing is deleted to make room for what may not be put."""
    bucket = place.server.new_bucket()
    put(tmp_path / "a", *crashes())
    put(tmp_path / "b", *crashes(mark="b"))
    copy = ("copy", *DAYS, "-d", place.uri(bucket), "--existing", existing, "-s")
    assert "copied 3" in run(*copy, tmp_path / "a").output
    place.proxy.policy = lambda request, _head, _body: (
        Says(403, "AccessDenied") if request.method in ("PUT", "POST") else None
    )
    assert run(*copy, tmp_path / "b").exit_code in (0, 1, 4)
    place.proxy.policy = lambda *_: None
    back = run("copy", "-s", place.uri(bucket), "-d", tmp_path / "c", *DAYS)
    assert "copied 3" in back.output, back.output
    assert stored(tmp_path / "c") == manifest(*crashes())
