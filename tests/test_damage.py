# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""One damage, one answer: what is wrong with a crash by its own word, ``get``, ``copy --verify``
and ``check --digest`` say alike, in every kind of store."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crashmover.cli.overview import overview
from crashmover.crash import Kind, Part
from crashmover.engine.checker import Checker, Verdict
from crashmover.engine.mover import Mover, Status
from crashmover.external.memory import InMemoryCrashStorage
from crashmover.testing import CRASH_ID, MAIN, PROCESSED, RAW, Contents, crash_of
from tests.cli_helpers import MAIN_DUMP, Sample, make_id, report_of, run, sha256
from tests.conftest import Figures, server_of_buckets
from tests.hostile import Bucket, Database, Directory, Store

REPORT = "memory_report"
DUMPS = {MAIN_DUMP: b"MDMP" + bytes(range(256)) * 4, REPORT: b"a report, and no minidump"}
CHECKSUMS = {name: sha256(data) for name, data in DUMPS.items()}
V1 = json.dumps({"ProductName": "Firefox", "dump_checksums": CHECKSUMS}).encode()
V2 = json.dumps({"ProductName": "Firefox", "metadata": {"dump_checksums": CHECKSUMS}}).encode()
GOOD: Contents = {
    RAW: V2,
    **{(Kind.DUMP, name): data for name, data in DUMPS.items()},
    PROCESSED: b'{"signature": "f"}',
}
OTHER = (Kind.DUMP, REPORT)


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGES: dict[str, tuple[Contents, str]] = {
    "a byte of the main dump": (GOOD | {MAIN: flipped(DUMPS[MAIN_DUMP])}, MAIN_DUMP),
    "a byte of another dump": (GOOD | {OTHER: flipped(DUMPS[REPORT])}, REPORT),
    "a byte of a dump, version 1": (GOOD | {RAW: V1, MAIN: flipped(DUMPS[MAIN_DUMP])}, MAIN_DUMP),
    "a dump cut short": (GOOD | {MAIN: DUMPS[MAIN_DUMP][:-1]}, MAIN_DUMP),
    "a dump of no bytes": (GOOD | {OTHER: b""}, REPORT),
    "a missing dump": ({key: GOOD[key] for key in (RAW, MAIN, PROCESSED)}, REPORT),
    "a missing dump, version 1": ({RAW: V1, OTHER: DUMPS[REPORT]}, MAIN_DUMP),
    "no dumps": ({RAW: V2}, MAIN_DUMP),
    "no dumps, version 1": ({RAW: V1, PROCESSED: GOOD[PROCESSED]}, MAIN_DUMP),
    "a raw crash of no bytes": (GOOD | {RAW: b""}, "raw_crash"),
    "a raw crash cut short": (GOOD | {RAW: V2[:-1]}, "raw_crash"),
    "a raw crash of zeros": (GOOD | {RAW: bytes(len(V2))}, "raw_crash"),
    "a raw crash that is a list": (GOOD | {RAW: b"[" + V2 + b"]"}, "raw_crash"),
    "a raw crash of no bytes alone": ({RAW: b""}, "raw_crash"),
    "a processed crash of no bytes": (GOOD | {PROCESSED: b""}, "processed_crash"),
    "a processed crash cut short": (GOOD | {PROCESSED: b'{"signature": "f"'}, "processed_crash"),
    "a processed crash that is a list": (GOOD | {PROCESSED: b"[1]"}, "processed_crash"),
}
"""What is in a damaged crash, and the part that is to be named."""

SOUND: dict[str, Contents] = {
    "version 2": GOOD,
    "version 1": GOOD | {RAW: V1},
    "both versions": GOOD
    | {RAW: V2[:-1] + b', "dump_checksums": {"upload_file_minidump": "' + b"0" * 64 + b'"}}'},
    "checksums in capitals": GOOD
    | {RAW: V2.replace(CHECKSUMS[REPORT].encode(), CHECKSUMS[REPORT].upper().encode())},
    "another kind of checksum": {
        RAW: b'{"dump_checksums": {"dump": "d41d8cd98f00b204e9800998ecf8427e"}}',
        MAIN: b"MDMP",
    },
    "no checksums": {RAW: b"{}", MAIN: b"MDMP"},
    "checksums of no dump": {RAW: b'{"metadata": {"dump_checksums": {}}}'},
    "a raw crash alone": {RAW: b"{}"},
}

