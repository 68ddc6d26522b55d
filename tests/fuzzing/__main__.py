# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``python -m tests.fuzzing TARGET DIRECTORY [OPTION...]``: let libFuzzer look for inputs that
break a target.

The directory is given the inputs that reach something new.  The options are libFuzzer's, such as
``-max_total_time=600``.
"""

import re
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["crashmover", "tests.fuzzing.targets"]):
    from tests.fuzzing.targets import TARGETS


WORD = re.compile(rb"[A-Za-z0-9_.-]{2,}|[^A-Za-z0-9]")


def main() -> None:
    target = TARGETS[sys.argv[1]]
    directory = Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (directory / f"seed-{number}").write_bytes(seed)
    with tempfile.NamedTemporaryFile() as dictionary:
        dictionary.write(b"\n".join(map(quoted, words(target.seeds))))
        dictionary.flush()
        atheris.Setup([sys.argv[0], *sys.argv[2:], f"-dict={dictionary.name}"], target.run)
        atheris.Fuzz()


def words(seeds: list[bytes]) -> list[bytes]:
    """What the seeds are made of, for the fuzzer to make others of."""
    return sorted({word for seed in seeds for word in WORD.findall(seed[:2000])})


def quoted(word: bytes) -> bytes:
    return b'"' + b"".join(b"\\x%02x" % byte for byte in word) + b'"'


if __name__ == "__main__":
    main()
