# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a bucket holds where a listing has found no crash: a look at four pages of keys at most."""

import re

from crashmover import crashid
from crashmover.external.bucket.client import BucketClient
from crashmover.external.bucket.layouts import (
    LAYOUTS,
    MARKS,
    OLD_RAW_CRASHES,
    PROCESSED_CRASHES,
    RAW_CRASHES,
    BucketLayout,
)
from crashmover.external.passed_over import looks_like_id, why_invalid

_CRASH_BELOW = re.compile(r"(?P<prefix>.+)/v[12]/[^/]+/(?:[^/]+/){0,2}[0-9a-fA-F-]{36}", re.ASCII)
_KIND_ABOVE = re.compile(r"(?:(?:raw_crash|[a-z_]+)/)?(?:[^/]+/){0,2}[0-9a-fA-F-]{36}", re.ASCII)


def look_around(client: BucketClient, layout: BucketLayout) -> str:
    """Return what is there instead of crashes; "" if the store is empty, or has crashes."""

    def belongs(key: str) -> bool:
        return _belongs(key, layout)

    places = (RAW_CRASHES, OLD_RAW_CRASHES, PROCESSED_CRASHES)
    found = (key for place in places for key in _page(client, place))
    if any(belongs(key) and not _fault(key) for key in found):
        return ""
    page = [key for key in _page(client, "") if not key.endswith("/")]
    page = [key for key in page if not key.startswith(f"{MARKS}/")]
    other = [key for key in page if not belongs(key) or _fault(key)]
    if not other:
        return ""
    faulty = belongs(other[0]) and _fault(other[0])
    return "no crash is here in this layout, but " + (
        _in_another_layout(other)
        or _elsewhere(other, client)
        or (f"{other[0]} ({faulty})" if faulty else f"other keys: {other[0]}")
    )


def _page(client: BucketClient, place: str) -> list[str]:
    return next(client.list_keys(place), [])


def _belongs(key: str, layout: BucketLayout) -> bool:
    """Return True if a key is one of this layout, or one of a save that goes on."""
    kind, _, name = key.rpartition("/")
    if not looks_like_id(name):
        return False
    steps = kind.split("/")
    if steps[:2] in (["v1", "raw_crash"], ["v2", "raw_crash"]):
        return key in layout.raw_crash_keys(name) if crashid.is_valid(name) else True
    return len(steps) == 2 and steps[0] == "v1"


def _fault(key: str) -> str:
    """Return what is wrong with the crash id in a key that belongs here; "" where nothing is."""
    return why_invalid(key.rpartition("/")[2])


def _in_another_layout(other: list[str]) -> str:
    """Return a question for another layout; "" if these are keys of none."""
    for layout in LAYOUTS.values():
        if key := next((key for key in other if _belongs(key, layout) and not _fault(key)), ""):
            return f"{key} (is it layout={layout.name}?)"
    return ""


def _elsewhere(other: list[str], client: BucketClient) -> str:
    """Return a question for another store, above or below this one; "" if there is none."""
    for key in other:
        if match := _CRASH_BELOW.fullmatch(key):
            return f"{key} (is the store {client.location(match['prefix'])}?)"
    steps = client.location("").rstrip("/").split("/")  # scheme, "", bucket, and the prefix
    versions = [n for n, step in enumerate(steps) if n > 2 and step in ("v1", "v2")]
    if versions and any(_KIND_ABOVE.fullmatch(key) for key in other):
        above = "/".join(steps[: versions[-1]])
        return f"{other[0]} (the prefix is too long: is the store {above}?)"
    return ""
