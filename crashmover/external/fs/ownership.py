# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Owner of a directory: root may write everywhere, and leaves files that are its own."""

import os
import pwd
from pathlib import Path


def is_root_in_anothers(uid: int, owner: int) -> bool:
    """Return True if the user is root, and the owner of a directory is not."""
    return uid == 0 and owner != 0


def another_owner(directory: Path) -> str | None:
    """Return the owner of a directory, if this process is root's and the directory is not."""
    try:
        owner = os.stat(directory).st_uid
    except OSError:  # what is missing will be made, and the save says the rest
        return None
    return _name(owner) if is_root_in_anothers(os.geteuid(), owner) else None


def _name(uid: int) -> str:
    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user {uid}"
