# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""What a listing meets on its way, and does not yield, although it looks like a crash."""

import re

from crashmover import crashid

_SHAPE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{6}[0-9]{6}", re.ASCII | re.IGNORECASE)


def looks_like_id(name: str) -> bool:
    """Return True if a name has the shape of a crash id, in lower or upper case, of any date."""
    return _SHAPE.fullmatch(name) is not None


def why_invalid(name: str) -> str:
    """Return what is wrong with a name that looks like a crash id; "" where nothing is."""
    if crashid.is_valid(name):
        return ""
    return "upper case" if name != name.lower() else "impossible date"


class PassedOver:
    """Counts what one listing passed over; the first is named."""

    def __init__(self) -> None:
        self.count = 0
        self.first = ""

    def note(self, name: str, place: str, reason: str) -> None:
        """Count one more.

        :param name: what has the shape of a crash id, or is the directory of an impossible day
        :param place: where it is, for people; "" where that says nothing
        :param reason: why it is passed over
        """
        if not self.count:
            self.first = f"{name} ({', '.join(filter(None, (place, reason)))})"
        self.count += 1

    def note_id(self, name: str, place: str) -> None:
        """Count a name that the listing does not yield, if it looks like a crash id.

        :param place: where it is, for people
        """
        if looks_like_id(name):
            self.note(name, place, why_invalid(name) or "in another place than its id says")

    def text(self) -> str:
        """Return one line about all of them; "" where there were none."""
        if not self.count:
            return ""
        more = f" and {self.count - 1:,} more" if self.count > 1 else ""
        return f"the listing passed over what looks like crashes: {self.first}{more}"
