# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What goes to standard error: JSON where it is asked for, and nothing where nothing is wrong."""

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crashmover import cli
from crashmover.external.fs.crashstorage import FSPermanentStorage
from tests.cli_helpers import (
    Argument,
    assert_refused,
    environment,
    is_harmless,
    manifest,
    put,
    run,
    run_on_terminal,
    sample,
    stored,
)
from tests.copied import where as where

ONE, TWO, ABSENT = sample(1), sample(2), sample(99)
AS_JSON = ("--log-format", "json")


def messages_in(text: str) -> list[dict[str, Any]]:
    """The messages, each of them a line with all that belongs to one; without their times."""
    assert is_harmless(text)
    messages: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    for message in messages:
        assert list(message)[:3] == ["time", "level", "message"]
        time = dt.datetime.fromisoformat(message.pop("time"))
        assert time.utcoffset() == dt.timedelta(0)
        assert message["level"] in ("debug", "info", "warning", "error")
        assert message["message"]
    return messages


def test_whatever_goes_to_standard_error_goes_through_one_place() -> None:
    for module in Path(cli.__file__).parent.glob("*.py"):
        speaks = "stderr" in (text := module.read_text("utf-8")) or "err=True" in text
        # The help where there is no command, and the bar, are nothing for machines.
        assert speaks == (module.name in ("__init__.py", "bar.py", "console.py", "progress.py")), (
            module
        )


# JSON


def test_a_copy_says_in_json_what_failed_and_what_it_has_done(
    where: tuple[Argument, ...],
) -> None:
    result = run(*AS_JSON, "copy", *where, ONE.crash_id, ABSENT.crash_id)
    failed, summary = messages_in(result.stderr)
    assert (result.exit_code, result.stdout) == (1, "")
    assert failed.pop("message").startswith(f"{ABSENT.crash_id}: missing: fs:///")
    assert failed == {"level": "error", "crash_id": ABSENT.crash_id, "status": "missing"}
    assert summary.pop("message").startswith("copied 1, skipped 0, failed 1; ")
    assert summary.pop("seconds") >= 0
    assert summary == {"level": "info", "copied": 1, "skipped": 0, "failed": 1, "bytes": ONE.size}


def test_the_environment_may_ask_for_json(where: tuple[Argument, ...]) -> None:
    env = {"CRASHMOVER_LOG_FORMAT": "json"}
    [summary] = messages_in(run("copy", *where, env=env).stderr)
    assert summary["copied"] == 2
    assert run("--log-format", "text", "copy", *where, env=env).stderr.startswith("copied 0, ")


def test_a_list_and_a_queue_say_in_json_how_many_there_were(
    where: tuple[Argument, ...], tmp_path: Path
) -> None:
    [listed] = messages_in(run(*AS_JSON, "list", *where[:2], "--bytes").stderr)
    assert (listed["level"], listed["crashes"], listed["bytes"]) == ("info", 2, ONE.size + TWO.size)
    args = ("queue-publish", "-q", f"sqlite:{tmp_path}/queue.db", "--create", ONE.crash_id)
    created, published = messages_in(run(*AS_JSON, *args).stderr)
    assert created["message"].startswith("created ")
    assert (published["published"], published["not_tried"]) == (1, 0)


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        ([*AS_JSON], "Missing command"),
        ([*AS_JSON, "cpoy"], "'cpoy'"),
        (["--nonsense", "--log-format=json"], "--nonsense"),
        (["--log-format=json", "--config"], "--config"),
        ([*AS_JSON, "copy", "--nonsense"], "--nonsense"),
        ([*AS_JSON, "copy"], "--source"),
        ([*AS_JSON, "get", "-s", "floppy://a", ONE.crash_id], "'floppy'"),
        ([*AS_JSON, "get", "-s", "./x", "\x1b\x7f\x9b"], "\\x1b\\x7f\\x9b"),
        ([*AS_JSON, "--quiet", "-v", "copy"], "either --quiet or -v"),
    ],
)
def test_wrong_usage_is_one_object_too(args: list[str], phrase: str) -> None:
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    [message] = messages_in(result.stderr)
    assert message["level"] == "error" and phrase in message["message"]


@pytest.mark.parametrize(("args", "phrase"), [([], "no command"), (["--nonsense"], "--nonsense")])
def test_where_the_environment_asks_for_json_wrong_usage_is_one_object_too(
    args: list[str], phrase: str
) -> None:
    [message] = messages_in(run(*args, env={"CRASHMOVER_LOG_FORMAT": "json"}).stderr)
    assert phrase in message["message"]


def test_another_format_is_refused_in_words() -> None:
    assert_refused(run("--log-format", "xml", "list"), 2, "--log-format", "'xml'")
    assert_refused(run("list", env={"CRASHMOVER_LOG_FORMAT": "xml"}), 2, "CRASHMOVER_LOG_FORMAT")


def test_what_ends_a_command_names_its_crash(where: tuple[Argument, ...]) -> None:
    result = run(*AS_JSON, "get", *where[:2], ABSENT.crash_id)
    [message] = messages_in(result.stderr)
    assert (result.exit_code, message["crash_id"]) == (3, ABSENT.crash_id)


def test_what_strangers_named_is_no_control_character_in_json_either(
    where: tuple[Argument, ...], tmp_path: Path
) -> None:
    TWO.path(tmp_path / "source", ".\x1b]0;owned\x07\x7f.dump").write_bytes(b"MDMP")
    result = run(*AS_JSON, "copy", *where)
    failed, summary = messages_in(result.stderr)
    assert "\\x1b]0;owned\\x07\\x7f" in failed["message"]
    assert (failed["crash_id"], failed["status"]) == (TWO.crash_id, "failed")
    assert (summary["copied"], summary["failed"]) == (1, 1)


