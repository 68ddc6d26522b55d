# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The README: what it shows is what happens.

Its ``console`` blocks are run, one after the other in one directory, and must print what it
says; its named ``python`` blocks are run too.  Its ``sh`` blocks are for places that a test has
not: of these only the options are looked at.
"""

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import click
import psycopg
import pytest
from docutils import nodes
from docutils.core import publish_doctree

from crashmover import cli, open_storage
from tests.conftest import BACKEND, UseAWS
from tests.servers.postgresql import PostgreSQL
from tests.servers.s3 import S3Server

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.rst").read_text("utf-8")
COMMANDS = (
    "save",
    "get",
    "list",
    "copy",
    "check",
    "remove",
    "queue-publish",
    "queue-pull",
    "config",
    "doctor",
)
GROUP = click.Context(cli.main, **cli.main.context_settings)


class Shown(NamedTuple):
    """A command as the README shows it."""

    command: str
    output: str


@cache
def document() -> nodes.document:
    return publish_doctree(README, settings_overrides={"report_level": 5})


def blocks(language: str) -> list[nodes.literal_block]:
    found = document().findall(nodes.literal_block)
    return [block for block in found if language in block["classes"]]


def named_blocks() -> dict[str, str]:
    """The blocks that are files, by the names of these."""
    found = document().findall(nodes.literal_block)
    return {name: block.astext() for block in found for name in block["names"]}


def shown() -> Iterator[Shown]:
    for block in blocks("console"):
        for prompted in re.split(r"^\$ ", block.astext(), flags=re.MULTILINE)[1:]:
            command, _, output = prompted.partition("\n")
            yield Shown(command, output)


def command_of(name: str) -> click.Command:
    command = cli.main.get_command(GROUP, name)
    assert command
    return command


def options_of(command: click.Command) -> set[str]:
    parameters = command.get_params(click.Context(command, parent=GROUP))
    return {
        name
        for parameter in parameters
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


def run(*command: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(cwd),
        "LC_ALL": "C.UTF-8",
        **more,
    }
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )


def comparable(output: str, home: Path) -> str:
    """The output without what is another each time: how long it took, and where."""
    output = output.replace(str(home), "/home/me")
    return re.sub(r"in \d+\.\d s$", "in 0.0 s", output, flags=re.MULTILINE).strip()


def test_it_is_read_without_a_warning() -> None:
    warnings = io.StringIO()
    settings = {"report_level": 2, "halt_level": 5, "warning_stream": warnings}
    publish_doctree(README, settings_overrides=settings)
    assert warnings.getvalue() == ""


def test_every_command_runs_and_prints_what_is_shown(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for name, text in named_blocks().items():
        (tmp_path / name).write_text(text, "utf-8")
    for command, output in shown():
        done = run("bash", "-c", command, cwd=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        assert comparable(done.stdout, tmp_path) == comparable(output, tmp_path), command


@pytest.mark.parametrize("name", ["tour.py", "move.py"])
def test_every_program_runs(name: str, tmp_path: Path) -> None:
    samples = str(ROOT / "examples" / "sample_crashes.py")
    run(sys.executable, samples, "./archive", "--crashes", "3", cwd=tmp_path)
    done = run(sys.executable, "-W", "error", "-c", named_blocks()[name], cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_engine_as_shown_copies_to_both_stores(tmp_path: Path) -> None:
    samples = str(ROOT / "examples" / "sample_crashes.py")
    made = run(sys.executable, samples, "./archive", "--crashes", "3", cwd=tmp_path)
    run(sys.executable, "-c", named_blocks()["move.py"], cwd=tmp_path)
    for directory in ("x", "y"):
        with open_storage(f"{tmp_path}/{directory}") as storage:
            assert sorted(storage.new_crashes()) == sorted(made.stdout.split())


def test_the_bucket_is_tried_as_shown(tmp_path: Path, own_s3: S3Server, aws: UseAWS) -> None:
    aws(own_s3).client().create_bucket(Bucket="crashes")
    script = named_blocks()["try-s3.sh"].replace("http://127.0.0.1:9000", own_s3.endpoint_url)
    done = tried(script, tmp_path, **own_s3.credentials)
    assert re.findall(r"^copied \d+, skipped 0, failed 0", done, re.MULTILINE) == [
        "copied 20, skipped 0, failed 0",
        "copied 14, skipped 0, failed 0",
    ]


def test_the_database_is_tried_and_looked_at_as_shown(
    tmp_path: Path, postgresql_server: PostgreSQL
) -> None:
    uri = postgresql_server.uri(postgresql_server.new_database())
    done = tried(named_blocks()["try-postgresql.sh"], tmp_path, URI=uri)
    assert "copied 20, skipped 0, failed 0" in done
    assert "copied 14, skipped 0, failed 0" in done
    with psycopg.connect(uri) as connection:
        products, signatures = named_blocks()["look.sql"].split(";")[:2]
        assert sum(row[1] for row in connection.execute(products.encode())) == 20
        [(crash_id, signature)] = connection.execute(signatures.encode())
        assert str(crash_id) == "9e68d49b-7526-4270-b851-e1fef0261119"
        assert signature


def tried(script: str, cwd: Path, **environment: str) -> str:
    """Run a script of the README beside the sample crashes of its quick tour."""
    samples = [sys.executable, str(ROOT / "examples" / "sample_crashes.py")]
    run(*samples, "./collector", "--last-day", "2026-11-20", cwd=cwd)
    done = run("bash", "-ec", script, cwd=cwd, **environment)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    "name", ["crashmover_sqlite.py", "pyproject.toml", "test_crashmover_sqlite.py"]
)
def test_the_backend_that_is_shown_is_the_example(name: str) -> None:
    """Whose own tests, of every promise, are in `test_backend_example`."""
    licence, _, text = (BACKEND / name).read_text("utf-8").partition("\n\n")
    assert licence.count("\n") == 2
    assert named_blocks()[name] == text.rstrip("\n")


def test_the_backend_is_tried_as_shown(tmp_path: Path, backend_site: Path) -> None:
    done = tried(named_blocks()["try-backend.sh"], tmp_path, PYTHONPATH=str(backend_site))
    assert re.findall(r"^copied \d+, skipped 0, failed 0", done, re.MULTILINE) == [
        "copied 20, skipped 0, failed 0",
        "copied 14, skipped 0, failed 0",
    ]
    assert "dump upload_file_minidump" in done


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_of_a_command_are_listed_all_and_no_others(name: str) -> None:
    [section] = [
        section
        for section in document().findall(nodes.section)
        if section[0].astext() == f"crashmover {name}"
    ]
    listed = {option.astext() for option in section.findall(nodes.option_string)}
    assert listed == options_of(command_of(name))


def test_every_option_that_is_named_exists(tmp_path: Path) -> None:
    samples = run(sys.executable, str(ROOT / "examples/sample_crashes.py"), "--help", cwd=tmp_path)
    known = set(re.findall(r"--[a-z-]+", samples.stdout))
    schema = run(sys.executable, "-m", "crashmover.external.postgresql", "--help", cwd=tmp_path)
    known |= set(re.findall(r"--[a-z-]+", schema.stdout))
    known |= {"--addr", "--now", "--size-only"}  # of rclone and systemctl
    known |= {"--dir-cache-time", "--vfs-cache-mode", "--vfs-write-back"}  # of rclone
    known |= {"--dead-letter-topic", "--max-delivery-attempts"}  # of gcloud
    known |= options_of(cli.main).union(*(options_of(command_of(name)) for name in COMMANDS))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README)) <= known


def test_what_is_shown_and_not_run_is_no_usage_error() -> None:
    text = "\n".join(block.astext() for block in blocks("sh"))
    shown = re.findall(r"\bcrashmover ([\w-]+) (.*)", text)
    assert shown
    for name, arguments in shown:
        words = shlex.split(arguments)
        with command_of(name).make_context(name, words, parent=GROUP) as context:
            assert context.params, (name, arguments)


def test_every_make_target_that_is_named_exists() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    named = set(re.findall(r"\bmake ([a-z-]+)\b(?=`|\s+#| [A-Z]+=)", README))
    assert {"demo", "test"} <= named <= set(targets)


def test_the_map_of_the_package_has_a_place_for_every_module_and_no_other() -> None:
    package = ROOT / "crashmover"
    places = re.findall(r"^ {6}([\w/]+(?:\.py|/)) ", README, re.MULTILINE)
    for place in places:
        assert (package / place).exists(), place
    for module in package.rglob("[!_]*.py"):
        assert module.relative_to(package).as_posix().startswith(tuple(places)), module


def test_the_files_that_a_change_begins_with_exist() -> None:
    [section] = [
        section
        for section in document().findall(nodes.section)
        if section[0].astext() == "Where a new line of code belongs"
    ]
    said = [literal.astext() for literal in section.findall(nodes.literal)]
    places = [text for text in said if re.fullmatch(r"[\w.]+/[\w./]*|\w+\.(py|cfg)", text)]
    assert len(places) > 30
    for place in places:
        homes = (ROOT, ROOT / "crashmover")
        assert any((home / place).exists() for home in homes), place
