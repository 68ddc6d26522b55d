# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover get`` that is asked for no part: what it shows of a crash, and what it does not."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from crashmover.cli import overview
from crashmover.redaction import FORBIDDEN_KEYS, PUBLIC_ANNOTATIONS, PUBLIC_FIELDS
from tests.cli_helpers import (
    MAIN_DUMP,
    Argument,
    Sample,
    is_harmless,
    put,
    run,
    run_process,
    sample,
)
from tests.conftest import UseAWS, server_of_buckets
from tests.minidumps import LINUX, THREADS, minidump
from tests.servers.postgresql import PostgreSQL
from tests.servers.s3 import S3Server

BROWSER = "upload_file_minidump_browser"
MINIDUMP = minidump()
CRASH = sample(
    1,
    BuildID="20261112093412",
    dumps={
        MAIN_DUMP: MINIDUMP,
        "memory_report": gzip.compress(b"{}", mtime=0),
        BROWSER: b"MDMP\x00\xff" + b"x" * 1500,
    },
    processed=json.dumps(
        {
            "signature": "mozilla::dom::Element::GetAttr",
            "reason": "EXCEPTION_ACCESS_VIOLATION_READ",
            "address": "0x0000000000000148",
            "crashing_thread": 0,
            "product": "Firefox",
            "success": True,
            "uptime": None,
        }
    ).encode(),
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return put(tmp_path / "store", CRASH)


def show(store: Argument, crash: Sample, *args: Argument) -> str:
    """Show a crash; return what is shown."""
    result = run("get", "-s", store, crash.crash_id, *args)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def show_json(store: Argument, crash: Sample) -> dict[str, Any]:
    """Show a crash as JSON; return that."""
    shown = json.loads(show(store, crash, "--json"))
    assert isinstance(shown, dict)
    return shown


# What is shown


def test_parts_and_what_is_public_are_shown(store: Path) -> None:
    def where(suffix: str) -> str:
        return str(CRASH.path(store, suffix))

    assert (
        show(store, CRASH)
        == f"""\
crash {CRASH.crash_id}
store fs://{store}

parts
  raw_crash                          {len(CRASH.raw):5,} bytes
    {where(".json")}
  dump upload_file_minidump          {len(MINIDUMP):5,} bytes
    {where(".dump")}
  dump memory_report                 {len(CRASH.dumps["memory_report"]):5,} bytes
    {where(".memory_report.dump")}
  dump upload_file_minidump_browser  1,506 bytes
    {where(f".{BROWSER}.dump")}
  processed_crash                    {len(CRASH.processed or b""):5,} bytes
    {where(".jsonz")}

annotations
  ProductName  Firefox
  BuildID      20261112093412

processed crash
  signature        mozilla::dom::Element::GetAttr
  reason           EXCEPTION_ACCESS_VIOLATION_READ
  address          0x0000000000000148
  crashing_thread  0
  product          Firefox
  success          true

minidump upload_file_minidump
  system       Windows NT 10.0.22621
  cpu          8 x amd64
  time         2025-11-19T07:07:10+00:00
  reason       EXCEPTION_ACCESS_VIOLATION_READ
  address      0x0000000000000148
  threads      3
  modules      2
  main module  firefox.exe

minidump upload_file_minidump_browser
  not a readable minidump
"""
    )


SHOWN_MINIDUMP = {
    "time": "2025-11-19T07:07:10+00:00",
    "os": "Windows NT",
    "os_version": "10.0.22621",
    "cpu": "amd64",
    "cpus": 8,
    "reason": "EXCEPTION_ACCESS_VIOLATION_READ",
    "address": "0x0000000000000148",
    "threads": 3,
    "modules": 2,
    "main_module": "firefox.exe",
    "incomplete": False,
}


def test_as_json_all_of_it_is_shown(store: Path) -> None:
    shown = show_json(store, CRASH)
    parts = {
        (part["kind"], part["name"]): (part["size"], part["location"])
        for part in shown.pop("parts")
    }
    dumps = {("dump", name): data for name, data in CRASH.dumps.items()}
    expected = {("raw_crash", ""): CRASH.raw, **dumps, ("processed_crash", ""): CRASH.processed}
    assert {key: size for key, (size, _) in parts.items()} == {
        key: len(data or b"") for key, data in expected.items()
    }
    for key, (_, location) in parts.items():
        data = Path(location).read_bytes()
        assert (gzip.decompress(data) if key[0] == "processed_crash" else data) == expected[key]
    assert shown == {
        "crash_id": CRASH.crash_id,
        "store": f"fs://{store}",
        "annotations": {"ProductName": "Firefox", "BuildID": "20261112093412"},
        "processed": {
            "signature": "mozilla::dom::Element::GetAttr",
            "reason": "EXCEPTION_ACCESS_VIOLATION_READ",
            "address": "0x0000000000000148",
            "crashing_thread": 0,
            "product": "Firefox",
            "success": True,
        },
        "minidumps": {MAIN_DUMP: SHOWN_MINIDUMP, BROWSER: {"error": "not a readable minidump"}},
    }


def test_what_a_crash_has_not_is_not_shown(tmp_path: Path) -> None:
    bare = sample(2, dumps={})
    store = put(tmp_path / "store", bare)
    assert list(show_json(store, bare)) == ["crash_id", "store", "parts", "annotations"]
    headings = [line for line in show(store, bare).splitlines() if line[:1].isalpha()]
    assert headings == [f"crash {bare.crash_id}", f"store fs://{store}", "parts", "annotations"]


@pytest.mark.parametrize("kind", ["s3_strict", "fake_gcs", "postgresql"])
def test_other_stores_show_the_same_and_where_it_lies_there(
    kind: str, store: Path, request: pytest.FixtureRequest
) -> None:
    if kind != "postgresql":
        buckets = server_of_buckets(request, kind)
        bucket = buckets.new_bucket()
        uri = buckets.uri(bucket, "a/prefix")
        start = f"{uri[:2]}://{bucket}/a/prefix/v1/"
        secret = getattr(buckets, "secret_key", "no secret")
    else:
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        schema = server.new_name()
        uri, start = server.uri(schema=schema), f"{schema}.crash_parts kind='"
        secret = server.password
        assert secret in uri
    assert run("copy", "-s", store, "-d", uri).exit_code == 0
    here, there = show_json(store, CRASH), show_json(uri, CRASH)
    for part in there["parts"]:
        assert part.pop("location").startswith(start)
    for part in here["parts"]:
        part.pop("location")
    assert there.pop("store").startswith(uri.partition(":")[0])
    assert here.pop("store") == f"fs://{store}"
    assert there == here
    text = show(uri, CRASH)
    assert start in text and secret not in text + json.dumps(show_json(uri, CRASH))


def test_of_several_stores_the_one_that_has_it_is_named(store: Path, tmp_path: Path) -> None:
    empty, processed = put(tmp_path / "empty"), put(tmp_path / "processed", CRASH)
    CRASH.path(processed).unlink()
    result = run("get", "-s", empty, "-s", processed, "-s", store, CRASH.crash_id, "--json")
    assert json.loads(result.stdout)["store"] == f"fs://{store}"
    result = run("get", "-s", empty, "-s", processed, CRASH.crash_id, "--json")
    assert json.loads(result.stdout)["store"] == f"fs://{processed}"
    (tmp_path / "file").touch()
    result = run("get", "-s", tmp_path / "file", "-s", store, CRASH.crash_id, "--json")
    assert json.loads(result.stdout)["store"] == f"fs://{store}"


def test_a_processed_crash_without_its_raw_crash_is_shown(store: Path) -> None:
    CRASH.path(store).unlink()
    shown = show_json(store, CRASH)
    assert [part["kind"] for part in shown["parts"]] == ["processed_crash"]
    assert shown["annotations"] == {}
    assert shown["processed"]["signature"] == "mozilla::dom::Element::GetAttr"
    assert "minidumps" not in shown


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b"\xff\x00", b"[" * 100_000])
def test_a_document_that_is_none_is_said_to_be_damaged(tmp_path: Path, raw: bytes) -> None:
    crash = Sample(sample().crash_id, raw, processed=raw)
    store = put(tmp_path / "store", crash)
    as_json = run("get", "-s", store, crash.crash_id, "--json")
    shown = json.loads(as_json.stdout)
    assert [part["size"] for part in shown["parts"]] == [len(raw)] * 2
    assert all("is not" in part["error"] for part in shown["parts"])
    assert (shown["annotations"], shown["processed"]) == ({}, {})
    as_text = run("get", "-s", store, crash.crash_id)
    assert (as_text.exit_code, as_json.exit_code, as_text.stderr.count("\n")) == (1, 1, 2)
    lines = as_text.stdout.splitlines()
    assert f"damaged, {len(raw):,} bytes" in lines[4] and "annotations" not in lines
    assert lines[-3:] == ["", "processed crash", "  nothing that can be shown"]


