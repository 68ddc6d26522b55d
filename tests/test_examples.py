# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The examples for cron, systemd and Kubernetes: read as strictly as these read them, and run as
they run them, with other places in them."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from crashmover import open_storage
from crashmover.cli import main, signals
from tests.cli_helpers import TIMEOUT, manifest, put, run, sample, stored

EXAMPLES = Path(__file__).parent.parent / "examples"
CRASHES = [sample(n, day="261120") for n in (1, 2)]
GROUP = click.Context(main, **main.context_settings)
LONGEST_END = signals.GRACE + 5
"""Seconds from a signal to the end of a command, at most."""


def text_of(name: str) -> str:
    return (EXAMPLES / name).read_text("utf-8")


class Machine:
    """The places that the examples speak of, in a directory; there are crashes in the source.

    :param here: the directory
    """

    def __init__(self, here: Path) -> None:
        self.here = here
        self.archive = here / "archive" / "crashes"
        self.source = put(here / "var" / "crashes", *CRASHES)
        (here / "archive").mkdir()
        (here / "var" / "lib" / "crashmover").mkdir(parents=True)

    def places(self, text: str) -> str:
        """Put these places, and all days there are, into a text."""
        text = re.sub(r"(?<![\w.])/(var|archive)/", rf"{self.here}/\1/", text)
        text = text.replace("/usr/local/bin", str(Path(sys.executable).parent))
        return re.sub(r"--since \d+d", "--since 2026-11-01", text)

    def run(self, command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command with nothing in its environment but this."""
        return subprocess.run(
            command,
            cwd=self.here,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def parsed(command: list[str]) -> dict[str, Any]:
    """What the arguments of crashmover say, as its command understands them beside the stores
    that the environment names."""
    name, *args = command
    args += ["-s", "./source", "-d", "./destination"]
    found = main.get_command(GROUP, name)
    assert found
    with found.make_context(name, args, parent=GROUP) as context:
        return context.params


def variables() -> set[str]:
    """Those in the environment that some option takes its value from."""
    found = (main.get_command(GROUP, name) for name in main.list_commands(GROUP))
    commands: list[click.Command] = [main, *filter(None, found)]
    parameters = [parameter for command in commands for parameter in command.params]
    return {str(each.envvar) for each in parameters if each.envvar}


def assert_known(names: set[str]) -> None:
    ours = {name for name in names if name.startswith("CRASHMOVER_")}
    assert ours and ours <= variables()


# cron

_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
)
_RANGE = re.compile(r"(\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?", re.ASCII)
_ENTRY = re.compile(r"(\S+[ \t]+\S+[ \t]+\S+[ \t]+\S+[ \t]+\S+)[ \t]+(\S.*)")


def check_schedule(text: str) -> None:
    """Refuse what is no time as crontab(5) has it, in numbers."""
    words = text.split()
    assert len(words) == 5, text
    for word, (name, first, last) in zip(words, _FIELDS, strict=True):
        for each in word.split(","):
            match = _RANGE.fullmatch(each)
            assert match, f"{name}: {each}"
            numbers = [int(number) for number in match.group(2, 3) if number]
            assert all(first <= number <= last for number in numbers), f"{name}: {each}"
            assert numbers == sorted(numbers) and match[4] != "0", f"{name}: {each}"


def read_crontab(text: str) -> tuple[dict[str, str], list[str]]:
    """Return what cron reads in a table: the environment, and the commands."""
    assert text.endswith("\n")  # cron passes over a line that has no end
    env: dict[str, str] = {}
    commands: list[str] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if setting := re.fullmatch(r"([A-Z_]+)=(\S*)", line):
            assert not commands  # it would not hold for those above
            env[setting[1]] = setting[2]
            continue
        entry = _ENTRY.fullmatch(line)
        assert entry and len(line) < 1000, line
        check_schedule(entry[1])
        assert not re.search(r"(?<!\\)%", entry[2]), f"what follows % is standard input: {line}"
        commands.append(entry[2].replace("\\%", "%"))
    return env, commands


@pytest.mark.parametrize(
    "line",
    [
        "15 2 * *  crashmover list",
        "60 2 * * *  crashmover list",
        "15 24 * * *  crashmover list",
        "15 2 0 * *  crashmover list",
        "15 2 * 13 *  crashmover list",
        "15 2 * * 8  crashmover list",
        "15 5-2 * * *  crashmover list",
        "*/0 2 * * *  crashmover list",
        "15 2 * * *  date +%F",
        "15 2 * * *",
    ],
)
def test_what_cron_would_not_take_is_noticed(line: str) -> None:
    with pytest.raises(AssertionError):
        read_crontab(f"{line}\n")


def test_the_crontab_runs_as_cron_runs_it(machine: Machine) -> None:
    env, commands = read_crontab(machine.places(text_of("crontab")))
    assert_known(set(env))
    assert env["SHELL"] == "/bin/sh"
    nightly, hourly, weekly, cleaning = commands
    home = {"HOME": str(machine.here), "LOGNAME": "crashmover"}
    state = machine.here / "var" / "lib" / "crashmover"

    def run_as_cron(command: str) -> str:
        ended = machine.run(["/bin/sh", "-c", command], {**home, **env})
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout

    assert run_as_cron(nightly) == ""  # no mail
    assert stored(machine.archive) == manifest(*CRASHES)
    [report] = state.glob("copy-20[0-9][0-9]-[0-1][0-9]-[0-3][0-9].jsonl")
    assert report.read_text().count("copied") == len(CRASHES)
    assert run_as_cron(hourly) == ""
    assert run_as_cron(weekly).split() == ["2026-11-20", "2"]
    assert run_as_cron(cleaning) == ""
    assert report.exists()
    shutil.rmtree(machine.archive)
    CRASHES[0].path(machine.source, ".\x07.dump").touch()
    mail = machine.run(["/bin/sh", "-c", nightly], {**home, **env})
    failed, summary = mail.stderr.splitlines()
    assert (mail.returncode, mail.stdout) == (1, "")
    assert CRASHES[0].crash_id in failed and summary.startswith("copied 1, skipped 0, failed 1;")


# systemd

_KEYS = {
    "Unit": {"Description", "Wants", "After", "RequiresMountsFor"},
    "Service": {
        *("Type", "User", "Environment", "EnvironmentFile", "ExecStart", "StateDirectory"),
        *("TimeoutStartSec", "TimeoutStopSec", "SuccessExitStatus", "Restart"),
        *("NoNewPrivileges", "PrivateTmp", "ProtectHome", "ProtectSystem", "ReadWritePaths"),
    },
    "Timer": {"OnCalendar", "RandomizedDelaySec", "Persistent"},
    "Install": {"WantedBy"},
}
"""What systemd.unit(5), systemd.exec(5), systemd.service(5) and systemd.timer(5) know of it."""

Unit = dict[str, dict[str, list[str]]]


def read_unit(text: str) -> Unit:
    """Return section -> key -> values, as systemd reads a file; what it would only warn of is
    refused."""
    sections: Unit = {}
    section = ""
    for line in re.sub(r" *\\\n\s*", " ", text).splitlines():
        if not line or line[0] in "#;":
            continue
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
            sections[section] = {}
            continue
        key, equals, value = line.partition("=")
        assert equals and value and key in _KEYS[section], line
        assert not set(value) & set("%$\"'\\;"), f"that has a meaning for systemd: {line}"
        sections[section].setdefault(key, []).append(value)
    return sections


def seconds(text: str) -> float:
    """A length of time as systemd and --max-duration take it."""
    units = {"": 1, "s": 1, "min": 60, "m": 60, "h": 3600}
    match = re.fullmatch(r"(\d+)(s|min|m|h|)", text)
    assert match
    return int(match[1]) * units[match[2]]


def test_the_service_runs_as_systemd_runs_it(machine: Machine) -> None:
    unit = read_unit(machine.places(text_of("crashmover-copy.service")))
    assert unit.keys() == {"Unit", "Service"}
    service = unit["Service"]
    env = dict(setting.split("=", 1) for setting in service["Environment"])
    assert_known(set(env))
    [command] = service["ExecStart"]
    ended = machine.run(command.split(), {"PATH": "/usr/bin", **env})
    assert (ended.returncode, ended.stdout) == (0, "")
    assert '"copied": 2' in ended.stderr
    assert stored(machine.archive) == manifest(*CRASHES)


def test_the_service_is_left_the_time_that_it_takes() -> None:
    service = read_unit(text_of("crashmover-copy.service"))["Service"]
    [command] = service["ExecStart"]
    limit = parsed(command.split()[1:])["max_duration"]
    assert seconds(service["TimeoutStartSec"][0]) > limit + LONGEST_END
    assert seconds(service["TimeoutStopSec"][0]) > LONGEST_END
    assert service["SuccessExitStatus"] == ["143"]


def test_the_timer_starts_the_service() -> None:
    timer = read_unit(text_of("crashmover-copy.timer"))
    assert timer.keys() == {"Unit", "Timer", "Install"}
    assert timer["Install"]["WantedBy"] == ["timers.target"]
    [calendar] = timer["Timer"]["OnCalendar"]
    assert re.fullmatch(r"\*-\*-\* ([01]\d|2[0-3]):[0-5]\d:[0-5]\d", calendar)


@pytest.mark.parametrize(
    "text",
    ["[Service]\nExecStar=x", "[Servce]\nUser=x", "[Service]\nUser", "[Service]\nExecStart=a $B"],
)
def test_what_systemd_would_pass_over_is_noticed(text: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        read_unit(text)


# Kubernetes


@pytest.fixture
def cron_job() -> Any:
    return yaml.safe_load(text_of("cronjob.yaml"))


def container_of(cron_job: Any) -> Any:
    [container] = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return container


def test_the_cron_job_is_one() -> None:
    [job] = yaml.safe_load_all(text_of("cronjob.yaml"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    check_schedule(job["spec"]["schedule"])
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    mounts = {mount["name"] for mount in container_of(job)["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_the_cron_job_is_left_the_time_that_it_takes(cron_job: Any) -> None:
    job = cron_job["spec"]["jobTemplate"]["spec"]
    limit = parsed(container_of(cron_job)["args"])["max_duration"]
    assert job["activeDeadlineSeconds"] > limit + LONGEST_END
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] > LONGEST_END


def test_the_cron_job_runs_with_its_arguments_and_environment(
    cron_job: Any, machine: Machine
) -> None:
    container = container_of(cron_job)
    assert container["command"] == ["crashmover"]
    assert all(isinstance(arg, str) for arg in container["args"])
    env = {each["name"]: each.get("value", "secret") for each in container["env"]}
    assert all(isinstance(value, str) for value in env.values())
    assert_known(set(env))
    env["CRASHMOVER_SOURCE"] = str(machine.source)
    env["CRASHMOVER_DESTINATION"] = str(machine.archive)
    args = shlex.split(machine.places(shlex.join(container["args"])))
    result = run(*args, env=env)
    assert (result.exit_code, result.stdout) == (0, "")
    assert '"copied": 2' in result.stderr
    assert stored(machine.archive) == manifest(*CRASHES)


def test_the_cron_job_names_secrets_and_has_none(cron_job: Any) -> None:
    for each in container_of(cron_job)["env"]:
        is_secret = not each["name"].startswith("CRASHMOVER_")
        assert ("secretKeyRef" in each.get("valueFrom", {})) == is_secret


def test_the_stores_of_the_cron_job_can_be_opened(cron_job: Any) -> None:
    values = [str(each.get("value")) for each in container_of(cron_job)["env"]]
    uris = [value for value in values if "://" in value]
    assert len(uris) == 2
    for uri in uris:
        with open_storage(uri) as storage:
            assert storage.uri.partition(":")[0] == uri.partition(":")[0]
