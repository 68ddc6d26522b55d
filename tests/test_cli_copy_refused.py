# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``crashmover copy``: stores that cannot be used, and bad usage; what is there stays."""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.cli_helpers import (
    TIMEOUT,
    all_of,
    assert_refused,
    is_harmless,
    make_id,
    manifest,
    put,
    report_of,
    run,
    run_process,
    snapshot,
    start,
    statuses,
    stored,
)
from tests.copied import ONE, THREE, TWO, Stores
from tests.copied import stores as stores

# A destination that cannot be written to


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


# What is refused


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
