# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The package as a whole: its public names, what it costs to start, and who imports whom."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import crashmover

HOME = Path(crashmover.__file__).parent
MODULES = sorted(path.relative_to(HOME).as_posix() for path in HOME.rglob("*.py"))
NOT_CLI = [module for module in MODULES if not module.startswith("cli/")]


def tree_of(module: str) -> ast.Module:
    return ast.parse((HOME / module).read_text("utf-8"))


def imports_in(module: str) -> Iterator[str]:
    """The absolute names of all that a module imports, at its top or anywhere else."""
    package = ["crashmover", *Path(module).parent.parts]
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def new_modules(code: str) -> set[str]:
    """What a fresh interpreter has imported after `code`, and had not when it started."""
    program = f"""
import sys
before = set(sys.modules)
{code}
sys.stderr.write(" ".join(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stderr.split())


# Public names


@pytest.mark.parametrize("name", crashmover.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(crashmover, name) is not None


def test_every_public_name_is_where_it_says_it_is() -> None:
    for name in crashmover.__all__:
        value = getattr(crashmover, name)
        if isinstance(value, type):
            assert value.__name__ == name
            assert getattr(import_module(value.__module__), name) is value


def test_a_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from crashmover import *", names)
    assert set(crashmover.__all__) == set(names) - {"__builtins__"}


def test_type_checkers_know_the_same_public_names() -> None:
    declared = {name.removeprefix("crashmover.") for name in imports_in("__init__.py")}
    missing = [
        name
        for name in crashmover.__all__
        if name not in ("__version__", "errors")
        and not any(one == name or one.endswith(f".{name}") for one in declared)
    ]
    assert missing == []


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'crashmover' has no attribute 'nosuch'"):
        _ = crashmover.nosuch


def test_the_version_is_one_that_packaging_understands() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([ab]\d+|rc\d+)?(\.dev\d+)?", crashmover.__version__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (HOME / "py.typed").is_file()


# What it costs


def test_importing_the_package_imports_nothing_else_of_it() -> None:
    imported = new_modules("import crashmover")
    assert {name for name in imported if is_within(name, "crashmover")} == {"crashmover"}


def test_help_imports_nothing_that_is_slow() -> None:
    imported = new_modules(
        """
from crashmover.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0, end.code
"""
    )
    slow = ["asyncio", "boto3", "concurrent.futures", "platformdirs", "rich", "ssl", "tenacity"]
    assert "crashmover.cli" in imported
    assert sorted(name for name in imported if any(is_within(name, one) for one in slow)) == []


def test_the_help_of_a_command_reads_no_metadata_of_packages() -> None:
    imported = new_modules(
        """
from crashmover.cli import main
for name in main.list_commands(None):
    try:
        main([name, "--help"])
    except SystemExit as end:
        assert end.code == 0, end.code
"""
    )
    assert "crashmover.registry" in imported
    slow = ["boto3", "email", "importlib.metadata", "obstore", "psycopg", "socket", "ssl"]
    assert sorted(name for name in imported if any(is_within(name, one) for one in slow)) == []


def test_a_file_system_store_imports_no_driver_and_no_other_store() -> None:
    imported = new_modules(
        """
from crashmover import open_storage
open_storage("./crashes").close()
"""
    )
    assert "crashmover.external.fs.crashstorage" in imported
    others = ["boto3", "obstore", "psycopg", "google.cloud", "rich", "click", "ssl"]
    others += ["crashmover.external.memory", "crashmover.external.poly", "crashmover.cli"]
    assert sorted(name for name in imported if any(is_within(name, one) for one in others)) == []


# Who does what


def test_nothing_but_the_command_line_prints() -> None:
    for module in NOT_CLI:
        calls = [
            node.func.id
            for node in ast.walk(tree_of(module))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        assert "print" not in calls, module
        assert not any(is_within(name, "click") for name in imports_in(module)), module


def test_each_module_imports_only_what_it_may(tmp_path: Path) -> None:
    """By the layers in ``.ci/imports.ini``; and an import that goes upwards is noticed."""
    package = tmp_path / "crashmover"
    shutil.copytree(HOME, package)
    rules = HOME.parent / ".ci" / "imports.ini"
    program = Path(sys.executable).parent / "lint-imports"
    command = [str(program), "--no-cache", "--no-logo", str(rules)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for line, expected in (("", 0), ("from crashmover.engine import mover\n", 1)):
        with (package / "external" / "fs" / "crashstorage.py").open("a") as file:
            file.write(line)
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == expected, done.stdout + done.stderr
