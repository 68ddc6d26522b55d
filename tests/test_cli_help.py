# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The help: a stranger can work from it, and what it says is so."""

import contextlib
import re
import shlex
from pathlib import Path

import click
import pytest

from crashmover import __version__
from crashmover.cli import main
from tests.cli_helpers import assert_refused, is_harmless, processed_crash, run, run_process

OPTIONS = {
    "config": "--json",
    "doctor": "-s --source -d --destination -q --queue --write --no-write --timeout --json",
    "save": "-d --destination --raw-crash --dump --processed-crash",
    "get": "-s --source --raw-crash --processed-crash --unredacted --dump --all -o --output --json",
    "copy": "-s --source -d --destination --ids-from --since --until --kinds --existing --verify"
    " --remove-source --redact --dry-run --limit --workers --max-duration --report --lock --json"
    " --progress --no-progress -q --queue --wait --follow --statsd",
    "check": "-s --source -d --destination --ids-from --since --until --kinds --digest --all"
    " --workers --json --progress --no-progress",
    "list": "-s --source --since --until --kind --by-day --bytes --json",
    "remove": "-s --source --ids-from --since --until --dry-run --yes --json",
    "queue-publish": "-q --queue --to --ids-from -s --source --since --until --rate --create",
    "queue-pull": "-q --queue --from --limit --wait --follow --no-ack --json",
}
"""What other people's scripts lean on."""

ARGUMENTS = {
    "config": "[OPTIONS]",
    "doctor": "[OPTIONS]",
    "save": "[CRASH_ID]",
    "get": "CRASH_ID",
    "copy": "[CRASH_ID",
    "check": "[CRASH_ID",
    "list": "[OPTIONS]",
    "remove": "[CRASH_ID",
    "queue-publish": "[CRASH_ID",
    "queue-pull": "[OPTIONS]",
}


GROUP = click.Context(main, info_name="crashmover", **main.context_settings)
"""Without it, click would remember for a command that its help is asked for otherwise."""


def command(name: str) -> click.Command:
    """The command, as click knows it."""
    found = main.get_command(GROUP, name)
    assert found
    return found


def help_of(*names: str) -> str:
    """What a command's help says, on a terminal of 80 columns."""
    result = run(*names, "--help", env={"COLUMNS": "80"})
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def examples_in(text: str) -> list[str]:
    """The command lines in a help text, each as one line."""
    lines = text.replace("\\\n", "").partition("Examples:\n")[2].splitlines()
    return [line.strip() for line in lines if line.strip().startswith("crashmover ")]


# Everything is explained


@pytest.mark.parametrize("names", [[], *([name] for name in OPTIONS)], ids=str)
def test_the_help_fits_a_terminal(names: list[str]) -> None:
    assert [line for line in help_of(*names).splitlines() if len(line) > 80] == []


def test_the_help_lists_every_command_with_what_it_does() -> None:
    lines = help_of().partition("Commands:\n")[2].splitlines()
    summaries = dict(line.split(maxsplit=1) for line in lines[: len(OPTIONS)])
    assert summaries.keys() >= OPTIONS.keys() and all(summaries.values())


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_that_scripts_may_use_is_there(name: str) -> None:
    parameters = (p for p in command(name).params if isinstance(p, click.Option))
    there = {word for option in parameters for word in (*option.opts, *option.secondary_opts)}
    assert set(OPTIONS[name].split()) <= there


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_shown_and_explained(name: str) -> None:
    text = " ".join(help_of(name).split())
    for option in command(name).params:
        if isinstance(option, click.Option):
            assert option.help and " ".join(option.help.split()) in text
            for word in (*option.opts, *option.secondary_opts):
                assert word in text


@pytest.mark.parametrize("name", OPTIONS)
def test_the_usage_names_the_arguments(name: str) -> None:
    usage = help_of(name).splitlines()[0]
    assert usage.startswith(f"Usage: crashmover {name} ") and ARGUMENTS[name] in usage


@pytest.mark.parametrize("name", OPTIONS)
def test_every_exit_code_is_explained(name: str) -> None:
    lines = help_of(name).partition("Exit codes:\n")[2].splitlines()
    explained = {line.split()[0]: line.split()[1:] for line in lines}
    assert list(explained) == ["0", "1", "2", "3", "4", "128+N"]
    assert all(explained.values())


@pytest.mark.parametrize("name", OPTIONS)
def test_variables_in_the_environment_are_named(name: str) -> None:
    text = help_of(name)
    assert ("CRASHMOVER_SOURCE" in text) == ("-s " in OPTIONS[name])
    assert ("CRASHMOVER_DESTINATION" in text) == ("-d " in OPTIONS[name])
    assert ("CRASHMOVER_QUEUE" in text) == ("-q " in OPTIONS[name])
    assert ("CRASHMOVER_STATSD" in text) == ("--statsd" in OPTIONS[name])
    for variable in ("CRASHMOVER_CONFIG", "CRASHMOVER_LOG_FORMAT", "CRASHMOVER_QUIET"):
        assert variable in help_of()