MakeStore = Callable[[], Store]


@pytest.fixture(params=["fs", "s3_signed", "fake_gcs", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Makes an empty store of a kind."""
    if request.param == "fs":
        return lambda: Directory(tmp_path / "source")
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        return lambda: Database(server)
    bucket_server = server_of_buckets(request, request.param)
    return lambda: Bucket(bucket_server)


def as_sample(number: int, parts: Contents) -> Sample:
    dumps = {name: data for (kind, name), data in parts.items() if kind is Kind.DUMP}
    return Sample(make_id(number), parts[RAW], dumps, parts.get(PROCESSED))


def put_all(store: Store, crashes: dict[str, Contents]) -> dict[str, Sample]:
    """Save crashes as a damaged program would; return them by their names."""
    planted = {name: as_sample(n, parts) for n, (name, parts) in enumerate(crashes.items())}
    store.put(*planted.values())
    return planted


def test_each_damage_is_said_alike(make: MakeStore, tmp_path: Path, figures: Figures) -> None:
    store = make()
    damaged = put_all(store, {name: parts for name, (parts, _) in DAMAGES.items()})
    said = {name: part for name, (_, part) in DAMAGES.items()}
    report = tmp_path / "report"
    where = ("-s", store.uri, "-d", tmp_path / "copies")
    copied = run("copy", *where, "--verify", "--report", report)
    assert (copied.exit_code, list((tmp_path / "copies").rglob("*.json"))) == (1, [])
    outcomes = report_of(report)
    checked = run("check", "-s", store.uri, "-d", store.uri, "--digest")
    assert checked.exit_code == 1
    findings = {line[:36]: line for line in checked.stdout.splitlines()}
    for name, crash in damaged.items():
        outcome = outcomes[crash.crash_id]
        assert (outcome["status"], said[name] in outcome["error"]) == ("failed", True), name
        assert said[name] in findings[crash.crash_id], name
        for args in ([], ["--json"], ["--all", "-o", str(tmp_path / "parts")]):
            shown = run("get", "-s", store.uri, crash.crash_id, *args)
            assert (shown.exit_code, said[name] in shown.stderr) == (1, True), (name, args)
            assert "Traceback" not in shown.stderr
    figures(damages=len(damaged), answers=5 * len(damaged))


def test_what_is_sound_is_said_alike(make: MakeStore, tmp_path: Path, figures: Figures) -> None:
    store = make()
    sound = put_all(store, SOUND)
    where = ("-s", store.uri, "-d", tmp_path / "copies")
    copied = run("copy", *where, "--verify", "--json")
    assert (copied.exit_code, json.loads(copied.stdout)["copied"]) == (0, len(sound))
    for other in (store.uri, str(tmp_path / "copies")):
        assert run("check", "-s", store.uri, "-d", other, "--digest").exit_code == 0
    for name, crash in sound.items():
        for args in ([], ["--all", "-o", str(tmp_path / "parts")]):
            shown = run("get", "-s", store.uri, crash.crash_id, *args)
            assert (shown.exit_code, shown.stderr) == (0, ""), (name, args)
    figures(sound=len(sound))


def take(store: Store, crash: Sample, suffix: str) -> None:
    """Remove a part behind the store's back."""
    if isinstance(store, Directory):
        crash.path(store.root, suffix).unlink()
    elif isinstance(store, Bucket):
        key = store.key(crash, suffix)
        store.server.delete_object(store.name, key)
    elif isinstance(store, Database):
        kind = "raw_crash" if suffix == ".json" else "dump"
        store.run("DELETE FROM {} WHERE crash_id = %s AND kind = %s", crash.crash_id, kind)


def test_dumps_without_a_raw_crash_are_told_of(make: MakeStore, tmp_path: Path) -> None:
    store = make()
    crash = put_all(store, {"good": GOOD})["good"]
    one = Sample(make_id(99), b"{}", {MAIN_DUMP: b"MDMP"})
    store.put(one)
    for lost in (crash, one):
        take(store, lost, ".json")
    for args in ([], ["--json"], ["--all", "-o", str(tmp_path)], ["--raw-crash"], ["--dump", ""]):
        assert "no such crash (1 dump is there, but no raw crash)" in told(store, one, *args)
    assert "(2 dumps are there, but no raw crash)" in told(store, crash, "--raw-crash")
    absent = Sample(make_id(98), b"{}")
    assert told(store, absent).endswith(": no such crash\n")


def told(store: Store, crash: Sample, *args: str) -> str:
    shown = run("get", "-s", store.uri, crash.crash_id, *args)
    assert (shown.exit_code, shown.stdout, shown.stderr.count("\n")) == (3, "", 1)
    return shown.stderr


def test_a_dump_that_is_taken_away_is_named(make: MakeStore, tmp_path: Path) -> None:
    store = make()
    crash = put_all(store, {"good": GOOD | {PROCESSED: b"{}"}})["good"]
    take(store, crash, ".dump")
    for args in (
        ["get", "-s", store.uri],
        ["copy", "-s", store.uri, "-d", str(tmp_path / "copies"), "--verify"],
        ["check", "-s", store.uri, "-d", store.uri, "--digest"],
    ):
        done = run(*args, crash.crash_id)
        assert (done.exit_code, MAIN_DUMP in done.output) == (1, True), args
    assert not list((tmp_path / "copies").rglob("*.json"))


def test_a_processed_crash_that_is_not_whole_gzip_is_said_alike(tmp_path: Path) -> None:
    store = Directory(tmp_path / "source")
    crash = put_all(store, {"good": GOOD})["good"]
    store.exchange(crash, ".jsonz", gzip.compress(GOOD[PROCESSED])[:-9])
    for args in (
        ["get", "-s", store.uri],
        ["copy", "-s", store.uri, "-d", str(tmp_path / "copies"), "--verify"],
        ["check", "-s", store.uri, "-d", store.uri, "--digest"],
    ):
        done = run(*args, crash.crash_id)
        assert (done.exit_code, "is not whole gzip" in done.output) == (1, True), args


@pytest.mark.parametrize(("parts", "said"), DAMAGES.values(), ids=DAMAGES)
def test_a_program_that_uses_the_package_is_told_alike(parts: Contents, said: str) -> None:
    source, destinations = InMemoryCrashStorage(), [InMemoryCrashStorage(), InMemoryCrashStorage()]
    source.save_crash(crash_of(parts))
    for destination in destinations:
        [outcome] = Mover(source, destination, verify=True).run([CRASH_ID])
        assert outcome.status is Status.FAILED and said in (outcome.error or "")
        assert not destination.has_crash(CRASH_ID)
    [finding] = Checker(source, source, digest=True).run([CRASH_ID])
    assert finding.status is not Verdict.OK and said in (finding.error or "")
    shown: dict[str, Any] = overview(source, CRASH_ID)
    wrong = [part for part in shown["parts"] if "error" in part]
    assert said in {part["name"] or part["kind"] for part in wrong}


# Parts of ``get``


@pytest.fixture
def wrong(tmp_path: Path) -> tuple[str, Sample]:
    store = Directory(tmp_path / "source")
    return store.uri, put_all(store, {"it": DAMAGES["a byte of the main dump"][0]})["it"]


def test_a_damaged_dump_is_written_as_it_is_stored(
    wrong: tuple[str, Sample], tmp_path: Path
) -> None:
    uri, crash = wrong
    file = tmp_path / "dump"
    written = run("get", "-s", uri, crash.crash_id, "--dump", "", "-o", file)
    assert written.exit_code == 1 and file.read_bytes() == crash.dumps[MAIN_DUMP]
    assert written.stderr.count("\n") == 1 and "does not match its checksum" in written.stderr
    other = run("get", "-s", uri, crash.crash_id, "--dump", REPORT, "-o", file)
    assert (other.exit_code, other.stderr, file.read_bytes()) == (0, "", DUMPS[REPORT])
    everything = run("get", "-s", uri, crash.crash_id, "--all", "-o", tmp_path / "all")
    assert everything.exit_code == 1 and len(list((tmp_path / "all").iterdir())) == 4


def test_a_dump_that_does_not_match_its_checksum_is_shown_as_damaged(
    wrong: tuple[str, Sample],
) -> None:
    uri, crash = wrong
    shown = run("get", "-s", uri, crash.crash_id)
    [row] = [line for line in shown.stdout.splitlines() if f"  dump {MAIN_DUMP}" in line][:1]
    assert row.split()[2:] == ["damaged,", f"{len(crash.dumps[MAIN_DUMP]):,}", "bytes"]
    parts = json.loads(run("get", "-s", uri, crash.crash_id, "--json").stdout)["parts"]
    assert [part["name"] for part in parts if part.get("damaged")] == [MAIN_DUMP]


def test_a_dump_of_a_raw_crash_that_says_nothing_is_written_with_a_warning(tmp_path: Path) -> None:
    store = Directory(tmp_path / "source")
    crash = put_all(store, {"it": GOOD | {RAW: b""}})["it"]
    written = run("get", "-s", store.uri, crash.crash_id, "--dump", REPORT)
    assert (written.exit_code, written.stdout_bytes) == (0, DUMPS[REPORT])
    assert "dumps were not compared with their checksums: raw_crash is not JSON" in written.stderr


def test_a_missing_dump_is_shown_as_missing(tmp_path: Path) -> None:
    store = Directory(tmp_path / "source")
    crash = put_all(store, {"it": DAMAGES["a missing dump"][0]})["it"]
    shown = run("get", "-s", store.uri, crash.crash_id)
    [row] = [line for line in shown.stdout.splitlines() if line.startswith(f"  dump {REPORT}")]
    assert row.split() == ["dump", REPORT, "missing"]
    as_json = json.loads(run("get", "-s", store.uri, crash.crash_id, "--json").stdout)
    [part] = [part for part in as_json["parts"] if part["name"] == REPORT]
    assert part == {
        "kind": "dump",
        "name": REPORT,
        "size": None,
        "location": None,
        "missing": True,
        "error": f"dump {REPORT} is missing: the raw crash has a checksum of it",
        "damaged": True,
    }


# Copies without --verify


def test_crashes_that_lack_dumps_are_copied_and_counted(make: MakeStore, tmp_path: Path) -> None:
    store = make()
    crashes = {name: DAMAGES[name][0] for name in ("no dumps", "a missing dump")} | SOUND
    planted = put_all(store, crashes)
    report = tmp_path / "report"
    where = ("copy", "-s", store.uri, "-d", tmp_path / "copies")
    one = run(*where, planted["no dumps"].crash_id)
    assert one.stderr.startswith("copied 1 (1 lacks dumps that its raw crash names), skipped 0")
    again = run(*where, "--existing", "overwrite", "--report", report)
    assert (again.exit_code, again.stderr.count("\n")) == (0, 1)
    said = f"copied {len(crashes)} (2 lack dumps that their raw crashes name), skipped 0"
    assert again.stderr.startswith(said)
    lines = report_of(report)
    lacking = {name: lines[crash.crash_id].get("lacking_dumps") for name, crash in planted.items()}
    expected: dict[str, list[str] | None] = dict.fromkeys(planted)
    assert lacking == expected | {
        "no dumps": sorted(DUMPS),
        "a missing dump": [REPORT],
    }
    skipped = run(*where, "--json")
    assert "lacking_dumps" not in json.loads(skipped.stdout)
    raw_only = ("--kinds", "raw", "--existing", "overwrite", "--json")
    assert "lacking_dumps" not in json.loads(run(*where, *raw_only).stdout)


@pytest.mark.parametrize(
    ("raw", "lacks"),
    [
        (V2, True),
        (V1, True),
        (V2.decode().encode("utf-16"), True),
        (V2[:-1] + b', "a": "' + b"x" * (300 << 10) + b'"}', True),
        (b'{"metadata": {"dump_checksums": {"dump": "0"}}}', True),
        (b'{"a": {"dump_checksums": {"b": "0"}}}', False),
        (b'{"a": "\\"dump_checksums\\": {\\"b\\": \\"0\\"}"}', False),
        (b'{"metadata": {"dump_checksums": {"../x": "0", "raw_crash": "0", "b": 7}}}', False),
        (b'{"metadata": {"dump_checksums": null}, "dump_checksums": []}', False),
        (b"", False),
        (V2[:-1], False),
    ],
)
def test_what_names_dumps_is_the_raw_crash_as_its_collector_writes_it(
    raw: bytes, lacks: bool
) -> None:
    source, destination = InMemoryCrashStorage(), InMemoryCrashStorage()
    source.save_crash(crash_of({RAW: raw}))
    [outcome] = Mover(source, destination).run([CRASH_ID])
    assert (outcome.status, bool(outcome.lacking_dumps)) == (Status.COPIED, lacks)
    copied = destination.load_crash(CRASH_ID).raw_crash
    assert isinstance(copied, Part) and copied.read() == raw