def test_the_log_is_json_too_and_says_who_wrote_it(
    where: tuple[Argument, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    broken = ("-s", tmp_path / "file" / "store")
    result = run(*AS_JSON, "get", *broken, *where[:2], ONE.crash_id)
    [message] = messages_in(result.stderr)
    assert (result.exit_code, message["level"]) == (0, "warning")
    assert message["logger"] == "crashmover.external.poly"
    assert message["message"].startswith("going on without a store: fs:///")


def test_with_two_v_the_log_tells_of_every_crash(where: tuple[Argument, ...]) -> None:
    *log, _summary = messages_in(run(*AS_JSON, "-vv", "copy", *where).stderr)
    assert {message["level"] for message in log} == {"debug"}
    assert sorted(message["message"] for message in log) == [
        f"{ONE.crash_id}: copied",
        f"{TWO.crash_id}: copied",
    ]


def test_a_mistake_of_ours_is_one_object_with_its_traceback(
    where: tuple[Argument, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise RuntimeError("a mistake\x1b\x7f")

    monkeypatch.setattr(FSPermanentStorage, "load_crash", fail)
    result = run(*AS_JSON, "get", *where[:2], ONE.crash_id)
    assert (result.exit_code, result.stdout) == (1, "")
    [message] = messages_in(result.stderr)
    assert message["message"] == "crashmover: RuntimeError: a mistake\\x1b\\x7f"
    assert message["traceback"].startswith("Traceback ") and "\x7f" in message["traceback"]
    with pytest.raises(RuntimeError):  # as Python itself shows it
        run("get", *where[:2], ONE.crash_id)


def test_warnings_of_libraries_are_json_too() -> None:
    program = """
import logging, warnings
from crashmover.cli import console
console.set_up("json")
logging.getLogger("another").warning("busy")
logging.getLogger("another").info("idle")
logging.getLogger("another").warning("%d", "a mistake of theirs")
warnings.warn("old")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment()
    )
    busy, old = messages_in(ended.stderr)
    assert (busy["logger"], busy["message"]) == ("another", "busy")
    assert old["logger"] == "py.warnings" and "UserWarning: old" in old["message"]


def test_on_a_terminal_there_is_json_and_no_bar(where: tuple[Argument, ...]) -> None:
    exit_code, shown = run_on_terminal(*AS_JSON, "copy", *where, "--progress")
    [summary] = messages_in(shown.decode().replace("\r\n", "\n"))
    assert (exit_code, summary["copied"]) == (0, 2)


def test_a_check_says_in_json_how_many_it_has_found(where: tuple[Argument, ...]) -> None:
    put(Path(where[3]), TWO)
    result = run(*AS_JSON, "check", *where)
    [summary] = messages_in(result.stderr)
    assert (result.exit_code, summary["level"]) == (1, "warning")
    assert (summary["checked"], summary["ok"], summary["missing"]) == (2, 1, 1)


# Quiet


def test_a_quiet_command_says_nothing_where_nothing_is_wrong(
    where: tuple[Argument, ...], tmp_path: Path
) -> None:
    publish = ("queue-publish", "-q", f"sqlite:{tmp_path}/queue.db", "--create", ONE.crash_id)
    for args in (("copy", *where), ("check", *where), ("list", *where[:2]), publish):
        result = run("--quiet", *args)
        assert (result.exit_code, result.stderr) == (0, "")
    assert stored(tmp_path / "destination") == manifest(ONE, TWO)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_quiet_copy_says_what_failed_and_how_it_went(
    where: tuple[Argument, ...], log_format: str
) -> None:
    env = {"CRASHMOVER_QUIET": "1", "CRASHMOVER_LOG_FORMAT": log_format}
    result = run("copy", *where, ABSENT.crash_id, env=env)
    failed, summary = result.stderr.splitlines()
    assert result.exit_code == 1
    assert f"{ABSENT.crash_id}: missing: " in failed
    assert "copied 0, skipped 0, failed 1; " in summary


def test_a_quiet_copy_that_has_no_time_for_all_warns(
    where: tuple[Argument, ...], tmp_path: Path
) -> None:
    queue = ("-q", f"sqlite:{tmp_path}/queue.db")
    run("queue-publish", *queue, "--create", ONE.crash_id)
    result = run("--quiet", "copy", *where, *queue, "--follow", "--max-duration", "1s")
    warning, summary = result.stderr.splitlines()
    assert result.exit_code == 0
    assert warning == "crashmover: stopped by --max-duration; another run copies the rest"
    assert summary.startswith("copied 1, ")


def test_a_quiet_command_is_quiet_on_a_terminal_too(where: tuple[Argument, ...]) -> None:
    assert run_on_terminal("--quiet", "copy", *where, "--progress") == (0, b"")


def test_who_asks_to_be_told_more_is_even_where_the_environment_is_quiet(
    where: tuple[Argument, ...],
) -> None:
    result = run("-v", "copy", *where, env={"CRASHMOVER_QUIET": "1"})
    assert result.stderr.startswith("copied 2, ")
    assert_refused(run("--quiet", "-v", "copy", *where), 2, "either --quiet or -v")
    assert_refused(run("copy", env={"CRASHMOVER_QUIET": "soon"}), 2, "CRASHMOVER_QUIET")
