# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover copy``: what its options make of the source, the destination and the report."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from crashmover.external.fs.crashstorage import FSPermanentStorage
from crashmover.redaction import Redactor
from tests.cli_helpers import (
    MAIN_DUMP,
    Sample,
    all_of,
    manifest,
    processed_crash,
    put,
    run,
    sample,
    snapshot,
    stored,
)
from tests.copied import ONE, THREE, TWO, WHOLE, Stores
from tests.copied import stores as stores


@pytest.fixture
def one_crash(tmp_path: Path) -> Stores:
    """A source with one crash that has parts of every kind."""
    put(tmp_path / "source", WHOLE)
    return Stores(tmp_path)


# What the destination has already


NEWER = replace(WHOLE, processed=processed_crash(signature="newer"))
OTHER_RAW = replace(WHOLE, raw=b"{}")
OTHER_DUMP = replace(WHOLE, dumps={**WHOLE.dumps, MAIN_DUMP: b"OTHR"})
NO_DUMP = replace(WHOLE, dumps={MAIN_DUMP: WHOLE.dumps[MAIN_DUMP]})
EXTRA_DUMP = replace(WHOLE, dumps={**WHOLE.dumps, "extra": b"x"})
UNPROCESSED = replace(WHOLE, processed=None)

# there, what compare says became of it, what is there then, what is said
COMPARED = {
    "the same": (WHOLE, "skipped", WHOLE, ""),
    "a dump missing": (NO_DUMP, "copied", WHOLE, ""),
    "another dump": (OTHER_DUMP, "conflict", OTHER_DUMP, MAIN_DUMP),
}
Case = tuple[Sample, str, Sample, str]


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


@pytest.mark.parametrize("there", [NEWER, NO_DUMP])
def test_compare_copies_no_more_than_what_is_lacking(one_crash: Stores, there: Sample) -> None:
    put(one_crash.destination, there)
    raw = there.path(one_crash.destination)
    before = raw.stat().st_ino
    assert one_crash.copy("--existing", "compare").report[WHOLE.crash_id]["parts"] == 1
    assert raw.stat().st_ino == before


@pytest.mark.parametrize("args", [[], [WHOLE.crash_id]], ids=["a listing", "named"])
def test_skip_passes_over_whatever_has_a_raw_crash(one_crash: Stores, args: list[str]) -> None:
    put(one_crash.destination, OTHER_RAW)
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


def test_overwrite_replaces_whatever_is_there(one_crash: Stores) -> None:
    put(one_crash.destination, EXTRA_DUMP)
    result = one_crash.copy("--existing", "overwrite")
    assert (result.exit_code, result.statuses) == (0, all_of("copied", WHOLE))
    assert result.report[WHOLE.crash_id]["parts"] == len(WHOLE.parts)
    assert stored(one_crash.destination) == manifest(WHOLE)


# Which kinds of parts


@pytest.mark.parametrize(
    ("kinds", "suffixes"),
    [
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


# Verifying


@pytest.mark.parametrize(
    ("checksums", "dumps", "said"),
    [
        ({MAIN_DUMP: "0" * 64}, {MAIN_DUMP: b"MDMP"}, "checksum"),
        ({MAIN_DUMP: "0" * 64}, {}, "missing"),
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


# Removing from the source


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


# Dry runs


@pytest.mark.parametrize(
    "args",
    [["--remove-source", "--verify"], ["--existing", "overwrite"], ["--redact"]],
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


# Redacting


def test_redact_leaves_protected_keys_out_of_processed_crashes_and_nothing_else(
    one_crash: Stores,
) -> None:
    before = snapshot(one_crash.source)
    assert one_crash.copy("--redact").statuses == all_of("copied", WHOLE)
    packed = WHOLE.path(one_crash.destination, ".jsonz").read_bytes()
    assert json.loads(gzip.decompress(packed)) == {"signature": "f"}
    assert manifest(UNPROCESSED).items() <= stored(one_crash.destination).items()
    assert snapshot(one_crash.source) == before


def test_redact_leaves_out_what_the_source_s_own_redactor_does(
    one_crash: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FSPermanentStorage, "redactor", Redactor("signature"))
    shown = run("get", "-s", one_crash.source, WHOLE.crash_id, "--processed-crash")
    assert one_crash.copy("--redact").statuses == all_of("copied", WHOLE)
    packed = WHOLE.path(one_crash.destination, ".jsonz").read_bytes()
    copied = json.loads(gzip.decompress(packed))
    assert json.loads(shown.stdout) == copied
    assert copied and "signature" not in copied
