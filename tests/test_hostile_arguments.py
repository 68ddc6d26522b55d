# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a command is given to work with: crash ids, files of ids, configuration, URIs and files to
save, whatever is in them.  What is not understood is refused in one line that does nothing to a
terminal, and nothing is changed."""

import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.cli_helpers import (
    TIMEOUT,
    Argument,
    make_id,
    manifest,
    put,
    sample,
    snapshot,
    stored,
)
from tests.conftest import Figures
from tests.hostile import Ended, invoke, measured

ONE, TWO = sample(1), sample(2)
HUGE = 300 << 20

slow = pytest.mark.slow


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return put(tmp_path / "source", ONE, TWO)


def with_huge(path: Path, piece: bytes) -> Path:
    """A file of 300 MB that begins like this, and takes no room but for that."""
    path.write_bytes(piece)
    os.truncate(path, HUGE)
    return path


def refused(done: Ended, *phrases: str, code: int = 2) -> None:
    assert (done.code, done.out, len(done.said)) == (code, b"", 1), done.said
    for phrase in phrases:
        assert phrase in done.said[0]


# Crash ids that are typed

TYPED = [
    "\x1b]0;owned\x07",
    "0bba0001-721c-460c-dead-a43c22261120\x1b[2J",
    "../../etc/passwd",
    "\u202e0211622c34a-daed-c064-c127-1000abb0",
    "０bba0001-721c-460c-dead-a43c22261120",
    f"https://zoe:hunter2@example.com/report/{make_id(1)}x",
    "a" * 100_000,
    ":" * 100_000,
    "\udcff\udcfe",
    " \t\v",
]


@pytest.mark.parametrize("text", TYPED, ids=ascii)
def test_a_crash_id_that_is_none_is_shown_harmlessly(
    source: Path, tmp_path: Path, text: str
) -> None:
    before = snapshot(tmp_path)
    refused(invoke("copy", "-s", source, "-d", tmp_path / "to", "--", text))
    refused(invoke("remove", "-s", source, "--", text))
    shown = invoke("get", "-s", source, "--", text)
    refused(shown)
    refused(invoke("queue-publish", "-q", f"sqlite:{tmp_path}/q.db", "--", text))
    assert "hunter2" not in shown.said[0]
    assert snapshot(tmp_path) == before


# Files of crash ids

ID, OTHER = ONE.crash_id.encode(), TWO.crash_id.encode()

READ: dict[str, tuple[bytes, int]] = {
    "no newline at the end": (ID, 1),
    "a byte order mark": (b"\xef\xbb\xbf" + ID + b"\n", 1),
    "as on old Macs": (ID + b"\r" + OTHER, 2),
    "as on Windows": (ID + b"\r\n" + OTHER + b"\r\n", 2),
    "one again and again": ((ID + b"\n") * 20_000, 1),
    "blank lines": (b"\n" * 100_000 + ID, 1),
    "comments": (b"# \x1b[2J \xff\n" * 1000 + ID + b" # \x00", 1),
    "nothing": (b"", 0),
}
LINES: dict[str, bytes] = {
    "zeros": b"\0" * 100,
    "UTF-16": ID.decode().encode("utf-16"),
    "UTF-16 without a mark": ID.decode().encode("utf-16-le"),
    "a good one and a terminal's": ID + b"\n\x1b]0;owned\x07\n",
    "a line that is long": b"a" * 20_000,
    "a comment that is long": b"#" * 20_000 + b"\n" + ID,
    "blanks that are long": b" " * 20_000 + ID,
    "two in a line": ID + b" " + OTHER,
    "separated by form feeds": ID + b"\f" + OTHER,
    "separated by U+2028": ID + "\u2028".encode() + OTHER,
    "no text": b"\xff" * 100,
}


@pytest.mark.parametrize(("data", "count"), READ.values(), ids=READ)
def test_a_file_of_ids_that_is_odd_is_read_all_the_same(
    source: Path, tmp_path: Path, data: bytes, count: int
) -> None:
    ids = tmp_path / "ids"
    ids.write_bytes(data)
    done = invoke("copy", "-s", source, "-d", tmp_path / "to", "--ids-from", ids)
    assert (done.code, done.said) == (0, [])
    there = stored(tmp_path / "to") if count else {}
    assert there == manifest(*[ONE, TWO][:count])


@pytest.mark.parametrize("data", LINES.values(), ids=LINES)
def test_a_file_of_ids_with_what_is_none_is_refused_by_its_line(
    source: Path, tmp_path: Path, data: bytes
) -> None:
    ids = tmp_path / "ids"
    ids.write_bytes(data)
    before = snapshot(tmp_path)
    refused(invoke("copy", "-s", source, "-d", tmp_path / "to", "--ids-from", ids), "ids, line ")
    queue = f"sqlite:{tmp_path}/q.db"
    refused(invoke("queue-publish", "-q", queue, "--ids-from", ids), "ids, line ")
    assert snapshot(tmp_path) == before


@slow
@pytest.mark.parametrize("piece", [b"a", b"#", b" ", "\U0001f525".encode(), ID + b"\n"], ids=ascii)
def test_a_file_of_ids_of_any_length_takes_no_more_memory_than_there_is(
    source: Path, tmp_path: Path, figures: Figures, piece: bytes
) -> None:
    ids = tmp_path / "ids"
    ids.write_bytes(piece * ((100 << 20) // len(piece)))
    done = measured("copy", "-s", source, "-d", tmp_path / "to", "--ids-from", ids)
    assert done.code == (0 if piece.endswith(b"\n") else 2)
    figures(runs=1)


@slow
@pytest.mark.parametrize("command", ["copy", "queue-publish", "remove"])
def test_a_file_of_ids_without_end_is_refused(source: Path, tmp_path: Path, command: str) -> None:
    where = {
        "copy": ("-s", source, "-d", tmp_path / "to"),
        "queue-publish": ("-q", f"sqlite:{tmp_path}/q.db"),
        "remove": ("-s", source),
    }
    refused(measured(command, *where[command], "--ids-from", "/dev/zero"), "it is too long")


# Configuration

CONFIGS: dict[str, bytes] = {
    "binary": b"\xff\xfe\x00" * 100,
    "zeros": bytes(100),
    "UTF-16": '[storage]\nprod = "/x"\n'.encode("utf-16"),
    "what a terminal acts on": b'[storage]\n"\x1b]0;owned\x07" = 1\n',
    "that escaped": b'[storage]\n"\\u001b]0;owned\\u0007" = "/x"\n',
    "a section that a terminal acts on": b'["\\u001b[2J"]\n',
    "too deep": b"storage = " + b"[" * 20_000,
    "a key of many parts": b"a" + b".a" * 20_000 + b" = 1",
    "a key of many parts in a section": b"[a" + b".a" * 20_000 + b"]",
    "an integer without end": b"storage = " + b"9" * 100_000,
    "many lines": b"#\n" * 200_000,
    "prod is itself": b'[storage]\nprod = "prod"\n',
    "prod is itself at a distance": b'[storage]\nprod = ["/x", "b"]\nb = ["prod"]\n',
    "a traversal": b'[storage]\nprod = "fs://host/../../x"\n',
    "a line's end in a URI": b'[storage]\nprod = "/x\\n/y"\n',
    "INI": b"[storage]\nprod: /x\n",
    "JSON": b'{"storage": {"prod": "/x"}}',
    "YAML": b"storage: &a [*a, *a]",
}


@pytest.mark.parametrize("data", CONFIGS.values(), ids=CONFIGS)
def test_a_configuration_that_is_none_is_refused(source: Path, tmp_path: Path, data: bytes) -> None:
    config = tmp_path / "config.toml"
    config.write_bytes(data)
    before = snapshot(tmp_path)
    refused(invoke("--config", config, "copy", "-s", source, "-d", "prod"))
    refused(invoke("--config", config, "queue-pull", "-q", "prod"))
    assert snapshot(tmp_path) == before


def test_a_name_that_is_most_of_the_configuration_is_followed_in_no_time(
    source: Path, tmp_path: Path
) -> None:
    """A list that names a list twice, which names one twice, and so on."""
    config = tmp_path / "config.toml"
    names = [f'n{n} = ["n{n + 1}", "n{n + 1}"]' for n in range(60)]
    config.write_text("\n".join(["[storage]", "prod = 'n0'", *names, "n60 = '/x'"]))
    refused(invoke("--config", config, "copy", "-s", source, "-d", "prod"), "too many")


@slow
@pytest.mark.parametrize("what", ["huge", "/dev/zero", "directory"])
def test_a_configuration_without_end_is_refused(source: Path, tmp_path: Path, what: str) -> None:
    config = Path(what) if what.startswith("/") else tmp_path / what
    if what == "huge":
        with_huge(config, b"[storage]\n")
    elif what == "directory":
        config.mkdir()
    refused(measured("--config", config, "copy", "-s", source, "-d", "prod"), str(config))


def test_a_configuration_may_come_through_a_pipe(source: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    os.mkfifo(config)
    text = f"[storage]\nprod = '{tmp_path}/to'\n"
    writer = threading.Thread(target=config.write_text, args=(text,))
    writer.start()
    assert invoke("--config", config, "copy", "-s", source, "-d", "prod").code == 0
    writer.join(TIMEOUT)
    assert stored(tmp_path / "to") == manifest(ONE, TWO)


# URIs

URIS = [
    "fs://{tmp}/x\x1b]0;owned\x07",
    "fs://{tmp}/x%1b%5d0;owned%07",
    "fs://{tmp}/x%00",
    "fs://{tmp}/x%0a",
    "fs://{tmp}/%ff/\x7f",
    "fs://../x",
    "fs://{tmp}/x?umask=٠٢٧&umask=0",
    "fs://{tmp}/x?umask=0o27%0a",
    "fs://{tmp}/x?name_branch_base=..",
    "fs://{tmp}/x?name_branch_base=%2e%2e%2f..",
    "fs://{tmp}/x?json_file_suffix=%2f..%2f",
    "fs://{tmp}/x?json_file_suffix=.%00",
    "s3://",
    "s3://../x",
    "s3://bucket/../../x",
    "s3://bucket/%2e%2e/x",
    "s3://bucket:１２/x",
    "s3://[::1/x",
    "s3://hunter2@bucket/x",
    "s3://bucket?endpoint_url=http://zoe:hunter2@h",
    "s3://bucket?endpoint_url=file:///etc/passwd",
    "s3://bucket?region=a%0d%0aX-Evil:1",
    "s3://bucket?connect_timeout=1e9",
    "s3://bucket?connect_timeout=-1",
    "gs://",
    "gs://../x",
    "gs://bucket/../../x",
    "gs://bucket/%2e%2e/x",
    "gs://bucket:１２/x",
    "gs://[::1/x",
    "gs://hunter2@bucket/x",
    "gs://bucket?endpoint_url=http://zoe:hunter2@h",
    "gs://bucket?endpoint_url=file:///etc/passwd",
    "gs://bucket?endpoint_url=https://h%0d%0aX-Evil:1",
    "gs://bucket?project=a%0d%0aX-Evil:1",
    "gs://bucket?universe_domain=a%0d%0aX-Evil:1",
    "gs://bucket?storage_class=a%00",
    "gs://bucket?connect_timeout=1e9",
    "gs://bucket?connect_timeout=-1",
    "gs://bucket?read_timeout=nan",
    "postgresql://zoe:hunter2@h:１２/d",
    "postgresql://zoe:hunter2@h:99999/d",
    "postgresql://zoe:hunter2@h/d?schema=x';drop",
    "postgresql://zoe:hunter2@h/d?nonsense=1",
    "postgresql://zoe:hunter2@h/d\x1b[2J",
    "postgresql://zoe:hun/ter2@h/d",
    "nonsense:///x",
    "__class__:x",
    "memory",
    "x" * 100_000,
    "fs://" + "x" * 100_000,
    "s3://" + "x" * 100_000,
    "s3://bucket?endpoint_url=" + "//" * 30_000,
    "gs://" + "x" * 100_000,
    "gs://bucket?endpoint_url=" + "//" * 30_000,
    "gs://bucket?" + "&".join(f"a{n}=1" for n in range(10_000)),
    "s3://bucket?" + "&".join(f"a{n}=1" for n in range(10_000)),
]


@pytest.mark.parametrize("uri", URIS, ids=lambda uri: ascii(uri[:60]))
@pytest.mark.parametrize("side", ["-s", pytest.param("-d", marks=slow)])
def test_a_uri_that_is_none_is_refused(
    source: Path, tmp_path: Path, uri: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    other = ("-d", tmp_path / "to") if side == "-s" else ("-s", source)
    done = invoke("copy", side, uri.replace("{tmp}", str(tmp_path)), *other)
    refused(done)
    assert "hunter2" not in done.said[0]
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["x" * 300, "/".join(["x" * 250] * 20), "n" * 256 + "/x"])
def test_a_path_that_no_system_has_is_said(source: Path, tmp_path: Path, name: str) -> None:
    before = snapshot(tmp_path)
    done = invoke("copy", "-s", source, "-d", f"{tmp_path}/{name}")
    assert done.code in (1, 4) and done.said
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["%2e%2e", "a%2fb", "..%00".removesuffix("%00"), "?", "#", "%"])
def test_a_plain_path_is_taken_to_the_letter(source: Path, tmp_path: Path, name: str) -> None:
    """Nothing in it is an escape; only what follows a question mark are options."""
    inner = tmp_path / "inner"
    inner.mkdir()
    before = snapshot(source)
    done = invoke("copy", "-s", source, "-d", f"{inner}/{name}/to")
    if done.code == 0 and name != "..":
        assert stored(inner / name / "to") == manifest(ONE, TWO)
    assert snapshot(source) == before


# Files to be saved


def save(tmp_path: Path, *args: Argument) -> Ended:
    return invoke("save", "-d", tmp_path / "to", *args)


RAWS: dict[str, bytes] = {
    "nothing": b"",
    "a list": b"[]",
    "too deep": b'{"a":' * 100_000,
    "an integer without end": b'{"a": ' + b"9" * 100_000 + b"}",
    "no text": b'{"a": "\xff"}',
    "a uuid that is a list": b'{"uuid": ["x"]}',
    "a uuid that is a path": b'{"uuid": "../../x"}',
    "a uuid that a terminal acts on": b'{"uuid": "\\u001b]0;owned\\u0007"}',
    "a uuid with a newline": b'{"uuid": "' + ID + b'\\n"}',
    "a uuid of no day": b'{"uuid": "0bba0001-721c-460c-dead-a43c22261131"}',
    "a uuid of another script": '{"uuid": "０bba0001-721c-460c-dead-a43c22261120"}'.encode(),
    "two documents": b"{}{}",
}


@pytest.mark.parametrize("data", RAWS.values(), ids=RAWS)
def test_what_is_no_raw_crash_is_not_saved(tmp_path: Path, data: bytes) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(data)
    refused(save(tmp_path, "--raw-crash", raw))
    assert list(tmp_path.iterdir()) == [raw]


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/x",
        "",
        ".x",
        "raw_crash",
        "dump_names",
        "x\n",
        "\x1b[2J",
        "x" * 101,
        "ｘ",
        "upload_file_minidump",
    ],
    ids=ascii,
)
def test_a_dump_of_a_bad_name_is_not_saved(tmp_path: Path, name: str) -> None:
    raw, dump = tmp_path / "raw", tmp_path / "dump"
    raw.write_bytes(b"{}")
    dump.write_bytes(b"MDMP")
    again = ("--dump", dump) if name in ("", "upload_file_minidump") else ()
    done = save(tmp_path, "--raw-crash", raw, "--dump", f"{name}={dump}", *again)
    refused(done, "--dump")
    assert sorted(tmp_path.iterdir()) == [dump, raw]


@slow
@pytest.mark.parametrize("option", ["--raw-crash", "--processed-crash"])
@pytest.mark.parametrize("what", ["huge", "/dev/zero"])
def test_json_without_end_is_not_saved(tmp_path: Path, option: str, what: str) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"{}")
    file = Path(what) if what.startswith("/") else with_huge(tmp_path / what, b'{"a": "')
    args = (option, file) if option == "--raw-crash" else ("--raw-crash", raw, option, file)
    done = measured("save", "-d", tmp_path / "to", *args)
    refused(done, option, "is too large")
    assert not (tmp_path / "to").exists()


@slow
def test_a_dump_that_comes_through_a_pipe_waits_on_disk(tmp_path: Path, figures: Figures) -> None:
    raw, pipe = tmp_path / "raw", tmp_path / "pipe"
    raw.write_bytes(b"{}")
    os.mkfifo(pipe)
    script = 'head -c "$0" /dev/zero >"$1"'
    with subprocess.Popen(["sh", "-c", script, str(HUGE), pipe]):
        done = measured(
            "save", "-d", tmp_path / "to", "--raw-crash", raw, "--dump", pipe, ONE.crash_id
        )
    assert (done.code, done.said) == (0, [])
    assert ONE.path(tmp_path / "to", ".dump").stat().st_size == HUGE
    figures(bytes=HUGE)
