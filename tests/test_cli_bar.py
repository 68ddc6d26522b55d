# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""How a copy looks on a terminal: its figures in one line, and colours only where they are
wanted."""

import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from crashmover.cli import console
from crashmover.cli.bar import Bar, Lines, fitting
from tests.cli_helpers import (
    Argument,
    environment,
    run,
    run_on_terminal,
    run_process,
    sample,
)
from tests.copied import where as where

ONE, TWO, ABSENT = sample(1), sample(2), sample(99)

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TIME = r"\d:\d\d:\d\d"


def rows(shown: bytes) -> list[str]:
    """What stood in a row of the terminal at some time."""
    text = _CONTROL.sub("", shown.decode())
    return [row.rstrip() for row in re.split(r"[\r\n]+", text) if row.strip()]


def colours(shown: bytes) -> set[int]:
    """The colours that a terminal was told to show."""
    codes = re.findall(rb"\x1b\[([0-9;]*)m", shown)
    numbers = {int(number or 0) for code in codes for number in code.split(b";")}
    return {number for number in numbers if 30 <= number < 50 or 90 <= number < 110}


def test_the_bar_tells_how_many_how_fast_how_long_and_how_many_failed(
    where: tuple[Argument, ...],
) -> None:
    ids = (ONE.crash_id, TWO.crash_id, ABSENT.crash_id)
    exit_code, shown = run_on_terminal("copy", *where, *ids, COLUMNS="80")
    assert exit_code == 1
    figures = rf" *━+ 3/3  failed 1  [\d,]+/s  {_TIME} left  [\d.]+ \w+"
    assert re.fullmatch(figures, rows(shown)[-1]) and len(rows(shown)[-1]) == 80
    assert all(len(row) <= 80 for row in rows(shown) if ABSENT.crash_id not in row)


@pytest.mark.parametrize("columns", [80, 60, 40])
def test_the_largest_figures_are_whole_or_left_out(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    bar = Bar(7_654_321)
    [task] = bar.rich.tasks
    bar.rich.update(task.id, completed=1_234_567, bad=123_456, bytes=999_900_000_000_000)
    with bar.rich.console.capture() as shown:
        bar.rich.console.print(bar.rich.get_renderable())
    [row] = shown.get().splitlines()
    assert "1,234,567/7,654,321  failed 123,456" in row
    assert "…" not in row and len(row.rstrip()) <= columns


def test_where_nobody_knows_how_many_there_are_the_time_that_has_passed_is_shown(
    where: tuple[Argument, ...],
) -> None:
    _, shown = run_on_terminal("copy", *where)
    assert re.fullmatch(rf"\S 2  failed 0  [\d,]+/s  {_TIME}  [\d.]+ \w+", rows(shown)[-1])


@pytest.mark.parametrize("columns", [40, 59, 60])
def test_on_a_narrow_terminal_it_is_one_line_with_what_matters_most(
    where: tuple[Argument, ...], columns: int
) -> None:
    ids = (ONE.crash_id, TWO.crash_id)
    exit_code, shown = run_on_terminal("copy", *where, *ids, COLUMNS=str(columns))
    assert exit_code == 0
    bars = [row for row in rows(shown) if not row.startswith("copied ")]
    assert bars and all(len(bar) <= columns for bar in bars)
    assert re.search(r"2/2  failed 0  [\d,]+/s", bars[-1])
    assert ("━" in bars[-1]) == (columns >= 60) and "…" not in bars[-1]
    assert shown.count(b"\x1b[1A") <= 1  # never up a line, but when all is taken away


@pytest.mark.parametrize(
    ("width", "shown"),
    [(80, "a  bb  ccc"), (10, "a  bb  ccc"), (9, "a  bb"), (4, "a"), (0, "a")],
)
def test_what_does_not_fit_is_left_out_from_the_end(width: int, shown: str) -> None:
    assert fitting(["a", "bb", "ccc"], width) == shown


def test_colours_are_for_terminals_that_want_them(where: tuple[Argument, ...]) -> None:
    ids = (ONE.crash_id, TWO.crash_id)
    assert colours(run_on_terminal("copy", *where, *ids)[1])
    _, plain = run_on_terminal("copy", *where, *ids, NO_COLOR="1")
    assert not colours(plain) and "2/2" in plain.decode()


@pytest.mark.parametrize("name", ["list", "get", "copy"])
def test_a_terminal_that_can_do_nothing_gets_text(where: tuple[Argument, ...], name: str) -> None:
    args = {"list": where[:2], "get": (*where[:2], ONE.crash_id), "copy": where}[name]
    exit_code, shown = run_on_terminal(name, *args, TERM="dumb")
    assert exit_code == 0
    assert shown and b"\x1b" not in shown


# Elsewhere


@pytest.mark.parametrize(
    ("total", "shown"),
    [
        (60, ["20/60  failed 1  2/s  0:00:20 left  2.0 kB", "40/60  failed 2  2/s  0:00:10 left"]),
        (None, ["20  failed 1  2/s  0:00:10  2.0 kB", "40  failed 2  2/s  0:00:20  4.0 kB"]),
    ],
)
def test_where_there_is_no_terminal_there_is_a_line_every_ten_seconds(
    total: int | None, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    console.set_up("text")
    clock = (n / 2 for n in range(100))
    lines = Lines(total, clock.__next__)
    for n in range(1, 60):
        lines.advance(100, failed=n % 20 == 5)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(line.startswith(words) for line, words in zip(said, shown, strict=True))


def test_progress_that_is_asked_for_writes_no_control_characters_into_a_file(
    where: tuple[Argument, ...],
) -> None:
    ended = run_process("copy", *where, "--progress")
    assert ended.returncode == 0
    assert ended.stderr.startswith(b"copied 2, ") and ended.stderr.count(b"\n") == 1


# Tables


def test_a_list_by_day_fits_eighty_columns(where: tuple[Argument, ...]) -> None:
    shown = run("list", *where[:2], "--by-day", "--bytes").stdout.splitlines()
    assert shown and all(len(line) <= 80 for line in shown)


def test_whoever_presses_a_key_is_told_what_comes_of_it() -> None:
    pressed = """
from crashmover.cli.signals import Stopper
stopper = Stopper(grace=None)
stopper(2)
stopper(2)
"""
    terminal, its_end = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", pressed], stderr=its_end, env=environment())
    exit_code = process.wait(60)
    os.close(its_end)
    shown = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert exit_code == 128 + signal.SIGINT
    first, second, _ = shown.split("\r\n")
    assert "finishing what is in hand" in first and "again to end at once" in first
    assert second == "\x1b[?25h"  # the cursor, which a bar has hidden


def test_a_signal_is_answered_on_a_terminal_alone() -> None:
    pressed = "from crashmover.cli.signals import Stopper; Stopper(grace=None)(2)"
    done = subprocess.run(
        [sys.executable, "-c", pressed], capture_output=True, env=environment(), timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
