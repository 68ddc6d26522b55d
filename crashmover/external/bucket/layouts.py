# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Where the parts of a crash lie in a bucket: pure functions, the same for every object store.

The layout is that of Socorro's bucket (``socorro/external/boto/crashstorage.py``,
``build_keys``), and of Antenna's (``antenna/ext/s3/crashstorage.py``).
"""

import datetime as dt
import hashlib
import json
import re

from crashmover import crashid
from crashmover.crash import MAIN_DUMP, canonical_dump_name
from crashmover.errors import CorruptCrash, InvalidDumpName

RAW_CRASHES = "v1/raw_crash"
"""Below it a directory for each day; in old buckets also crashes without one."""

OLD_RAW_CRASHES = "v2/raw_crash"
"""Below it a directory for each day, or one for each start of an id and in it the days."""

PROCESSED_CRASHES = "v1/processed_crash"

MARKS = "v1/crashmover-mark"
"""Below it a copy that removes puts a mark for a moment, under a name that is not a crash id."""

LONGEST_DUMP_NAMES = 1 << 20
"""Bytes of a list of dumps: more are read by nobody."""

_DAY = re.compile(r"[0-9]{8}", re.ASCII)
_ENTROPY = re.compile(r"[0-9a-f]{3}", re.ASCII)


def raw_crash_keys(crash_id: str) -> tuple[str, ...]:
    """Where a raw crash may be: the key that is written, then the older ones, in the order in
    which they are looked for."""
    day = day_name(crashid.date_of(crash_id))
    return (
        f"{RAW_CRASHES}/{day}/{crash_id}",
        f"{OLD_RAW_CRASHES}/{crash_id[:3]}/{day}/{crash_id}",
        f"{OLD_RAW_CRASHES}/{day}/{crash_id}",
        f"{RAW_CRASHES}/{crash_id}",
    )


def dump_names_key(crash_id: str) -> str:
    """Where the list of a crash's dumps is."""
    return f"v1/dump_names/{crash_id}"


def dump_key(crash_id: str, name: str) -> str:
    """Where a dump is; the main one goes by another name here than in the list.

    :param name: canonical
    """
    return f"v1/{'dump' if name == MAIN_DUMP else name}/{crash_id}"


def processed_crash_key(crash_id: str) -> str:
    """Where a processed crash is."""
    return f"{PROCESSED_CRASHES}/{crash_id}"


def day_name(day: dt.date) -> str:
    """The name of a day's directory."""
    return day.strftime("%Y%m%d")


def parse_day_name(name: str) -> dt.date | None:
    """Return the day whose directory has this name, if it is one."""
    if not _DAY.fullmatch(name):
        return None
    try:
        return dt.date(int(name[:4]), int(name[4:6]), int(name[6:]))
    except ValueError:
        return None


def is_impossible_day(name: str) -> bool:
    """Return True if a directory's name has the digits of a day that no calendar has."""
    return _DAY.fullmatch(name) is not None and parse_day_name(name) is None


def is_entropy(name: str) -> bool:
    """Whether a directory has the name that is the start of ids."""
    return _ENTROPY.fullmatch(name) is not None


def format_dump_names(names: list[str]) -> bytes:
    """Return what the list of a crash's dumps holds.

    :param names: canonical
    """
    return json.dumps(sorted(names)).encode()


def parse_dump_names(data: bytes) -> list[str]:
    """Return the canonical names, each once, in what the list of a crash's dumps holds.

    :raises CorruptCrash: it is not a JSON list of names of dumps
    """
    try:
        names = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptCrash("dump_names is not JSON") from error
    if not isinstance(names, list):
        raise CorruptCrash("dump_names is not a list")
    try:
        return list(dict.fromkeys(canonical_dump_name(name) for name in names))
    except InvalidDumpName as error:
        raise CorruptCrash(f"dump_names: {error}") from error


def mark(key: str, sha256: str) -> str:
    """Return a few characters by which a dump with these bytes is known."""
    return hashlib.sha256(f"{key} {sha256}".encode()).hexdigest()[:8]
