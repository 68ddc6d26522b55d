# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Mutation testing: `make mutants`.

The paths on which crashes are validated, saved and acknowledged are damaged, one small change at
a time; the tests must notice.  Each module is tried with few test files, those that are about it,
so that what holds a promise stands beside it, and a run takes no longer than it must.

Run nothing else meanwhile: mutmut signals what takes too long by the number of its process, which
may be another's by then.
"""

import argparse
import ast
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import KINDS

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent.parent
WORK = HERE / "build" / "mutants"
LEAST = 85
"""The percentage of each module's mutants that the tests must notice."""

OPTIONS = ["-m", "not slow", *(f"--without={name}" for name in KINDS)]
"""What pytest is told: what needs a server takes too long for this."""

UNDAMAGED = ""
"""The name of the mutant that is none."""

NOTICED = ("killed", "timeout")
COLUMNS = (*NOTICED, "survived", "no tests")
APPLIED = ("property", "contextmanager")
DROPPED = ("lru_cache",)
"""Decorators of functions, which mutmut leaves alone for their sake.  A cache would answer for a
mutant what it knows from the run before."""


@dataclass(frozen=True)
class Part:
    """Modules that are tried together.

    :param modules: their paths below the package, without the suffix
    :param tests: the names of the test files
    :param programs: the names of test files that run the product in processes of their own, where
        mutmut does not see what they run: what has survived the others is tried with these
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    programs: tuple[str, ...] = ()

    def configuration(self) -> str:
        """What mutmut is told."""
        settings = {
            "source_paths": ["crashmover"],
            "only_mutate": [f"crashmover/{module}.py" for module in self.modules],
            "also_copy": ["README.rst", "examples"],
            "pytest_add_cli_args": OPTIONS,
            "pytest_add_cli_args_test_selection": [f"tests/test_{name}.py" for name in self.tests],
            "use_git_change_detection": ["no"],
        }
        lines = (f"{name} = " + "\n    ".join(values) for name, values in settings.items())
        return "\n".join(["\n[mutmut]", *lines, ""])


MOVER = ("mover", "mover_faults", "mover_removing", "mover_run", "mover_stores")

PARTS = {
    "crashid": Part(("crashid",), ("crashid",)),
    "mover": Part(
        (
            "comparison",
            *(
                f"engine/{name}"
                for name in ("batches", "copying", "destination", "guard", "loading", "mover")
            ),
        ),
        ("batches", "comparison", "destination", "guard", *MOVER),
        programs=MOVER,
    ),
    "selection": Part(("selection",), ("selection", "queued_ids")),
    "queue": Part(("external/crashqueue_base",), ("queue_base",)),
    "sqlite": Part(("external/sqlite/crashqueue",), ("sqlite_queue",)),
    "durable": Part(
        ("external/fs/durable", "external/fs/locks"),
        ("fs_durability", "fs_durable", "fs_modes", "fs_syscalls"),
        programs=("fs_faults",),
    ),
    "staging": Part(
        ("external/fs/saving", "external/fs/staging"),
        ("fs_durability", "fs_left_over"),
        programs=("fs_faults",),
    ),
    "s3": Part(
        tuple(
            f"external/bucket/{name}"
            for name in ("adding", "finding", "putting", "removing", "stamps", "writing")
        ),
        ("s3_saving", "s3_interleavings"),
    ),
}


def undecorated(source: str) -> str:
    """Return a module in which mutmut finds the functions that a decorator hides from it: it is
    applied below them, or dropped."""
    lines = source.splitlines()
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
    for node in sorted(functions, key=lambda node: -node.lineno):  # so that numbers stay right
        names = [ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list]
        if names and names[0] in APPLIED:
            assert node.end_lineno
            applied = f"{node.name} = {names[0]}({node.name})"
            lines.insert(node.end_lineno, " " * node.col_offset + applied)
        if names and names[0] in (*APPLIED, *DROPPED):
            del lines[node.decorator_list[0].lineno - 1]
    return "\n".join(lines) + "\n"


def prepare(name: str, part: Part) -> Path:
    """Make a directory in which mutmut finds all that it copies."""
    directory = WORK / name
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(HERE / "crashmover", directory / "crashmover")
    for module in part.modules:
        file = directory / "crashmover" / f"{module}.py"
        file.write_text(undecorated(file.read_text("utf-8")), "utf-8")
    for each in ("tests", "examples", "README.rst"):
        (directory / each).symlink_to(HERE / each)
    settings = (HERE / "setup.cfg").read_text("utf-8") + part.configuration()
    (directory / "setup.cfg").write_text(settings, "utf-8")
    return directory


def mutmut(directory: Path, *arguments: str) -> str:
    """Run it there; return what it prints."""
    # Hypothesis tries the same examples each time where it believes itself to be in CI.
    environment = {**os.environ, "CI": "true"}
    command = [str(Path(sys.executable).parent / "mutmut"), *arguments]
    done = subprocess.run(
        command, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nmutmut {' '.join(arguments)}: exit code {done.returncode}")
    return done.stdout


def is_noticed(directory: Path, part: Part, mutant: str) -> bool:
    """Whether a test that runs programs notices what has survived the others."""
    tests = [f"tests/test_{name}.py" for name in part.programs]
    command = [sys.executable, "-m", "pytest", "-x", "-q", *OPTIONS, *tests]
    done = subprocess.run(
        command,
        cwd=directory / "mutants",
        env={**os.environ, "CI": "true", "MUTANT_UNDER_TEST": mutant},
        capture_output=True,
        check=False,
    )
    return done.returncode == pytest.ExitCode.TESTS_FAILED


def verdicts(directory: Path) -> dict[str, str]:
    """Return what became of each mutant, by its name."""
    lines = mutmut(directory, "results", "--all", "true").splitlines()
    pairs = (line.strip().rpartition(": ") for line in lines)
    return {name: verdict for name, _, verdict in pairs if name}


def counted(found: dict[str, str]) -> dict[str, Counter[str]]:
    """Return how often there was each verdict, for each module."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, verdict in found.items():
        counts[name.rpartition(".")[0]][verdict] += 1
    return dict(counts)