def test_the_short_option_for_help_works_too() -> None:
    assert run("copy", "-h").stdout == help_of("copy")


def test_the_version_is_told() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"crashmover, version {__version__}\n")


def test_without_a_command_it_shows_its_help_for_people_to_read() -> None:
    result = run()
    assert result.exit_code == 2
    assert (result.stdout + result.stderr).splitlines()[: len(OPTIONS)] == (
        help_of().splitlines()[: len(OPTIONS)]
    )


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        (["cpoy"], "'cpoy'"),
        (["--nonsense"], "--nonsense"),
        (["copy", "--nonsense"], "crashmover copy --help"),
        (["\x1b[31m"], "\\x1b[31m"),
    ],
)
def test_what_it_does_not_know_is_refused_in_one_line(args: list[str], phrase: str) -> None:
    result = run(*args)
    assert_refused(result, 2, phrase)
    assert is_harmless(result.stderr)


def test_the_package_runs_as_a_module() -> None:
    ended = run_process("--help")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert all(name.encode() in ended.stdout for name in OPTIONS)


# The examples work


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A directory with the files that examples speak of."""
    (tmp_path / "raw.json").write_bytes(b"{}")
    (tmp_path / "processed.json").write_bytes(processed_crash())
    (tmp_path / "minidump.dmp").write_bytes(b"MDMP")
    (tmp_path / "report.json.gz").write_bytes(b"")
    (tmp_path / "ids.txt").write_bytes(b"")
    (tmp_path / "config.toml").write_text('[storage]\nprod = "./prod"\n')
    return tmp_path


@pytest.mark.parametrize("names", [[], *([name] for name in OPTIONS)], ids=str)
def test_the_examples_in_the_help_are_understood(workplace: Path, names: list[str]) -> None:
    examples = examples_in(help_of(*names))
    assert len(examples) >= 2
    with contextlib.chdir(workplace):
        for example in examples:
            _, name, *args = shlex.split(re.split(r" [|>] ", example)[0])
            assert names in ([], [name])
            with command(name).make_context(name, args, parent=GROUP):
                pass  # every option known, every value of its kind


def test_the_first_examples_work_as_they_stand(workplace: Path) -> None:
    save = shlex.split(examples_in(help_of("save"))[0])[1:]
    saved = run_process(*save, cwd=workplace)
    assert saved.returncode == 0, saved.stderr
    get = shlex.split(examples_in(help_of("get"))[0])[1:-1]
    shown = run_process(*get, saved.stdout.decode().strip(), cwd=workplace)
    assert (shown.returncode, shown.stderr) == (0, b"")
    copy = shlex.split(examples_in(help_of("copy"))[0].replace("/archive", "./archive"))[1:]
    copied = run_process(*copy, cwd=workplace)
    assert copied.stderr.startswith(b"copied 1, skipped 0, failed 0;")


# The shell completes


def completions(typed: str, config: Path | None = None) -> list[str]:
    """What a shell offers at the end of what has been typed."""
    words = typed.split(" ")
    result = run(
        env={
            "_CRASHMOVER_COMPLETE": "bash_complete",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(words) - 1),
            "CRASHMOVER_CONFIG": str(config) if config else None,
        }
    )
    assert (result.exit_code, result.stderr) == (0, "")
    return [line.partition(",")[2] for line in result.stdout.splitlines()]


def test_commands_are_completed() -> None:
    assert OPTIONS.keys() <= set(completions("crashmover "))
    assert completions("crashmover cop") == ["copy"]


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_completed(name: str) -> None:
    long_options = {word for word in OPTIONS[name].split() if word.startswith("--")}
    assert long_options <= set(completions(f"crashmover {name} --"))


def test_values_are_completed_where_there_are_few() -> None:
    offered = completions("crashmover copy --existing ")
    assert offered == ["skip", "compare", "overwrite"]


@pytest.mark.parametrize("option", ["copy -s", "copy --destination", "get -s", "save -d"])
def test_the_names_of_configured_stores_are_completed(tmp_path: Path, option: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[storage]\nprod = "./prod"\nproxy = ["prod"]\ncold = "./cold"\n')
    assert completions(f"crashmover {option} ", config) == ["cold", "prod", "proxy"]
    assert completions(f"crashmover {option} pro", config) == ["prod", "proxy"]
    named_first = f"crashmover --config {config} {option} c"
    assert completions(named_first) == ["cold"]


@pytest.mark.parametrize("text", [None, "[storage"])
def test_a_bad_configuration_does_not_disturb_whoever_is_typing(
    tmp_path: Path, text: str | None
) -> None:
    config = tmp_path / "config.toml"
    if text is not None:
        config.write_text(text)
    assert completions("crashmover copy -s ./cra", config) == ["./cra"]
