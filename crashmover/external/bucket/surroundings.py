# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a bucket holds where a listing has found no crash: a look at four pages of keys at most."""

import re

from crashmover import crashid
from crashmover.external.bucket import layouts as keys
from crashmover.external.bucket.obstore_client import Objects
from crashmover.external.passed_over import looks_like_id, why_invalid

_CRASH_BELOW = re.compile(r"(?P<prefix>.+)/v[12]/[^/]+/(?:[^/]+/){0,2}[0-9a-fA-F-]{36}", re.ASCII)
_KIND_ABOVE = re.compile(r"(?:(?:raw_crash|[a-z_]+)/)?(?:[^/]+/){0,2}[0-9a-fA-F-]{36}", re.ASCII)


def look_around(objects: Objects, bucket: str, prefix: str) -> str:
    """Return what is there instead of crashes; "" where the store is empty, or has crashes.

    :param prefix: the store's, without a slash at its ends
    """
    places = (keys.RAW_CRASHES, keys.OLD_RAW_CRASHES, keys.PROCESSED_CRASHES)
    if any(_belongs(key) and not _fault(key) for place in places for key in _page(objects, place)):
        return ""
    page = [key for key in _page(objects, "") if not key.endswith("/")]
    page = [key for key in page if not key.startswith(f"{keys.MARKS}/")]
    other = [key for key in page if not _belongs(key) or _fault(key)]
    if not other:
        return ""
    return "no crash is here in this layout, but " + _explained(other, bucket, prefix)


def _page(objects: Objects, place: str) -> list[str]:
    return next(objects.pages(place), [])


def _belongs(key: str) -> bool:
    """Return True if a key is one of this layout, or one of a save that goes on."""
    kind, _, name = key.rpartition("/")
    if not looks_like_id(name):
        return False
    steps = kind.split("/")
    if steps[:2] in (["v1", "raw_crash"], ["v2", "raw_crash"]):
        return key in keys.raw_crash_keys(name) if crashid.is_valid(name) else True
    return len(steps) == 2 and steps[0] == "v1"


def _fault(key: str) -> str:
    """Return what is wrong with the crash id in a key that belongs here; "" where nothing is."""
    return why_invalid(key.rpartition("/")[2])


def _explained(other: list[str], bucket: str, prefix: str) -> str:
    for key in other:
        if match := _CRASH_BELOW.fullmatch(key):
            below = "/".join(filter(None, (prefix, match["prefix"])))
            return f"{key} (is the store s3://{bucket}/{below}?)"
    steps = prefix.split("/")
    versions = [number for number, step in enumerate(steps) if step in ("v1", "v2")]
    if versions and any(_KIND_ABOVE.fullmatch(key) for key in other):
        above = "/".join((bucket, *steps[: versions[-1]]))
        return f"{other[0]} (the prefix is too long: is the store s3://{above}?)"
    faulty = _belongs(other[0]) and _fault(other[0])
    return f"{other[0]} ({faulty})" if faulty else f"other keys: {other[0]}"
