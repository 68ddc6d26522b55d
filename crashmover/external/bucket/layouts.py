# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Layouts: which key each part of a crash has in a bucket.  Pure; the same for every provider."""

import json
import re
from dataclasses import dataclass

from crashmover import crashid
from crashmover.crash import MAIN_DUMP, canonical_dump_name
from crashmover.errors import CorruptCrash, InvalidDumpName

RAW_CRASHES = "v1/raw_crash"
"""Below it a directory for each day; in old buckets also crashes without one."""

PAST_ALL_DAYS = f"{RAW_CRASHES}/21"
"""Behind all directories of days, which begin with 19 or 20.  Ids begin with any digit."""

OLD_RAW_CRASHES = "v2/raw_crash"
"""Below it a directory for each day, or one for each start of an id and in it the days."""

PROCESSED_CRASHES = "v1/processed_crash"
DUMP_NAMES = "v1/dump_names"

MARKS = "v1/crashmover-mark"
"""Below it a copy that removes puts a mark for a moment, under a name that is not a crash id."""

LONGEST_DUMP_NAMES = 1 << 20
"""Bytes of a list of dumps: no reader reads more."""

_ENTROPY = re.compile(r"[0-9a-f]{3}", re.ASCII)


@dataclass(frozen=True)
class BucketLayout:
    """The layout of Socorro's bucket (``socorro/external/boto/crashstorage.py``, ``build_keys``)
    and of Antenna's (``antenna/ext/s3/crashstorage.py``).

    :param name: what ``?layout=`` calls it
    :param reads_older: whether raw crashes are looked for under the older keys, too
    """

    name: str
    reads_older: bool

    def raw_crash_keys(self, crash_id: str) -> tuple[str, ...]:
        """Return the keys that a raw crash may have: the key that is written, then the older
        ones, in the order in which they are looked for."""
        day = crashid.day_name(crashid.date_of(crash_id))
        written = f"{RAW_CRASHES}/{day}/{crash_id}"
        if not self.reads_older:
            return (written,)
        return (
            written,
            f"{OLD_RAW_CRASHES}/{crash_id[:3]}/{day}/{crash_id}",
            f"{OLD_RAW_CRASHES}/{day}/{crash_id}",
            f"{RAW_CRASHES}/{crash_id}",
        )

    def dump_names_key(self, crash_id: str) -> str:
        """Return the key of the list of a crash's dumps."""
        return f"{DUMP_NAMES}/{crash_id}"

    def dump_key(self, crash_id: str, name: str) -> str:
        """Return the key of a dump; the main dump has another name here than in the list.

        :param name: canonical
        """
        return f"v1/{'dump' if name == MAIN_DUMP else name}/{crash_id}"

    def dump_name(self, directory: str) -> str | None:
        """Return the canonical name of the dumps in a directory below ``v1``; None where no dump
        has its key."""
        if directory == "dump":
            return MAIN_DUMP
        try:
            name = canonical_dump_name(directory)
        except InvalidDumpName:
            return None
        return name if name == directory != MAIN_DUMP else None

    def processed_crash_key(self, crash_id: str) -> str:
        """Return the key of a processed crash."""
        return f"{PROCESSED_CRASHES}/{crash_id}"


SOCORRO = BucketLayout("socorro", reads_older=True)
"""The default."""

V1_ONLY = BucketLayout("v1-only", reads_older=False)
"""The same for a bucket that has no raw crash under an older key."""

LAYOUTS = {layout.name: layout for layout in (SOCORRO, V1_ONLY)}


def is_entropy(name: str) -> bool:
    """Return True if a directory's name is the start of ids."""
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