def percentage(counter: Counter[str]) -> float:
    """How many were noticed, of a hundred."""
    return 100 * sum(counter[verdict] for verdict in NOTICED) / counter.total()


def row(module: object, mutants: object, cells: Iterable[object], percent: object) -> str:
    """Return a line of the table."""
    return f"{module:<46}{mutants:>8}{''.join(f'{cell:>10}' for cell in cells)}{percent:>8}"


def run(name: str, part: Part, children: int) -> dict[str, float]:
    """Try the mutants of a part; say which were not noticed, and how many of each module were."""
    directory = prepare(name, part)
    mutmut(directory, "run", "--max-children", str(children))
    found = verdicts(directory)
    if part.programs and is_noticed(directory, part, UNDAMAGED):
        sys.exit(f"the tests of {name} that run programs fail of themselves")
    for mutant, verdict in found.items():
        if verdict in NOTICED:
            continue
        if part.programs and is_noticed(directory, part, mutant):
            found[mutant] = "killed"
        else:
            logger.info("%s: (cd %s; mutmut show %s)", verdict, directory, mutant)
    counts = counted(found)
    for module, counter in counts.items():
        cells = (counter[column] for column in COLUMNS)
        logger.info(row(module, counter.total(), cells, f"{percentage(counter):.1f}"))
    return {module: percentage(counter) for module, counter in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Damage the product; see whether tests notice.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--children", type=int, default=1, help="how many processes try mutants")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logger.info(row("module", "mutants", COLUMNS, "%"))
    noticed: dict[str, float] = {}
    for name in options.parts or PARTS:
        noticed |= run(name, PARTS[name], options.children)
    few = [module for module, percent in noticed.items() if percent < LEAST]
    if few:
        sys.exit(f"fewer than {LEAST} % were noticed in {', '.join(few)}")


if __name__ == "__main__":
    main()
