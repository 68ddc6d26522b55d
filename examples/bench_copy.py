# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Time ``crashmover copy`` against ``cp -a`` and ``sync`` of the same crashes, side by side.

Every run writes into a new directory, and all are removed at the end: ext4 is slow to reuse
what was just removed.  Times include the start of the programs.
"""

import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

CRASHES, RUNS = 300, 3
HERE = Path(__file__).parent
SCRIPTS = Path(sysconfig.get_path("scripts"))


def copy(source: Path, target: Path) -> None:
    run(SCRIPTS / "crashmover", "copy", "--no-progress", "-s", source, "-d", target)


def cp_and_sync(source: Path, target: Path) -> None:
    run("cp", "-a", source, target)
    run("sync", "-f", target)


CONTENDERS = {"crashmover copy": copy, "cp -a; sync": cp_and_sync}


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


def seconds(contender: str, source: Path, target: Path) -> float:
    run("sync", "-f", source)  # so that nobody pays for what another has left
    begun = time.perf_counter()
    CONTENDERS[contender](source, target)
    return time.perf_counter() - begun


def bench(directory: Path) -> None:
    source = directory / "source"
    run(sys.executable, HERE / "sample_crashes.py", source, "--crashes", str(CRASHES))
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    print(f"{CRASHES} crashes, {size / 1e6:.1f} MB; {RUNS} runs each, in turns")
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for n in range(RUNS):
        for name, found in times.items():
            found.append(seconds(name, source, directory / f"{name} {n}"))
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, found in times.items():
        print(f"  {name:<15}  {medians[name]:.3f} s  ({', '.join(f'{t:.3f}' for t in found)})")
    mine, theirs = medians.values()
    print(f"  ratio            {mine / theirs:.2f}")


def main() -> None:
    # Not in /tmp, which may be in memory.
    builds = HERE.parent / "build"
    builds.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=builds) as directory:
        bench(Path(directory))


if __name__ == "__main__":
    main()
