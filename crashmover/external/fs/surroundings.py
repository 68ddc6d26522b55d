# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a directory holds where a listing has found no crash: a look at a few directories.

Other layouts that are known by their names: those of Mozilla Antenna's ``FSCrashStorage``
(``DAY/raw_crash/ID.json``), of crashstats-tools' ``fetch-data`` (``raw_crash/ID``) and of Socorro's
``fetch_crash_data`` (``v1/raw_crash/DAY/ID``, as in a bucket).
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from crashmover.external.fs.layout import ID_LENGTH, RADIX, Layout, day_in
from crashmover.external.passed_over import looks_like_id

_ENTRIES = 1000  # of a directory that are looked at
_DIRECTORIES = 50  # that are looked into, at each step
_STRAY = ("lost+found", "readme", "cachedir.tag", "aquota.", "quota.")
_KINDS = ("raw_crash", "processed_crash", "dump_names", "crash_report")
_DEEPEST = 12  # steps below a day


def look_around(root: Path, layout: Layout) -> str:
    """Return what is there instead of crashes; "" where the store is empty, or has crashes."""
    names = [name for name in _names(root) if not name.lower().startswith(_STRAY)]
    if not names:
        return ""
    days = [name for name in names if day_in(name)]
    what = _in_days(root, days, layout) if days else _above(root) or _in(root, names)
    return what and f"no crash is here in this layout, but {what}"


def _in_days(root: Path, days: list[str], layout: Layout) -> str:
    """Explain a directory that has those of days."""
    foreign = ""
    for day in days[-_DIRECTORIES:]:
        below = _directories(root / day)
        base = root / day / layout.name_branch_base
        if layout.name_branch_base not in below:
            foreign = foreign or _beside_no_base(day, below)
            continue
        directory, found = _files_of_crashes(base)
        if not (other := _foreign_among(found, layout)):
            return ""
        path = os.path.relpath(directory / other, root)
        foreign = foreign or f"{path} (do suffixes differ, as with ?json_file_suffix=?)"
    return foreign


def _beside_no_base(day: str, below: list[str]) -> str:
    if kind := _kind_among(below):
        return f"{day}/{kind} (is this the tree of another collector, such as Antenna?)"
    if below:
        return f"{day}/{below[0]} (is it ?name_branch_base={below[0]}?)"
    return ""


def _foreign_among(names: list[str], layout: Layout) -> str:
    """Return a file that has another suffix than the layout's; "" where a crash's are there."""
    suffixes = (layout.json_file_suffix, layout.jsonz_file_suffix)
    if any(name[ID_LENGTH:] in suffixes for name in names):
        return ""
    return next((name for name in names if not layout.is_dump(name)), "")


def _above(root: Path) -> str:
    """Explain a directory that is part of a store."""
    for parent in (root, *islice(root.parents, _DEEPEST)):
        if day_in(parent.name):
            return f"it lies in the directory of a day (is the store {parent.parent}?)"
    return ""


def _in(root: Path, names: list[str]) -> str:
    """Explain a directory that has none of days."""
    if ids := [name for name in names if looks_like_id(name[:ID_LENGTH])]:
        return f"{ids[0]} (crashes lie in directories of days here)"
    if bucket := [name for name in names if name in ("v1", "v2")]:
        return f"{bucket[0]} (is this a bucket's layout on disk? that is read from a bucket)"
    if kind := _kind_among(names):
        return f"{kind} (is this what another program, such as fetch-data, has written?)"
    for name in _directories(root)[:_DIRECTORIES]:
        below = _directories(root / name)
        if any(map(day_in, below)):
            return f"{name} has directories of days (is the store {root / name}?)"
        if _kind_among(below) or {"v1", "v2"} & set(below):
            return f"{name} has crashes in another layout"
    return f"other files: {', '.join(sorted(names)[:3])}"


def _kind_among(names: list[str]) -> str:
    return next((kind for kind in _KINDS if kind in names), "")


def _files_of_crashes(directory: Path) -> tuple[Path, list[str]]:
    """Return the first directory below one of names that has files of crashes, and their names."""
    for _ in range(_DEEPEST):
        names = [n for n in _names(directory) if len(n) > ID_LENGTH]
        if found := sorted(name for name in names if looks_like_id(name[:ID_LENGTH])):
            return directory, found
        below = [n for n in _directories(directory) if RADIX.fullmatch(n) or looks_like_id(n)]
        if not below:
            break
        directory /= below[0]
    return directory, []


def _names(directory: Path) -> Iterator[str]:
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in islice(entries, _ENTRIES):
            if not entry.name.startswith("."):
                yield entry.name


def _directories(directory: Path) -> list[str]:
    with suppress(OSError), os.scandir(directory) as entries:
        return sorted(
            entry.name
            for entry in islice(entries, _ENTRIES)
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        )
    return []