def test_a_link_in_the_place_of_a_dump_is_shown_beside_the_rest(store: Path) -> None:
    path = CRASH.path(store, ".dump")
    path.unlink()
    path.symlink_to("/etc/hostname")
    result = run("get", "-s", store, CRASH.crash_id)
    assert result.exit_code == 1 and "symbolic link" in result.stderr
    assert "unreadable" in result.stdout and str(path) in result.stdout
    assert "annotations" in result.stdout


def test_what_is_long_is_shortened_but_not_as_json(tmp_path: Path) -> None:
    signature = " | ".join(f"mozilla::f{n}" for n in range(100))
    processed = json.dumps({"signature": signature, "moz_crash_reason": "y" * 1000}).encode()
    crash = sample(
        ProductName="x" * 1000,
        processed=processed,
        dumps={MAIN_DUMP: minidump(modules=["z" * 1000])},
    )
    store = put(tmp_path / "s", crash)
    text = show(store, crash)
    lines = [line for line in text.splitlines() if str(store) not in line]
    assert max(map(len, lines)) <= 80
    for letter in "xyz":
        [line] = [line for line in lines if letter * 9 in line]
        assert line.endswith("…")
    begin = lines.index("processed crash") + 1
    whole = "".join(line[20:] for line in lines[begin : begin + 4])
    assert len(whole) == 240 and whole[:-1] == signature[:239] and whole[-1] == "…"
    shown = show_json(store, crash)
    assert shown["annotations"]["ProductName"] == "x" * 1000
    assert shown["processed"] == json.loads(processed)
    assert shown["minidumps"][MAIN_DUMP]["main_module"] == "z" * 1000


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_it_shows_a_crash_whatever_the_terminal_can_encode(tmp_path: Path, encoding: str) -> None:
    crash = sample(ProductName="火狐", dumps={})
    store = put(tmp_path / "store", crash)
    ended = run_process("get", "-s", store, crash.crash_id, PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"raw_crash" in ended.stdout


# Minidumps


def test_what_is_known_of_a_minidump_that_is_not_whole_is_shown(tmp_path: Path) -> None:
    cut = minidump(system=LINUX, name="Linux 6.1.0", version=(0, 0, 0), code=11, flags=1)[:-1]
    crash = sample(dumps={MAIN_DUMP: cut})
    shown = show(put(tmp_path / "store", crash), crash)
    assert "\n  system      Linux 6.1.0\n" in shown
    assert "\n  reason      SIGSEGV / SEGV_MAPERR\n" in shown
    assert shown.endswith("\n  incomplete  some of it lies beyond its end\n")


def test_a_minidump_that_says_nothing_is_shown(tmp_path: Path) -> None:
    nothing = b"MDMP\x93\xa7\0\0\x01\0\0\0\x20\0\0\0".ljust(32 + 12, b"\0")
    crash = sample(dumps={MAIN_DUMP: nothing})
    assert show(put(tmp_path / "store", crash), crash).endswith("\n  nothing that can be shown\n")


def test_counts_without_end_are_not_believed(tmp_path: Path) -> None:
    crash = sample(dumps={MAIN_DUMP: minidump(replaced={THREADS: b"\xff" * 52})})
    shown = show_json(put(tmp_path / "store", crash), crash)["minidumps"][MAIN_DUMP]
    assert (shown["threads"], shown["incomplete"]) == (None, True)


def test_a_large_minidump_is_not_fetched(store: Path) -> None:
    size = overview.LARGEST_MINIDUMP + 1
    with CRASH.path(store, ".dump").open("r+b") as file:
        file.truncate(size)  # of which the most is no more than said to be there
    shown = show_json(store, CRASH)
    assert size in [part["size"] for part in shown["parts"]]
    error = "not looked into: larger than 64 MiB"
    assert shown["minidumps"][MAIN_DUMP] == {"error": error}
    assert f"\nminidump upload_file_minidump\n  {error}\n" in show(store, CRASH)


def test_a_dump_whose_size_is_found_out_by_reading_it_is_not_looked_into_if_it_is_large(
    monkeypatch: pytest.MonkeyPatch, s3_strict: S3Server, aws: UseAWS, store: Path
) -> None:
    uri = aws(s3_strict).uri(s3_strict.new_bucket())
    assert run("copy", "-s", store, "-d", uri).exit_code == 0
    monkeypatch.setattr(overview, "LARGEST_MINIDUMP", len(MINIDUMP) - 1)
    shown = show_json(uri, CRASH)
    assert "not looked into" in shown["minidumps"][MAIN_DUMP]["error"]
    sizes = {part["name"]: part["size"] for part in shown["parts"] if part["kind"] == "dump"}
    assert sizes == {name: len(data) for name, data in CRASH.dumps.items()}


# What is not for everybody

SECRET = "cAnArY"
PROTECTED_ANNOTATIONS = [
    *("URL", "Email", "Comments", "MozCrashReason", "JavaStackTrace", "RemoteType", "Breadcrumbs"),
    *("TelemetryClientId", "UserID", "metadata", "ModuleSignatureInfo", "GMPLibraryPath"),
]
PROTECTED_FIELDS = [
    *("moz_crash_reason_raw", "java_stack_trace_raw", "user_comments", "collector_metadata"),
    *("breadcrumbs", "memory_report", "remote_type", "mdsw_stderr", "processor_notes", "dump"),
]


def with_secrets() -> Sample:
    """A crash with a secret in every place that nobody may see unasked."""
    processed: dict[str, Any] = {"signature": "f", **dict.fromkeys(PROTECTED_FIELDS, SECRET)}
    for key in FORBIDDEN_KEYS:
        *above, last = key.split(".")
        inner = processed
        for name in above:
            inner = inner.setdefault(name, {})
        inner[last] = SECRET
    dump = minidump(modules=[f"/home/{SECRET}/firefox", f"/home/{SECRET}/libxul.so"])
    annotations: dict[str, Any] = dict.fromkeys(PROTECTED_ANNOTATIONS, SECRET)
    return sample(
        dumps={MAIN_DUMP: dump + SECRET.encode(), "memory_report": SECRET.encode()},
        processed=json.dumps(processed).encode(),
        **annotations,
    )


@pytest.mark.parametrize("option", [[], ["--json"]], ids=["text", "json"])
def test_nothing_that_is_protected_is_shown_unasked(tmp_path: Path, option: list[str]) -> None:
    crash = with_secrets()
    shown = show(put(tmp_path / "store", crash), crash, *option)
    assert SECRET not in shown
    assert "signature" in shown and "firefox" in shown


@pytest.mark.parametrize("value", [{"url": SECRET}, [SECRET], [[{"email": SECRET}]], {}], ids=str)
def test_an_object_in_the_place_of_a_text_is_not_shown(tmp_path: Path, value: object) -> None:
    fields = [name for name in PUBLIC_FIELDS if name != "success"]
    processed = json.dumps({**dict.fromkeys(fields, value), "success": False}).encode()
    crash = sample(dumps={}, processed=processed)
    store = put(tmp_path / "store", crash)
    assert show_json(store, crash)["processed"] == {"success": False}
    assert SECRET not in show(store, crash)


def test_no_field_is_public_that_the_redactor_takes_away() -> None:
    assert {key.partition(".")[0] for key in FORBIDDEN_KEYS}.isdisjoint(PUBLIC_FIELDS)
    assert set(PROTECTED_FIELDS).isdisjoint(PUBLIC_FIELDS)
    assert set(PROTECTED_ANNOTATIONS).isdisjoint(PUBLIC_ANNOTATIONS)


# What strangers wrote

HOSTILE = {
    "ProductName": "\x1b]0;owned\x07\x1b[2J",
    "Version": "1\r\nBuildID  2",
    "BuildID": "\u202e\u009b31m\x00\x7f",
    "ReleaseChannel": {"\x1b[31m": ["\x1b[31m"]},
    "Vendor": "\ud800",
}
HOSTILE_FIELDS = {
    "signature": "\x1b]0;owned\x07\n" * 20,
    "reason": "a\nminidump b\u2028",
    "address": float("nan"),
    "crashing_thread": 10**400,
    "product": "\ud800\u202e",
    "version": "",
}


def hostile() -> Sample:
    raw = json.dumps(HOSTILE).encode()
    processed = json.dumps(HOSTILE_FIELDS).encode()
    dump = minidump(modules=["\x1b]0;owned\x07\n\u202e"], name="\x1b[2J\0\n\ud800")
    return Sample(sample().crash_id, raw, {MAIN_DUMP: dump}, processed)


@pytest.mark.parametrize("option", [[], ["--json"]], ids=["text", "json"])
def test_what_strangers_wrote_cannot_do_anything_to_a_terminal(
    tmp_path: Path, option: list[str]
) -> None:
    crash = hostile()
    shown = show(put(tmp_path / "store", crash), crash, *option)
    assert is_harmless(shown)
    assert shown.count("owned") >= 3  # harmless, and not hidden


def test_what_strangers_wrote_makes_no_further_line(tmp_path: Path) -> None:
    crash = hostile()
    lines = show(put(tmp_path / "store", crash), crash).splitlines()
    headings = [line.split()[0] for line in lines if line[:1].isalpha()]
    assert headings == ["crash", "store", "parts", "annotations", "processed", "minidump"]
    start, end = lines.index("annotations"), lines.index("processed crash")
    assert end - start == 1 + len(HOSTILE) + 1


def test_what_is_shown_as_json_is_json(tmp_path: Path) -> None:
    crash = hostile()
    shown = show_json(put(tmp_path / "store", crash), crash)
    assert shown["processed"] == HOSTILE_FIELDS | {"address": "NaN"}
