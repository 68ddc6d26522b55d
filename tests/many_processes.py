# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Processes that begin at the same moment, and what they do then.

``python -m tests.many_processes save URI SEED VARIANTS ROUNDS`` saves a dozen crashes again and
again, in an order by chance; ``... run ARGUMENTS`` is the command line.  Each says that it is
ready, and waits until whoever has started it closes its standard input.  It imports no more than
that takes, for there are many of them.
"""

import json
import random
import sys
from collections import Counter
from contextlib import suppress

from crashmover.crash import MAIN_DUMP, Crash, Kind, Part
from crashmover.errors import StorageUnavailable
from crashmover.external.crashstorage_base import CrashStorageBase
from crashmover.registry import open_storage
from crashmover.retry import RetryPolicy

IDS = [f"{('0bba', 'c0de')[n % 2]}{n:04x}-721c-460c-dead-a43c2{n % 5}261120" for n in range(12)]

Contents = dict[tuple[Kind, str], bytes]


def variant(crash_id: str, number: int) -> Contents:
    """A crash by that id: another for each number, with as many dumps."""
    raw = {"uuid": crash_id, "variant": number, "filler": "x" * 500 * number}
    dumps = [(Kind.DUMP, f"dump_{n}" if n else MAIN_DUMP) for n in range(number)]
    data = {key: f"{crash_id} {number} {key}".encode() * 100 for key in dumps}
    return {(Kind.RAW_CRASH, ""): json.dumps(raw).encode(), **data}


def crash_of(crash_id: str, number: int) -> Crash:
    """The same as a store takes it."""
    parts = variant(crash_id, number).items()
    return Crash(crash_id, [Part.of_bytes(kind, data, name) for (kind, name), data in parts])


# In each process


def wait_for_the_others() -> None:
    print("ready", flush=True)  # noqa: T201
    sys.stdin.buffer.read()


def save(uri: str, seed: str, variants: str, rounds: str) -> None:
    """Save, each round other variants; print how often that went well."""
    rng = random.Random(int(seed))
    with open_storage(uri) as storage:
        storage.verify_access(write=True)
        wait_for_the_others()
        seen = Counter(
            save_one(storage, crash_id, (int(seed) + turn) % int(variants))
            for turn in range(int(rounds))
            for crash_id in rng.sample(IDS, len(IDS))
        )
    print(json.dumps(seen))  # noqa: T201


def save_one(storage: CrashStorageBase, crash_id: str, number: int) -> str:
    crash = crash_of(crash_id, number)
    with suppress(StorageUnavailable):
        RetryPolicy().call(lambda: storage.save_crash(crash))
        return "saved"
    return "gave_up"


def run(*arguments: str) -> None:
    """Run the command line, of which no more is to be imported."""
    from crashmover.cli import copy, main

    assert copy.command
    wait_for_the_others()
    main(arguments)


if __name__ == "__main__":
    save(*sys.argv[2:]) if sys.argv[1] == "save" else run(*sys.argv[2:])
