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

from crashmover import crashid
from crashmover.crash import Kind
from crashmover.crashid import parse_day_name
from crashmover.external.fs import durable
from crashmover.external.fs.layouts import ID_LENGTH, Layout
from crashmover.external.passed_over import looks_like_id, why_invalid

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
    days = [name for name in names if parse_day_name(name)]
    what = _in_days(root, days, layout) if days else _above(root) or _in(root, names)
    return what and f"no crash is here in this layout, but {what}"


def _in_days(root: Path, days: list[str], layout: Layout) -> str:
    """Explain a directory that has those of days."""
    foreign = ""
    for day in days[-_DIRECTORIES:]:
        below = _directories(root / day)
        if layout.name_branch_base not in below:
            foreign = foreign or _beside_no_base(root, day, below)
            continue
        for directory, found in _files_of_crashes(root.joinpath(*layout.top(day)), layout):
            if _have_crash(found, layout):
                return ""
            if not foreign and (other := _foreign_among(directory, found, layout)):
                foreign = os.path.relpath(directory / other, root)
    return foreign


def _beside_no_base(root: Path, day: str, below: list[str]) -> str:
    if kind := _kind_among(below):
        return f"{day}/{kind} (is this the tree of another collector, such as Antenna?)"
    if below:
        return f"{day}/{below[0]} (is it ?name_branch_base={below[0]}?)"
    if ids := _like_ids(_names(root / day)):
        return f"{day}/{ids[0]} (it lies in the directory of its day itself)"
    return ""


def _have_crash(names: list[str], layout: Layout) -> bool:
    """Return True if some of these files are those of a crash of this layout.

    A processed crash is one by itself, unless what may be its raw crash has another suffix.
    """
    others = {name[:ID_LENGTH] for name in names if not layout.is_known(name)}
    for name in names:
        crash_id, suffix = name[:ID_LENGTH], name[ID_LENGTH:]
        is_processed = suffix == layout.jsonz_file_suffix and crash_id not in others
        if (suffix == layout.json_file_suffix or is_processed) and crashid.is_valid(crash_id):
            return True
    return False


def _foreign_among(directory: Path, names: list[str], layout: Layout) -> str:
    """Return a file that no crash of this layout has, and what is odd about it; "" where a
    process is saving a crash, or has died then."""
    for name in names:
        if not layout.is_known(name):
            return f"{name} (do suffixes differ, as with ?json_file_suffix=?)"
        if reason := why_invalid(name[:ID_LENGTH]):
            return f"{name} ({reason})"
    for name in names:
        lock = durable.temporary_name(layout.file_name(name[:ID_LENGTH], Kind.RAW_CRASH))
        if not os.path.lexists(directory / lock):
            return f"{name} (a dump without its raw crash)"
    return ""


def _above(root: Path) -> str:
    """Explain a directory that is part of a store."""
    for parent in (root, *islice(root.parents, _DEEPEST)):
        if parse_day_name(parent.name):
            return f"it lies in the directory of a day (is the store {parent.parent}?)"
    return ""


def _in(root: Path, names: list[str]) -> str:
    """Explain a directory that has none of days."""
    if ids := _like_ids(names):
        return f"{ids[0]} (crashes lie in directories of days here)"
    if bucket := [name for name in names if name in ("v1", "v2")]:
        return f"{bucket[0]} (is this a bucket's layout on disk? that is read from a bucket)"
    if kind := _kind_among(names):
        return f"{kind} (is this what another program, such as fetch-data, has written?)"
    for name in _directories(root)[:_DIRECTORIES]:
        below = _directories(root / name)
        if any(map(parse_day_name, below)):
            return f"{name} has directories of days (is the store {root / name}?)"
        if _kind_among(below) or {"v1", "v2"} & set(below):
            return f"{name} has crashes in another layout"
    return f"other files: {', '.join(sorted(names)[:3])}"


def _kind_among(names: list[str]) -> str:
    return next((kind for kind in _KINDS if kind in names), "")


def _files_of_crashes(directory: Path, layout: Layout) -> Iterator[tuple[Path, list[str]]]:
    """Yield the directories below one of names that have files of crashes, and their names."""
    left = [directory]
    for _ in range(_DIRECTORIES):
        if not left:
            return
        directory = left.pop()
        if found := [name for name in _like_ids(_names(directory)) if len(name) > ID_LENGTH]:
            yield directory, found
        for name in reversed(_directories(directory)):
            if layout.leads_on(name.lower(), ()) or looks_like_id(name):
                left.append(directory / name)


def _like_ids(names: list[str]) -> list[str]:
    """Return those that begin with what looks like a crash id."""
    return [name for name in names if looks_like_id(name[:ID_LENGTH])]


def _names(directory: Path, *, is_any: bool = True) -> list[str]:
    with suppress(OSError), os.scandir(directory) as entries:
        return sorted(
            entry.name
            for entry in islice(entries, _ENTRIES)
            if not entry.name.startswith(".") and (is_any or entry.is_dir(follow_symlinks=False))
        )
    return []


def _directories(directory: Path) -> list[str]:
    return _names(directory, is_any=False)
